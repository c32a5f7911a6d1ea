"""Arrays whose memory is used again. A fresh 8 MB array costs as much in page faults as a kernel that fills it.

``empty`` hands out an ndarray over pooled memory. The memory goes back to the pool when the last array that looks at it,
views included, has been collected: never earlier, so an output, a gradient or a view that somebody keeps never changes.
"""

import mmap
import threading
from collections import OrderedDict, deque
from contextlib import suppress

import numpy as np

LITTLE = 1 << 20  # bytes that a piece of memory may be too large by, at most its own size or a quarter of it
SMALLEST = 1 << 16  # bytes; below this malloc is as good


class _Lease(np.ndarray):
    """Owns one piece of memory for as long as any array looks at it (NumPy keeps ``base`` alive), then gives it back.

    Its own base is an mmap: were it an ndarray, arrays made from the lease would hold that one and drop the lease.
    """

    def __del__(self):
        pool = getattr(_Lease, "pool", None)  # None while the interpreter shuts down
        if pool is not None and self.base is not None:
            pool.give_back(self.base)


def _map(size):
    """Fresh memory, beginning on a page: vector loads never straddle two cache lines."""
    if hasattr(mmap, "MAP_PRIVATE"):  # not shared with a process that is forked off, which is the default
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # fewer page faults, where the system grants it
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Pool:
    """Free memory by size. It never holds more than the most that was ever in use at once, and a half."""

    def __init__(self):
        self.lock = threading.RLock()  # reentrant: a collection inside the lock may run _Lease.__del__
        self.free = OrderedDict()  # size in bytes -> deque of mmaps; least recently used size first
        self.free_bytes = self.used_bytes = self.most_used = 0

    def take(self, size):
        with self.lock:
            found = self._fitting(size)
            if found is not None:
                self.free.move_to_end(found)
                self.free_bytes -= found
                self.used_bytes += found
                memory = self.free[found].pop()
            else:
                self.used_bytes += size
                self._trim(max(self.most_used, self.used_bytes) * 3 // 2 - self.used_bytes)
                memory = _map(size)
            self.most_used = max(self.most_used, self.used_bytes)
        return _Lease((size,), np.uint8, memory)

    def _fitting(self, size):
        """The smallest free size that will do without wasting much, or None."""
        if self.free.get(size):
            return size
        most = size + max(size // 4, min(size, LITTLE))
        return min((n for n, memories in self.free.items() if size < n <= most and memories), default=None)

    def give_back(self, memory):
        with self.lock:
            size = len(memory)
            self.used_bytes -= size
            self.free.setdefault(size, deque()).append(memory)
            self.free_bytes += size

    def _trim(self, allowed):
        for size in list(self.free):
            while self.free[size] and self.free_bytes > allowed:
                self.free[size].pop()
                self.free_bytes -= size
            if not self.free[size]:
                del self.free[size]

    def clear(self):
        """Give all free memory back to the system."""
        with self.lock:
            self._trim(0)
            self.most_used = self.used_bytes


pool = _Lease.pool = Pool()


def empty(shape, dtype):
    """An uninitialised C-contiguous array over pooled memory."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    if size < SMALLEST:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, pool.take((size + 4095) & ~4095))


def zeros(shape, dtype):
    """A C-contiguous array of zeros over pooled memory."""
    array = empty(shape, dtype)
    array[...] = 0
    return array


def empty_like(x):
    """An uninitialised array of x's shape, dtype and memory order (channels-last stays channels-last)."""
    order = sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis)) if x.ndim else []
    array = empty(tuple(x.shape[axis] for axis in order), x.dtype)
    return array.transpose(np.argsort(order)) if order else array
