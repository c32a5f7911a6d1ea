"""What a run reports: running means while it goes, one JSON line an epoch, a summary at the end."""

import json
import math
import os
from pathlib import Path

import numpy as np

from ..errors import DataError
from .checkpoint import atomic_write


class Mean:
    """The mean loss and the accuracy over all images seen so far.

    >>> mean = Mean()
    >>> mean.add(loss=2.0, logits=np.array([[0.1, 0.9], [0.8, 0.2]]), labels=np.array([1, 1]))
    >>> mean.loss, mean.accuracy, mean.images
    (2.0, 0.5, 2)
    """

    def __init__(self):
        self.total, self.correct, self.images = 0.0, 0, 0

    def add(self, loss, logits, labels):
        """Count a batch: its mean loss, its logits (N, classes) and its labels (N,)."""
        self.total += loss * len(labels)
        self.correct += int(np.count_nonzero(logits.argmax(axis=1) == labels))
        self.images += len(labels)

    @property
    def loss(self):
        return self.total / self.images if self.images else math.nan

    @property
    def accuracy(self):
        return self.correct / self.images if self.images else math.nan


class Confusion(Mean):
    """A Mean that also counts which class was taken for which: ``counts[label, prediction]``."""

    def __init__(self, classes):
        super().__init__()
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, loss, logits, labels):
        super().add(loss, logits, labels)
        np.add.at(self.counts, (labels, logits.argmax(axis=1)), 1)


def append_metrics(path, row):
    """Add one epoch's row to a ``metrics.jsonl`` and flush it to disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(_json(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(path):
    """The rows of a ``metrics.jsonl``, one dict an epoch. Raises DataError for a line that is no JSON object."""
    rows = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}, is no JSON object: {line[:40]!r}") from error
    return rows


def write_summary(path, summary):
    """Write a ``summary.json``, atomically."""
    with atomic_write(path, "w") as file:
        file.write(_json(summary, indent=2) + "\n")


def _json(values, indent=None):
    """JSON text with six significant digits; a loss that is not finite becomes null, since JSON has no NaN."""

    def plain(value):
        if isinstance(value, float):
            return float(f"{value:.6g}") if math.isfinite(value) else None
        return value

    return json.dumps({name: plain(value) for name, value in values.items()}, indent=indent, allow_nan=False)
