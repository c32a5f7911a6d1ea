"""Batches of a data set, prepared in advance. Their order and augmentation are functions of (seed, epoch)."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import ConfigError
from ..kernels.keyed_random import permutation
from .augmentation import NO_AUGMENTATION, Augmentation
from .dataset import Dataset
from .map_dataset import Crops, MapDataset, Samples

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]  # images (N, C, H, W), labels (N,)
_END = object()


class Loader:
    """Iterates over (images, labels): float32 (N, C, H, W), normalised, stored channels-last, and int64 (N,).

    Every iteration is one epoch. Epochs count up from 0, or from the argument of ``set_epoch``. The order of an epoch is a
    function of (seed, epoch), the augmentation of a sample one of (seed, epoch, sample), so that batches have the same bits
    in every run, and in one that starts in the middle.

    shuffle    a new order in every epoch, else that of the data set
    augment    an Augmentation, or None for normalisation only
    dataset    a Dataset, a MapDataset, or any object that the latter takes: an ImageFolder, or another one with ``__len__`` and
               ``__getitem__``, whose samples are (image, label). Images are read and resized by threads as batches are prepared
    image_size of an object that is no data set of minires: the side of the square images it is read as (``MapDataset``)
    sizes      {epoch: side}: from that epoch on images have side × side pixels (``Dataset.resized``); those of images in memory
               are normalised by their own mean and std, or with same_statistics by those of the data set
    drop_last  leave out a last batch that is smaller than the others
    prefetch   the number of batches that a thread prepares in advance; 0: no thread
    workers    the number of threads that read images; by default as many as kernels have. Batches do not depend on it

    An exception in the thread is raised in the loop, in place of the batch. Leaving a loop early stops the thread.
    Raises ConfigError for settings out of range, such as a crop padding or a cutout larger than the images.
    """

    def __init__(
        self,
        dataset: Dataset | MapDataset | Samples,
        batch_size: int,
        shuffle: bool = True,
        augment: Augmentation | None = None,
        seed: int = 0,
        drop_last: bool = False,
        prefetch: int = 2,
        sizes: Mapping[int, int] | None = None,
        image_size: int | None = None,
        workers: int | None = None,
        same_statistics: bool = False,
    ) -> None:
        if batch_size < 1 or prefetch < 0:
            raise ConfigError(
                f"Loader: batch_size is at least 1 and prefetch at least 0, not {batch_size} and {prefetch}"
            )
        if workers is not None and workers < 1:
            raise ConfigError(f"Loader: workers is at least 1, not {workers}")
        if not isinstance(dataset, Dataset | MapDataset):
            dataset = MapDataset(dataset, image_size)
        elif image_size is not None:
            dataset = dataset.resized(image_size)
        if isinstance(dataset, Dataset) and augment is not None and augment.scale is not None:
            raise ConfigError(
                f"random resized crops (scale {augment.scale}) are of images that are read from files, and those of "
                f"{dataset.name} are in memory: use crops of their own size (pad)"
            )
        height, width = np.min([dataset.image_shape[:2], *((side, side) for side in (sizes or {}).values())], axis=0)
        for name, pixels in (("crop padding", augment.pad), ("cutout", augment.cutout)) if augment else ():
            mirrored = (
                augment is not None and augment.reflect and name == "crop padding"
            )  # but for the pixel at the edge
            most = min(height, width) - mirrored
            if pixels > most:
                what = "a reflected crop padding" if mirrored else f"a {name}"
                raise ConfigError(
                    f"{what} of {pixels} pixels is larger than the images, which have {height}×{width}: choose at most {most}"
                )
        self.dataset: Dataset | MapDataset = dataset
        self.batch_size, self.shuffle, self.workers = batch_size, shuffle, workers
        self.sizes = dict(sizes or {})
        self._resized = {side: dataset.resized(side) for side in set(self.sizes.values())}
        if same_statistics:
            self._resized = {
                side: own.with_statistics(dataset.mean, dataset.std) for side, own in self._resized.items()
            }
        self.augment, self.seed, self.drop_last, self.prefetch = augment, seed, drop_last, prefetch
        self.epoch = 0  # the number of the next iteration
        if not len(self):
            raise ConfigError(
                f"Loader: {len(dataset)} images make no batch of {batch_size} with drop_last: choose a smaller one"
            )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of this epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        batches = self._batches(epoch, kernels.augment_batch)  # the back end of this thread, not of the prefetching one
        return _ahead(batches, self.prefetch) if self.prefetch else batches

    def _batches(self, epoch: int, augment_batch: Callable[..., Any]) -> Iterator[Batch]:
        dataset = self.dataset_at(epoch)
        augment = self.augment or NO_AUGMENTATION
        settings = (
            augment.pad,
            augment.reflect,
            augment.flip,
            augment.cutout,
            self.seed,
            epoch,
            augment.alternate,
            augment.jitter,
        )
        crops = None if augment.scale is None else Crops(augment.scale, self.seed, epoch)
        order = self.order(epoch)
        with dataset.reader(crops, self.workers) as read:
            for start in range(0, len(self) * self.batch_size, self.batch_size):
                samples = order[start : start + self.batch_size]
                images, rows, labels = read(samples)
                batch = kernels.empty((len(samples), *images.shape[1:]), "float32")
                augment_batch(images, rows, batch, dataset.mean, dataset.std, *settings, samples)
                yield kernels.nchw(batch), labels[rows]

    def dataset_at(self, epoch: int) -> Dataset | MapDataset:
        """The data set in an epoch: at the size of that time."""
        begun = [start for start in self.sizes if start <= epoch]
        return self._resized[self.sizes[max(begun)]] if begun else self.dataset

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices of an epoch's samples, in order: an int64 array."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return permutation(len(self.dataset), "order", self.seed, epoch)


def _ahead(iterator: Iterator[Batch], count: int) -> Iterator[Batch]:
    """The items of an iterator, of which a thread prepares up to ``count`` in advance."""
    free = threading.Semaphore(count)
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()  # of (item, None) or (_END, an exception or None)
    stopped = threading.Event()

    def prepare() -> None:
        try:
            while True:
                free.acquire()
                if stopped.is_set():
                    return
                item = next(iterator, _END)
                ready.put((item, None))
                if item is _END:
                    return
                del item  # else it would stay alive until the next one is ready
        except BaseException as error:
            ready.put((_END, error))
        finally:
            if isinstance(iterator, Generator):
                iterator.close()  # which ends its threads

    def items() -> Iterator[Batch]:
        thread = threading.Thread(target=prepare, name="minires-loader", daemon=True)
        thread.start()
        try:
            while True:
                item, error = ready.get()
                if error is not None:
                    raise error
                if item is _END:
                    return
                free.release()
                yield item
                del item  # only the consumer keeps it
        finally:  # the loop ended, was left or raised
            stopped.set()
            free.release()
            if thread is not threading.current_thread():  # garbage collection may close the generator in any thread
                thread.join()

    return items()
