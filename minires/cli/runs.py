"""Runs that commands begin and go on with: their progress, signals, and what is said when they stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AnomalyError, ConfigError, DataError, RunError, plural
from .cost import refuse_what_does_not_fit
from .loading import loading
from .paths import command_line

if TYPE_CHECKING:
    from ..training import Recipe, RunFolder, Trainer
    from .display import PlainConsole

Start = AbstractContextManager[tuple["Trainer | None", "Recipe", "RunFolder"]]


def fit(start: Start, console: PlainConsole, quiet: bool = False, more: bool = False) -> int:
    """Train until the run is complete or a signal stops it, and print its progress. Returns the exit code.

    start: of ``new_run`` or ``resumed_run``. more: whether other runs follow, which a signal stops too if it comes as this
    run's last files are written.
    """
    with start as (trainer, settings, folder):
        if trainer is None:
            return 0
        console.on_closed = trainer.stop
        try:
            return _fit(trainer, settings, folder, console, quiet, more)
        finally:
            console.on_closed = None  # between two runs there is none to stop: what is printed there fails


def _fit(trainer: Trainer, settings: Recipe, folder: RunFolder, console: PlainConsole, quiet: bool, more: bool) -> int:
    from ..kernels.runtime.progress import reported_to
    from . import display

    watch = None if quiet else display.watch(console)
    if watch is not None:
        display.print_header(console, trainer, settings, folder)
        trainer.callbacks += (watch,)
    report = watch.on_compiling if watch is not None else lambda done, total: None
    with _signals_stop(trainer) as caught, _resume_advice(folder), reported_to(report):
        try:
            trainer.fit(progress=False)
        finally:
            if watch is not None:
                watch.close()
    if caught and not trainer.finished:
        console.print(_stopped(trainer, folder, caught[0]))
    elif trainer.finished:
        display.print_result(console, trainer, folder, quiet)
    if caught and (more or not trainer.finished):
        return 128 + caught[0]  # the exit code that shells expect after a signal
    if console.closed:
        raise RunError(_unread(trainer, folder))
    return 0


@contextmanager
def new_run(
    recipe: Recipe, out: Path | None, console: PlainConsole, quiet: bool = False
) -> Iterator[tuple[Trainer, Recipe, RunFolder]]:
    """(trainer, recipe, folder) of a new run; the folder is locked during the block."""
    from .. import kernels
    from ..training import Recorder, RunFolder, build_trainer
    from ..training.weights import pinned

    recipe = pinned(recipe)
    with loading(console, recipe.dataset, quiet) as on_read:
        trainer = build_trainer(recipe, on_read=on_read)
        kernels.load()  # before the folder is created, since this may fail
        refuse_what_does_not_fit(trainer)
    with RunFolder.create(recipe, out) as folder:
        trainer.callbacks = (Recorder(folder, recipe),)
        yield trainer, recipe, folder


@contextmanager
def resumed_run(
    path: Path, settings: dict[str, Any], console: PlainConsole, quiet: bool = False, more_epochs: int = 0
) -> Iterator[tuple[Trainer | None, Recipe, RunFolder]]:
    """(trainer, recipe, folder) of a resumed run. The trainer is None when there is nothing left to do.

    settings: those that the user has given, which must be the run's.
    """
    from ..training import Resumed, RunFolder

    with RunFolder.open(path) as folder:
        run = Resumed(folder, settings, more_epochs)
        if run.nothing_to_do:
            console.print(
                f"{folder} is complete after {plural(len(run.rows), 'epoch')}; to train it longer, say --more-epochs N."
            )
            yield None, run.recipe, folder
            return
        with loading(console, run.recipe.dataset, quiet) as on_read:
            trainer = run.trainer(on_read)
        if run.note:
            console.print(run.note)
        if not quiet:
            console.print(f"Going on with {folder} {_where(trainer)}.")
        yield trainer, run.recipe, folder


def train_in(path: Path, wanted: Recipe, console: PlainConsole, quiet: bool, more: bool) -> int:
    """Begin the run in a folder, go on with it, or skip it if it is complete. Returns the exit code. more: see ``fit``.

    Raises ConfigError when the folder holds a run with other settings, but for those that do not change its bits.
    """
    from ..training import Recipe, RunFolder
    from ..training.resume import MAY_DIFFER, describe, important_differences
    from ..training.weights import pinned

    folder, wanted = RunFolder(path), pinned(wanted)
    if not folder.config.exists():
        return fit(new_run(wanted, path, console, quiet), console, quiet, more)
    found = Recipe.read(folder.config)
    others = important_differences(found, wanted)
    if others:
        raise ConfigError(
            f"{path} was trained with other settings ({describe(others, found, wanted)}): choose another folder with --out"
        )
    if not folder.summary.exists():
        given = {name: value for name in MAY_DIFFER if (value := getattr(wanted, name)) is not None}
        return fit(resumed_run(path, given, console, quiet), console, quiet, more)
    console.print(f"{path} is complete")
    return 0


class _FirstStepEnded(BaseException):
    """Ends the first step; not an Exception, so that nothing on the way catches it."""


@contextmanager
def _signals_stop(trainer: Trainer) -> Iterator[list[int]]:
    """Inside, the first Ctrl-C, SIGTERM or hang-up ends training after the present step; a second one ends it at once.

    So does one during the first step, which may be compiling kernels, and of which nothing is worth saving. A run of which
    only the summary is missing has no step left, and goes on to its end. Yields a list of the signal numbers received.
    """
    caught: list[int] = []
    before: dict[int, Any] = {}
    first = trainer.epoch, trainer.step

    def stop(number: int, _: object) -> None:
        trainer.stop()
        caught.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)
        if (trainer.epoch, trainer.step) == first and not trainer.finished:
            raise _FirstStepEnded

    try:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no hang-up
            # nohup and `&` in a script want it ignored; None is the handler of a library in C, which could not be put back
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.getsignal(number)
                signal.signal(number, stop)
        yield caught
    except _FirstStepEnded:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _resume_advice(folder: RunFolder) -> Iterator[None]:
    """Add to an error that ends training how to resume the run."""
    try:
        yield
    except AnomalyError as error:
        kept = f"{folder.last} is as it was" if folder.last.exists() else "there is no checkpoint yet"
        look = f"; to look at the batch: {command_line('minires', 'replay', folder)}" if folder.anomaly.exists() else ""
        raise RunError(
            f"{error}. The run has ended there, and {kept}; a lower --lr is what helps most often{look}"
        ) from error
    except DataError as error:
        saved = "all that was learnt is saved" if folder.last.exists() else "nothing had been learnt yet"
        raise RunError(
            f"{error}. The run has stopped there, and {saved}; when that is mended, {_go_on(folder)}"
        ) from error
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise RunError(f"{error.strerror}{where}. When that is mended, {_go_on(folder)}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted at once, in the middle of a step; {_go_on(folder)}") from None


def _go_on(folder: RunFolder) -> str:
    """How to resume, for the end of a message."""
    return f"go on with: {command_line('minires', 'train', '--resume', folder)}"


def _where(trainer: Trainer) -> str:
    """The position of a run in words: after epoch 3, 17 of 156 steps into the next."""
    done = f"{trainer.progress.batches} of {plural(trainer.steps_in_epoch, 'step')}" if trainer.progress.batches else ""
    if not trainer.epoch:
        return f"after {done} of its first epoch" if done else "from the beginning"
    return f"after epoch {trainer.epoch}" + (f", {done} into the next" if done else "")


def _stopped(trainer: Trainer, folder: RunFolder, number: int) -> str:
    """The message after a signal."""
    name = "Interrupted" if number == signal.SIGINT else f"Stopped by {signal.Signals(number).name}"
    return f"{name} {_saved(trainer)}; {_go_on(folder)}"


def _saved(trainer: Trainer) -> str:
    return f"{_where(trainer)}; all of it is saved" if trainer.step else "before the first step"


def _unread(trainer: Trainer, folder: RunFolder) -> str:
    """The message after standard output was closed."""
    closed = "standard output was closed, as by head, before all was printed"
    if trainer.finished:
        return f"{closed}. The run is complete, and all of it is in {folder}"
    return f"{closed}, so the run has ended {_saved(trainer)}; {_go_on(folder)}"
