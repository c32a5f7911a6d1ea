"""Batches of a data set, prepared in advance. Their order and augmentation are functions of (seed, epoch)."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import ConfigError
from ..kernels.keyed_random import permutation
from .augmentation import NO_AUGMENTATION, Augmentation
from .dataset import Dataset

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]  # images (N, C, H, W), labels (N,)
_END = object()


class Loader:
    """Iterates over (images, labels): float32 (N, C, H, W), normalised, stored channels-last, and int64 (N,).

    Every iteration is one epoch. Epochs count up from 0, or from the argument of ``set_epoch``. The order of an epoch is a
    function of (seed, epoch), the augmentation of a sample one of (seed, epoch, sample), so that batches have the same bits
    in every run, and in one that starts in the middle.

    shuffle    a new order in every epoch, else that of the data set
    augment    an Augmentation, or None for normalisation only
    sizes      {epoch: side}: from that epoch on images have side × side pixels (``Dataset.resized``)
    drop_last  leave out a last batch that is smaller than the others
    prefetch   the number of batches that a thread prepares in advance, in about a millisecond each; 0: no thread

    An exception in the thread is raised in the loop, in place of the batch. Leaving a loop early stops the thread.
    Raises ConfigError for settings out of range, such as a crop padding or a cutout larger than the images.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = True,
        augment: Augmentation | None = None,
        seed: int = 0,
        drop_last: bool = False,
        prefetch: int = 2,
        sizes: Mapping[int, int] | None = None,
    ) -> None:
        if batch_size < 1 or prefetch < 0:
            raise ConfigError(
                f"Loader: batch_size is at least 1 and prefetch at least 0, not {batch_size} and {prefetch}"
            )
        height, width = np.min([dataset.images.shape[1:3], *((side, side) for side in (sizes or {}).values())], axis=0)
        for name, pixels in (("crop padding", augment.pad), ("cutout", augment.cutout)) if augment else ():
            if pixels > min(height, width):
                raise ConfigError(
                    f"a {name} of {pixels} pixels is larger than the images, which have {height}×{width}: "
                    f"choose at most {min(height, width)}"
                )
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.sizes = dict(sizes or {})
        self._resized = {side: dataset.resized(side) for side in set(self.sizes.values())}
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
        images, labels = dataset.images, dataset.labels
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
        order = self.order(epoch)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            indices = order[start : start + self.batch_size]
            batch = kernels.empty((len(indices), *images.shape[1:]), "float32")
            augment_batch(images, indices, batch, dataset.mean, dataset.std, *settings)
            yield kernels.nchw(batch), labels[indices]

    def dataset_at(self, epoch: int) -> Dataset:
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
