"""How many threads the parallel kernels use, and the one lock they run under.

The default is the number of physical cores: two hyperthreads share one FMA unit. Numba's workqueue layer aborts the
process when two Python threads enter parallel kernels, so all of them go through ``launch``.
"""

import glob
import numbers
import os
import subprocess
import sys
import threading
from functools import cache

import numpy as np

from ...errors import ConfigError

LOCK = threading.RLock()
SMALL = 1 << 16  # bytes of a kernel's largest array; below it one thread does the work
_requested = None  # what set_num_threads was told


@cache
def physical_cores():
    """Physical cores that this process may run on."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    if sys.platform == "darwin":
        try:
            return int(subprocess.run(["sysctl", "-n", "hw.physicalcpu"], capture_output=True, check=True).stdout)
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
    """The most threads Numba will start in this process (NUMBA_NUM_THREADS, else the logical cores)."""
    import numba

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
    """Run parallel kernels on this many threads. Results do not depend on it, to the last bit.

    Raises ConfigError when it is below 1 or above what Numba may start in this process.
    """
    global _requested
    if not isinstance(threads, numbers.Integral) or isinstance(threads, bool) or threads < 1:
        raise ConfigError(f"the number of threads is a whole number from 1 up, not {threads!r}")
    if threads > most_threads():
        raise ConfigError(
            f"{threads} threads asked for, but Numba may start {most_threads()} in this process; "
            f"set the environment variable NUMBA_NUM_THREADS={threads} before Python starts"
        )
    with LOCK:
        _requested = int(threads)


@cache
def start_threads():
    """Start Numba's threads, told how long to wait awake.

    By default GNU OpenMP's threads spin for many milliseconds at the end of each kernel. When anything else wants a core (a
    browser, our own prefetch thread), the spinning thread keeps it from the one that still has work. Those that sleep at
    once must be woken for each kernel, and often find themselves on the core that the caller is on. So they spin a little
    longer than Python takes from one kernel to the next. What the user has set stands.
    """
    import numba

    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    if any(name in os.environ for name in names):
        numba.get_num_threads()
        return
    os.environ["GOMP_SPINCOUNT"] = "50000"  # read once, when the library is loaded
    try:
        numba.get_num_threads()
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def launch(kernel, *args):
    """Run a parallel kernel, one at a time. Its first two parameters (``parallel.py``) are put in here.

    Small work runs on one thread: waking the others costs more, and far more when they have to wait for a core.
    """
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
    """Numba's functions for the number of threads, its threads started; and where ``parallel_for`` is."""
    import numba
    from numba.np.ufunc import parallel

    from .parallel import parallel_for_address

    start_threads()
    # Numba's own function takes two locks first, to start the threads; where this Numba has the one behind it, that will do.
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
