"""``minires gradcheck``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import Debug

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.table import Table

    from ..gradcheck import Checked, GradcheckResult
    from ..nn import Module

PLOT_POINTS = 29  # steps of a sweep that is drawn: four for each decade
SIZES = (8, 16, 32, 64)  # image sizes to try for a model
FAILED = 1
MOST = 10_000  # of images, directions and pixels along a side: more take days


def gradcheck(
    operations: Annotated[
        list[str] | None, typer.Argument(help="Operations to check; all by default.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Check this model instead.", show_default=False)] = None,
    evaluation: Annotated[
        bool, typer.Option("--eval", help="The model in evaluation mode, not in training mode.")
    ] = False,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the model's images in pixels; by default the smallest of 8, 16, 32 and 64 that works.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images for the model.")] = 3,
    directions: Annotated[int, typer.Option(help="Random directions for each parameter of the model.")] = 2,
    backend: Annotated[str, typer.Option(help="numba, or reference: the readable kernels.")] = "numba",
    fusion: Annotated[
        bool, typer.Option("--fusion/--no-fusion", help="Fused operations where a model has them; off: op by op.")
    ] = True,
    winograd: Annotated[
        bool,
        typer.Option(
            "--winograd/--no-winograd",
            help="Winograd's 3×3 convolutions where they are faster, which takes many pixels; off: all of them directly.",
        ),
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the random values and directions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw error against step into this .png, .svg or .pdf.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> int:
    """Compare every gradient with finite differences, in float64. Exit code 1 when one is wrong."""
    from .. import kernels, lazy
    from ..errors import ConfigError, brief
    from ..gradcheck.plot import FORMATS, draw_sweeps
    from ..kernels.switches import winograd as winograd_switch
    from . import display

    if model and operations:
        raise ConfigError(f"check either operations ({', '.join(operations)}) or a model ({model}), not both at once")
    for name, value, least in (("directions", directions, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{name} must be a whole number from {least} up, not {value}")
    if image_size is not None and image_size < 1:
        raise ConfigError(f"image_size must be a whole number from 1 up, not {image_size}")
    for name, value in (("directions", directions), ("batch_size", batch_size), ("image_size", image_size or 0)):
        if value > MOST:
            raise ConfigError(f"{name} must be at most {MOST}, not {brief(value)}")
    if plot is not None and plot.suffix[1:].lower() not in FORMATS:
        raise ConfigError(f"{plot} is not the name of a picture: it must end in {', '.join('.' + f for f in FORMATS)}")
    if plot is not None and not plot.parent.is_dir():
        raise ConfigError(f"there is no folder {plot.parent} to put {plot.name} into: make it first")
    console = display.console()
    settings = {"seed": seed, "sweep_points": PLOT_POINTS if plot else 8}
    with kernels.backend(backend), lazy.fusion(fusion), winograd_switch(winograd):
        if backend == "numba":
            kernels.load()  # here, since without Numba every check would fail
        if model:
            network, images = _network(model, evaluation, image_size, batch_size, seed)
            results = [_check_model(console, model, network, images, directions, settings)]
        else:
            results = _check_operations(console, operations or [], settings)
    if plot is not None:
        draw_sweeps(results, plot, f"gradcheck: {model or ', '.join(operations or ['all operations'])}")
    failed = [result for result in results if not result.passed]
    if as_json:
        import json

        found = {"passed": not failed, "backend": backend, "fusion": fusion, "winograd": winograd}
        found |= {"checks": [result.to_dict() for result in results]}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        how = f"back end {backend}" + ", op by op" * (not fusion) + ", no Winograd" * (not winograd)
        _print(console, results, failed, model, how, plot)
    return FAILED if failed else 0


def _check_operations(console: Console, names: Sequence[str], settings: dict[str, Any]) -> list[GradcheckResult]:
    from ..gradcheck.cases import check, select
    from . import display

    cases, results = select(names), []
    with display.bar(console, "", len(cases)) as advance:
        for name, case in cases:
            advance(0, f"checking {name:<20}")
            results.append(check(name, case, **settings))
            advance()
    return results


def _network(name: str, evaluation: bool, image_size: int | None, batch_size: int, seed: int) -> tuple[Module, NDArray]:
    """(model, images of a size that it accepts). In training mode one forward pass has set its running statistics."""
    import numpy as np

    from .. import manual_seed, models, no_grad, tensor
    from ..errors import ConfigError, ShapeError
    from ..kernels import to_channels_last

    manual_seed(seed)
    network = models.create(name, num_classes=10)
    rng = np.random.default_rng(seed)
    for size in (image_size,) if image_size else SIZES:
        images = to_channels_last(rng.standard_normal((batch_size, 3, size, size)))
        try:
            with no_grad():  # in training mode, which sets the running statistics
                network.double()(tensor(images))
            return network.train(not evaluation), images
        except ShapeError as error:
            refused = error
    raise ConfigError(
        f"{name} does not take {batch_size} images of {size}×{size} pixels (--batch-size, --image-size): {refused}"
    )


def _check_model(
    console: Console, name: str, network: Module, images: NDArray, directions: int, settings: dict[str, Any]
) -> GradcheckResult:
    from .. import gradcheck_model
    from . import display

    parameters = len(list(network.parameters()))
    with display.bar(console, f"checking {name}", parameters + 1) as advance:
        return gradcheck_model(
            network,
            images,
            directions=directions,
            name=name,
            on_parameter=lambda path: advance(1, f"checking {path:<30}"),
            raise_exception=False,
            **settings,
        )


def _print(
    console: Console,
    results: list[GradcheckResult],
    failed: list[GradcheckResult],
    model: str | None,
    how: str,
    plot: Path | None,
) -> None:
    """Print the table of results, what is wrong, and the verdict."""
    from rich.text import Text

    from . import display

    what = f"gradients of {model}" if model else "gradients of the operations"
    console.print(Text.assemble((what, "bold"), f", backward against finite differences, float64, {how}\n"))
    console.print(_table(results, model))
    console.print()
    for note in dict.fromkeys(note for result in results for note in result.notes):
        console.print(Text(f"note: {note}", display.DIM))
    _print_kinks(console, results, model)
    for result in failed:
        console.print(Text.assemble(("✗ ", "bold red"), (f"{result.name}: ", "bold"), result.explain()))
    _print_legend(console, results)
    if plot is not None:
        console.print(f"error against step: {plot}")
    compared = sum(result.compared for result in results)
    if failed:
        names = dict.fromkeys(result.name.partition(":")[0] for result in failed)
        wrong = f"{len(failed)} of {len(results)} checks failed" if not model else "the gradient is wrong"
        console.print(Text(f"{wrong}: {', '.join(names)}.", "bold red"))
    else:
        console.print(Text(f"Nothing is wrong: {compared:,} numbers were compared.", display.GOOD))


def _table(results: list[GradcheckResult], model: str | None) -> Table:
    """A row for each case, or for each parameter of a model."""
    from rich.table import Table
    from rich.text import Text

    from .display import DIM, NAME

    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    table.add_column("", no_wrap=True)
    table.add_column("parameter" if model else "operation: case")
    if model:
        table.add_column("shape", no_wrap=True)
    for name in ("numbers", "error", "h"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for result in results:
        rows = [([c], c.name, c.error) for c in result.checked] if model else []
        if not model or result.error:
            rows.append((result.checked, result.name, result.error))
        for checked, name, error in rows:
            mark, verdict, style = _verdict(checked, error)
            compared = [c for c in checked if c.differences]
            numbers = str(sum(len(c.differences) for c in compared))
            largest = f"{max(c.largest_error for c in compared):.0e}" if compared else "-"
            step = f"{sorted(c.h for c in compared)[len(compared) // 2]:.0e}" if compared else "-"
            shape = ["×".join(map(str, c.shape)) for c in checked[:1]] or [""] if model else []
            table.add_row(Text(mark, style), Text(name, NAME), *shape, numbers, largest, step, Text(verdict, style))
    return table


def _verdict(checked: list[Checked], error: str) -> tuple[str, str, str]:
    """(mark, verdict, style) of a row."""
    if error or any(c.status == "wrong" for c in checked):
        return "✗", "WRONG", "bold red"
    kinks = sum(len(c.kinks) for c in checked)
    vacuous = [c.name for c in checked if c.status == "vacuous"]
    if vacuous:
        which = "" if len(checked) == 1 else f": {', '.join(vacuous)}"
        return "○", f"vacuous{which}", "yellow"
    if kinks:
        only = all(c.status == "kink" for c in checked)
        return "✓", f"kinks only ({kinks})" if only else f"agree, {kinks} at a kink", "green"
    return "✓", "agree", "green"


def _print_kinks(console: Console, results: list[GradcheckResult], model: str | None, most: int = 6) -> None:
    from rich.text import Text

    from ..gradcheck.results import kinks_in_words
    from .display import DIM

    found = [(result, name, d) for result in results for name, d in result.kinks]
    for result, name, d in found[:most]:
        assert d.interval is not None  # every kink has one
        low, high = d.interval
        where = name if model else f"{result.name}, {name}"
        text = (
            f"kink at {where}, {d.where}: backward gives {d.analytic:.4g}, between the slopes {low:.4g} and {high:.4g}"
        )
        console.print(Text(f"{text} ({kinks_in_words(d.flips)})", DIM))
    if len(found) > most:
        console.print(Text(f"and {len(found) - most} more kinks (--json has them)", DIM))


def _print_legend(console: Console, results: list[GradcheckResult]) -> None:
    from rich.text import Text

    from .display import DIM

    lines = [
        "Each number is ∂L/∂x of one element, or along a random direction, with L = Σ v·f(x) for random v. Backward computes",
        "it exactly; (L(x + h) − L(x − h)) / 2h must come near. The error is their difference beside the largest gradient:",
        "1e-5 and less is right, and a wrong formula seldom comes below 1e-2. A sweep of h chose the step.",
    ]
    if any(result.kinks for result in results):
        lines.append(
            "kink: between x − h and x + h the function has a corner, and any slope between its two sides' is right."
        )
    if any(result.vacuous for result in results):
        lines.append(
            "vacuous: the true gradient is 0 everywhere, so that a backward pass that gives 0 cannot be told from it."
        )
    console.print(Text("\n".join(["", *lines, ""]), DIM))
