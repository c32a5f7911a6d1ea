"""Options of the commands that have many, in panels."""

from typing import Any

import typer

from .paths import nonempty


def option(panel: str, help: str, *names: str, **more: Any) -> Any:
    """An option under the heading ``panel`` of ``--help``, which does not show its default: ``help`` says it."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def path_option(panel: str, help: str, metavar: str = "PATH") -> Any:
    """An option that takes a path."""
    return option(panel, help, parser=nonempty, metavar=metavar)
