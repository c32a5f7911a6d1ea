"""The number of threads of parallel kernels, and the lock under which they are launched.

The default is the number of physical cores, because two hyperthreads share one FMA unit, or what a container's CPU quota
(``cores.py``) or the environment variable NUMBA_NUM_THREADS allows. The threads (``workers.py``) work at
one kernel at a time, so every kernel launch goes through ``launch``.
"""

import atexit
import numbers
import os
import threading
from functools import cache

from ...errors import ConfigError
from .cores import usable_cores
from .work import divide, largest

LOCK = threading.RLock()
_local = threading.local()
MOST_THREADS = 256
_requested = None  # the argument of set_num_threads


def get_num_threads() -> int:
    """The number of threads that parallel kernels run on."""
    return _default_threads() if _requested is None else _requested


@cache
def _default_threads():
    from .environment import numba

    if "NUMBA_NUM_THREADS" in os.environ:
        return min(numba.config.NUMBA_NUM_THREADS, MOST_THREADS)
    return min(usable_cores(), MOST_THREADS)


def set_num_threads(threads: int) -> None:
    """Run parallel kernels on this many threads. Results are bitwise the same for any number.

    Raises ConfigError if it is below 1 or above MOST_THREADS.
    """
    global _requested
    if not isinstance(threads, numbers.Integral) or isinstance(threads, bool) or threads < 1:
        raise ConfigError(f"the number of threads is a whole number from 1 up, not {threads!r}")
    if threads > MOST_THREADS:
        raise ConfigError(f"{threads} threads asked for, but kernels run on {MOST_THREADS} at most")
    with LOCK:
        _requested = int(threads)


def current():
    """What this thread records its launches to (``recording.py``), or None."""
    return getattr(_local, "recording", None)


def record_to(recording):
    """Have this thread record its launches, or with None record no more."""
    _local.recording = recording


_workers = None  # the Workers of this process, when they have been needed


def ready(threads):
    """The address of the workers' shared array, with so many threads ready for a kernel. LOCK is held."""
    global _workers
    if _workers is None:
        from .workers import Workers

        _workers = Workers(MOST_THREADS)
    return _workers.ready(threads)


def control():
    """The workers' shared array, after ``ready``."""
    return _workers.control


def forget_workers():
    """In a process that was just forked: threads that had been started are gone, and others are started when needed."""
    global _workers
    _workers = None


@atexit.register
def _end_workers():
    if _workers is not None:
        with LOCK:
            _workers.end()


def launch(kernel, *args, work=None):
    """Launch a parallel kernel, one at a time. Its first three arguments (``parallel.py``) are supplied here.

    work: what the table in ``work.py`` counts for this kernel, if not the bytes of its largest array. There are no more threads
    than have enough to do. Raises MemoryError if a share failed to allocate its scratch arrays.
    """
    recording = current()
    with LOCK:
        threads, shares = divide(kernel.__name__, largest(args) if work is None else work, get_num_threads())
        if recording is not None:
            failed = recording.launch(kernel, args, threads, shares, ready(threads))
        elif threads == 1:
            failed = kernel(0, 1, 0, *args)
        else:
            failed = kernel(-ready(threads), shares, 0, *args)
    if failed:
        raise MemoryError(f"{kernel.__name__} found no memory for its scratch arrays")


def serial(kernel, *args):
    """Run a kernel that takes the same three arguments first on this thread, with no lock: the work is too small for one."""
    recording = current()
    if recording is None:
        kernel(0, 1, 0, *args)
        return
    with LOCK:
        recording.launch(kernel, args, 1, 1, ready(1))
