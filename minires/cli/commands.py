"""The group of all commands, and how Ctrl-C leaves it."""

import typer
import typer.core


class Interrupted(typer.Abort):
    """A KeyboardInterrupt on its way out: typer would make an exit code of it, and drop what it says."""


class Commands(typer.core.TyperGroup):
    def invoke(self, context):
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            raise Interrupted(*error.args) from None
