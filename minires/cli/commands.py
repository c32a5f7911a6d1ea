"""The group of all commands, and how it handles Ctrl-C."""

from typing import Any

import typer
import typer.core


class Interrupted(typer.Abort):
    """A KeyboardInterrupt with its message, which typer would drop."""


class Commands(typer.core.TyperGroup):
    """A group that raises Interrupted in place of KeyboardInterrupt."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            raise Interrupted(*error.args) from None
