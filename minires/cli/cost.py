"""What a run will cost: ``minires train --dry-run``, and the refusal of a run for which there is no memory."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, plural

if TYPE_CHECKING:
    from ..nn import Module
    from ..training import Recipe, Trainer
    from .display import PlainConsole

FEW = 8, 16  # images in the steps that tell how much memory a step takes
LARGE = 1 << 20  # values in a batch, from which memory is looked at before a run begins
SLOW = 0.5  # seconds of a call, from which one is enough
CALLS = 8  # that are timed of a quicker one
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """Bytes of a step: what any number of images takes, and each image more."""

    fixed: float
    per_image: float

    def of(self, images: int) -> float:
        return self.fixed + images * self.per_image

    def most_images(self, available: float) -> int:
        """The images in the largest batch that fits."""
        return max(0, int((available - self.fixed) / self.per_image))


def memory_of(model: Module, image_shape: tuple[int, ...]) -> Memory:
    """Measured in two steps of few images on a copy of the model. image_shape: (C, H, W)."""
    from ..kernels.runtime.memory_pool import Arena, using
    from ..random import get_rng_state, set_rng_state
    from ..recorded import RecordedStep, recording

    model, used, drawn = copy.deepcopy(model), [], get_rng_state()
    state = sum(p.data.nbytes * (2 if p.requires_grad else 1) for p in model.parameters())  # weights and velocities
    step = RecordedStep(model.train())
    for images in FEW:
        batch = np.zeros((images, *image_shape[1:], image_shape[0]), np.float32).transpose(0, 3, 1, 2)
        arena = Arena()
        with using(arena), recording(False):
            step(batch, np.zeros(images, np.int64))
        used.append(arena.most_used + batch.nbytes)
    set_rng_state(drawn)  # dropout draws, and the run's draws must not depend on this
    per_image = max(1.0, (used[1] - used[0]) / (FEW[1] - FEW[0]))
    return Memory(max(0.0, used[0] - FEW[0] * per_image) + state, per_image)


def available_memory() -> int | None:
    """Bytes that a process can still get, of the system or its control group. None where the system does not say."""
    found = []
    for line in _lines(MEMINFO):
        if line.startswith("MemAvailable:"):
            found.append(1024 * int(line.split()[1]))
    limit, used = (_lines(CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit and used and limit[0].isdecimal() and used[0].isdecimal():
        cached = [line.split()[1] for line in _lines(CGROUP / "memory.stat") if line.startswith("inactive_file ")]
        found.append(int(limit[0]) - int(used[0]) + sum(map(int, cached)))  # files in memory that make way for others
    return min(found, default=None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def check_memory(trainer: Trainer, available: int | None = None) -> Memory:
    """The memory of a step. Raises ConfigError, with the batch that would fit, if there is not enough."""
    images = _batch(trainer)
    height, width, channels = trainer.train_loader.dataset.image_shape
    with trainer.switches() if trainer.switches is not None else nullcontext():
        memory = memory_of(trainer.model, (channels, height, width))
    available = available_memory() if available is None else available
    if available is not None and memory.of(images) > available:
        fits = memory.most_images(available)
        way_out = f"--batch-size {fits} would fit" if fits > 1 else "no batch would fit: choose a smaller network"
        raise ConfigError(
            f"a step with {plural(images, 'image')} takes {_bytes(memory.of(images))} of memory, and {_bytes(available)} are "
            f"free here: {way_out}"
        )
    return memory


def _batch(trainer: Trainer) -> int:
    """The images of a step."""
    return min(trainer.train_loader.batch_size, len(trainer.train_loader.dataset))


def refuse_what_does_not_fit(trainer: Trainer) -> None:
    """``check_memory`` of a run whose batches are large; of others it is not worth the time."""
    if _batch(trainer) * math.prod(trainer.train_loader.dataset.image_shape) > LARGE:
        check_memory(trainer)


def preview(trainer: Trainer, recipe: Recipe, console: PlainConsole) -> None:
    """Print what the run would cost, from a few steps here. The trainer is of no use afterwards."""
    from ..training.views import views
    from .display import duration, pairs, parameters, spinner

    with spinner(console, "looking at memory"):
        memory = check_memory(trainer)
    macs = _macs(trainer)
    with recipe.switches(), spinner(console, "timing a few steps"):
        reading = _reading_seconds(trainer)
        step = _step_seconds(trainer) + reading
        evaluation = _time(lambda: _evaluations(trainer)) + reading
    loader, images, steps = trainer.train_loader, _batch(trainer), trainer.total_steps
    tested = sum(len(own.dataset) for own in (trainer.test_loader, trainer.val_loader) if own is not None)
    per_epoch = len(loader) * step + tested / images * evaluation
    evaluations = -(-trainer.epochs // trainer.eval_every) + len(views(_last_images(trainer), trainer.tta)) - 1
    whole = steps * step + evaluations * tested / images * evaluation
    free = available_memory()
    console.print(
        pairs(
            [
                ("model", f"{recipe.model}, {parameters(trainer.model)}, {macs:,} multiply-adds for an image"),
                (
                    "memory",
                    f"{_bytes(memory.of(images))} for a step" + (f", {_bytes(free)} free" if free else ""),
                ),
                (
                    "step",
                    f"{1000 * step:.0f} ms for {plural(images, 'image')}, {images / step:,.0f} images/s",
                ),
                *([("reading", f"{1000 * reading:.0f} ms of a step, for its images")] if reading else []),
                (
                    "epoch",
                    f"{duration(per_epoch)} for {plural(len(loader), 'step')} and the evaluation of {tested:,} images",
                ),
                ("run", f"{duration(whole)} for {plural(trainer.epochs, 'epoch')}, {steps:,} steps"),
            ]
        )
    )


def _macs(trainer: Trainer) -> int:
    from ..lab.explain import explain

    images = _last_images(trainer)[:2]
    return explain(trainer.model, (images, np.zeros(len(images), np.int64)), gradients=False).macs


def _last_images(trainer: Trainer) -> NDArray[Any]:
    """A batch of the last epoch: images may be smaller in the first ones."""
    trainer.train_loader.set_epoch(trainer.epochs - 1)
    return next(iter(trainer.train_loader))[0]


def _time(make: Callable[[], Callable[[], object]]) -> float:
    """The seconds of a call: of a slow one, in which Python is a small part, without a recording; else the median of some."""
    from ..recorded import recording

    call = make()
    with recording(False):
        call()  # which compiles
        seconds = _timed(call)
    if seconds > SLOW:
        return seconds
    for _ in range(3):
        call()  # which record, and check the recording
    return statistics.median(_timed(call) for _ in range(CALLS))


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _step_seconds(trainer: Trainer) -> float:
    """The mean over the epochs, of which the first may have smaller images."""
    loader = trainer.train_loader
    sides = [loader.dataset_at(epoch).image_size for epoch in range(trainer.epochs)]
    seconds = {side: _time(partial(_steps, trainer, sides.index(side))) for side in set(sides)}
    return statistics.fmean(seconds[side] for side in sides)


def _reading_seconds(trainer: Trainer) -> float:
    """Of a batch of images that are read from files, by threads that the step then lacks; 0 of images in memory."""
    from ..data import MapDataset

    loader = copy.copy(trainer.train_loader)
    if not isinstance(loader.dataset, MapDataset):
        return 0.0
    loader.prefetch = 0
    loader.set_epoch(trainer.epochs - 1)
    batches, seconds = iter(loader), [0.0]
    while len(seconds) <= CALLS and sum(seconds) < SLOW:
        start = time.perf_counter()
        if next(batches, None) is None:
            break
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:] or seconds)


def _steps(trainer: Trainer, epoch: int) -> Callable[[], object]:
    """A function that does a training step with images as in that epoch."""
    from ..training import Mean

    trainer.train_loader.set_epoch(epoch)
    images, labels = next(iter(trainer.train_loader))
    trainer.model.train()
    mean = Mean()
    return lambda: trainer.train_step(images, labels, mean)


def _evaluations(trainer: Trainer) -> Callable[[], object]:
    from ..recorded import RecordedPrediction

    images = _last_images(trainer)
    predict = RecordedPrediction(trainer.model.eval())
    return lambda: predict(images)


def _bytes(number: float) -> str:
    """A number of bytes in words.

    >>> _bytes(3_210_000), _bytes(4.56e9)
    ('3 MB', '4.6 GB')
    """
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
