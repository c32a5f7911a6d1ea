"""``minires sweep``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import RunError
from .errors import Debug
from .options import option, path_option
from .paths import DOWNLOADS, command_line
from .runs import train_in
from .train import RUN, WHAT, recipe_of

if TYPE_CHECKING:
    from ..training import Recipe
    from ..training.sweep import Outcome, Point
    from .display import PlainConsole

OF_SWEEP = "The sweep"


def sweep(
    settings: Annotated[
        list[str] | None,
        option(
            OF_SWEEP,
            "A setting of the recipe, by its name in config.toml, and its values. Several are combined.",
            "--set",
            metavar="NAME=V,V…",
        ),
    ] = None,
    seeds: Annotated[str, option(OF_SWEEP, "Seeds, such as 0-2 (the default) or 0,5.", metavar="SEEDS")] = "0-2",
    recipe: Annotated[
        str | None, option(WHAT, "A recipe by name, or a TOML file, as of minires train.", metavar="NAME|FILE")
    ] = None,
    dataset: Annotated[str | None, option(WHAT, "shapes (built in), cifar10 or cifar100.")] = None,
    data_dir: Annotated[
        Path | None, path_option(WHAT, f"Where CIFAR's files are; by default where downloads go: {DOWNLOADS}.")
    ] = None,
    threads: Annotated[int | None, option(RUN, "By default the number of physical cores.")] = None,
    out: Annotated[Path, path_option(RUN, "The folder for the runs; runs/sweep by default.")] = Path("runs/sweep"),
    quiet: Annotated[bool, option(RUN, "Print a line for each run, and the table.", "--quiet", "-q")] = False,
    debug: Debug = False,
) -> int:
    """Train all combinations of settings and seeds, one after another; the same again goes on."""
    from ..training import sweep as sweeps
    from . import display

    console = display.console()
    given = {"dataset": dataset, "threads": threads, "data_dir": None if data_dir is None else str(data_dir.absolute())}
    given = {name: value for name, value in given.items() if value is not None}

    def recipe_with(**own: Any) -> Recipe:
        return recipe_of(recipe, given | own)

    points = sweeps.points(recipe_with, sweeps.parse_choices(settings or []), sweeps.parse_seeds(seeds))
    failed = []
    for i, point in enumerate(points):
        if not quiet:
            console.print(f"{point.name}, {i + 1} of {len(points)}")
        try:
            code = train_in(out / point.name, point.recipe, console, quiet, more=i + 1 < len(points))
        except RunError as error:  # it has diverged; the others need not
            if console.closed:
                raise
            console.print(f"error: {error}")
            failed.append(point.name)
            continue
        if code:
            _print(console, out, points)
            again = command_line("minires", "sweep", "--out", out)
            console.print(f"To train the runs that are left too, say the same again: {again} …")
            return code
        if not quiet:
            console.print()
    _print(console, out, points)
    return int(bool(failed))


def _print(console: PlainConsole, out: Path, points: list[Point]) -> None:
    """Print the table of a sweep."""
    from ..training.sweep import outcomes
    from .tables import print_table

    found = list(outcomes(out, points))
    names = list(points[0].settings)
    splits = list(dict.fromkeys(split for outcome in found for split in outcome.accuracies))
    heads = [*(names or ["sweep"]), "runs", *(f"{split} acc, %" for split in splits), "minutes"]
    print_table(console, heads, [_row(outcome, names, splits) for outcome in found])
    console.print("mean ± standard deviation over the seeds, after the last epoch")
    if len(found) > 1:
        held_out = "val" in splits
        console.print(
            "Choose by val acc, and report test acc."
            if held_out
            else "To choose between settings hold out images with --set val=5000: what is chosen on the test set is not tested."
        )


def _row(outcome: Outcome, names: list[str], splits: list[str]) -> list[str]:
    from ..training.sweep import mean_and_deviation

    def cell(values: list[float] | None, scale: float, digits: int) -> str:
        if not values:
            return "–"
        mean, deviation = mean_and_deviation(values)
        spread = f" ± {scale * deviation:.{digits}f}" if deviation == deviation else ""
        return f"{scale * mean:.{digits}f}{spread}"

    settings: list[Any] = [outcome.settings[name] for name in names] or ["all"]
    runs = str(outcome.complete) if outcome.complete == outcome.runs else f"{outcome.complete} of {outcome.runs}"
    accuracies = [cell(outcome.accuracies.get(split), 100, 2) for split in splits]
    return [*map(str, settings), runs, *accuracies, cell(outcome.seconds, 1 / 60, 1)]
