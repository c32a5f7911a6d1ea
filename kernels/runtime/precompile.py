"""Compiles the kernels of a training step in several processes at once.

Compilation holds a process-wide lock, so threads do not help. If the cache folder is empty, the first fused float32
convolution starts one process per core. Each runs some of the tasks in ``precompile_tasks.py`` with its own cache folder
(Numba's index files do not support concurrent writers); the compiled kernels are then moved into ``jit.FOLDER`` and loaded
from there. Only one process at a time does this for a cache folder; others wait for it. If anything goes wrong, kernels are
compiled in this process as they are needed. MINIRES_PRECOMPILE=0 turns precompiling off.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from ...lock import try_lock
from . import jit
from .threads import physical_cores

MOST_PROCESSES = 4  # each further one would compile the same inner functions again
LOCK = "precompiling"  # the lock file; it is never deleted, and its existence means nothing
PATIENCE = 300  # seconds to wait for other processes
_once = threading.Lock()
_looked = False


# Seconds that each task of precompile_tasks.py takes on a Zen 3 core. A convolution and its weight gradient compile some of
# the same inner functions, so there are no more processes than cores.
SECONDS = {"direct": 9.0, "winograd": 9.0, "direct_weight": 5.0, "winograd_weight": 5.0, "rest": 5.0}
TASKS = f"{__package__.rpartition('.')[0]}.precompile_tasks"


def shares(processes):
    """Divide the tasks into one list per process, of nearly equal total time."""
    lists, totals = [[] for _ in range(processes)], [0.0] * processes
    for name, seconds in sorted(SECONDS.items(), key=lambda item: -item[1]):
        least = totals.index(min(totals))
        lists[least].append(name)
        totals[least] += seconds
    return [names for names in lists if names]


# --- the processes


def first_time():
    """Called before a process's first fused float32 convolution: compile on several cores if nothing is compiled yet."""
    global _looked
    if _looked:
        return
    with _once:
        if not _looked:
            _looked = True
            with suppress(OSError, subprocess.SubprocessError):
                if _wanted():
                    _alone(_precompile)


def _wanted():
    name = Path(sys.executable or "").name.lower()
    return (
        os.environ.get("MINIRES_PRECOMPILE") != "0"
        and jit.FOLDER is not None
        and name.startswith("python")  # not a program that embeds Python
        and not getattr(sys, "frozen", False)
        and physical_cores() > 1
        and not any(jit.FOLDER.rglob("direct._convolve-*.nbi"))
        and not any(jit.FOLDER.rglob("winograd._convolve-*.nbi"))
    )


def _alone(work):
    """Run ``work`` in one process at a time, unless another process has done it meanwhile or takes too long."""
    descriptor = os.open(jit.FOLDER / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                try_lock(descriptor)
                break
            except (BlockingIOError, PermissionError):  # another process is doing it
                if time.monotonic() > until:
                    return
                time.sleep(0.1)
        if _wanted():
            work()
    finally:
        os.close(descriptor)


def _precompile():
    processes = min(physical_cores(), MOST_PROCESSES)
    jit.compiles.announce_once()
    began = time.perf_counter()
    running = []
    with tempfile.TemporaryDirectory(dir=jit.FOLDER, prefix="precompiling-", ignore_cleanup_errors=True) as scratch:
        try:
            for n, names in enumerate(shares(processes)):
                running.append(_start(names, Path(scratch) / str(n)))
            for process in running:
                process.wait(max(0.0, PATIENCE - (time.perf_counter() - began)))
        finally:  # even after a KeyboardInterrupt
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        for n, process in enumerate(running):
            if process.returncode == 0:
                jit.compiles.kernels += _adopt(Path(scratch) / str(n) / jit.FOLDER.name)
    jit.compiles.seconds += time.perf_counter() - began


def _start(names, folder):
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    own = {"MINIRES_CACHE_DIR": str(folder), "MINIRES_PRECOMPILE": "0", "PYTHONPATH": path}
    command = [sys.executable, "-m", TASKS, jit.FOLDER.name, *names]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return subprocess.Popen(command, env=os.environ | own, **quiet)


def _adopt(folder):
    """Move compiled functions to where they belong, except those that are already there. Returns the names of the others."""
    names = []
    for index in sorted(folder.rglob("*.nbi")):
        to = jit.FOLDER / index.parent.relative_to(folder)
        if (to / index.name).exists():
            continue
        to.mkdir(exist_ok=True)
        for code in index.parent.glob(f"{index.stem}.*.nbc"):
            shutil.move(code, to / code.name)
        shutil.move(index, to / index.name)  # last, when the code that it lists is there
        names.append(index.name.split("-")[0].split(".")[-1])
    return names
