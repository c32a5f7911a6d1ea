"""What a user sees when something is wrong: one or two sentences and exit code 2. ``--debug`` shows the traceback."""

import sys
from typing import Annotated

import typer

from ..errors import MiniresError

UsageError = typer.BadParameter.__bases__[0]  # typer carries its own click since 0.20, and names it nowhere else
INTERRUPTED = 130  # what a shell expects after Ctrl-C
WRONG = 2

_debug = False


def _switch_debug(value: bool):
    global _debug
    _debug = value


Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", callback=_switch_debug, rich_help_panel="Help"),
]


def explain(error):
    """The sentence for an error that the user can do something about, or None for a mistake of minires' own."""
    if isinstance(error, MiniresError):
        return str(error)
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        sentence = f"{error.format_message().rstrip('.')}."
        return f"{sentence} See `{context.command_path} --help`." if context else sentence
    if isinstance(error, MemoryError):
        return f"the machine's memory is not enough: {error}" if str(error) else "the machine's memory is not enough"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return None


def run(app, args=None):
    """Run the command line; returns the exit code."""
    _switch_debug(False)
    try:
        args = list(sys.argv[1:] if args is None else args) or ["--help"]
        return app(args=args, prog_name="minires", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort) as error:
        _say(str(error) or "interrupted")
        return INTERRUPTED
    except Exception as error:
        sentence = explain(error)
        if sentence is None or _debug:
            raise
        _say(sentence)
        return WRONG


def _say(sentence):
    from rich.text import Text

    from .display import console

    console(stderr=True).print(Text.assemble(("error: ", "bold red"), sentence))
    sys.stderr.flush()
