"""What is shown while data are loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .display import PlainConsole


@contextmanager
def loading(out: PlainConsole, dataset: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A spinner during the block, in a terminal, or a line every ten seconds; yields ``on_read(done, all)``."""
    from rich.text import Text

    from .display import DIM, NAME, PLAIN_EVERY, is_live

    if quiet:
        yield lambda done, total: None
        return
    if is_live(out):
        with out.status(Text(f"loading {dataset} …", DIM), spinner_style=NAME) as status:
            yield lambda done, total: status.update(Text(f"reading {done:,} of {total:,} images", DIM))
        return
    printed = time.perf_counter()

    def on_read(done: int, total: int) -> None:
        nonlocal printed
        if time.perf_counter() - printed >= PLAIN_EVERY:
            printed = time.perf_counter()
            out.print(f"{done:,} of {total:,} images read")

    yield on_read
