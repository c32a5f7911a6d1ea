"""Options of the commands that have many, in panels."""

import tomllib
from collections.abc import Iterable
from typing import Any

import typer

from ..errors import ConfigError
from .paths import nonempty


def option(panel: str, help: str, *names: str, **more: Any) -> Any:
    """An option under the heading ``panel`` of ``--help``, which does not show its default: ``help`` says it."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def path_option(panel: str, help: str, metavar: str = "PATH") -> Any:
    """An option that takes a path."""
    return option(panel, help, parser=nonempty, metavar=metavar)


def model_options(texts: Iterable[str]) -> dict[str, Any]:
    """Keywords of a model's constructor, of --model-option. Raises ConfigError."""
    return dict(map(_name_and_value, texts))


def _name_and_value(text: str) -> tuple[str, Any]:
    """ "option=B" → ("option", "B"); numbers and true/false are read as such."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--model-option takes NAME=VALUE, such as option=B, not {text!r}")
    try:
        return name, tomllib.loads(f"x = {value}")["x"]
    except (ValueError, RecursionError):  # no TOML, or a number or nesting that its reader cannot take
        return name, value
