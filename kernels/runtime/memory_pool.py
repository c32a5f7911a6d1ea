"""A memory pool for arrays. A fresh 8 MB array costs as much in page faults as a kernel that fills it.

``empty`` returns an ndarray over pooled memory. The memory goes back to the pool when the last array that refers to it,
views included, has been collected, and never earlier: an output, a gradient or a view that a user keeps never changes.
"""

import math
import mmap
import threading
from bisect import bisect, bisect_left, insort
from collections import deque
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

PAGE = 4096  # bytes; pieces are page-aligned, so that vector loads never straddle two cache lines
SMALLEST = 1 << 16  # bytes; below this malloc is as good
SEGMENT = 64 << 20  # bytes requested from the system at once, at least; pages that are never written to take no memory


class Lease(np.ndarray):
    """Owns a piece of memory as long as any array refers to it (NumPy keeps ``base`` alive), then returns it to the pool.

    Its own base is an mmap. If that were an ndarray, arrays made from the lease would refer to it and drop the lease.
    """

    place = None  # (pool, address, size)

    def __del__(self):
        if self.place is not None:
            pool, address, size = self.place
            pool.returned.append((address, size))  # nothing else: this may run at any time, in any thread


def _map(size):
    """Fresh, page-aligned memory."""
    if hasattr(mmap, "MAP_PRIVATE"):  # not shared with forked processes, unlike the default
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # fewer page faults, if the system grants it
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Pool:
    """Memory in segments, which are cut into pieces on request: from the smallest free piece that is large enough, and of
    those the lowest. Adjacent free pieces are merged, so the pieces of a forward pass also serve the backward pass, which
    needs other sizes. Entirely free segments are returned to the system when the pool would otherwise hold more than 1.5
    times its peak usage. A small array that is kept alive holds its whole segment.

    Addresses are the pool's own numbers: segments follow each other with an unused page in between.
    """

    def __init__(self):
        self.lock = threading.RLock()
        self.owner = None  # the thread inside the lock: garbage collection there may run a finalizer that needs memory
        self.returned = deque()  # what leases have returned and the lists do not have yet
        self.next = 0  # the first address of the next segment
        self._begin()

    def _begin(self):
        """Forget what is free and what is in use. Leases keep their memory."""
        self.first_of_all = self.next  # anything returned from below this is forgotten
        self.segments = {}  # first address -> mmap
        self.firsts = []  # their first addresses, sorted
        self.free = []  # (size, address), sorted
        self.size_at = {}  # address of a free piece -> its size
        self.ending_at = {}  # end of a free piece -> its address
        self.used = self.most_used = 0

    def _alone(self, work, *args):
        """Run ``work`` while nothing else changes the pool.

        If it is interrupted (by Ctrl-C, say), it must not leave lists that contradict each other.
        """
        with self.lock:
            self.owner = threading.get_ident()
            try:
                self._take_back()
                return work(*args)
            except MemoryError:  # raised only while the lists are consistent
                raise
            except BaseException:
                self._begin()
                raise
            finally:
                self.owner = None

    @property
    def used_bytes(self):
        """Bytes in use."""
        return self._alone(lambda: self.used)

    @property
    def held_bytes(self):
        """Bytes obtained from the system and not returned, whether or not they were ever written to."""
        with self.lock:
            return self._held()

    def _held(self):
        return sum(map(len, self.segments.values()))

    def take(self, size):
        """A lease of ``size`` bytes, a multiple of PAGE; None in a finalizer that interrupts the pool's own work."""
        return None if self.owner == threading.get_ident() else self._alone(self._take, size)

    def _take(self, size):
        n = bisect_left(self.free, (size, 0))
        if n == len(self.free):
            self._grow(size)
            n = bisect_left(self.free, (size, 0))
        whole, address = self.free[n]
        self._remove(whole, address)
        if whole > size:
            self._insert(whole - size, address + size)
        self.used += size
        self.most_used = max(self.most_used, self.used)
        first = self.firsts[bisect(self.firsts, address) - 1]
        lease = Lease((size,), np.uint8, self.segments[first], address - first)
        lease.place = self, address, size
        return lease

    def clear(self):
        """Return the entirely free segments to the system."""
        self._alone(self._clear)

    def _clear(self):
        self._drop()
        self.most_used = self.used

    def _take_back(self):
        while self.returned:
            address, size = self.returned.popleft()
            if address < self.first_of_all:
                continue
            self.used -= size
            before, behind = self.ending_at.get(address), self.size_at.get(address + size)
            if behind is not None:
                self._remove(behind, address + size)
                size += behind
            if before is not None:
                size += self.size_at[before]
                self._remove(self.size_at[before], before)
                address = before
            self._insert(size, address)

    def _insert(self, size, address):
        insort(self.free, (size, address))
        self.size_at[address], self.ending_at[address + size] = size, address

    def _remove(self, size, address):
        del self.free[bisect_left(self.free, (size, address))]
        del self.size_at[address], self.ending_at[address + size]

    def _grow(self, size):
        """Add a segment. If the pool would hold too much, first drop the free segments, which are too small."""
        wanted = max(size, SEGMENT)
        if self._held() + wanted > max(self.most_used, self.used + size) * 3 // 2:
            self._drop()
        try:
            memory = _map(wanted)
        except OSError:
            self._drop()
            wanted = size
            try:
                memory = _map(wanted)
            except OSError as error:
                raise MemoryError(f"the system has no room for {size:,} more bytes ({error.strerror})") from error
        self.segments[self.next] = memory
        self.firsts.append(self.next)
        self._insert(wanted, self.next)
        self.next += wanted + PAGE

    def _drop(self):
        for first, memory in list(self.segments.items()):
            if self.size_at.get(first) == len(memory):
                self._remove(len(memory), first)
                del self.segments[first]
                self.firsts.remove(first)


class Arena(Pool):
    """A pool that keeps its segments, for computations that are run again at the same addresses (``recording.py``)."""

    def _drop(self):
        pass

    def alias(self, array, lease):
        """An array over the same memory that does not hold the lease, but the segment."""
        segment = lease.base
        at = array.__array_interface__["data"][0] - np.frombuffer(segment, np.uint8).ctypes.data
        return np.ndarray(array.shape, array.dtype, segment, at, array.strides)


pool = Pool()
_local = threading.local()


@contextmanager
def using(other):
    """Take the memory of new arrays of this thread from another pool."""
    before, _local.pool = getattr(_local, "pool", None), other
    try:
        yield
    finally:
        _local.pool = before


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialised C-contiguous array over pooled memory."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    if size < SMALLEST:
        return np.empty(shape, dtype)
    memory = (getattr(_local, "pool", None) or pool).take(-(-size // PAGE) * PAGE)
    return np.empty(shape, dtype) if memory is None else np.ndarray(shape, dtype, memory)


@lru_cache(maxsize=512)
def _starts(shapes, itemsize):
    return tuple(accumulate((-(-math.prod(shape) * itemsize // PAGE) * PAGE for shape in shapes), initial=0))


def empty_together(shapes, dtype):
    """Uninitialised C-contiguous arrays of several shapes in one piece of memory, each beginning on a page."""
    starts = _starts(tuple(shapes), np.dtype(dtype).itemsize)
    memory = empty((starts[-1],), np.uint8)
    return [np.ndarray(shape, dtype, memory, start) for shape, start in zip(shapes, starts)]


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A C-contiguous array of zeros over pooled memory."""
    array = empty(shape, dtype)
    array[...] = 0
    return array


def empty_like(x: NDArray[Any]) -> NDArray[Any]:
    """An uninitialised array with x's shape, dtype and memory order (channels-last stays channels-last)."""
    if x.flags.c_contiguous:
        return empty(x.shape, x.dtype)
    order = sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis))
    array = empty(tuple(x.shape[axis] for axis in order), x.dtype)
    return array.transpose(np.argsort(order))
