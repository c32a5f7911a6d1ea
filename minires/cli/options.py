"""Options of the commands that have many, in panels."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
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


PICTURES = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Raise ConfigError for a name that is not a picture's."""
    if path.suffix.lower() not in PICTURES:
        raise ConfigError(f"{path} is not the name of a picture: it must end in {', '.join(PICTURES)}")


def model_options(texts: Iterable[str], of: str = "--model-option") -> dict[str, Any]:
    """Names and values, such as the keywords of a model's constructor. Raises ConfigError. of: the option."""
    return dict(_name_and_value(text, of) for text in texts)


def _name_and_value(text: str, of: str) -> tuple[str, Any]:
    """ "option=B" → ("option", "B"); numbers and true/false are read as such."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"{of} takes NAME=VALUE, such as {'option=B' if 'model' in of else 'head=10'}, not {text!r}")
    try:
        return name, tomllib.loads(f"x = {value}")["x"]
    except (ValueError, RecursionError):  # no TOML, or a number or nesting that its reader cannot take
        return name, value
