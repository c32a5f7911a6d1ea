"""``minires lab``: experiments that show how gradients flow through residual networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..lab.catalogue import EXPERIMENTS, Experiment
from . import help as texts
from .errors import Debug
from .paths import DOWNLOADS, nonempty

if TYPE_CHECKING:
    from rich.console import Console

    from ..lab import Result

WHAT, HOW, RESULT = "What to look at", "How", "The result"

app = typer.Typer(
    help="Experiments that show, exactly, how gradients flow through residual networks.\n\n"
    "`minires lab` lists them.\n\n`minires lab paths` runs one.\n\n"
    "Each says first what to look for, then shows it, and ends with a verdict by a stated rule.",
    rich_markup_mode="markdown",
)


def _option(panel: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def _path(panel: str, help: str) -> Any:
    return _option(panel, help, parser=nonempty, metavar="PATH")


COMMON: dict[str, tuple[Any, Any]] = {
    "model": (
        str,
        _option(WHAT, "A network by name: resnet20 (the default), preresnet20, resnet110, crossing and others."),
    ),
    "width": (int, _option(WHAT, "Channels of the first stage of a CIFAR network; 16 by default.")),
    "image_size": (int, _option(WHAT, "Pixels along a side, to which the images are averaged, such as 16.")),
    "dataset": (str, _option(WHAT, "shapes (built in, the default), cifar10 or cifar100.")),
    "data_dir": (Path, _path(WHAT, f"Where CIFAR's files are; by default where downloads go: {DOWNLOADS}.")),
    "run": (Path, _path(WHAT, "The folder of a trained run: its model and its images.")),
    "batch_size": (int, _option(HOW, "Images in the batch.")),
    "seed": (int, _option(HOW, "Of weights, images and random signs; 0 by default.")),
    "quick": (bool, _option(HOW, "A smaller experiment, for a first look.", "--quick")),
}
OUT = Annotated[Path | None, _path(RESULT, "A folder for the result (result.json) and the picture (picture.png).")]
JSON = Annotated[bool, _option(RESULT, "Print the result as JSON, and nothing else.", "--json")]


@app.callback(invoke_without_command=True)
def lab(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from . import display

    console = display.console()
    console.print("Experiments: `minires lab NAME` runs one, `minires lab NAME --help` says more.\n")
    console.print(display.pairs([(name, e.about.summary) for name, e in EXPERIMENTS.items()]))


def _command(name: str, experiment: Experiment) -> Callable[..., None]:
    """The function behind ``minires lab NAME``, with the options that all experiments have and those of its own."""

    def command(**given: Any) -> None:
        own = {option.name: given.pop(option.name) for option in experiment.options}
        out, as_json = given.pop("out"), given.pop("json")
        given.pop("debug")
        of_run = [f"--{key}" for key in ("model", "width", "dataset") if given.get(key) is not None]
        if given.get("run") is not None and of_run:
            raise ConfigError(f"--run takes the model and the data set of the run: leave out {' and '.join(of_run)}")
        settings = experiment.defaults | {
            key: str(value) if isinstance(value, Path) else value for key, value in given.items() if value is not None
        }
        _run(name, settings, own, out, as_json)

    parameters = [
        _parameter(key, kind | None, None, option)
        for key, (kind, option) in COMMON.items()
        if key not in experiment.unused
    ]
    for option in experiment.options:
        names = (f"--{option.name.replace('_', '-')}",) if option.kind is bool else ()
        parameters.append(_parameter(option.name, option.kind, option.default, _option(HOW, option.help, *names)))
    parameters.append(inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=OUT))
    parameters.append(inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JSON))
    parameters.append(inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__ = name
    return command


def _parameter(name: str, kind: Any, default: Any, option: Any) -> inspect.Parameter:
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _help(name: str, experiment: Experiment) -> str:
    about = experiment.about
    examples = [
        f"`minires lab {name}{' ' if arguments else ''}{arguments}` {what}" for arguments, what in about.examples
    ]
    paper = f"The paper: {about.claim}."
    verdict = f"The verdict: {about.rule}."
    python = f"In Python: `minires.lab.{name}`."
    first = f"{about.summary[0].upper()}{about.summary[1:]}."
    return "\n\n".join([first, about.question, *examples, paper, verdict, python])


for _name, _experiment in EXPERIMENTS.items():
    app.command(_name, help=_help(_name, _experiment))(_command(_name, _experiment))


@app.command("all", help=texts.LAB_ALL)
def run_all(
    dataset: Annotated[str, COMMON["dataset"][1]] = "shapes",
    data_dir: Annotated[Path | None, COMMON["data_dir"][1]] = None,
    quick: Annotated[bool, COMMON["quick"][1]] = False,
    out: OUT = None,
    debug: Debug = False,
) -> None:
    """Every experiment, with its defaults."""
    from time import perf_counter

    from ..lab.catalogue import run
    from ..lab.setting import Setting
    from . import display

    console, rows, began = display.console(), [], perf_counter()
    where: dict[str, Any] = {
        "dataset": dataset,
        "data_dir": None if data_dir is None else str(data_dir),
        "quick": quick,
    }
    with display.bar(console, "", len(EXPERIMENTS)) as advance:
        for name, experiment in EXPERIMENTS.items():
            advance(0, name)
            start = perf_counter()
            result = run(name, Setting(**experiment.defaults, **where))
            if out is not None:
                _keep(result, out / name)
            rows.append([name, result.verdict.word, display.duration(perf_counter() - start)])
            advance()
    print_table(console, ["experiment", "verdict", "time"], rows)
    console.print(f"all: {display.duration(perf_counter() - began)}")
    if out is not None:
        console.print(f"kept in {out}: a folder for each, with result.json and picture.png")


def _run(name: str, settings: dict[str, Any], options: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Run an experiment, print what it found, and keep it in ``out``."""
    from ..lab.catalogue import run
    from ..lab.setting import Setting
    from . import display

    setting = Setting(**settings)
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is no folder: --out takes the name of one for result.json and picture.png")
    console, said, at = display.console(stderr=as_json), False, 0

    def progress(done: int, total: int, what: str) -> None:
        nonlocal said, at
        if not said:  # not before it is known that there is something to show
            _introduce(console, EXPERIMENTS[name].about)
        said, before, at = True, at, max(at, 100 * done // max(1, total))
        advance(at - before, f"{what}, {done} of {total}")

    with display.bar(console, name, 100) as advance:
        result = run(name, setting, progress, **options)
    if not said:
        _introduce(console, EXPERIMENTS[name].about)
    if out is not None:
        _keep(result, out)
    if as_json:
        typer.echo(result.to_json())
        return
    print_table(console, *result.rows())
    _conclude(console, result)
    if out is not None:
        console.print(f"kept in {out}: result.json, picture.png")


def _introduce(console: Console, about: Any) -> None:
    from rich.text import Text

    from .display import DIM

    console.print(Text.assemble((f"{about.name}: ", "bold"), about.summary))
    console.print(Text.assemble(("Before you look: ", "bold"), about.question))
    console.print(Text(f"The paper: {about.claim}", DIM))
    console.print()


def _conclude(console: Console, result: Result) -> None:
    from rich.text import Text

    from .display import DIM

    about, (word, because) = result.about, result.verdict
    style = {"seen": "bold green", "not seen": "bold yellow", "unclear": "bold"}[word]
    console.print()
    console.print(Text.assemble((word, style), f": {because}"))
    console.print(Text(f"The rule: {about.rule}.", DIM))
    if about.disputed_by:
        console.print(Text(f"Disputed by: {about.disputed_by}.", DIM))
    console.print(Text(f"The scale: {about.scale}.", DIM))


def print_table(console: Console, heads: list[str], rows: list[list[str]]) -> None:
    """Print a table, names at the left and numbers at the right; outside a terminal as wide as it is."""
    from rich.measure import Measurement
    from rich.table import Table

    from .display import DIM

    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:
        whole = Measurement.get(console, console.options.update(max_width=1000), table).maximum
        console.width = max(console.width, whole)
    console.print(table)


def _keep(result: Result, out: Path) -> None:
    """Write result.json and picture.png into a folder."""
    from ..files import atomic_write

    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "result.json", "w") as file:
        file.write(result.to_json() + "\n")
    result.plot(out / "picture.png")
