"""Kernels that say which thread did which share, and launches of them."""

import numpy as np

from minires.kernels.runtime import workers
from minires.kernels.runtime.jit import njit
from minires.kernels.runtime.parallel import on_threads


@njit()
def _count(share, shares, thread, done, by, spin):
    """done[share] += 1, by[share] = the thread, after some work."""
    if share < 0:
        return on_threads(share, shares)
    x = 1.0
    for _ in range(spin):
        x = x * 1.0000001 + 1e-9
    done[share] += 1
    by[share if by.size > 1 else 0] = thread + (x < 0)
    return 0


@njit()
def _fail(share, shares, thread, done):
    if share < 0:
        return on_threads(share, shares)
    done[share] += 1
    if share == 3:
        raise MemoryError("no scratch")
    return 0


def launch(pool, count, shares, spin=100):
    """The shares done and by whom, of one launch on ``count`` threads."""
    done, by = np.zeros(shares, np.int64), np.full(shares, -1)
    assert _count(-pool.ready(count), shares, 0, done, by, spin) == 0
    return done, by


def recorded(pool, launches):
    """(the table that workers.replay reads, what it refers to) of launches of _count: shares, done, by, spin."""
    written, entries, kept = np.zeros(1000, np.int64), [], []
    for count, *args in launches:
        address = pool.ready(2)
        pool.control[workers.RECORD // 8] = written.ctypes.data
        assert _count(-address, count, 0, *args) == 0
        pool.control[workers.RECORD // 8] = 0
        function, shares, size = written[:3].tolist()
        kept.append(written[3 : 3 + size // 8].copy())
        entries.append((function, 2, shares, kept[-1].ctypes.data))
        for array in args[:-1]:
            array[:] = 0
    return np.array(entries), kept
