"""The ``minires`` command. Slow imports are inside the commands, so that ``--help`` is printed at once."""

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from . import help as texts
from .cache import app as cache
from .commands import Commands
from .compare import compare
from .data import app as data
from .doctor import doctor
from .encoding import make_encodable
from .errors import run
from .evaluate import evaluate
from .explain import explain
from .export import export
from .gradcheck import gradcheck
from .lab import app as lab
from .predict import predict
from .replay import replay
from .sweep import sweep
from .train import train
from .warmup import warmup

app = typer.Typer(
    help="Train residual networks on a CPU.\n\n`minires train` needs no option and no download.\n\n"
    "`minires train --help` shows more to begin with; so does `--help` of each of these.",
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=Commands,
)
app.command(help=texts.TRAIN)(train)
app.command(help=texts.SWEEP)(sweep)
app.command(help=texts.COMPARE)(compare)
app.command("eval", help=texts.EVAL)(evaluate)
app.command(help=texts.PREDICT)(predict)
app.command(help=texts.EXPORT)(export)
app.command(help=texts.REPLAY)(replay)
app.command(help=texts.GRADCHECK)(gradcheck)
app.command(help=texts.EXPLAIN)(explain)
app.add_typer(lab, name="lab")
app.add_typer(data, name="data")
app.add_typer(cache, name="cache")
app.command(help=texts.DOCTOR)(doctor)
app.command(help=texts.WARMUP)(warmup)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"minires {__version__}")
        raise typer.Exit


@app.callback()
def minires(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the ``minires`` command."""
    make_encodable()
    sys.exit(run(app, args))


__all__ = ["app", "main"]
