"""``minires data info|verify|show folder``: one's own images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, ImageError, plural, printable

if TYPE_CHECKING:
    from rich.table import Table

    from ..data import Dataset, ImageFolder
    from .display import PlainConsole

SHOWN = 96  # pixels along a side of the images that are shown


def sets(data_dir: Path | None) -> dict[str, ImageFolder]:
    """The sets of images in a folder by name: "training", "test" and "validation", or "all" of one that is not split."""
    from .. import data
    from ..data.folder import folder_layout

    if data_dir is None:
        raise ConfigError("which folder of images? Name it with --data-dir")
    layout = folder_layout(data_dir)
    train = data.ImageFolder(layout.train)
    if layout.test is None:
        return {"all": train}
    found = {"training": train, "test": data.ImageFolder(layout.test, train.classes)}
    return found if layout.val is None else found | {"validation": data.ImageFolder(layout.val, train.classes)}


def info(data_dir: Path | None, console: PlainConsole) -> None:
    """Print how many images there are in each class and set."""
    from . import display

    found = sets(data_dir)
    images = ", ".join(f"{len(images):,} {name}" for name, images in found.items() if name != "all")
    whole = found.get("all")
    if whole is not None:
        images = f"{len(whole):,}, in one folder: --val 0.1 holds a tenth out for testing"
    size = sum(path.stat().st_size for part in found.values() for path in part.paths if path.exists())
    console.print(
        display.pairs(
            [
                ("data set", "folder"),
                ("from", str(data_dir)),
                ("images", images),
                ("on disk", f"{size / 1e6:,.1f} MB"),
                ("checked", "only their names: minires data verify folder reads them all"),
            ]
        )
    )
    console.print()
    console.print(_classes(found))


def _classes(found: dict[str, ImageFolder]) -> Table:
    """A row for each class."""
    import numpy as np
    from rich.table import Table

    from .display import DIM

    classes = next(iter(found.values())).classes
    counts = {name: np.bincount(part.labels, minlength=len(classes)) for name, part in found.items()}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    for column in ("label", "class", *("images" if name == "all" else name for name in found)):
        table.add_column(column, justify="left" if column == "class" else "right")
    for c, name in enumerate(classes):
        table.add_row(str(c), printable(name), *(f"{counts[part][c]:,}" for part in found))
    return table


def verify(data_dir: Path | None, console: PlainConsole) -> int:
    """Read every image; print those that cannot be read, and those that are in two sets. Returns the exit code."""
    from rich.text import Text

    from ..data.threads import in_threads
    from . import display

    found, wrong, seen = sets(data_dir), 0, dict[bytes, Path]()
    for name, part in found.items():

        def read(i: int, part: ImageFolder = part) -> str | bytes:
            try:
                part[i]
                return part.digest(i)
            except ImageError as error:
                return str(error)

        others, failed = dict(seen), 0
        with display.bar(console, f"reading {name}", len(part)) as advance:
            for i, result in enumerate(in_threads(read, range(len(part)))):
                advance()
                said = result if isinstance(result, str) else ""
                if isinstance(result, bytes):
                    if result in others:
                        said = f"{part.path(i)} is a copy of {others[result]}, which is in another set"
                    seen.setdefault(result, part.path(i))
                if said:
                    failed += 1
                    console.print(Text.assemble(("  ✗ ", "bold red"), (said, "red")))
        wrong += failed
        if not failed:
            label = "images" if name == "all" else f"{name} images"
            console.print(Text.assemble(("  ✓ ", "green"), f"{len(part):,} {label}"))
    if wrong:
        console.print(
            Text(f"{plural(wrong, 'image')} of {sum(map(len, found.values())):,} should be put right.", "bold red")
        )
        return 1
    console.print(Text("All is well.", display.GOOD))
    return 0


def chosen(data_dir: Path | None, test: bool, images: int, seed: int) -> Dataset:
    """Random images of every class, as they are in evaluation, to be drawn."""
    import numpy as np

    from .. import data
    from ..data.pictures import choose

    found = sets(data_dir)
    if test and "test" not in found:
        raise ConfigError(f"{data_dir} is one folder, from which --val of train holds a test set out: leave --test out")
    part = found["test"] if test else next(iter(found.values()))
    whole = data.MapDataset(part, SHOWN, name="folder", mean=[0.5] * 3, std=[0.25] * 3)
    indices = choose(whole, images, seed)
    return whole.take(np.unique(indices[indices >= 0])).in_memory()
