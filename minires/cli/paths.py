"""Paths in the help of the commands and in what they print."""

from pathlib import Path

import typer

from ..data.cifar.files import default_folder
from ..files import command_line, expand_user


def short(path: Path) -> str:
    """A path as text, with ``~`` for the home folder.

    >>> short(Path.home() / "x")
    '~/x'
    """
    home = expand_user("~")
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def nonempty(text: str) -> Path:
    """A path given as an option, with ``~`` for the home folder; ``typer.Option(parser=nonempty, metavar="PATH")``."""
    if not text:
        raise typer.BadParameter("a path is needed, not '' (a shell variable that is not set?)")
    return expand_user(text)


DOWNLOADS = short(default_folder())

__all__ = ["DOWNLOADS", "command_line", "nonempty", "short"]
