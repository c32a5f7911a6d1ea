"""Messages for command lines that cannot be parsed. The parser's own leave out what was typed, or what was meant."""

import re
from collections.abc import Sequence
from typing import Any

from ..errors import nearest

KINDS = {"valid integer": "a whole number", "valid number": "a number", "valid float": "a number"}  # as typer says it


def sentence(error: Any, args: Sequence[str]) -> str:
    """The message for an error of the parser on the command line ``args``."""
    context = getattr(error, "ctx", None)
    said = _no_option(error, context) or _no_command(error, context) or _bad_value(error, args) or _missing(error)
    said = said or error.format_message().rstrip(".")
    return f"{said}. See `{context.command_path} --help`." if context else f"{said}."


def _no_option(error: Any, context: Any) -> str | None:
    name = getattr(error, "option_name", None)
    if name is None or context is None or "No such option" not in error.message:
        return None
    known = [option for param in context.command.params for option in (*param.opts, *param.secondary_opts)]
    return f"There is no option {name}{nearest(name, [o for o in known if o.startswith('--')])}"


def _no_command(error: Any, context: Any) -> str | None:
    found = re.match(r"No such command '(.*?)'", error.message)
    if not found or context is None:
        return None
    return f"There is no command {found[1]!r}{nearest(found[1], context.command.list_commands(context))}"


def _bad_value(error: Any, args: Sequence[str]) -> str | None:
    param = getattr(error, "param", None)
    kind = next((kind for words, kind in KINDS.items() if words in error.message), None)
    if kind is None or param is None:
        return None
    for i, arg in reversed(list(enumerate(args))):  # the last one counts
        name, equals, value = arg.partition("=")
        if name in param.opts and (equals or i + 1 < len(args)):
            return f"{name} takes {kind}, not {(value if equals else args[i + 1])!r}"
    return None


def _missing(error: Any) -> str | None:
    if type(error).__name__ != "MissingParameter" or getattr(error, "param", None) is None:
        return None
    about = (getattr(error.param, "help", None) or "").rstrip(".")
    return f"{error.param.name} is missing{f': {about[0].lower()}{about[1:]}' if about else ''}"
