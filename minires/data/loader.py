"""Batches of a data set, in an order and with an augmentation that are functions of (seed, epoch), made ahead."""

import queue
import threading

import numpy as np

from .. import kernels
from ..errors import ConfigError
from ..kernels.keyed_random import permutation
from .augmentation import NOTHING

_END = object()


class Loader:
    """Iterate over (images, labels): float32 (N, C, H, W), normalised, stored channels-last; int64 (N,).

    Every iteration is one epoch; they count up from 0, or from what ``set_epoch`` says. The order of an epoch depends
    on (seed, epoch), what happens to a sample on (seed, epoch, sample): the same run again sees the same bits, and so
    does one that starts in the middle.

    shuffle    a new order every epoch, else the data set's own
    augment    an Augmentation; None: normalisation alone
    drop_last  leave out a last batch that is smaller than the others
    prefetch   so many batches are prepared ahead by one thread, at about a millisecond a batch; 0: no thread

    An exception of the thread is raised where the batch would have been. Leaving a loop early stops the thread.
    Raises ConfigError for settings that cannot work.
    """

    def __init__(self, dataset, batch_size, shuffle=True, augment=None, seed=0, drop_last=False, prefetch=2):
        if batch_size < 1 or prefetch < 0:
            raise ConfigError(
                f"Loader: batch_size is at least 1 and prefetch at least 0, not {batch_size} and {prefetch}"
            )
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.augment, self.seed, self.drop_last, self.prefetch = augment, seed, drop_last, prefetch
        self.epoch = 0  # the number of the next iteration
        if not len(self):
            raise ConfigError(
                f"Loader: {len(dataset)} images make no batch of {batch_size} with drop_last: choose a smaller one"
            )

    def __len__(self):
        """Batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch):
        """The next iteration is this epoch."""
        self.epoch = epoch

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        batches = self._batches(epoch, kernels.augment_batch)  # of the back end of this thread, not of the other
        return _ahead(batches, self.prefetch) if self.prefetch else batches

    def _batches(self, epoch, augment_batch):
        images, labels = self.dataset.images, self.dataset.labels
        how = self.augment or NOTHING
        settings = (how.pad, how.reflect, how.flip, how.cutout, self.seed, epoch)
        order = self.order(epoch)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            indices = order[start : start + self.batch_size]
            batch = kernels.empty((len(indices), *images.shape[1:]), "float32")
            augment_batch(images, indices, batch, self.dataset.mean, self.dataset.std, *settings)
            yield kernels.nchw(batch), labels[indices]

    def order(self, epoch):
        """The places in the data set of an epoch's samples, one after the other."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return permutation(len(self.dataset), "order", self.seed, epoch)


def _ahead(iterator, count):
    """The same items, up to ``count`` of them prepared in advance by a thread."""
    free, ready = threading.Semaphore(count), queue.SimpleQueue()
    stopped = threading.Event()

    def prepare():
        try:
            while True:
                free.acquire()
                if stopped.is_set():
                    return
                item = next(iterator, _END)
                ready.put((item, None))
                if item is _END:
                    return
                del item  # else it would stay alive until the next one is there
        except BaseException as error:
            ready.put((_END, error))

    def items():
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
                del item  # the consumer alone keeps it now
        finally:  # the loop ended, broke off or raised
            stopped.set()
            free.release()
            if thread is not threading.current_thread():  # a collection may run anywhere, even there
                thread.join()

    return items()
