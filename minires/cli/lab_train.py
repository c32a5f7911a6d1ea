"""``minires lab train``: the trained networks that several experiments look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..lab.networks import EPOCHS, NETWORKS, recipe
from .errors import Debug
from .options import option, path_option
from .paths import DOWNLOADS, command_line
from .runs import train_in
from .train import RUN, WHAT


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
        code = train_in(out / name, its, console, quiet, more=i + 1 < len(wanted))
        if code:
            again = command_line("minires", "lab", "train", *(names or []), "--out", out)
            console.print(f"To train the networks that are left too, say the same again: {again} …")
            return code
        if not quiet:
            console.print()
    return 0
