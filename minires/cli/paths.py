"""Paths in the help of the commands."""

from pathlib import Path

from ..data.files import default_folder


def short(path: Path) -> str:
    """A path as text, with ``~`` for the home folder.

    >>> short(Path.home() / "x")
    '~/x'
    """
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


DOWNLOADS = short(default_folder())
