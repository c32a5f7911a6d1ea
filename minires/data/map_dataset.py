"""Map-style data sets: labelled images of any sizes, which are read when a batch needs them."""

import copy
import math
import operator
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import kernels
from ..errors import ConfigError, DataError, brief
from ..kernels.keyed_random import permutation
from .dataset import Dataset, Read, statistics_of
from .images.cache import ImageCache
from .images.folder import ImageFolder
from .images.photographs import evaluation_transform
from .images.pixels import pixels_of
from .images.resized_crop import random_window, reduced, resized_crop
from .threads import in_threads

MOST_CLASSES = 1 << 20
MOST_MEASURED = 4096  # images that the colour statistics are of
MOST_IN_MEMORY = 2_000_000_000  # bytes


class Samples(Protocol):
    """What a MapDataset is made of: a map-style data set, as PyTorch calls it."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Crops(NamedTuple):
    """Random resized crops of an epoch: the fractions of the area, from and to, and what the draws depend on."""

    scale: tuple[float, float]
    seed: int
    epoch: int


class MapDataset:
    """Labelled images that are read when they are needed, resized to one size; sets may be larger than memory.

    samples     an ImageFolder, or any object with ``__len__`` and ``__getitem__``: samples[i] is (image, label), where the
                image is uint8 (H, W, C) or (H, W) with 1 or 3 channels, an array or a Pillow image, and the label an integer
                from 0 up. Images may have different sizes. It is called by several threads at the same time
    image_size  the side of the square images that networks get; by default that of the first image, if it is square
    classes     their names; by default ``samples.classes`` or, without these, the labels: all are read for them
    mean, std   (C,) float32, of pixels scaled to [0, 1]; by default those of up to 4,096 images at equal distances, as they
                are in evaluation. A test set has those of its training set
    cache       an ImageCache, for an ImageFolder

    In evaluation an image is resized and cropped by ``evaluation_transform``; of other objects than an ImageFolder, images
    that have the size already stay as they are. In training with random resized crops, an image whose shorter side is more
    than three times the size is reduced to that first, so that what is kept of it in a cache is of use for every crop. The
    values are the same with a cache and without.

    Raises DataError for no image at all; ConfigError for a size that cannot be.
    """

    def __init__(
        self,
        samples: Samples,
        image_size: int | None = None,
        classes: Sequence[str] | None = None,
        name: str = "images",
        mean: ArrayLike | None = None,
        std: ArrayLike | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        for method in ("__len__", "__getitem__"):
            if not hasattr(samples, method):
                raise DataError(
                    f"a {type(samples).__name__} is no data set: it has no {method}. A Dataset is one, and so is any object "
                    "with __len__ and __getitem__"
                )
        if not len(samples):
            raise DataError(f"{name}: a data set has at least one image")
        self.samples, self.name, self.cache = samples, name, cache
        self.indices = np.arange(len(samples))
        given = getattr(samples, "classes", None) if classes is None else tuple(map(str, classes))
        if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(c, str) for c in given):
            self.classes = tuple(given)
        if (mean is None) != (std is None):
            raise ConfigError(f"{name}: mean and std go together: give both or none")
        self._statistics = None if mean is None or std is None else (_colours(mean), _colours(std))
        self._origin: MapDataset | None = None  # of which this is a part; it has the same classes
        self._reference: MapDataset | None = None  # whose statistics are taken, if there are none
        self.image_size = self._size(image_size)

    def _size(self, wanted: int | None) -> int:
        if wanted is not None:
            if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= 4096:
                raise ConfigError(f"image_size is a whole number of pixels from 1 to 4096, not {brief(wanted)}")
            return wanted
        height, width = self.whole(0).shape[:2]
        if height != width:
            raise ConfigError(
                f"the first image of {self.name} has {height}×{width} pixels, and networks take square ones of one size: "
                "give image_size"
            )
        return height

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"MapDataset {self.name}: {len(self)} images, read as {self.image_size}×{self.image_size}"

    # what a Loader, a Trainer and a run need, as of a Dataset

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes: without names given, numbers up to the largest label, of the whole of a part."""
        if self._origin is not None:
            return self._origin.classes
        return tuple(str(label) for label in range(int(self.labels.max()) + 1))

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64. Those of an ImageFolder are known; of other objects all images are read."""
        if isinstance(self.samples, ImageFolder):
            return self.samples.labels[self.indices]
        return np.array(list(in_threads(lambda i: self._item(i)[1], range(len(self)))), np.int64)

    @cached_property
    def channels(self) -> int:
        """The number of channels."""
        return 3 if isinstance(self.samples, ImageFolder) else self.whole(0).shape[2]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that networks get."""
        return self.image_size, self.image_size, self.channels

    @property
    def mean(self) -> NDArray[np.float32]:
        """(C,) float32, of pixels scaled to [0, 1]."""
        return self._measured()[0]

    @property
    def std(self) -> NDArray[np.float32]:
        """(C,) float32: the standard deviations."""
        return self._measured()[1]

    def _measured(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._statistics is None and self._reference is not None:
            return self._reference._measured()
        if self._statistics is None:
            self._statistics = statistics_of(in_threads(self.evaluated, self.measured))
        return self._statistics

    @property
    def measured(self) -> list[int]:
        """The images that the colour statistics are of: all, or as many at equal distances."""
        count = min(len(self), MOST_MEASURED)
        return [i * len(self) // count for i in range(count)]

    def with_statistics(self, mean: ArrayLike, std: ArrayLike) -> Self:
        """The same images with another mean and std."""
        return self._with(_statistics=(_colours(mean), _colours(std)))

    def like(self, train: "MapDataset") -> Self:
        """The same images with the colour statistics of a training set, which are taken when they are needed."""
        return self._with(_statistics=None, _reference=train)

    def take(self, indices: NDArray[np.integer]) -> Self:
        """The data set of the images at these indices, with the same colour statistics."""
        return self.part(indices).like(self)

    def part(self, indices: NDArray[np.integer]) -> Self:
        """The images at these indices as a data set with colour statistics of its own."""
        return self._with(indices=self.indices[indices], _statistics=None, _reference=None)

    def resized(self, side: int) -> Self:
        """The same images, read as side × side pixels, with the same colour statistics."""
        return self._with(image_size=self._size(side)).like(self)

    def hold_out(self, count: int, seed: int = 0) -> tuple[Self, Self]:
        """Split off ``count`` images, as ``Dataset.hold_out`` does."""
        if not 0 < count < len(self):
            raise ConfigError(f"{count} of {len(self)} images cannot be held out: choose 1 to {len(self) - 1}")
        order = permutation(len(self), "hold out", seed)
        rest = self.part(np.sort(order[count:]))
        return rest, self.part(np.sort(order[:count])).like(rest)

    def _with(self, **changes: Any) -> Self:
        other = copy.copy(self)
        other._origin = self._origin or self
        for known in ("labels", "channels"):
            other.__dict__.pop(known, None)
        other.__dict__.update(changes)
        return other

    # images

    def _item(self, i: int) -> tuple[NDArray[np.uint8], int]:
        item = self.samples[int(self.indices[i])]
        try:
            image, label = item
            label = operator.index(label)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.name}: sample {i} is (image, label), the label an integer, not {brief(item)}"
            ) from error
        classes = len(self.classes) if "classes" in self.__dict__ else MOST_CLASSES
        if not 0 <= label < classes:
            raise DataError(f"{self.name}: sample {i} has label {label}; labels are integers from 0 to {classes - 1:,}")
        return pixels_of(image, f"{self.name}: the image of sample {i}"), label

    def whole(self, i: int) -> NDArray[np.uint8]:
        """An image as it is: (H, W, C) uint8."""
        return self._item(i)[0]

    def evaluated(self, i: int) -> NDArray[np.uint8]:
        """An image as it is in evaluation: (S, S, C) uint8."""
        return self._kept(i, f"evaluation {self.image_size}", lambda: self._evaluated(self.whole(i)))

    def reduced(self, i: int) -> NDArray[np.uint8]:
        """An image before a random resized crop: (H, W, C) uint8."""
        return self._kept(i, f"reduced {self.image_size}", lambda: reduced(self.whole(i), self.image_size))

    def _kept(self, i: int, kind: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        if self.cache is None or not isinstance(self.samples, ImageFolder):
            return make()
        return self.cache.get(self.samples.digest(int(self.indices[i])), kind, make)

    def _evaluated(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if image.shape[:2] == (self.image_size, self.image_size) and not isinstance(self.samples, ImageFolder):
            return image
        if image.shape[2] == 3:
            return evaluation_transform(image, self.image_size)
        return evaluation_transform(np.repeat(image, 3, axis=2), self.image_size)[..., :1]

    def path(self, i: int) -> Path:
        """The path of an image of an ImageFolder."""
        return self._folder().path(int(self.indices[i]))

    def digest(self, i: int) -> bytes:
        """The digest of the file of an image of an ImageFolder."""
        return self._folder().digest(int(self.indices[i]))

    def _folder(self) -> ImageFolder:
        if not isinstance(self.samples, ImageFolder):
            raise DataError(f"{self.name}: its images are not files")
        return self.samples

    def _label(self, i: int) -> int | None:
        """The label of an image if it is known without reading it."""
        return int(self.samples.labels[self.indices[i]]) if isinstance(self.samples, ImageFolder) else None

    @contextmanager
    def reader(self, crops: Crops | None = None, workers: int | None = None) -> Iterator[Callable[[NDArray], Read]]:
        """Yields a function that reads the images of a batch, by ``workers`` threads: by default as many as kernels have.

        It takes (B,) indices and returns (images (B, S, S, C) uint8, (B,) their numbers from 0 up, labels (B,) int64).
        """
        with ThreadPoolExecutor(workers or kernels.get_num_threads(), "minires-decoder") as pool:
            try:
                yield partial(self._read, crops, pool)
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, crops: Crops | None, pool: ThreadPoolExecutor, indices: NDArray[np.integer]) -> Read:
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int64)

        def read(b: int) -> None:
            images[b], labels[b] = self._sample(int(indices[b]), crops)

        for _ in pool.map(read, range(len(indices))):
            pass  # raises what reading has raised
        return images, np.arange(len(indices)), labels

    def _sample(self, i: int, crops: Crops | None) -> tuple[NDArray[np.uint8], int]:
        label = self._label(i)
        if label is not None:
            image = self.evaluated(i) if crops is None else self.reduced(i)
        else:
            image, label = self._item(i)
            if image.shape[2] != self.channels:
                raise DataError(f"{self.name}: sample {i} has {image.shape[2]} channels, and the first {self.channels}")
            image = self._evaluated(image) if crops is None else reduced(image, self.image_size)
        if crops is None:
            return image, label
        height, width, _ = image.shape
        window = random_window(height, width, crops.scale, crops.seed, crops.epoch, i)
        return resized_crop(image, window, self.image_size), label

    def read_all(self, crops: bool = False, on_read: Callable[[], object] = lambda: None) -> None:
        """Read every image once, so that what cannot be read is found before an epoch is lost, and for the statistics.

        crops: as they are read for random resized crops. The files of an ImageFolder must not change from then on: an image
        that does is an error when it is read again. on_read: is called after each image. Raises as reading an image does.
        """
        own = self._statistics is None and self._reference is None
        measured = set(self.measured) if own else set()

        def read(i: int) -> NDArray[np.uint8] | None:
            if isinstance(self.samples, ImageFolder):
                self.samples.digest(int(self.indices[i]))
            image = self.reduced(i) if crops else self.evaluated(i)
            if i not in measured:
                return None
            return self._evaluated(image) if crops else image

        def images() -> Iterator[NDArray[np.uint8]]:
            for image in in_threads(read, range(len(self))):
                on_read()
                if image is not None:
                    yield image

        if measured:
            self._statistics = statistics_of(images())
            return
        for _ in images():
            pass

    def in_memory(self) -> Dataset:
        """A Dataset of the images as they are in evaluation. Raises ConfigError for more than 2 GB."""
        size = len(self) * math.prod(self.image_shape)
        if size > MOST_IN_MEMORY:
            raise ConfigError(
                f"the {len(self):,} images of {self.name} would take {size / 1e9:.1f} GB of memory: take fewer, or smaller ones"
            )
        images = np.empty((len(self), *self.image_shape), np.uint8)
        for i, image in enumerate(in_threads(self.evaluated, range(len(self)))):
            images[i] = image
        return Dataset(images, self.labels, self.classes, self.name, *self._measured())

    def checksum(self, crc: int = 0) -> int:
        """The CRC-32 of the images and labels, to know them again: of an ImageFolder of paths, labels and files."""
        if isinstance(self.samples, ImageFolder):
            folder = self.samples
            for index in self.indices.tolist():
                path = folder.files[index].encode("utf-8", "surrogateescape")
                crc = zlib.crc32(b"%d %s\0%s" % (folder.labels[index], path, folder.digest(index)), crc)
            return crc
        for i in range(len(self)):
            image, label = self._item(i)
            crc = zlib.crc32(np.ascontiguousarray(image).data, zlib.crc32(b"%d" % label, crc))
        return crc


def _colours(values: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
