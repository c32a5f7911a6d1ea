"""``minires lab train``: the trained networks that several experiments look at."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..lab.networks import EPOCHS, NETWORKS, recipe
from .errors import Debug
from .options import option, path_option
from .paths import DOWNLOADS, command_line
from .train import RUN, WHAT, fit, new_run, resumed_run

if TYPE_CHECKING:
    from ..training import Recipe
    from .display import PlainConsole


def train(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help=f"Some of {', '.join(NETWORKS)}; by default all.", show_default=False),
    ] = None,
    dataset: Annotated[str, option(WHAT, "cifar10 (the default), cifar100 or shapes (built in).")] = "cifar10",
    data_dir: Annotated[
        Path | None, path_option(WHAT, f"Where CIFAR's files are; by default where downloads go: {DOWNLOADS}.")
    ] = None,
    epochs: Annotated[int, option(WHAT, f"Number of passes over the training images; {EPOCHS} by default.")] = EPOCHS,
    seed: Annotated[int, option(RUN, "Of weights, the order of the images and augmentation; 0 by default.")] = 0,
    threads: Annotated[int | None, option(RUN, "By default the number of physical cores.")] = None,
    out: Annotated[Path, path_option(RUN, "The folder for the runs, a folder for each; runs/lab by default.")] = Path(
        "runs/lab"
    ),
    quiet: Annotated[bool, option(RUN, "Print a line for each network, and no more.", "--quiet", "-q")] = False,
    debug: Debug = False,
) -> int:
    """Train the networks one after another; those that are complete are left alone, and those begun are gone on with."""
    from . import display

    console = display.console()
    settings: dict[str, Any] = {"seed": seed, "threads": threads}
    if data_dir is not None:
        settings["data_dir"] = str(data_dir.absolute())
    wanted = {name: recipe(name, dataset, epochs, **settings) for name in dict.fromkeys(names or NETWORKS)}
    for i, (name, its) in enumerate(wanted.items()):
        if not quiet:
            console.print(f"{name}, {i + 1} of {len(wanted)}")
        code = _train(its, out / name, console, quiet)
        if code:
            again = command_line("minires", "lab", "train", *(names or []), "--out", out)
            console.print(f"To train the networks that are left too, say the same again: {again} …")
            return code
        if not quiet:
            console.print()
    return 0


def _train(wanted: Recipe, path: Path, console: PlainConsole, quiet: bool) -> int:
    """Begin, go on with or skip a run. Returns the exit code."""
    from ..training import Recipe, RunFolder
    from ..training.resume import MAY_DIFFER, describe, differences

    folder = RunFolder(path)
    if not folder.config.exists():
        return fit(new_run(wanted, path, console, quiet), console, quiet)
    if not folder.summary.exists():
        given = {name: value for name, value in asdict(wanted).items() if value is not None}
        return fit(resumed_run(path, given, console, quiet), console, quiet)
    found = Recipe.read(folder.config)
    others = [name for name in differences(found, wanted) if name not in MAY_DIFFER]
    if others:
        raise ConfigError(
            f"{path} was trained with other settings ({describe(others, found, wanted)}): choose another folder with --out"
        )
    console.print(f"{path} is complete")
    return 0
