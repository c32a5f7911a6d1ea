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


def replay(
    run: Annotated[
        Path,
        typer.Argument(help="The folder of a run that a NaN or Inf has ended, or its anomaly.safetensors."),
    ],
    steps: Annotated[int, typer.Option(help="Number of operations to show that led there; 0 for none.")] = 8,
    backend: Annotated[str, typer.Option(help="numba, or reference: the readable kernels.")] = "numba",
    threads: Annotated[
        int | None, typer.Option(help="By default the number of physical cores.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> int:
    """Repeat the step that gave a NaN or an Inf, and say where it came from. Exit code 1 when it comes again.

    A run that ends so keeps that step's batch, the weights before it and the state of the random generator in
    `anomaly.safetensors`. The data set is not needed, and nothing is written. The step is computed op by op, to name the
    operation, and with Winograd's convolutions where the run had them.

    `minires replay runs/resnet8-shapes-1` shows the operations that led to the first NaN or Inf

    `minires replay runs/resnet8-shapes-1 --steps 100` shows more of them

    `minires replay runs/resnet8-shapes-1 --backend reference` asks the readable kernels, to tell a mistake in the fast ones

    In Python: `minires.training.replay("runs/resnet8-shapes-1")` raises the error, for a debugger to look around.
    """
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
                ("again", f"{what} (epoch {info['epoch'] + 1}) of {info['recipe']['model']}, back end {backend}"),
                ("images", describe(batch.images)),
                ("labels", ", ".join(map(str, batch.labels[:16])) + (" …" if len(batch.labels) > 16 else "")),
            ]
        ),
        end="\n\n",
    )
    trace = Trace()
    with kernels.backend(backend), recipe.switches():
        found = diagnose(model, batch, trace)
    if steps and trace.operations:
        console.print(_table(trace.operations[-steps:], found), end="\n\n")
    if found is None:
        console.print(Text("All of it is finite this time.", display.GOOD))
        return 0
    console.print(Text.assemble(("Again: ", "bold red"), str(found)))
    return REPRODUCED


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
