"""``minires replay``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import Debug

if TYPE_CHECKING:
    from rich.table import Table

    from ..errors import AnomalyError
    from ..training.diagnosis import TracedOperation

REPRODUCED = 1  # exit code when the NaN or Inf comes again
LARGE = 1e15  # from here on a product of two such values, or a sum of many products, comes near the end of float32


def replay(
    run: Annotated[
        Path,
        typer.Argument(help="The folder of a run that a NaN or Inf has ended, or its anomaly.safetensors."),
    ],
    steps: Annotated[int, typer.Option(help="Number of operations to show that led there; 0 for none.")] = 8,
    backend: Annotated[str, typer.Option(help="numba, or reference: the readable kernels.")] = "numba",
    threads: Annotated[
        int | None,
        typer.Option(
            help="By default the number of physical cores, or what a container's CPU quota allows.", show_default=False
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Repeat the step that gave a NaN or an Inf, and say where it came from. Exit code 1 when it comes again."""
    from rich.text import Text

    from .. import kernels
    from ..anomaly import describe
    from ..errors import ConfigError
    from ..training.diagnosis import Trace, diagnose
    from ..training.replay import load_anomaly
    from . import display

    if steps < 0:
        raise ConfigError(f"steps must be a whole number from 0 up, not {steps}")
    if threads is not None:
        kernels.set_num_threads(threads)
    console = display.console()
    recipe, model, batch, info = load_anomaly(run)
    what = f"step {info['step'] + 1}" if batch.training else f"the evaluation after step {info['step']}"
    console.print(
        display.pairs(
            [
                ("again", f"{what} (epoch {info['epoch'] + 1}) of {recipe.model}, back end {backend}"),
                ("images", describe(batch.images)),
                ("labels", ", ".join(map(str, batch.labels[:16])) + (" …" if len(batch.labels) > 16 else "")),
            ]
        ),
        end="\n\n",
    )

    def repeat(backend: str, trace: Trace) -> AnomalyError | None:
        with kernels.backend(backend), recipe.switches():
            return diagnose(model, batch, trace)

    trace = Trace()
    found = repeat(backend, trace)
    if steps and trace.operations:
        console.print(_table(trace.operations[-steps:], found), end="\n\n")
    if found is None:
        other = "numba" if backend == "reference" else "reference"
        differs = repeat(other, Trace())
        if differs is None:
            console.print(Text("All of it is finite this time.", display.GOOD))
        else:
            console.print(Text(_difference(backend, other, differs, trace.largest), "bold yellow"))
        return 0
    console.print(Text.assemble(("Again: ", "bold red"), str(found)))
    return REPRODUCED


def _difference(backend: str, other: str, found: AnomalyError, largest: float) -> str:
    """What to say when the step is finite with one back end and not with the other."""
    what = f"All of it is finite with the back end {backend}, but not with {other}, which gives: {found}. "
    if largest < LARGE:
        return (
            f"{what}The largest value with {backend} is {largest:.1e}, far from overflow, so that one of them has a mistake: "
            "`minires doctor` tests them; please report it with the anomaly.safetensors"
        )
    return (
        f"{what}Values with {backend} are up to {largest:.1e}. Sums and products of such values overflow float32, which "
        "ends at 3.4e+38, or not, by the order and the precision of the sums: numba's are partly in float32, those of "
        "reference in float64. The values are the fault, not the kernels: a lower --lr is what helps most often"
    )


def _table(operations: Sequence[TracedOperation], found: AnomalyError | None) -> Table:
    """One row for each operation; the last one is the culprit when an error was found."""
    from rich.table import Table

    from .display import DIM, NAME

    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    for column in ("pass", "operation", "module", "gave"):
        table.add_column(column, style=NAME if column == "module" else None, overflow="fold")
    for operation in operations:
        bad = found is not None and operation is operations[-1]
        row = (operation.phase, operation.name, operation.path, operation.result)
        table.add_row(*row, style="bold red" if bad else None)
    return table
