"""``minires predict``"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, ImageError, printable
from .errors import Debug
from .options import option, path_option
from .source import (
    Mean,
    Model,
    ModelOption,
    Normalize,
    NumClasses,
    Run,
    Std,
    Weights,
    check_source,
    load_network,
    refuse_new_head,
)

if TYPE_CHECKING:
    from rich.table import Table

    from ..training.prediction import Prediction
    from .display import PlainConsole

SEEN, PRINTED = "How images are seen", "What is printed"
COLUMNS = ("image", "rank", "class", "index", "probability")  # of --csv
BAR = 20  # characters for a probability of 1
SKIPPED = 1  # the exit code when an image could not be read


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Files, and folders that are searched for images: JPEG, PNG, WebP, GIF, BMP and TIFF.",
            show_default=False,
        ),
    ],
    run: Run = None,
    model: Model = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    model_option: ModelOption = None,
    normalize: Normalize = None,
    mean: Mean = None,
    std: Std = None,
    classes: Annotated[
        Path | None,
        path_option(
            PRINTED,
            "The names of the classes: one a line, or JSON. By default those of the run, for 1,000 classes ImageNet's, else "
            "numbers.",
            metavar="FILE",
        ),
    ] = None,
    top: Annotated[int, option(PRINTED, "How many classes of each image, most probable first; by default 5.")] = 5,
    json: Annotated[
        bool, option(PRINTED, "Print a line of JSON for each image, as soon as it is seen.", "--json")
    ] = False,
    as_csv: Annotated[
        bool, option(PRINTED, f"Print CSV, a row for each image and class: {', '.join(COLUMNS)}.", "--csv")
    ] = False,
    size: Annotated[
        int | None,
        option(
            SEEN, "The side of the square that is cropped from the middle; by default that of the network: 224 or 32."
        ),
    ] = None,
    resize: Annotated[
        int | None,
        option(SEEN, "What the shorter side is resized to before; by default 256 for a crop of 224, 32 for one of 32."),
    ] = None,
    tta: Annotated[
        str,
        option(
            SEEN,
            "Test-time augmentation: the mean over flip, the image and its mirror image, or views6, moved by a pixel too.",
        ),
    ] = "none",
    threads: Annotated[
        int | None, option(SEEN, "By default the number of physical cores, or what a container's CPU quota allows.")
    ] = None,
    debug: Debug = False,
) -> None:
    """The classes of photographs."""
    from .. import kernels
    from ..data import class_names, find_images
    from ..data.images.photographs import check_sizes
    from ..training.prediction import classify
    from ..training.views import check_views
    from . import display

    if top < 1:
        raise ConfigError(f"--top is a number of classes from 1 up, not {top}")
    if json and as_csv:
        raise ConfigError("--json and --csv are two forms of the same: choose one")
    if threads is not None:
        kernels.set_num_threads(threads)
    check_source(run, model, weights, "a run with --run")
    check_views(tta)
    check_sizes(224 if size is None else size, resize)  # before a network is loaded
    skipped: list[ImageError] = []
    paths = find_images(images, on_error=skipped.append)
    if not paths:
        for error in skipped[1:]:
            display.console(stderr=True).print(f"skipped: {error}")
        raise skipped[0]
    network = load_network(run, model, weights, num_classes, model_option, normalize, mean, std)
    refuse_new_head(network)
    names = class_names(network.num_classes, classes, network.classes)
    console = display.console()
    show = _as_json if json else _as_csv if as_csv else _as_table
    # below the results in a terminal; where they go to a file or a pipe, on standard error
    progress = console if display.is_live(console) else display.console(stderr=True)
    try:
        with display.bar(progress, "looking", len(paths)) as advance:

            def skip(error: ImageError) -> None:
                skipped.append(error)
                advance()

            predictions = classify(network, paths, size=size, resize=resize, tta=tta, on_error=skip)
            printer = show(console, names, top)
            for prediction in predictions:
                printer(prediction)
                advance()
    finally:
        for error in skipped:
            display.console(stderr=True).print(f"skipped: {error}")
    if skipped:
        raise typer.Exit(SKIPPED)


Printer = Callable[["Prediction"], None]


def _as_json(console: PlainConsole, names: Sequence[str], top: int) -> Printer:
    def show(prediction: Prediction) -> None:
        found = [{"class": names[c], "index": c, "probability": _rounded(p)} for c, p in prediction.top(top)]
        console.print(dumps({"image": str(prediction.path), "predictions": found}))

    return show


def _as_csv(console: PlainConsole, names: Sequence[str], top: int) -> Printer:
    def show_row(row: Sequence[object]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(row)
        console.print(text.getvalue())

    def show(prediction: Prediction) -> None:
        for rank, (c, p) in enumerate(prediction.top(top), start=1):
            show_row([printable(prediction.path), rank, printable(names[c]), c, _rounded(p)])

    show_row(COLUMNS)
    return show


def _as_table(console: PlainConsole, names: Sequence[str], top: int) -> Printer:
    from rich.text import Text

    from .display import NAME

    shown: list[Path] = []
    if all(name == str(c) for c, name in enumerate(names)):
        names = [f"class {name}" for name in names]

    def show(prediction: Prediction) -> None:
        if shown:
            console.print()
        shown[:] = [prediction.path]
        console.print(Text(printable(prediction.path), NAME))
        console.print(_table(prediction, names, top))

    return show


def _table(prediction: Prediction, names: Sequence[str], top: int) -> Table:
    """A row for each class: its name and probability, which is drawn too."""
    from rich.table import Table
    from rich.text import Text

    from .display import GOOD, NAME, percent

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(min_width=min(30, max(map(len, names))))
    table.add_column(justify="right")
    table.add_column()
    for rank, (c, p) in enumerate(prediction.top(top)):
        table.add_row(
            Text(printable(names[c]), GOOD if rank == 0 else ""), percent(p), Text("━" * round(BAR * p), NAME)
        )
    return table


def _rounded(probability: float) -> float:
    return float(f"{probability:.6g}")
