"""``minires lab``: experiments that show how gradients flow through residual networks."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..lab.catalogue import EXPERIMENTS, Experiment
from . import help as texts
from .errors import Debug
from .lab_inside import cam, features, filters
from .lab_train import train
from .options import model_options, option, path_option
from .paths import DOWNLOADS
from .tables import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from ..lab import Result
    from ..lab.times import Time

WHAT, HOW, RESULT = "What to look at", "How", "The result"
LISTED, SEVERAL, INSIDE = "Experiments", "All of them, and networks for them", "See inside a trained network"  # panels

app = typer.Typer(
    help="Experiments that show, exactly, how gradients flow through residual networks.\n\n"
    "`minires lab` lists them, and how long each takes here.\n\n`minires lab paths` runs one.\n\n"
    "Each says first what to look for, then shows it, and ends with a verdict by a stated rule.\n\n"
    "`minires lab cam cat.jpg --run RUN` draws where a network looks.",
    rich_markup_mode="markdown",
)


COMMON: dict[str, tuple[Any, Any]] = {
    "model": (
        str,
        option(WHAT, "A network by name: resnet20 (the default), preresnet20, resnet110, crossing and others."),
    ),
    "model_options": (
        list[str],
        option(
            WHAT,
            "A setting of the model's constructor, such as option=B or norm=none.",
            "--model-option",
            metavar="NAME=VALUE",
        ),
    ),
    "width": (int, option(WHAT, "Channels of the first stage of a CIFAR network; 16 by default.")),
    "image_size": (int, option(WHAT, "Pixels along a side, to which the images are averaged, such as 16.")),
    "dataset": (str, option(WHAT, "shapes (built in, the default), cifar10 or cifar100.")),
    "data_dir": (Path, path_option(WHAT, f"Where CIFAR's files are; by default where downloads go: {DOWNLOADS}.")),
    "run": (Path, path_option(WHAT, "The folder of a trained run: its model and its images.")),
    "batch_size": (int, option(HOW, "Images in the batch.")),
    "seed": (int, option(HOW, "Of weights, images and random signs; 0 by default.")),
    "quick": (bool, option(HOW, "A smaller experiment, for a first look.", "--quick")),
}
OF_RUN = {"model": "--model", "model_options": "--model-option", "width": "--width", "dataset": "--dataset"}  # its own
OUT = Annotated[
    Path | None, path_option(RESULT, "A folder for the result (result.json) and the picture (picture.png).")
]
JSON = Annotated[bool, option(RESULT, "Print the result as JSON, and nothing else.", "--json")]


@app.callback(invoke_without_command=True)
def lab(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from ..lab import times
    from . import display

    console, expected = display.console(), times.expected(EXPERIMENTS)
    console.print("Experiments: `minires lab NAME` runs one, `minires lab NAME --help` says more.\n")
    rows = [[name, e.about.summary, *map(_words, expected[name])] for name, e in EXPERIMENTS.items()]
    print_table(console, ["", "", "--quick", "full"], rows, wrapped=1)
    known = [time for both in expected.values() for time in both if time.seconds is not None]
    here = any(time.measured for time in known)
    estimated = not all(time.measured for time in known)
    notes = [f"~: estimated {'by those that ran here' if here else f'for {times.MACHINE}'}."] if estimated else []
    notes.append("`minires lab all --quick` runs each of them for a moment, and measures.")
    notes.append("`minires lab train` trains networks to look at with --run: about three hours.")
    console.print("\n" + "\n".join(notes))
    console.print(f"\n{INSIDE}, of a run or of weights from elsewhere; each draws a picture:\n")
    console.print(display.pairs([(name, summary) for name, (summary, _, _) in PICTURES.items()]))


def _words(time: Time) -> str:
    """A time in words; one that was not measured here rounded, with a ~."""
    from .display import duration

    if time.seconds is None:
        return ""
    if time.measured:
        return duration(time.seconds)
    return f"~{time.seconds:.0f} s" if time.seconds < 90 else f"~{time.seconds / 60:.0f} min"


def _command(name: str, experiment: Experiment) -> Callable[..., None]:
    """The function behind ``minires lab NAME``, with the options that all experiments have and those of its own."""

    def command(**given: Any) -> None:
        own = {each.name: given.pop(each.name) for each in experiment.options}
        out, as_json = given.pop("out"), given.pop("json")
        given.pop("debug")
        of_run = [word for key, word in OF_RUN.items() if given.get(key)]
        if given.get("run") is not None and of_run:
            raise ConfigError(f"--run takes the model and the data set of the run: leave out {' and '.join(of_run)}")
        given["model_options"] = model_options(given.get("model_options") or []) or None
        settings = experiment.defaults | {
            key: str(value) if isinstance(value, Path) else value for key, value in given.items() if value is not None
        }
        _run(name, settings, own, out, as_json)

    parameters = [
        _parameter(key, kind | None, None, info) for key, (kind, info) in COMMON.items() if key not in experiment.unused
    ]
    for own in experiment.options:
        names = (f"--{own.name.replace('_', '-')}",) if own.kind is bool else ()
        parameters.append(_parameter(own.name, own.kind, own.default, option(HOW, own.help, *names)))
    parameters.append(inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=OUT))
    parameters.append(inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JSON))
    parameters.append(inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__ = name
    return command


def _parameter(name: str, kind: Any, default: Any, info: Any) -> inspect.Parameter:
    annotation = Annotated[kind, info]
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
    app.command(_name, help=_help(_name, _experiment), rich_help_panel=LISTED)(_command(_name, _experiment))


app.command("train", help=texts.LAB_TRAIN, rich_help_panel=SEVERAL)(train)


@app.command("all", help=texts.LAB_ALL, rich_help_panel=SEVERAL)
def run_all(
    dataset: Annotated[str, COMMON["dataset"][1]] = "shapes",
    data_dir: Annotated[Path | None, COMMON["data_dir"][1]] = None,
    quick: Annotated[bool, COMMON["quick"][1]] = False,
    out: OUT = None,
    debug: Debug = False,
) -> None:
    """Every experiment, with its defaults."""
    from time import perf_counter

    from ..lab import times
    from ..lab.catalogue import run
    from ..lab.setting import Setting
    from . import display

    if out is not None:
        _check_folder(out)
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
            setting = Setting(**experiment.defaults, **where)
            result = run(name, setting)
            if _is_default(name, setting):
                times.remember(name, quick, perf_counter() - start)
            if out is not None:
                _keep(result, out / name)
            rows.append([name, result.verdict.word, display.duration(perf_counter() - start)])
            advance()
    print_table(console, ["experiment", "verdict", "time"], rows)
    console.print(f"all: {display.duration(perf_counter() - began)}")
    if out is not None:
        console.print(f"kept in {out}: a folder for each, with result.json and picture.png")


PICTURES: dict[str, tuple[str, str, Callable[..., None]]] = {
    "cam": ("where in a photograph the evidence for a class is: Grad-CAM", texts.LAB_CAM, cam),
    "features": ("what the layers make of a photograph: their strongest channels", texts.LAB_FEATURES, features),
    "filters": ("the filters of the first convolution", texts.LAB_FILTERS, filters),
}
for _name, (_, _text, _function) in PICTURES.items():
    app.command(_name, help=_text, rich_help_panel=INSIDE)(_function)


def _run(name: str, settings: dict[str, Any], options: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Run an experiment, print what it found, and keep it in ``out``."""
    from time import perf_counter

    from ..lab import times
    from ..lab.catalogue import run
    from ..lab.setting import Setting
    from . import display

    if out is not None:
        _check_folder(out)
    console, introduced, at = display.console(stderr=as_json), False, 0

    def introduce() -> None:  # not before it is known that there is something to show
        nonlocal introduced
        if not introduced:
            _introduce(console, EXPERIMENTS[name].about)
        introduced = True

    def progress(done: int, total: int, what: str) -> None:
        nonlocal at
        introduce()
        before, at = at, max(at, 100 * done // max(1, total))
        advance(at - before, f"{what}, {done} of {total}")

    def say(text: str) -> None:
        introduce()
        console.print(text)

    setting, began = Setting(**settings, out=None if out is None else str(out), say=say), perf_counter()
    with display.bar(console, name, 100) as advance:
        result = run(name, setting, progress, **options)
    if _is_default(name, setting, options):
        times.remember(name, setting.quick, perf_counter() - began)
    introduce()
    try:
        if as_json:
            typer.echo(result.to_json())
        else:
            print_table(console, *result.rows())
            _conclude(console, result)
    finally:  # after all is said, since a disk may be full; and if nobody reads it
        if out is not None:
            _keep(result, out)
    if out is not None and not as_json:
        console.print(f"kept in {out}: result.json, picture.png")


def _check_folder(out: Path) -> None:
    """Raise ConfigError for the name of a folder that cannot be written to, before hours are spent on what goes there."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is no folder: --out takes the name of one for result.json and picture.png")
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise ConfigError(
            f"{out} cannot be written to ({there} is no folder that you may write to): choose another --out"
        )


def _is_default(name: str, setting: Any, options: dict[str, Any] | None = None) -> bool:
    """Whether an experiment runs as `minires lab NAME`, or `minires lab NAME --quick`, does: whatever its seed."""
    experiment = EXPERIMENTS[name]
    usual = type(setting)(
        **experiment.defaults, quick=setting.quick, seed=setting.seed, out=setting.out, say=setting.say
    )
    defaults = {own.name: own.default for own in experiment.options}
    return setting == usual and (options is None or options == defaults)


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


def _keep(result: Result, out: Path) -> None:
    """Write result.json and picture.png into a folder."""
    from ..files import atomic_write

    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "result.json", "w") as file:
        file.write(result.to_json() + "\n")
    result.plot(out / "picture.png")
