"""Writing files so that a crash at any moment leaves the old file or the new one, never half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal


@contextmanager
def atomic_write(path: Path | str, mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a file that replaces ``path`` when the block ends normally; after an error ``path`` is unchanged.

    The file is written beside ``path``, flushed to disk and renamed over it, so that readers see either the old file or
    the new one, complete, even after a crash. For one writer at a time: a temporary file that a killed process left is
    overwritten by the next. mode: "wb", or "w" for UTF-8 text. Raises OSError, with ``path`` as its file name.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with name_in_errors(path), open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@contextmanager
def name_in_errors(path: Path | str) -> Iterator[None]:
    """Set the file name of an OSError raised in the block: that of a full disk names no file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def fsync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a new or renamed file in it survives a power cut. Does nothing on Windows."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
