"""What os.fork() does to kernels: the child gets one thread and copies of locks that no thread will ever release.

The parent holds the locks of kernels, the memory pool and Numba's compiler while it forks, so that the child finds them free
and what they protect whole. Threads are gone in the child, and it starts its own when it needs them.
"""

import os
import sys
from typing import Any

from . import threads
from .memory_pool import pool

_held: list[Any] = []


def _compiler_lock():
    compiler_lock = sys.modules.get("numba.core.compiler_lock")
    return [] if compiler_lock is None else [compiler_lock.global_compiler_lock]


def _before():
    for lock in [threads.LOCK, *_compiler_lock(), pool.lock]:  # in the order in which a launch takes them
        lock.acquire()
        _held.append(lock)


def _after():
    while _held:
        _held.pop().release()


def _after_in_child():
    _after()
    threads.forget_workers()


def register():
    """Have every os.fork() of this process do so. Windows has none."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
