"""A plane through a network's weights: filter-normalised directions, loss and error at a point, rows kept in a file.

A random direction is drawn from a normal distribution, and each of its filters is scaled to the norm of the network's filter
("Visualizing the Loss Landscape of Neural Nets", Li et al. 2018, §4). Without that a network with smaller weights would look
rougher than the same function with larger ones: batch norm, or a ReLU and the next layer, makes up for any scale.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ...files import atomic_write
from ...grad_mode import no_grad
from ...nn import BatchNorm2d, Module
from ...recorded import RecordedPrediction
from ...tensor import Tensor
from ...training.diagnosis import QUIET

STORED, BATCH = STATISTICS = ("stored", "batch")
MOST_BYTES = 256 << 20  # of the file


class Point(NamedTuple):
    """Loss, the mean cross-entropy in nats, and error, the fraction of the images classified wrongly, at a point."""

    loss: float
    error: float


def direction(weights: NDArray[Any], rng: np.random.Generator) -> NDArray[Any] | None:
    """A random direction whose filters have the norms of those of ``weights``; None, which is zero, for fewer than two axes.

    A filter is what makes one output: weights[o] of a convolution (O, I, KH, KW), a row of a linear layer (O, I). The γ and β
    of norms and all biases have one axis.
    """
    if weights.ndim < 2:
        return None
    d, axes = rng.standard_normal(weights.shape), tuple(range(1, weights.ndim))
    norms, drawn = (np.sqrt(np.sum(np.square(a, dtype=np.float64), axis=axes, keepdims=True)) for a in (weights, d))
    return (d * (norms / drawn)).astype(weights.dtype)


class Plane:
    """θ + x·d₁ + y·d₂, for the weights θ of a network: a copy is moved to its points, the network itself stays as it is.

    batch: images (N, C, H, W) of the weights' dtype, and labels (N,), computed ``batch_size`` at a time. statistics: "stored",
    batch norm's running statistics at θ, or "batch", those of each batch of images at the point itself.
    """

    def __init__(
        self, model: Module, batch: tuple[NDArray[Any], NDArray[Any]], batch_size: int, statistics: str, seed: int
    ) -> None:
        self.model = copy.deepcopy(model).eval()
        if statistics == BATCH:  # of the copy the running statistics move, and nobody reads them
            for module in self.model.modules():
                module.training = isinstance(module, BatchNorm2d)
        self.batch, self.batch_size = batch, batch_size
        self.statistics = statistics
        self.predictions: dict[int, RecordedPrediction] = {}  # by number of images: a recording is of one size
        rng = np.random.default_rng(seed)
        self.moves: list[tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        for parameter in self.model.parameters():
            first, second = direction(parameter.data, rng), direction(parameter.data, rng)
            if first is not None and second is not None:
                self.moves.append((parameter, parameter.data.copy(order="K"), first, second))

    def at(self, x: float, y: float) -> Point:
        """Loss and error at θ + x·d₁ + y·d₂; a loss that is not finite where the values grow too large."""
        losses, wrong = [], 0
        with no_grad(), np.errstate(**QUIET):
            for parameter, weights, first, second in self.moves:
                np.copyto(parameter.data, weights + (x * first + y * second), casting="same_kind")
                parameter.count_change()
            for images, labels in self._batches():
                logits = self.logits(images)
                losses.append(_cross_entropy(logits, labels))
                wrong += int(np.count_nonzero(logits.argmax(axis=1) != labels))
        n = len(self.batch[1])
        return Point(float(np.concatenate(losses).sum()) / n, wrong / n)

    def logits(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """(N, classes), where the copy is now."""
        if self.statistics == STORED and len(images) not in self.predictions:
            self.predictions[len(images)] = RecordedPrediction(self.model)
        predict = self.predictions.get(len(images), self._computed)
        with no_grad(), np.errstate(**QUIET):
            return predict(images).data.astype(np.float64)

    def _computed(self, images: NDArray[Any]) -> Tensor:
        return self.model(Tensor(images))

    def _batches(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        images, labels = self.batch
        for i in range(0, len(labels), self.batch_size):
            yield images[i : i + self.batch_size], labels[i : i + self.batch_size]


def _cross_entropy(logits: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Of each image, in nats."""
    largest = logits.max(axis=1, keepdims=True)
    sums = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    return sums - logits[np.arange(len(labels)), labels]


class Rows:
    """The rows of a grid that are computed so far, each a list of points; with a path they are kept in that file too.

    key: what the rows are of, plain values by name; shape: (rows, points of each) of the whole grid. A file that is there is
    read, so that its rows need not be computed again. Raises ConfigError, which names the differences, for rows of another key,
    and DataError for a file that is damaged or of something else: it is neither used nor replaced.
    """

    def __init__(self, path: Path | None, key: dict[str, Any], shape: tuple[int, int]) -> None:
        self.path, self.key, self.shape = path, key, shape
        self.rows: list[list[Point]] = []
        if path is not None and path.exists():
            self.rows = self._read(path)

    def append(self, row: list[Point]) -> None:
        """Add a row; when this returns, the file has it."""
        self.rows.append(row)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = {"key": self.key, "rows": self.rows}
            with atomic_write(self.path, "w") as file:
                json.dump({"sha256": _sum(content), **content}, file)

    def _read(self, path: Path) -> list[list[Point]]:
        damage = f"{path} is damaged, or no file of rows of a landscape: delete it, or give another folder"
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError("too long")
            content = json.loads(path.read_text("utf-8"))
            if content.pop("sha256") != _sum(content):
                raise ValueError("another checksum")
            there = dict(content["key"])
            rows = [[Point(*map(float, point)) for point in row] for row in content["rows"]]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise DataError(damage) from error
        differ = ["other networks"] * (set(there) != set(self.key)) or [
            f"{name} is {there.get(name)} there, not {value}" if isinstance(value, int | float) else f"other {name}"
            for name, value in self.key.items()
            if there.get(name) != value
        ]
        if differ:
            raise ConfigError(
                f"{path} has rows of another landscape ({', '.join(differ)}): delete it, or give another folder"
            )
        if len(rows) > self.shape[0] or any(len(row) != self.shape[1] for row in rows):
            raise DataError(damage)
        return rows


def _sum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def digest(arrays: dict[str, NDArray[Any]]) -> str:
    """A checksum of arrays, with their names, shapes and dtypes."""
    found = hashlib.sha256()
    for name, array in arrays.items():
        found.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
