"""The number of threads of parallel kernels, and the lock under which they are launched.

The default is the number of physical cores, because two hyperthreads share one FMA unit. Numba's workqueue layer aborts
the process if two Python threads enter parallel kernels, so every kernel launch goes through ``launch``.
"""

import glob
import numbers
import os
import subprocess
import sys
import threading
import warnings
from functools import cache

import numpy as np

from ...errors import ConfigError

LOCK = threading.RLock()
SMALL = 1 << 16  # bytes of a kernel's largest array; below it one thread does the work
_requested = None  # the argument of set_num_threads
_started = False  # have Numba's threads been started in this process?
_lost = False  # were they started in a process that this one was forked from?
_warned = False
FORKED = (
    "this process was forked from one in which minires had started threads, which a fork does not copy, so its kernels run on "
    "one thread; start processes with multiprocessing.get_context('spawn') to have them run on several"
)


@cache
def physical_cores():
    """The number of physical cores that this process may run on."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    if sys.platform == "darwin":
        try:
            return int(
                subprocess.run(["/usr/sbin/sysctl", "-n", "hw.physicalcpu"], capture_output=True, check=True).stdout
            )
        except (OSError, ValueError, subprocess.CalledProcessError):
            return len(allowed)
    cores = set()
    for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"):
        cpu = int(path.split("/")[5][3:])
        if cpu in allowed:
            with open(path) as file:
                cores.add(file.read().strip())
    return len(cores) or len(allowed)


def most_threads():
    """The most threads that Numba can start in this process (NUMBA_NUM_THREADS, else the number of logical cores)."""
    from .environment import numba

    return numba.config.NUMBA_NUM_THREADS


def get_num_threads() -> int:
    """The number of threads that parallel kernels run on."""
    return _default_threads() if _requested is None else _requested


@cache
def _default_threads():
    if "NUMBA_NUM_THREADS" in os.environ:
        return most_threads()
    return min(physical_cores(), most_threads())


def set_num_threads(threads: int) -> None:
    """Run parallel kernels on this many threads. Results are bitwise the same for any number.

    Raises ConfigError if it is below 1 or above what Numba can start in this process.
    """
    global _requested
    if not isinstance(threads, numbers.Integral) or isinstance(threads, bool) or threads < 1:
        raise ConfigError(f"the number of threads is a whole number from 1 up, not {threads!r}")
    if threads > most_threads():
        raise ConfigError(
            f"{threads} threads asked for, but Numba may start {most_threads()} in this process; "
            f"set the environment variable NUMBA_NUM_THREADS={threads} before Python starts"
        )
    if threads > 1 and _lost:
        raise ConfigError(f"{threads} threads asked for, but {FORKED}")
    with LOCK:
        _requested = int(threads)


def lose_threads():
    """In a process that was just forked: threads that had been started are gone."""
    global _lost, _requested
    if _started:
        _lost, _requested = True, 1


def _warn_of_fork():
    global _warned
    _warned = True
    warnings.warn(FORKED, RuntimeWarning, stacklevel=3)


@cache
def start_threads():
    """Start Numba's threads, and set how long they spin before they sleep.

    By default GNU OpenMP's threads spin for many milliseconds at the end of each kernel. If anything else needs a core (a
    browser, our own prefetch thread), a spinning thread takes it from one that still has work. Threads that sleep at once
    must be woken for each kernel, and often wake up on the caller's core. So they spin slightly longer than Python takes
    from one kernel to the next. The user's own settings take precedence.
    """
    global _started
    from .environment import numba

    _started = True
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    if any(name in os.environ for name in names):
        numba.get_num_threads()
        return
    os.environ["GOMP_SPINCOUNT"] = "50000"  # read once, when OpenMP is loaded
    try:
        numba.get_num_threads()
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def launch(kernel, *args):
    """Launch a parallel kernel, one at a time. Its first two arguments (``parallel.py``) are supplied here.

    Small work runs on one thread: waking the others costs more, and far more if they have to wait for a core. Raises
    MemoryError if a thread share failed to allocate its scratch arrays.
    """
    if _lost and not _warned:
        _warn_of_fork()
    with LOCK:
        threads = get_num_threads()
        if threads == 1 or not _large(args):
            failed = kernel(0, 1, *args)
        else:
            failed = _launch_on(threads, kernel, args)
    if failed:
        raise MemoryError(f"{kernel.__name__} found no memory for its scratch arrays")


def _large(args):
    for a in args:
        if type(a) is np.ndarray and a.nbytes >= SMALL:
            return True
    return False


@cache
def _parallel():
    """Start Numba's threads. Returns its functions that get and set their number, and the address of ``parallel_for``."""
    import numba
    from numba.np.ufunc import parallel

    from .parallel import parallel_for_address

    start_threads()
    # Numba's public function takes two locks to start the threads. They have started, so use the private one, if it exists.
    get_threads = getattr(parallel, "_get_num_threads", numba.get_num_threads)
    return get_threads, numba.set_num_threads, parallel_for_address()


def _launch_on(threads, kernel, args):
    get_threads, set_threads, address = _parallel()
    before = get_threads()
    if threads == before:
        return kernel(-address, threads, *args)
    set_threads(threads)
    try:
        return kernel(-address, threads, *args)
    finally:
        set_threads(before)
