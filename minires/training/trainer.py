"""The training loop: epochs of steps, an evaluation after each, and callbacks that see everything go by."""

import time
from dataclasses import dataclass

from ..functional import cross_entropy
from ..tensor import Tensor, no_grad
from .metrics import Mean


class Callback:
    """Watches a training run. Every method may be left out."""

    def on_start(self, trainer):
        """Training is about to begin."""

    def on_epoch_start(self, trainer):
        """Epoch ``trainer.epoch + 1`` is about to begin."""

    def on_step(self, trainer, mean):
        """A step was taken; ``mean`` is the epoch's metrics.Mean so far."""

    def on_evaluation(self, trainer, split, mean):
        """A batch of ``split`` ("test" or "val") was evaluated; ``mean`` is the split's metrics.Mean so far."""

    def on_epoch(self, trainer, row):
        """An epoch is complete; ``row`` is its line in ``metrics.jsonl``, already the last of ``trainer.history``."""

    def on_end(self, trainer):
        """fit() is about to return, because all epochs are done or because stop() was called."""


@dataclass
class Trainer:
    """Trains a model: SGD steps over ``train_loader``, evaluated after each epoch.

    train_loader, test_loader, val_loader: as ``minires.data.Loader``: batches of (images (N, C, H, W), labels (N,)), a
    length and ``set_epoch``. schedule: its ``step()`` is called once a step; None for a constant learning rate. epochs:
    how many there are in all. What changes while it runs: the model, the optimizer, the schedule, ``epoch`` (complete
    ones), ``step`` (steps taken) and ``history`` (a row of metrics an epoch).

    >>> trainer = Trainer(model, train, test, optimizer, epochs=2)       # doctest: +SKIP
    >>> trainer.fit()[-1]["test_acc"]                                    # doctest: +SKIP
    0.71
    """

    model: object
    train_loader: object
    test_loader: object
    optimizer: object
    schedule: object = None
    epochs: int = 1
    label_smoothing: float = 0.0
    val_loader: object = None
    callbacks: tuple = ()
    epoch: int = 0
    step: int = 0

    def __post_init__(self):
        self.history = []
        self.stopping = False

    @property
    def finished(self):
        """Whether all epochs are complete."""
        return self.epoch >= self.epochs

    def stop(self):
        """Make fit() return after the step it is in. The epoch under way does not count: the last checkpoint stands."""
        self.stopping = True

    def fit(self):
        """Train the epochs that are left; return the history, one dict an epoch (see ``run_epoch``)."""
        self._tell("on_start")
        while not self.finished and not self.stopping:
            row = self.run_epoch()
            if row is None:
                break
            self.epoch += 1
            self.history.append(row)
            self._tell("on_epoch", row)
        self._tell("on_end")
        self.stopping = False
        return self.history

    def run_epoch(self):
        """Train one epoch and evaluate; return its metrics, or None when stop() was called on the way.

        seconds is the whole epoch; images_per_second counts its training alone. lr is that of the last step.
        """
        began = time.perf_counter()
        self._tell("on_epoch_start")
        self.model.train()
        self.train_loader.set_epoch(self.epoch)
        mean = Mean()
        for images, labels in self.train_loader:
            lr = self.optimizer.param_groups[0]["lr"]
            self.train_step(images, labels, mean)
            self._tell("on_step", mean)
            if self.stopping:
                return None
        trained = time.perf_counter()
        row = {"epoch": self.epoch + 1, "lr": lr, "train_loss": mean.loss, "train_acc": mean.accuracy}
        for split, loader in (("test", self.test_loader), ("val", self.val_loader)):
            if loader is None:
                continue
            result = evaluate(self.model, loader, lambda m, split=split: self._evaluated(split, m))
            if self.stopping:
                return None
            row |= {f"{split}_loss": result.loss, f"{split}_acc": result.accuracy}
        row["seconds"] = time.perf_counter() - began
        row["images_per_second"] = mean.images / (trained - began)
        return row

    def train_step(self, images, labels, mean):
        """One step: forward, backward, update; counts the batch in ``mean``."""
        logits = self.model(Tensor(images))
        loss = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        mean.add(loss.item(), logits.numpy(), labels)

    def _evaluated(self, split, mean):
        self._tell("on_evaluation", split, mean)
        return not self.stopping

    def _tell(self, event, *args):
        for callback in self.callbacks:
            getattr(callback, event)(self, *args)


def evaluate(model, loader, on_batch=None, mean=None):
    """Loss and accuracy of ``model`` over ``loader``, a metrics.Mean: in eval mode, nothing recorded, no smoothing.

    on_batch(mean) is called after each batch; it stops the evaluation by returning False. mean: where to count, such as
    a metrics.Confusion. Afterwards every module is in the mode it was in.
    """
    modes = [(module, module.training) for module in model.modules()]
    mean = Mean() if mean is None else mean
    model.eval()
    try:
        with no_grad():
            for images, labels in loader:
                logits = model(Tensor(images))
                mean.add(cross_entropy(logits, labels).item(), logits.numpy(), labels)
                if on_batch is not None and on_batch(mean) is False:
                    break
    finally:
        for module, training in modes:
            module.training = training
    return mean
