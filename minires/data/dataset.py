"""Labelled images in memory."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import kernels
from ..errors import ConfigError, DataError, DtypeError
from ..kernels.keyed_random import permutation
from ..kernels.memory_format import contiguous

Read = tuple[
    NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]
]  # images, the rows of a batch in them, their labels


@dataclass(eq=False, repr=False)
class Dataset:
    """Labelled images in NHWC order, and the colour statistics that normalise them.

    images     (N, H, W, C) uint8, C-contiguous
    labels     (N,) int64, indices into classes
    classes    the names of the classes
    name       the name of the data set, as in ``load``
    mean, std  (C,) float32, of pixels scaled to [0, 1]; by default those of these images. A test set has those of its
               training set.

    Raises DtypeError for other dtypes; DataError for other shapes, no image at all, or a label that is no class; ConfigError
    for a mean without a std.

    >>> Dataset(np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 1, 0]), ("cat", "dog"), "pets")
    Dataset pets: 4 images of 8×8×3, 2 classes
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    name: str
    mean: NDArray[np.float32] = None  # type: ignore[assignment]  # __post_init__ computes it
    std: NDArray[np.float32] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            raise DtypeError(f"a data set has uint8 images and integer labels, not {images.dtype} and {labels.dtype}")
        if images.ndim != 4 or labels.shape != images.shape[:1] or not images.size:
            raise DataError(
                f"images of shape {images.shape} with labels of shape {labels.shape}: "
                "they are (N, H, W, C) and (N,), with at least one image"
            )
        wrong = np.flatnonzero((labels < 0) | (labels >= len(self.classes)))
        if wrong.size:
            raise DataError(f"image {wrong[0]} has label {labels[wrong[0]]}; there are {len(self.classes)} classes")
        self.images, self.labels = contiguous(images), labels.astype(np.int64)
        self.classes = tuple(self.classes)
        if (self.mean is None) != (self.std is None):
            raise ConfigError(f"{self.name}: mean and std go together: give both or none")
        if self.mean is None:
            self.mean, self.std = colour_statistics(self.images)
        self.mean, self.std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        N, H, W, C = self.images.shape
        return f"Dataset {self.name}: {N} images of {H}×{W}×{C}, {self.num_classes} classes"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images."""
        _, H, W, C = self.images.shape
        return H, W, C

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """The height of the images."""
        return self.images.shape[1]

    def take(self, indices: NDArray[np.integer]) -> Self:
        """The data set of the images at these indices, with the same colour statistics."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def with_statistics(self, mean: ArrayLike, std: ArrayLike) -> Self:
        """The same images with another mean and std."""
        return replace(self, mean=np.asarray(mean, np.float32), std=np.asarray(std, np.float32))

    def checksum(self, crc: int = 0) -> int:
        """The CRC-32 of the images and labels, to know them again."""
        return zlib.crc32(self.labels.data, zlib.crc32(self.images.data, crc))

    @contextmanager
    def reader(self, crops: object = None, workers: int | None = None) -> Iterator[Callable[[NDArray], Read]]:
        """As ``MapDataset.reader``; all images are there already."""
        yield lambda indices: (self.images, indices, self.labels)

    def resized(self, side: int) -> Self:
        """The same images with side × side pixels, each the mean of the area that it covers, and their colour statistics.

        Raises ConfigError for a side that is not from 1 to that of the images, and for images that are not square.
        """
        N, H, W, C = self.images.shape
        if H != W or not 1 <= side <= H:
            raise ConfigError(f"images of {H}×{W} pixels cannot be made {side}×{side} by averaging")
        if side == H:
            return self
        weights = _areas(H, side)
        images = np.empty((N, side, side, C), np.uint8)
        for start in range(0, N, 1024):
            chunk = self.images[start : start + 1024].astype(np.float32).transpose(0, 2, 3, 1)  # (n, W, C, H)
            rows = kernels.matmul(np.ascontiguousarray(chunk).reshape(-1, H), weights).reshape(-1, W, C, side)
            rows = np.ascontiguousarray(rows.transpose(0, 3, 2, 1)).reshape(-1, W)
            means = kernels.matmul(rows, weights).reshape(-1, side, C, side)
            images[start : start + 1024] = np.rint(means).transpose(0, 1, 3, 2)
        mean, std = colour_statistics(images)
        return replace(self, images=images, mean=mean, std=std)

    def hold_out(self, count: int, seed: int = 0) -> tuple[Self, Self]:
        """Split off ``count`` images chosen by the seed: (the rest, the held-out images), both in their old order.

        Both have the colour statistics of the rest, so that nothing is learnt from held-out images.
        Raises ConfigError when either part would be empty.
        """
        if not 0 < count < len(self):
            raise ConfigError(f"{count} of {len(self)} images cannot be held out: choose 1 to {len(self) - 1}")
        order = permutation(len(self), "hold out", seed)
        held_out, rest = self.take(np.sort(order[:count])), self.take(np.sort(order[count:]))
        mean, std = colour_statistics(rest.images)
        return replace(rest, mean=mean, std=std), replace(held_out, mean=mean, std=std)


def _areas(old: int, new: int) -> NDArray[np.float32]:
    """(old, new): how much of each new pixel each old one is, along an axis."""
    edges = np.arange(new + 1) * old / new
    low, high = np.maximum(np.arange(old)[:, None], edges[:-1]), np.minimum(np.arange(1, old + 1)[:, None], edges[1:])
    return (np.clip(high - low, 0, None) * new / old).astype(np.float32)


def colour_statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean, std), both (C,) float32, of the channels of (N, H, W, C) uint8 images scaled to [0, 1].

    The sums are integers, so that they are exact in any order. A channel with a single value gets std 1.
    """
    N, H, W, C = images.shape
    total, squares = np.zeros((H, W, C), np.int64), np.zeros((H, W, C), np.int64)
    for start in range(0, N, 512):
        chunk = images[start : start + 512]  # 512 · 255² fits uint32
        total += chunk.sum(axis=0, dtype=np.uint32)
        squares += np.square(chunk, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    return _from_sums(N * H * W, total.sum(axis=(0, 1)), squares.sum(axis=(0, 1)))


def statistics_of(images: Iterable[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``colour_statistics`` of images (H, W, C) one by one, of which there is at least one."""
    count, total, squares = 0, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for image in images:
        pixels = image.reshape(-1, image.shape[2])
        count += len(pixels)
        total = total + pixels.sum(axis=0, dtype=np.int64)
        squares = squares + np.square(pixels, dtype=np.uint16).sum(axis=0, dtype=np.int64)
    return _from_sums(count, total, squares)


def _from_sums(
    count: int, total: NDArray[np.int64], squares: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean, std) from the number of pixels, and of each channel the sum of bytes and that of their squares."""
    mean, std = np.empty(len(total), np.float32), np.empty(len(total), np.float32)
    for c, (s, q) in enumerate(zip(total.tolist(), squares.tolist())):
        mean[c] = s / (255 * count)
        std[c] = (count * q - s * s) ** 0.5 / (255 * count) or 1.0
    return mean, std
