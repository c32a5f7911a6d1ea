"""Recordings: the launches of a computation, to be run again with other values in the same arrays and no Python in between.

It is what CUDA graphs are on a GPU. While a thread records (``record``), kernels run as always, and for each launch a Recording
keeps the address of the compiled function and a copy of its arguments: sizes, scalars, and the addresses of arrays. ``replay``
runs them again, from one compiled loop. The few steps that NumPy does are recorded by ``also``, and run from Python.

The arrays of a computation are part of its recording: large ones lie in a memory pool of its own, where those that were free
again during the computation share memory, as they did then. Nothing else may refer to that memory afterwards:
``is_closed`` says whether that is so.
"""

from contextlib import contextmanager, nullcontext

import numpy as np

from . import memory_pool, threads

STRETCH = 16  # launches in a row, before Python looks for signals and other threads get their turn


class Tape:
    """Launches, and steps of NumPy's between them, in the order in which they ran."""

    def __init__(self):
        self.steps = []  # (function, arguments, keywords) of NumPy's, or the number of launches in a row
        self.launches = []  # (function, threads, shares, arguments, the kernel's name)
        self.kept = []  # what the arguments refer to

    def add_launch(self, kernel, count, written):
        """count: how many threads take part, at most; written: what ``workers.run`` wrote down."""
        function, shares, size = written[:3].tolist()
        if size > workers().MOST_ARGUMENTS:
            raise RuntimeError(f"{kernel.__name__} has {size} bytes of arguments; a recording has no room for so many")
        self.launches.append((function, count, shares, written[3 : 3 + size // 8].copy(), kernel.__name__))
        self.kept.append(kernel)
        if self.steps and isinstance(self.steps[-1], int):
            self.steps[-1] += 1
        else:
            self.steps.append(1)

    def finish(self):
        """Make the table that the compiled loop reads."""
        sizes = [len(arguments) for _, _, _, arguments, _ in self.launches]
        starts = np.cumsum([0, *sizes]).tolist()
        self._arguments = np.concatenate(
            [np.zeros(0, np.int64), *[arguments for _, _, _, arguments, _ in self.launches]]
        )
        first = self._arguments.ctypes.data
        rows = [(*launch[:3], first + 8 * at) for launch, at in zip(self.launches, starts)]
        self._entries = np.array(rows, np.int64).reshape(-1, 4)

    def replay(self, count):
        """Run everything again on ``count`` threads. Raises MemoryError as ``threads.launch`` does."""
        at, run = 0, workers().replay
        for step in self.steps:
            if not isinstance(step, int):
                function, args, keywords = step
                function(*args, **keywords)
                continue
            end = at + step
            while at < end:
                stop = min(at + STRETCH, end)
                useful = max(launch[1] for launch in self.launches[at:stop])
                with threads.LOCK:
                    at = run(threads.ready(min(count, useful)), self._entries, at, stop)
                if at < 0:
                    raise MemoryError(f"{self.launches[-1 - at][4]} found no memory for its scratch arrays")


class Recording:
    """A recorded computation. threads: the number of threads that it was recorded on, and runs on.

    frozen: what follows from weights alone (``preparing``) is on a tape of its own, and its results stay.
    """

    def __init__(self, frozen=False):
        self.pool = memory_pool.Arena()
        self.threads = threads.get_num_threads()
        self.frozen = frozen
        self.tape, self.preparation = Tape(), Tape()
        self._written = np.zeros(3 + workers().MOST_ARGUMENTS // 8, np.int64)

    def launch(self, kernel, args, count, shares, address):
        """Run a kernel on ``count`` threads and record it. address: of the workers' shared array. ``threads.LOCK`` is held."""
        at, control = workers().RECORD // 8, threads.control()
        control[at] = self._written.ctypes.data
        try:
            failed = kernel(-address, shares, 0, *args)
        finally:
            control[at] = 0
        self.tape.add_launch(kernel, count, self._written)
        self.tape.kept += [a for a in args if type(a) is np.ndarray and self._lease_of(a) is None]
        return failed

    def also(self, function, args, keywords):
        """Call a function of NumPy's and record it."""
        function(*args, **keywords)
        keywords = {name: self.alias(value) for name, value in keywords.items()}
        self.tape.steps.append((function, tuple(map(self.alias, args)), keywords))

    @contextmanager
    def preparing(self):
        before, self.tape = self.tape, self.preparation
        try:
            with memory_pool.using(memory_pool.pool):
                yield
        finally:
            self.tape = before

    def _lease_of(self, array):
        """The lease of this recording's pool that an array lies in, or None."""
        while isinstance(array, np.ndarray):
            if isinstance(array, memory_pool.Lease):
                return array if array.place[0] is self.pool else None
            array = array.base
        return None

    def alias(self, array):
        """The same memory, for a recording to keep, without holding the lease: the memory serves others later on, as it did."""
        lease = self._lease_of(array)
        return array if lease is None else self.pool.alias(array, lease)

    @property
    def is_closed(self):
        """Whether nobody outside refers to the memory of the recorded arrays (but for small ones, which are not pooled)."""
        return self.pool.used_bytes == 0

    def finish(self):
        """To be called after the computation, before ``replay``."""
        self.preparation.finish()
        self.tape.finish()

    def prepare(self):
        """Compute again what follows from weights alone."""
        self.preparation.replay(self.threads)

    def replay(self):
        """Compute everything else again, or everything if it is not frozen. Raises MemoryError."""
        self.tape.replay(self.threads)


def workers():
    """The module with the compiled loop. It imports Numba."""
    from . import workers

    return workers


@contextmanager
def record(recording):
    """Record what this thread's kernels do inside; their arrays come from the recording's pool."""
    threads.record_to(recording)
    try:
        with memory_pool.using(recording.pool):
            yield recording
    finally:
        threads.record_to(None)


def also(function, *args, **keywords):
    """Call a function of NumPy's that writes into an array and depends on nothing but its arrays, and record it.

    For the steps of a computation that are no kernels. The values of everything else that Python computes are recorded as
    constants.
    """
    recording = threads.current()
    if recording is None:
        function(*args, **keywords)
    else:
        recording.also(function, args, keywords)


def is_recording():
    """Whether this thread records."""
    return threads.current() is not None


def computed(function, shape, dtype, *args):
    """A new array with the values of ``function(*args)``, a function of NumPy's as in ``also``, of this shape and dtype."""
    result = memory_pool.empty(shape, dtype)
    also(_store, result, function, *args)
    return result


def _store(result, function, *args):
    result[...] = function(*args)


def preparing():
    """A context for what follows from weights alone, such as packing them: a frozen recording computes it once."""
    recording = threads.current()
    return recording.preparing() if recording is not None and recording.frozen else nullcontext()
