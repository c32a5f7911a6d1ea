"""Metrics: running means of loss and accuracy, ``metrics.jsonl`` with a line for each epoch, and ``summary.json``."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import atomic_write, fsync_folder, name_in_errors


@dataclass
class Mean:
    """The mean loss and the accuracy over all images so far.

    >>> mean = Mean()
    >>> mean.add(loss=2.0, logits=np.array([[0.1, 0.9], [0.8, 0.2]]), labels=np.array([1, 1]))
    >>> mean.loss, mean.accuracy, mean.images
    (2.0, 0.5, 2)
    """

    total: float = 0.0  # of the losses
    correct: int = 0
    images: int = 0

    def add(self, loss: float, logits: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        """Add a batch: its mean loss, its logits (N, classes) and its labels (N,)."""
        self.total += loss * len(labels)
        self.correct += int(np.count_nonzero(logits.argmax(axis=1) == labels))
        self.images += len(labels)

    @property
    def loss(self) -> float:
        """The mean loss of an image; NaN before the first."""
        return self.total / self.images if self.images else math.nan

    @property
    def accuracy(self) -> float:
        """The fraction of images classified correctly; NaN before the first."""
        return self.correct / self.images if self.images else math.nan


class Confusion(Mean):
    """A Mean with a confusion matrix: ``counts[label, prediction]``, (classes, classes) int64."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, loss: float, logits: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        super().add(loss, logits, labels)
        np.add.at(self.counts, (labels, logits.argmax(axis=1)), 1)


def append_metrics(path: Path | str, row: dict[str, Any]) -> None:
    """Append one epoch's row to a ``metrics.jsonl`` and flush it to disk. After an error the file is unchanged."""
    line = (_json(row) + "\n").encode()
    with open(path, "ab", buffering=0) as file, name_in_errors(path):  # a buffer would be written again as it is closed
        before = file.tell()
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise
    if not before:
        fsync_folder(Path(path).parent)


def repair_metrics(path: Path | str, epochs: int) -> list[dict[str, Any]]:
    """Truncate a ``metrics.jsonl`` to the rows of the epochs 1 to ``epochs``, and return them.

    This removes a row, or part of one, that a killed run wrote after its last checkpoint. Raises DataError when one of the
    rows is missing or damaged, which no run leaves behind.
    """
    path = Path(path)
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows = []
    for epoch, line in enumerate(lines[:epochs], start=1):
        row = _row(line)
        complete = row is not None and row.get("epoch") == epoch and not math.isnan(column([row], "seconds")[0])
        if row is None or not complete or not line.endswith(b"\n"):
            raise DataError(
                f"{path}, line {epoch}, is not the row of epoch {epoch}: {line[:40].decode(errors='replace')!r}"
            )
        rows.append(row)
    if len(rows) < epochs:
        raise DataError(f"{path} has {len(rows)} rows, and the checkpoint beside it is of epoch {epochs}")
    if len(lines) > epochs:
        with atomic_write(path) as file:
            file.writelines(lines[:epochs])
    return rows


def _row(line: str | bytes) -> dict[str, Any] | None:
    """The dict in a line of JSON, or None."""
    try:
        return dict(json.loads(line, parse_int=_whole))
    except (ValueError, TypeError, RecursionError):
        return None


def _whole(text: str) -> int:
    if len(text) > 18:
        raise ValueError  # no run writes one that no float can be made of
    return int(text)


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``, a dict for each epoch. Raises DataError for a line that is not a JSON object."""
    rows = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        row = _row(line)
        if row is None:
            raise DataError(f"{path}, line {number}, is not a JSON object: {line[:40].decode(errors='replace')!r}")
        rows.append(row)
    return rows


def column(rows: Sequence[dict[str, Any]], key: str) -> list[float]:
    """A number of every row, NaN where there is none."""
    values = (row.get(key) for row in rows)
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan for v in values]


def known(rows: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """(epochs, values) of the rows that have a number there: not every epoch has an evaluation."""
    pairs = [(n, value) for n, value in enumerate(column(rows, key), start=1) if not math.isnan(value)]
    return [n for n, _ in pairs], [value for _, value in pairs]


def write_summary(path: Path | str, summary: dict[str, Any]) -> None:
    """Write a ``summary.json`` atomically."""
    with atomic_write(path, "w") as file:
        file.write(_json(summary, indent=2) + "\n")


def _json(values: dict[str, Any], indent: int | None = None) -> str:
    """JSON with six significant digits; numbers that are not finite become null, since JSON has no NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.6g}") if math.isfinite(value) else None
        return value

    return json.dumps({name: plain(value) for name, value in values.items()}, indent=indent, allow_nan=False)
