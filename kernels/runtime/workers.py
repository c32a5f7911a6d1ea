"""The threads that kernels run on, and how they divide the work.

A kernel is divided into more shares than there are threads. Each thread has a range of neighbouring shares; it takes one after
another, and when its own range is empty, shares of the others'. The thread that launched the kernel takes part like any other,
and in the end waits only for those who are still at a share. So a thread that is not running, because another process has its
core, takes nothing and costs nothing. Numba's own layers end every loop in a barrier at which all threads must arrive.
A thread that loses its core in the middle of a share does cost something, a time slice of the other process's. So while others
want the cores, workers offer theirs after every share.

A worker is a Python thread inside one compiled loop, without the GIL. It waits for the next kernel by spinning for a moment;
then it parks: it leaves the loop and waits on a lock, as any Python thread does on any system, until a launch releases it.

Everything that threads share lies in one array of 64-bit integers, with what is written by different threads in different
cache lines:

    line 0            JOB: the number of the kernel that runs, counted up; STOP; SPINS; YIELD, the address of a C function that
                      lets other threads have the core, or 0
    line 1            what describes it: SHARE and ARGUMENTS, addresses; THREADS, how many take part, of MOST; and for all
                      kernels: RUN, the address of ``run``; SLEEP, of a C function, and NAP, its argument; RECORD, where ``run``
                      writes down what it is called with (``recording.py``), or 0
    line 2            DONE: how many of its shares are finished
    line 3 + 2n       thread n's range in one word, NEXT: the number of the kernel (upper 32 bits), where the range ends (16
                      bits) and the next share (lower 16)
    line 4 + 2n       thread n's PARKED: 1 while it waits, or is about to wait, on its lock

A share is taken by advancing NEXT with a compare-and-swap. That fails if the kernel's number in it has changed meanwhile, so a
thread that was away for a long time can take no share of a kernel that it knows nothing of. Where the range ends stands in the
same word: read by itself it might be the next kernel's already, and a spent range of the last one would seem to have shares
left. What a thread has read of line 1 in between is valid if it succeeds, as that line is written only when all shares of the
last kernel are finished. (The number is taken modulo 2³¹: a thread would have to be away for exactly that many kernels.)

All accesses are sequentially consistent. NEXT is written last, so a thread that takes a share sees what the launching thread
wrote before, the kernel's arguments and arrays included; others may have advanced NEXT in between, but a read-modify-write
passes that on. And DONE is advanced after a share's results are written, so a launch that has seen all of DONE returns with all
results visible. This holds on Arm as on x86: nothing relies on the order of other accesses. PARKED may be seen too late: a
worker then sleeps through a kernel, which gets done without it, and the next launch wakes it.
"""

import ctypes
import os
import sys
import threading
from contextlib import suppress
from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import atomics, cores
from .jit import njit

LINE = 64  # bytes
JOB, STOP, SPINS, YIELD = 0, 8, 16, 24
SHARE, ARGUMENTS, THREADS, MOST, RUN, SLEEP, NAP, RECORD = range(LINE, 2 * LINE, 8)
DONE = 2 * LINE
NEXT, PARKED = 3 * LINE, 4 * LINE
EACH = 2 * LINE  # from one thread's range to the next one's
UNKNOWN = -1
SPIN = 50_000  # rounds in which a worker waits for the next kernel, before it parks
MOST_ARGUMENTS = 4096  # bytes of a kernel's arguments
MOST_SHARES = 0xFFFF
PATIENCE = 2_000  # rounds in which the launching thread waits for the last shares, before it sleeps between looks

_bytes = ir.IntType(8).as_pointer()
SHARE_TYPE = ir.FunctionType(ir.VoidType(), [_bytes, ir.IntType(64), ir.IntType(64)])  # (arguments, share, thread)


@intrinsic
def _call_share(typingctx, function, arguments, share, thread):
    """Do one share: call the C function at the address ``function``."""

    def codegen(context, builder, signature, args):
        function, arguments, share, thread = args
        pointer = builder.inttoptr(function, SHARE_TYPE.as_pointer())
        builder.call(pointer, [builder.inttoptr(arguments, _bytes), share, thread])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@njit(inner=True)
def _take(control, thread):
    """Do shares of the current kernel until none is left to take."""
    threads = atomics.load(control + THREADS)
    for k in range(threads):
        at = control + EACH * ((thread + k) % threads)
        while True:
            word = atomics.load(at + NEXT)
            share, end = word & 0xFFFF, word >> 16 & 0xFFFF
            function, arguments = atomics.load(control + SHARE), atomics.load(control + ARGUMENTS)
            allowed = thread < atomics.load(control + THREADS)
            if share >= end or not allowed:
                break
            if atomics.replace(at + NEXT, word, word + 1):
                _call_share(function, arguments, share, thread)
                atomics.add(control + DONE, 1)
                if thread != 0 and atomics.load(control + YIELD) != 0:
                    atomics.call(atomics.load(control + YIELD), 0)


@njit(inner=True)
def _write_down(record, function, arguments, size, shares):
    """record: the address of int64: the function, the shares, the size of the arguments in bytes, and the arguments."""
    atomics.store(record, function)
    atomics.store(record + 8, shares)
    atomics.store(record + 16, size)
    for at in range(0, min(size, MOST_ARGUMENTS), 8):
        atomics.store(record + 24 + at, atomics.load(arguments + at))


@njit()
def run(control, function, arguments, size, shares):
    """Run shares 0 ≤ s < ``shares`` of the C function at an address on the threads. Returns when all are finished.

    arguments: the address of the function's arguments, ``size`` bytes, a multiple of 8. shares: MOST_SHARES at most.
    """
    if atomics.load(control + RECORD) != 0:
        _write_down(atomics.load(control + RECORD), function, arguments, size, shares)
    if shares == 1:
        _call_share(function, arguments, 0, 0)
        return 0
    threads = min(atomics.load(control + MOST), shares)
    job = atomics.load(control + JOB) + 1
    atomics.store(control + THREADS, threads)
    atomics.store(control + SHARE, function)
    atomics.store(control + ARGUMENTS, arguments)
    atomics.store(control + DONE, 0)
    for n in range(threads):
        first, end = n * shares // threads, (n + 1) * shares // threads
        atomics.store(control + EACH * n + NEXT, (job & 0x7FFFFFFF) << 32 | end << 16 | first)
    atomics.store(control + JOB, job)
    _take(control, 0)
    rounds = 0
    while atomics.load(control + DONE) < shares:
        rounds += 1
        if rounds < PATIENCE:
            atomics.pause()
        else:
            atomics.call(atomics.load(control + SLEEP), atomics.load(control + NAP))
    return 0


@njit()
def replay(control, entries, start, stop):
    """Run launches start ≤ n < ``stop`` again. Returns the next one to run, or −1 − n if n found no memory for scratch arrays.

    It returns before ``stop`` where a thread of the next launch has parked meanwhile, as one does that has waited through a
    long share of another's: ``ready`` wakes it. entries: (launches, 4) int64, the function, the threads, the shares and the
    address of the arguments, which begin with what a failed share sets to 1.
    """
    most = atomics.load(control + MOST)
    for n in range(start, stop):
        if n > start:
            for thread in range(1, min(most, entries[n, 1])):
                if atomics.load(control + EACH * thread + PARKED) != 0:
                    return n
        arguments = entries[n, 3]
        atomics.store(arguments, 0)
        atomics.store(control + MOST, min(most, entries[n, 1]))
        run(control, entries[n, 0], arguments, 0, entries[n, 2])
        if atomics.load(arguments) != 0:
            return -1 - n
    return stop


@njit()
def wait(control, thread, seen):
    """A worker's loop: do shares of every kernel. Returns the number of the last one when it is time to park, or −1 to end."""
    parked = control + EACH * thread + PARKED
    atomics.store(parked, 0)
    rounds = 0
    while True:
        spins = atomics.load(control + SPINS)
        while atomics.load(control + JOB) == seen and rounds < spins:
            atomics.pause()
            rounds += 1
        if atomics.load(control + STOP):
            return -1
        if atomics.load(control + JOB) == seen:
            atomics.store(parked, 1)
            if atomics.load(control + JOB) == seen and not atomics.load(control + STOP):
                return seen
            atomics.store(parked, 0)
        seen = atomics.load(control + JOB)
        if thread < atomics.load(control + THREADS):
            rounds = 0
            _take(control, thread)


_RUN_SIGNATURE = (types.int64,) * 5


def compile_loops():
    """Compile what the threads run, or load it from the cache."""
    run_address()
    wait.compile((types.int64,) * 3)
    replay.compile((types.int64, types.int64[:, ::1], types.int64, types.int64))


@cache
def run_address():
    """The address of the compiled ``run``."""
    run.compile(_RUN_SIGNATURE)
    compiled = run.overloads[_RUN_SIGNATURE]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def _nap():
    """The address of a C function, and what to call it with: it gives the core to others for a moment."""
    if sys.platform == "win32":
        return ctypes.cast(ctypes.windll.kernel32.Sleep, ctypes.c_void_p).value, 0  # milliseconds
    return ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value, 20  # microseconds


@cache
def _yield_address():
    """The address of a C function that lets other threads have the core."""
    if sys.platform == "win32":
        return ctypes.cast(ctypes.windll.kernel32.SwitchToThread, ctypes.c_void_p).value
    return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value


class Workers:
    """The worker threads of a process, and the memory that they share. ``threads.LOCK`` is held by whoever calls a method."""

    def __init__(self, most):
        memory = np.zeros((NEXT + EACH * most + LINE) // 8, np.int64)
        self.control = memory[-memory.ctypes.data % LINE // 8 :]  # from the beginning of a cache line
        self.address = self.control.ctypes.data
        self.control[RUN // 8] = run_address()
        self.control[SLEEP // 8], self.control[NAP // 8] = _nap()
        self.control[SPINS // 8] = SPIN
        self.threads = []  # each with the lock on which it parks
        self.most = most - 1  # threads that can be started
        self.load = cores.Load()
        self.kept_off = None  # the CPU on which the launching thread runs, if workers are kept off it; or UNKNOWN

    def ready(self, threads):
        """Have at most so many threads take part in the next kernels, the caller included.

        Returns the address of the shared array. If it is interrupted anywhere, the next call does what was left.
        """
        if threads - 1 > len(self.threads):
            self._start(threads - 1)
        self.load.look(self._running)
        threads = min(threads, 1 + len(self.threads), self.load.fair_share)
        self.control[MOST // 8] = threads
        self.control[YIELD // 8] = _yield_address() if self.load.others else 0
        if threads > 1:
            self._place(threads - 1)
        parked = self._parked(threads - 1)
        if parked.any():
            for n in np.flatnonzero(parked).tolist():
                self._release(n)
        return self.address

    def _parked(self, count):
        """PARKED of the first ``count`` workers."""
        return self.control[(PARKED + EACH) // 8 : (PARKED + EACH * (count + 1)) // 8 : EACH // 8]

    def _running(self):
        """How many of this process's threads run as far as is known here: this one and the workers that are not parked."""
        return 1 + int((self._parked(len(self.threads)) == 0).sum())

    def _release(self, n):
        """Release a worker's lock. If it does not wait there now, it will pass it once more, which does no harm."""
        lock = self.threads[n][1]
        if lock.locked():
            lock.release()

    def _place(self, count):
        """Keep the workers off the launching thread's core.

        Linux would often queue a woken worker behind the thread that woke it, although that one goes on working, and leave it
        there for a tenth of a second and more.
        """
        if cores.current_cpu is None:
            return
        allowed = cores.allowed_cpus()
        cpu = cores.current_cpu() if count < len(allowed) else None
        if cpu == self.kept_off:
            return
        self.kept_off = cpu
        for thread, _ in self.threads:
            with suppress(OSError, TypeError):  # it has ended; it has not begun
                os.sched_setaffinity(thread.native_id, allowed - {cpu})

    def _start(self, count):
        while len(self.threads) < min(count, self.most):
            lock, n = threading.Lock(), len(self.threads) + 1
            lock.acquire()
            work = self.control, self.address, n, lock
            thread = threading.Thread(target=_work, args=work, name=f"minires-{n}", daemon=True)
            # First, so that no other thread gets its number if a KeyboardInterrupt comes now.
            self.threads.append((thread, lock))
            self.kept_off = UNKNOWN
            try:
                thread.start()
            except RuntimeError:  # the system lets this process have no more
                self.threads.pop()
                self.most = len(self.threads)

    def end(self):
        """End the threads. From now on kernels run on the caller's thread alone."""
        self.control[STOP // 8] = 1
        self.control[JOB // 8] += 1
        for n in range(len(self.threads)):
            self._release(n)
        for thread, _ in self.threads:
            if thread.is_alive():
                thread.join(1)
        self.threads, self.most = [], 0


def _work(control, address, n, lock):
    """What a worker thread does. control: the array, which stays alive as long as the thread."""
    seen = 0
    while True:
        seen = wait(address, n, seen)
        if seen < 0:
            return
        lock.acquire()
