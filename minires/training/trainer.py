"""The training loop: epochs of steps with an evaluation after each, and callbacks that follow them."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..anomaly import all_finite
from ..data import Loader
from ..errors import AnomalyError, ConfigError, DataError
from ..functional import cross_entropy
from ..grad_mode import no_grad
from ..handle import structure
from ..interop import LoadReport
from ..nn import Module
from ..optim import LRSchedule, Optimizer
from ..random import get_rng_state, set_rng_state
from ..recorded import RecordedPrediction, RecordedStep
from ..tensor import Tensor
from .averaging import WeightAverage
from .diagnosis import QUIET, Batch, diagnose
from .metrics import Mean
from .progress import is_watched, print_epoch
from .views import check_views, predictions


class Callback:
    """Base class of callbacks. Each method is called at one event of training, and does nothing unless it is overridden."""

    def on_start(self, trainer: "Trainer") -> None:
        """Training begins."""

    def on_epoch_start(self, trainer: "Trainer") -> None:
        """Epoch ``trainer.epoch + 1`` begins or continues."""

    def on_step(self, trainer: "Trainer", mean: Mean) -> None:
        """A step is complete; ``mean`` is the epoch's metrics.Mean so far."""

    def on_evaluation(self, trainer: "Trainer", split: str, mean: Mean) -> None:
        """A batch of ``split`` ("test" or "val") is evaluated; ``mean`` is the metrics.Mean of the split so far."""

    def on_epoch(self, trainer: "Trainer", row: dict[str, Any]) -> None:
        """An epoch is complete; ``row``, its metrics, is the last of ``trainer.history``."""

    def on_anomaly(self, trainer: "Trainer", error: AnomalyError, batch: Batch) -> None:
        """Loss or gradients of ``batch`` (a diagnosis.Batch) are not finite; ``error`` is about to be raised."""

    def on_end(self, trainer: "Trainer") -> None:
        """fit() is about to return, because all epochs are complete or stop() was called, or to raise for want of an image."""


@dataclass
class Progress:
    """The progress of the present epoch. Empty between two epochs."""

    batches: int = 0  # trained on so far
    lr: float = math.nan  # of the last step
    seconds: float = 0.0  # of training so far
    mean: Mean = field(default_factory=Mean)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**state, "mean": Mean(**state["mean"])})


@dataclass
class Trainer:
    """Trains a classifier by optimizer steps over ``train_loader``, and evaluates it after each epoch.

    train_loader, test_loader, val_loader: as ``minires.data.Loader``: iterables of (images (N, C, H, W), labels (N,)) with
    a length and ``set_epoch``. schedule: its ``step()`` is called after every step; None for a constant learning rate.
    epochs: their total number; steps: in place of it the number of steps, of which the last epoch may have fewer. switches:
    returns a context manager for ``fit``, such as ``Recipe.switches``; None to run in the caller's context. The state of
    training: the model, the optimizer, the schedule, ``average`` (of the weights, or None), the random generator, ``epoch``
    (complete epochs), ``progress`` (in the next epoch), ``step`` (steps taken), ``history`` (a row of metrics for each epoch).
    A trainer with the same state continues to the same bits: ``state_dict`` has all of it but the model's, the optimizer's and
    the average's, which have a state_dict of their own, and the history. eval_every: epochs from one evaluation to the
    next. After the last epoch there always is one, which has the accuracy by tta, a name of ``views.VIEWS``, too. loaded: what
    became of the weights that the model began with, or None.

    >>> trainer = Trainer(model, train, test, optimizer, epochs=2)       # doctest: +SKIP
    >>> trainer.fit()[-1]["test_acc"]                                    # doctest: +SKIP
    0.71
    """

    model: Module
    train_loader: Loader
    test_loader: Loader
    optimizer: Optimizer
    schedule: LRSchedule | None = None
    epochs: int = 1
    steps: int | None = None
    label_smoothing: float = 0.0
    val_loader: Loader | None = None
    callbacks: tuple[Callback, ...] = ()
    epoch: int = 0
    step: int = 0
    switches: Callable[[], AbstractContextManager[object]] | None = None
    average: WeightAverage | None = None
    tta: str = "none"
    eval_every: int = 1
    loaded: LoadReport | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            self.epochs = -(-self.steps // len(self.train_loader))
        self.history: list[dict[str, Any]] = []
        self.progress = Progress()
        self.stopping = False
        self._step: RecordedStep | None = None
        self._known_buffers: tuple[int, Module | None, list[NDArray[Any]]] = -1, None, []
        check_views(self.tta)
        if self.eval_every < 1:
            raise ConfigError(f"Trainer: eval_every is a number of epochs from 1 up, not {self.eval_every}")

    @property
    def finished(self) -> bool:
        """Whether all epochs, or all steps, are complete."""
        return self.epoch >= self.epochs

    @property
    def total_steps(self) -> int:
        """The steps of the whole run."""
        return self.epochs * len(self.train_loader) if self.steps is None else self.steps

    @property
    def steps_in_epoch(self) -> int:
        """The steps of the present epoch, which are fewer in the last one of a run whose length is given in steps."""
        whole = len(self.train_loader)
        return whole if self.steps is None else min(whole, self.steps - self.epoch * whole)

    def stop(self) -> None:
        """Make fit() return after the present step. Another fit(), or a Trainer that loads the state, continues from there."""
        self.stopping = True

    def state_dict(self) -> dict[str, Any]:
        """The state of training as plain values: what a checkpoint needs besides model, optimizer, average and history."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "progress": asdict(self.progress) if self.progress.batches else None,
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "random": get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned. The model and the optimizer must have been loaded already."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.progress = Progress.from_dict(state["progress"]) if state["progress"] else Progress()
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        set_rng_state(state["random"])

    def fit(self, progress: bool | None = None) -> list[dict[str, Any]]:
        """Train the remaining epochs; return the history, a dict for each epoch (see ``run_epoch``).

        progress: whether to print a line on standard error after each epoch; by default in a terminal and in a notebook.
        Raises AnomalyError when a loss or a gradient is not finite, before the weights are updated with it.
        """
        shown = is_watched() if progress is None else progress
        with self.switches() if self.switches is not None else nullcontext():
            self._notify("on_start")
            while not self.finished and not self.stopping:
                try:
                    row = self.run_epoch()
                except DataError:  # an image that is gone or damaged: callbacks save what has been learnt so far
                    self._notify("on_end")
                    raise
                if row is None:
                    break
                self.epoch += 1
                self.progress = Progress()
                self.history.append(row)
                self._notify("on_epoch", row)
                if shown:
                    print_epoch(row, self.epochs)
            self._notify("on_end")
        self.stopping = False
        return self.history

    def run_epoch(self) -> dict[str, Any] | None:
        """Train the rest of an epoch and evaluate; return its metrics, or None when stop() was called in between.

        The metrics: epoch, lr (of the last step), train_loss, train_acc, test_loss, test_acc, val_loss and val_acc (with a
        val_loader; these four only of an epoch with an evaluation), seconds (of the epoch with its evaluation),
        images_per_second (of training alone).
        """
        progress = self.progress
        began = time.perf_counter() - progress.seconds
        self._notify("on_epoch_start")
        self.model.train()
        self.train_loader.set_epoch(self.epoch)
        for images, labels in islice(self.train_loader, progress.batches, self.steps_in_epoch):
            progress.lr = self.optimizer.param_groups[0]["lr"]
            self.train_step(images, labels, progress.mean)
            progress.batches += 1
            progress.seconds = time.perf_counter() - began
            self._notify("on_step", progress.mean)
            if self.stopping:
                return None
        mean, last = progress.mean, self.epoch + 1 >= self.epochs
        row = {"epoch": self.epoch + 1, "lr": progress.lr, "train_loss": mean.loss, "train_acc": mean.accuracy}
        for split, loader in (("test", self.test_loader), ("val", self.val_loader)):
            if loader is None or not (last or (self.epoch + 1) % self.eval_every == 0):
                continue
            tta, plain = self.tta if last else "none", Mean()
            with self.predicting():
                views = evaluate(self.model, loader, partial(self._evaluated, split), tta=tta, plain=plain)
                if self.stopping:
                    return None
                if not plain.images:
                    raise DataError(
                        f"the {split} loader gave no image: it is gone through after each epoch, as a Loader can be"
                    )
                if not (math.isfinite(plain.loss) and math.isfinite(views.loss)):
                    self._find_anomaly_in_evaluation(split, loader)
            row |= {f"{split}_loss": plain.loss, f"{split}_acc": plain.accuracy}
            if tta != "none":
                row |= {f"{split}_{tta}_loss": views.loss, f"{split}_{tta}_acc": views.accuracy}
        row["seconds"] = time.perf_counter() - began
        row["images_per_second"] = mean.images / progress.seconds
        return row

    def predicting(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that the run is about: those that are trained, or their averages."""
        average = self.average
        return average.exchanged() if average is not None and average.predicts else nullcontext()

    def train_step(self, images: NDArray[np.floating], labels: NDArray[np.integer], mean: Mean) -> None:
        """One step: forward, backward, update. Adds the batch to ``mean``.

        images: (N, C, H, W) float32 or float64, labels: (N,) integers. Raises AnomalyError as ``fit`` does.
        """
        rng_state, statistics = get_rng_state(), [(b, b.copy()) for b in self._buffers()]
        with np.errstate(**QUIET):
            try:
                loss, logits = self._gradients(images, labels)
                wrong = self._not_finite(loss)
                if wrong:
                    self._raise_anomaly(wrong, Batch(images, labels, rng_state, self.label_smoothing))
            except AnomalyError:
                for buffer, before in statistics:  # else they would not be finite for ever
                    buffer[...] = before
                raise
            self.optimizer.step()
        if self.average is not None:  # before anything is counted: it may be interrupted
            self.average.step((self.step + 1) / self.total_steps)
        right = mean.correct
        mean.add(loss.item(), logits, labels)
        if self.schedule is not None:
            self.schedule.step(1 - (mean.correct - right) / len(labels))
        self.step += 1

    def _buffers(self) -> list[NDArray[Any]]:
        """The model's buffers: batch norm's running statistics."""
        version, model, buffers = self._known_buffers
        if version != structure.version or model is not self.model:
            buffers = list(self.model.buffers())
            self._known_buffers = structure.version, self.model, buffers
        return buffers

    def _gradients(self, images: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Forward and backward pass: the loss, a 0-d array, and the logits (N, K)."""
        if self._step is None or self._step.model is not self.model:
            self._step = RecordedStep(self.model)
        self._step.label_smoothing = self.label_smoothing
        self.optimizer.zero_grad()  # of parameters that are not the model's too
        return self._step(images, labels)

    def _not_finite(self, loss: NDArray[Any]) -> str | None:
        """A description of the loss or the gradient that is not finite after a backward pass, or None."""
        if not all_finite(loss):
            return f"the loss is {loss.item()}"
        named = [(name, p) for name, p in self.model.named_parameters() if p.grad_to_read is not None]
        for dtype in {p.dtype for _, p in named}:
            alike = [(name, p.grad_to_read) for name, p in named if p.dtype == dtype]
            for wrong in np.flatnonzero(kernels.not_finite([grad for _, grad in alike])):
                return f"the gradient of {alike[wrong][0]} is not finite"
        return None

    def _find_anomaly_in_evaluation(self, split: str, loader: Loader) -> None:
        """Run the batches of a loader again to find the one with a loss that is not finite, and raise its AnomalyError."""
        for images, labels in loader:
            batch = Batch(images, labels, get_rng_state(), 0.0, training=False)
            if diagnose(self.model, batch) is not None:
                self._raise_anomaly(f"the loss on the {split} images is not finite", batch)

    def _raise_anomaly(self, wrong: str, batch: Batch) -> NoReturn:
        """Raise an AnomalyError that says where ``wrong`` comes from."""
        found = diagnose(self.model, batch) or AnomalyError("no single operation did it: a sum of gradients overflowed")
        when = f"step {self.step + 1}" if batch.training else f"the evaluation after step {self.step}"
        error = AnomalyError(f"in {when} (epoch {self.epoch + 1}) {wrong}. {found}", found.phase, found.op, found.path)
        self._notify("on_anomaly", error, batch)
        raise error from None

    def _evaluated(self, split: str, mean: Mean) -> bool:
        self._notify("on_evaluation", split, mean)
        return not self.stopping

    def _notify(self, event: str, *args: Any) -> None:
        """Call a method of every callback."""
        for callback in self.callbacks:
            getattr(callback, event)(self, *args)


def evaluate(
    model: Module,
    loader: Loader,
    on_batch: Callable[[Mean], object] | None = None,
    mean: Mean | None = None,
    tta: str = "none",
    plain: Mean | None = None,
) -> Mean:
    """The metrics.Mean of ``model`` over ``loader``, in evaluation mode, without gradients and without label smoothing.

    on_batch(mean) is called after each batch; it stops the evaluation by returning False. mean: the Mean to add to, such as
    a metrics.Confusion. tta: the views of an image whose predictions are averaged, a name of ``views.VIEWS``; plain: a Mean to
    add to what the image alone gives. Afterwards every module is in its previous mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    mean = Mean() if mean is None else mean
    model.eval()
    try:
        predict = RecordedPrediction(model)
        with no_grad(), np.errstate(**QUIET):
            for images, labels in loader:
                alone, averaged = predictions(lambda view: predict(view).numpy(), images, tta)
                for own, logits in ((mean, averaged), (plain, alone)):
                    if own is not None:
                        own.add(cross_entropy(Tensor(logits), labels).item(), logits, labels)
                if on_batch is not None and on_batch(mean) is False:
                    break
    finally:
        for module, training in modes:
            module.training = training
    return mean
