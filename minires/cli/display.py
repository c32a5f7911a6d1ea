"""The display of a training run: a live line in a terminal, plain lines elsewhere. Both print a row for each epoch."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.segment import Segment
from rich.text import Text

from ..errors import MiniresError, plural, printable
from ..nn import Module
from ..training import Callback, Mean, Recipe, RunFolder, Trainer
from .paths import command_line

GOOD, DIM, NAME = "bold green", "dim", "cyan"
PLAIN_EVERY = 10.0  # seconds between two lines of progress outside a terminal


class PlainConsole(Console):
    """Shows texts as they are: markup and names of emoji are not interpreted, control characters are escaped.

    on_closed: is called when the reader of the output has ended (``minires train | head``), instead of raising an error.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        self.on_closed: Callable[[], object] | None = None
        self.closed = False

    def on_broken_pipe(self) -> None:
        """Discard all further output. Raises MiniresError (click would end silently after a
        BrokenPipeError), but on standard error, where nobody would read of it."""
        self.closed = self.quiet = True
        with suppress(OSError, ValueError):  # a stream that has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())  # else Python fails as it flushes the stream at its end
            os.close(nowhere)
        if self.on_closed is not None:
            self.on_closed()
        elif not self.stderr:
            raise MiniresError("standard output was closed, as by head, before all was printed")

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, keep="\n"), **options)  # before widths are measured

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, keep="\n"), style, control)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; tables are fitted to a terminal, and lines of text left to it, so that commands can be copied whole."""
        if not self.is_terminal or all(isinstance(item, (str, Text)) for item in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)


def console(stderr: bool = False) -> PlainConsole:
    """The Console that commands print to."""
    return PlainConsole(stderr=stderr)


def duration(seconds: float) -> str:
    """A duration in words.

    >>> duration(8.04), duration(68.2), duration(3720)
    ('8.0 s', '1 min 08 s', '1 h 02 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def compiled(done: int, total: int | None) -> str:
    """The number of kernels compiled so far in words.

    >>> compiled(12, 71), compiled(12, None)
    ('12 of 71 kernels compiled', '12 kernels compiled')
    """
    return f"{done} kernels compiled" if total is None else f"{min(done, total)} of {total} kernels compiled"


def percent(share: float) -> str:
    """A fraction as text, in percent."""
    return f"{100 * share:.2f} %"


def pairs(rows: Iterable[tuple[str, str | Text]]) -> Text:
    """Names and values as a Text, one pair in a line."""
    rows = [(name, printable(value) if isinstance(value, str) else value) for name, value in rows]
    width = max(len(name) for name, _ in rows)
    return Text("\n").join(Text.assemble("  ", (name.ljust(width + 2), DIM), value) for name, value in rows)


def accuracy_line(accuracy: float) -> Text:
    """The line with the test accuracy."""
    return Text.assemble(("test accuracy ", "bold"), (percent(accuracy), GOOD))


def tta_line(tta: str, accuracy: float) -> Text:
    """The line with the accuracy of test-time augmentation, which stands below the plain one."""
    return Text.assemble((f"with --tta {tta} ", DIM), percent(accuracy))


@contextmanager
def bar(out: Console, what: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar during the block, in a terminal; yields ``advance(steps=1, what=None)``.

    What is printed to standard output meanwhile stands above a bar there, and is left alone by one on standard error.
    """
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30, style="bright_black", complete_style="cyan", finished_style="cyan"),
        console=out,
        transient=True,
        redirect_stdout=not out.stderr,
        disable=not is_live(out),
    ) as progress:
        task = progress.add_task(what, total=total)

        def advance(steps: int = 1, what: str | None = None) -> None:
            progress.update(task, advance=steps, description=what)

        yield advance


def spinner(out: Console, what: str, quiet: bool = False) -> AbstractContextManager[object]:
    """A spinner with a description during the block, in a terminal."""
    return out.status(Text(what, DIM), spinner_style=NAME) if is_live(out) and not quiet else nullcontext()


def is_live(out: Console) -> bool:
    """Whether lines can be overwritten: in a terminal that is not dumb."""
    return out.is_terminal and not out.is_dumb_terminal


class Throughput:
    """Steps and images per second over the last steps of an epoch, and from them the time left."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.recent: deque[tuple[float, int]] = deque(maxlen=32)  # (seconds, images) at the last steps
        self.step_rate: float | None = None
        self.image_rate: float | None = None
        self.evaluation: float | None = None  # seconds for the evaluations of an epoch

    def start_epoch(self) -> None:
        self.recent.clear()
        self.began = time.perf_counter()
        self.steps = self.trainer.progress.batches  # a resumed run may begin in the middle

    def step(self, images: int) -> None:
        """Count a step; images: those of the epoch so far."""
        self.steps += 1
        self.recent.append((time.perf_counter(), images))
        if len(self.recent) > 2:
            (t0, images0), (t1, images1) = self.recent[1], self.recent[-1]  # the first step may have compiled
            self.step_rate = (len(self.recent) - 2) / (t1 - t0)
            self.image_rate = (images1 - images0) / (t1 - t0)

    def end_epoch(self) -> None:
        self.evaluation = time.perf_counter() - (self.recent[-1][0] if self.recent else self.began)

    @property
    def time_left(self) -> float | None:
        """Seconds until the last epoch is evaluated; None before they can be estimated."""
        if self.step_rate is None:
            return None
        trainer = self.trainer
        epochs = trainer.epochs - trainer.epoch
        whole = len(trainer.train_loader)
        steps = (
            (trainer.epochs * whole if trainer.steps is None else trainer.steps) - trainer.epoch * whole - self.steps
        )
        evaluation = self.evaluation
        if evaluation is None:  # a forward pass is about a third of a step
            loaders = [loader for loader in (trainer.test_loader, trainer.val_loader) if loader is not None]
            evaluation = sum(map(len, loaders)) / (3 * self.step_rate)
        return steps / self.step_rate + epochs * evaluation


def watch(out: Console) -> PlainDisplay:
    """The display for the output: live in a terminal, plain elsewhere."""
    return LiveDisplay(out) if is_live(out) else PlainDisplay(out)


class PlainDisplay(Callback):
    """A line for each epoch, and one every few seconds in between."""

    def __init__(self, out: Console) -> None:
        self.out = out

    def on_start(self, trainer: Trainer) -> None:
        self.throughput = Throughput(trainer)
        self.columns = [
            ("epoch", 7),
            ("lr", 7),
            ("train loss", 10),
            ("train acc", 9),
            ("test loss", 9),
            ("test acc", 8),
        ]
        if trainer.val_loader is not None:
            self.columns.append(("val acc", 8))
        self.columns += [("img/s", 6), ("time", 7)]
        self.gap = " " if trainer.val_loader is not None else "  "  # so that 80 characters are enough
        self.out.print(Text(self.gap.join(name.rjust(width) for name, width in self.columns), DIM))
        self.printed = time.perf_counter()

    def on_epoch_start(self, trainer: Trainer) -> None:
        self.throughput.start_epoch()

    def on_step(self, trainer: Trainer, mean: Mean) -> None:
        self.throughput.step(mean.images)
        if time.perf_counter() - self.printed >= PLAIN_EVERY:
            self.printed = time.perf_counter()
            share = self.throughput.steps / trainer.steps_in_epoch
            self.out.print(f"epoch {trainer.epoch + 1}/{trainer.epochs}, {share:.0%}: {self.status(mean)}")

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self.throughput.end_epoch()
        values = {
            "epoch": f"{row['epoch']}/{trainer.epochs}",
            "lr": f"{row['lr']:.3g}",
            "train loss": f"{row['train_loss']:.4f}",
            "train acc": percent(row["train_acc"]),
            "test loss": f"{row['test_loss']:.4f}" if "test_loss" in row else "–",
            "test acc": percent(row["test_acc"]) if "test_acc" in row else "–",
            "val acc": percent(row["val_acc"]) if "val_acc" in row else "–",
            "img/s": f"{row['images_per_second']:,.0f}",
            "time": f"{row['seconds']:.1f} s" if row["seconds"] < 999 else f"{row['seconds'] / 60:.0f} min",
        }
        best = row.get("test_acc", -1.0) >= max(r.get("test_acc", 0.0) for r in trainer.history)
        line = Text()
        for i, (name, width) in enumerate(self.columns):
            style = GOOD if name == "test acc" and best else DIM if name in ("lr", "img/s", "time") else ""
            line.append(self.gap * (i > 0) + values[name].rjust(width), style)
        self.out.print(line)
        self.printed = time.perf_counter()

    def on_compiling(self, done: int, total: int | None) -> None:
        """Show how many kernels are compiled so far."""
        if time.perf_counter() - self.printed >= PLAIN_EVERY:
            self.printed = time.perf_counter()
            self.out.print(compiled(done, total))

    def close(self) -> None:
        """Restore the terminal, also after an error."""

    def status(self, mean: Mean) -> str:
        """Loss and accuracy of the present epoch, speed and remaining time."""
        text = f"loss {mean.loss:.3f}  acc {100 * mean.accuracy:.1f} %"
        if self.throughput.time_left is not None:
            text += f"  {self.throughput.image_rate:,.0f} images/s  {duration(self.throughput.time_left)} left"
        return text


class LiveDisplay(PlainDisplay):
    """The rows of PlainDisplay, with a live line of progress below the last."""

    def on_start(self, trainer: Trainer) -> None:
        super().on_start(trainer)
        self.evaluated = "", 0  # the split, and its batches so far
        self.progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=18, style="bright_black", complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.fields[status]}", markup=False),
            console=self.out,
            transient=True,  # it is replaced by the epoch's row; other output appears above it
            refresh_per_second=8,
        )
        self.task = self.progress.add_task("", total=1, status="")
        self.progress.start()

    def on_epoch_start(self, trainer: Trainer) -> None:
        super().on_epoch_start(trainer)
        self.update(
            description=f"{trainer.epoch + 1}/{trainer.epochs}".rjust(self.columns[0][1]),
            completed=self.throughput.steps,
            total=trainer.steps_in_epoch,
            status="first step" if not trainer.step else "",
        )

    def on_step(self, trainer: Trainer, mean: Mean) -> None:
        self.throughput.step(mean.images)
        status = self.status(mean)
        self.update(advance=1, status=f"{status}  stopping" if trainer.stopping else status)

    def on_evaluation(self, trainer: Trainer, split: str, mean: Mean) -> None:
        loader = trainer.test_loader if split == "test" else trainer.val_loader
        name = {"test": "testing", "val": "validating"}[split]
        before, batches = self.evaluated
        self.evaluated = split, batches + 1 if before == split else 1
        total = len(loader) if loader is not None else None
        self.update(completed=self.evaluated[1], total=total, status=f"{name}  acc {100 * mean.accuracy:.1f} %")

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self.evaluated = "", 0
        super().on_epoch(trainer, row)

    def on_end(self, trainer: Trainer) -> None:
        self.close()

    def on_compiling(self, done: int, total: int | None) -> None:
        self.update(status=f"first step  {compiled(done, total)}")

    def close(self) -> None:
        if hasattr(self, "progress"):
            self.progress.stop()

    def update(self, **changes: Any) -> None:
        """Change the line of progress."""
        self.progress.update(self.task, **changes)


def print_header(out: Console, trainer: Trainer, recipe: Recipe, folder: RunFolder) -> None:
    """Print what is trained, on what data and how."""
    from .. import __version__, kernels

    train, test = trainer.train_loader.dataset, trainer.test_loader.dataset
    images = f"{len(train):,} training, {len(test):,} test"
    if trainer.val_loader is not None:
        images += f", {len(trainer.val_loader.dataset):,} validation"
    threads = kernels.get_num_threads()
    off = ["op by op"] * (not recipe.fusion) + ["no Winograd"] * (not recipe.winograd)
    out.print(Text.assemble(("minires ", "bold"), (__version__, DIM)))
    out.print(
        pairs(
            [
                ("model", Text.assemble((recipe.model, NAME), f", {parameters(trainer.model)}")),
                *([("weights", _weights(trainer, recipe))] if recipe.weights is not None else []),
                *([("frozen", ", ".join(recipe.freeze))] if recipe.freeze else []),
                ("data", Text.assemble((recipe.dataset, NAME), f": {images} images, {train.num_classes} classes")),
                (
                    "training",
                    f"{_length(trainer)} of "
                    f"{plural(recipe.batch_size, 'image')}, {recipe.schedule}, {_rates(recipe)}, "
                    f"{plural(threads, 'thread')}",
                ),
                *([("kernels", ", ".join(off))] if off else []),
                ("folder", str(folder)),
            ]
        )
    )
    out.print()


def parameters(model: Module) -> str:
    """The number of a network's parameters in words: 75,290 parameters, of which 56,074 are trained."""
    trained, all_ = (sum(p.size for p in model.parameters() if p.requires_grad or every) for every in (False, True))
    return f"{all_:,} parameters" + (f", of which {trained:,} are trained" if trained < all_ else "")


def _weights(trainer: Trainer, recipe: Recipe) -> str:
    """What the run began with."""
    kept = trainer.loaded.kept if trainer.loaded is not None else []
    return f"{recipe.weights}" + (f", but for a new {' and '.join(kept)}" if kept else "")


def _rates(recipe: Recipe) -> str:
    """The learning rate in words, and that of each role with a factor: lr 0.005 (head 0.05)."""
    others = ", ".join(f"{role} {recipe.lr * factor:g}" for role, factor in recipe.lr_factors.items())
    return f"lr {recipe.lr:g}" + (f" ({others})" if others else "")


def _length(trainer: Trainer) -> str:
    """The length of a run in words."""
    if trainer.steps is not None:
        return f"{trainer.steps:,} steps"
    return f"{trainer.epochs} × {plural(len(trainer.train_loader), 'step')}"


def print_result(out: Console, trainer: Trainer, folder: RunFolder, quiet: bool) -> None:
    """Print the accuracy, and where the files are."""
    row = trainer.history[-1]
    result = accuracy_line(row["test_acc"])
    if quiet:
        out.print(result, Text(f"({folder})"))
        return
    seconds = sum(row["seconds"] for row in trainer.history)
    out.print()
    out.print(result, Text(f"after {plural(len(trainer.history), 'epoch')}, {duration(seconds)}", DIM))
    if f"test_{trainer.tta}_acc" in row:
        out.print(tta_line(trainer.tta, row[f"test_{trainer.tta}_acc"]))
    rows = [("curves", str(folder.curves))] if folder.curves.exists() else []
    rows.append(("weights", str(folder.last)))
    if trainer.val_loader is not None:
        rows.append(("best on validation", str(folder.best)))
    out.print(pairs([*rows, ("by class", command_line("minires", "eval", folder))]))
