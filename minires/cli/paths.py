"""Paths in the help of the commands and in what they print."""

import os
import shlex
import subprocess
from pathlib import Path

import typer

from ..data.files import default_folder
from ..files import expand_user


def short(path: Path) -> str:
    """A path as text, with ``~`` for the home folder.

    >>> short(Path.home() / "x")
    '~/x'
    """
    home = expand_user("~")
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def command_line(*words: object) -> str:
    """A command to paste into a shell: its words, quoted where they need it."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def nonempty(text: str) -> Path:
    """A path given as an option, with ``~`` for the home folder; ``typer.Option(parser=nonempty, metavar="PATH")``."""
    if not text:
        raise typer.BadParameter("a path is needed, not '' (a shell variable that is not set?)")
    return expand_user(text)


DOWNLOADS = short(default_folder())
