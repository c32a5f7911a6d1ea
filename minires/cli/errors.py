"""Errors on the command line: one or two sentences and exit code 2. ``--debug`` shows the traceback."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ..errors import MiniresError, printable
from . import usage

UsageError: Any = typer.BadParameter.__bases__[0]  # typer bundles click since 0.20, and exports this class nowhere
INTERRUPTED = 130  # the exit code that shells expect after Ctrl-C
FAILED = 2

_debug = False


def _switch_debug(value: bool) -> None:
    global _debug
    _debug = value


Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", callback=_switch_debug, rich_help_panel="Help"),
]


def explain(error: BaseException, args: Sequence[str] = ()) -> str | None:
    """The message for an error that the user can do something about, or None for a bug of minires."""
    if isinstance(error, MiniresError):
        return str(error)
    if isinstance(error, UsageError):
        return usage.sentence(error, args)
    if isinstance(error, MemoryError):
        return f"the machine's memory is not enough: {error}" if str(error) else "the machine's memory is not enough"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return None


def run(app: typer.Typer, args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code. Errors with a message (``explain``) are printed, others raised."""
    _switch_debug(False)
    args = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        with _short_warnings():
            return app(args=args, prog_name="minires", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort) as error:
        _say(str(error) or "interrupted")
        return INTERRUPTED
    except Exception as error:
        sentence = explain(error, args)
        if sentence is None or _debug:
            raise
        _say(sentence)
        return FAILED


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Print minires' own warnings in the block, such as on a read-only cache folder, without the line of code."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is UserWarning and str(message).startswith("minires "):
            _say(str(message), ("warning: ", "bold yellow"))
        else:
            before(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _say(sentence: str, mark: tuple[str, str] = ("error: ", "bold red")) -> None:
    """Print to standard error."""
    from rich.text import Text

    from .display import console

    console(stderr=True).print(Text.assemble(mark, printable(sentence)))
    sys.stderr.flush()
