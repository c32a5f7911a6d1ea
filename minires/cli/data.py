"""``minires data``: download, list, verify and show data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ConfigError, DataError, printable
from . import data_folder
from . import help as texts
from .errors import Debug
from .paths import DOWNLOADS, command_line, nonempty

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..data import Dataset
    from ..data.cifar.files import Source
    from ..data.cifar.layout import Layout

MANY = 20  # data sets with more classes have them listed, not tabulated

app = typer.Typer(
    help="Get data sets, look at them, check them.\n\n`minires data info` lists them, and says where they are.\n\n"
    "`minires data download cifar10` gets one.",
    rich_markup_mode="markdown",
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        help=f"Where the files are, unpacked or as the archive; by default where downloads go: {DOWNLOADS}.",
        show_default=False,
        parser=nonempty,
        metavar="PATH",
    ),
]
Cifar = Annotated[str, typer.Argument(help="cifar10 or cifar100.", show_default=False)]


@app.callback(invoke_without_command=True)
def data(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(help=texts.DOWNLOAD)
def download(
    name: Cifar,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help=f"The folder to put the archive into; by default {DOWNLOADS}.",
            show_default=False,
            parser=nonempty,
            metavar="PATH",
        ),
    ] = None,
    python: Annotated[bool, typer.Option("--python", help="The Python (pickle) version, not the binary one.")] = False,
    debug: Debug = False,
) -> None:
    """Download a data set from its authors, about 170 MB, and check its md5 sum."""
    from rich.text import Text

    from .. import data
    from . import display

    console = display.console()
    kind: Literal["binary", "python"] = "python" if python else "binary"
    with _download_bar(console, f"downloading {name}") as progress:
        path, fetched = data.download(name, data_dir, kind, progress, say=console.print)
    mark = ("downloaded, md5 sum is right" if fetched else "already there, md5 sum is right", display.DIM)
    console.print(Text.assemble((f"{name} ", "bold"), mark))
    where = ("--data-dir", path.parent) if data_dir is not None else ()
    following = command_line("minires", "train", "--dataset", name, *where)
    console.print(display.pairs([("archive", str(path)), ("next", following)]))


@contextmanager
def _download_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with speed and remaining time; yields ``progress(done, total)``. Does nothing outside a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from . import display

    live = display.is_live(console)
    columns = (BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}", markup=False), *columns, console=console, transient=True, disable=not live
    ) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total or None)


@app.command(help=texts.INFO)
def info(
    name: Annotated[
        str | None,
        typer.Argument(help="shapes, cifar10, cifar100 or folder; all of them by default.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """List the data sets and where they are, or describe one: images, colours, classes."""
    from .. import data
    from . import display

    console = display.console()
    if name is None:
        console.print(_all_of_them(data, data_dir))
        return
    data.check_name(name)
    if name == "folder":
        data_folder.info(data_dir, console)
        return
    with display.spinner(console, f"loading {name} …"):
        train, test = data.load(name, data_dir)
    _, H, W, C = train.images.shape
    console.print(
        display.pairs(
            [
                ("data set", name),
                ("from", "drawn by minires" if name not in data.LAYOUTS else str(_source(data, name, data_dir).path)),
                ("images", f"{len(train):,} training, {len(test):,} test, of {H}×{W} pixels, {C} channels"),
                ("memory", f"{(train.images.nbytes + test.images.nbytes) / 1e6:,.0f} MB"),
                ("mean", " ".join(f"{value:.4f}" for value in train.mean)),
                ("deviation", " ".join(f"{value:.4f}" for value in train.std)),
            ]
        )
    )
    console.print()
    console.print(_classes(train, test))


def _all_of_them(data: ModuleType, data_dir: Path | None) -> Text:
    """A row for each data set: its size, and where it is, which is not wrapped: it is a path or a command to copy."""
    from rich.text import Text

    from .display import DIM, NAME

    rows = [("data set", "training", "test", "classes", "where")]
    rows.append(("shapes", "20,000", "4,000", "10", "built in: drawn when it is needed"))
    for name, layout in data.LAYOUTS.items():
        official = layout.versions[0]
        counts = [f"{sum(map(layout.official_count, files)):,}" for files in (official.train, official.test)]
        try:
            where = printable(_source(data, name, data_dir).path)
        except DataError:
            where = f"not here: minires data download {name} ({official.megabytes} MB)"
        rows.append((name, *counts, str(len(layout.classes)), where))
    rows.append(("folder", "–", "–", "–", "your own images: --dataset folder --data-dir DIR"))
    lines = []
    for i, (name, *numbers, where) in enumerate(rows):
        columns = (f"{name:<10}", NAME if i else DIM), "".join(f"{number:>8}  " for number in numbers), where
        lines.append(Text.assemble(*columns, style="" if i else DIM))
    return Text("\n").join(lines)


def _source(data: ModuleType, name: str, data_dir: Path | None) -> Source:
    from ..data.cifar import files

    return files.find(data.LAYOUTS[name], data_dir)


def _classes(train: Dataset, test: Dataset) -> Table | Text:
    """A row for each class; for many classes only their names and numbers of images."""
    import numpy as np
    from rich.table import Table
    from rich.text import Text

    from .display import DIM

    counts = [np.bincount(split.labels, minlength=split.num_classes) for split in (train, test)]
    if train.num_classes > MANY:
        ranges = [f"{c.min():,}" if c.min() == c.max() else f"{c.min():,} to {c.max():,}" for c in counts]
        head = f"{train.num_classes} classes with {ranges[0]} training and {ranges[1]} test images each: "
        return Text.assemble((head, DIM), ", ".join(train.classes))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    for column in ("label", "class", "training", "test"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for c, name in enumerate(train.classes):
        table.add_row(str(c), name, f"{counts[0][c]:,}", f"{counts[1][c]:,}")
    return table


@app.command(help=texts.VERIFY)
def verify(
    name: Annotated[str, typer.Argument(help="cifar10, cifar100 or folder.", show_default=False)],
    data_dir: DataDir = None,
    own: Annotated[
        bool, typer.Option("--own", help="The files are your own in the same layout: check their structure alone.")
    ] = False,
    debug: Debug = False,
) -> int:
    """Check the files of a data set, one by one. Exit code 1 when something is wrong with them."""
    from rich.text import Text

    from .. import data
    from . import display

    console = display.console()
    if name == "folder":
        return data_folder.verify(data_dir, console)
    layout = _layout(data, name)
    console.print(Text.assemble((name, display.NAME), f" in {printable(_source(data, name, data_dir).path)}"))
    checks = []
    with display.spinner(console, f"checking {name} …"):
        for check in data.verify(layout, data_dir, own):
            checks.append(check)
            mark = ("  ✓ ", "green") if check.passed else ("  ✗ ", "bold red")
            file = printable(check.name)
            file = f"{file:<16}  " if check.passed else f"{file}: "
            console.print(Text.assemble(mark, file, (printable(check.note), display.DIM if check.passed else "red")))
    wrong = sum(not check.passed for check in checks)
    if wrong:
        console.print(Text(f"{wrong} of {len(checks)} checks failed.", "bold red"))
        return 1
    console.print(Text("All is well.", display.GOOD))
    return 0


def _layout(data: ModuleType, name: str) -> Layout:
    """The Layout of a data set with files. Raises ConfigError for any other."""
    data.check_name(name)
    if name not in data.LAYOUTS:
        raise ConfigError(f"{name} is built in and has no files to check: choose one of {', '.join(data.LAYOUTS)}")
    return data.LAYOUTS[name]


@app.command(help=texts.SHOW)
def show(
    name: Annotated[str, typer.Argument(help="shapes, cifar10, cifar100 or folder.")] = "shapes",
    data_dir: DataDir = None,
    test: Annotated[bool, typer.Option("--test", help="Test images, not training images.")] = False,
    images: Annotated[int, typer.Option(help="Number of images for each class.")] = 10,
    seed: Annotated[int, typer.Option(help="Another seed shows other images.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="The PNG to write.", show_default="NAME.png", parser=nonempty, metavar="PATH"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Draw images of a data set into a PNG, one row for each class."""
    from .. import data
    from ..data.pictures import draw_grid
    from ..files import atomic_write
    from . import display

    console = display.console()
    data.check_name(name)
    if seed < 0:
        raise ConfigError(f"seed must be a whole number from 0 up, not {seed}")
    with display.spinner(console, f"loading {name} …"):
        if name == "folder":
            dataset = data_folder.chosen(data_dir, test, images, seed)
        else:
            dataset = data.load(name, data_dir)[test]
    with display.spinner(console, "drawing …"):
        png = draw_grid(dataset, images, seed, f"{name}: {'test' if test else 'training'} images")
    out = Path(f"{name}.png") if out is None else out
    try:
        with atomic_write(out) as file:
            file.write(png)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}. Choose another place (--out)") from error
    console.print(
        display.pairs([("images", f"{images} of each class, {len(dataset.classes)} classes"), ("drawn in", str(out))])
    )
