"""Compiles the kernels of a training step in several processes at once.

Compilation holds a process-wide lock, so threads do not help. If kernels are missing, the first fused float32 convolution
starts one process per core. Each runs some of the tasks in ``precompile_tasks.py`` and writes what it compiles to the cache
folder, from which this process loads it; what an interrupted process leaves there is used by the next. Only one process at a
time does this for a cache folder; others wait for it. If anything goes wrong, kernels are compiled in this process as they
are needed. MINIRES_PRECOMPILE=0 turns precompiling off.
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from ...lock import try_lock
from . import jit, kernel_files, progress
from .cores import usable_cores
from .target import KIND

MOST_PROCESSES = 4  # each further one would compile the same inner functions again
LOCK = "precompiling"  # the lock file; it is never deleted, and its existence means nothing
DONE = "precompiled"  # the names of the files that a training step needs, once they are there
PATIENCE = 300  # seconds to wait for other processes
STALE = 3600  # seconds after which a temporary file has been left by a process that was killed
_once = threading.Lock()
_looked = False


# Seconds that each task of precompile_tasks.py takes after those before it (Emerald Rapids). Some compile the same inner
# functions, so there are no more processes than cores.
SECONDS = {
    "winograd": 7.5,
    "direct": 6.0,
    "elementwise": 3.4,
    "winograd_weight": 3.1,
    "direct_weight": 3.0,
    "rest": 2.0,
    "classifier": 1.0,
}
NEEDED = {"avx512": 33, "avx2": 33, "neon": 27, "plain": 27}  # kernels that all tasks compile together
TASKS = f"{__package__.rpartition('.')[0]}.precompile_tasks"


def shares(processes):
    """Divide the tasks into one list per process, of nearly equal total time."""
    lists, totals = [[] for _ in range(processes)], [0.0] * processes
    for name, seconds in sorted(SECONDS.items(), key=lambda item: -item[1]):
        least = totals.index(min(totals))
        lists[least].append(name)
        totals[least] += seconds
    return [names for names in lists if names]


# --- what is there


def complete():
    """Whether the kernels of a training step have been compiled ahead, and are still there."""
    there = set().union(*map(kernel_files.names, jit.FOLDERS.reading))
    for folder in jit.FOLDERS.reading:
        try:
            names = (folder / DONE).read_text("utf-8").split()
        except (OSError, UnicodeDecodeError):
            continue
        if there.issuperset(names):
            return True
    return False


def note_complete():
    """Write down that the kernels which are there now are all that a training step needs."""
    names = sorted(set().union(*map(kernel_files.names, jit.FOLDERS.reading)))
    folder = jit.FOLDERS.folder
    if folder is not None:
        with suppress(OSError):
            kernel_files.replace(folder / DONE, "\n".join(names).encode())


def _tidy(folder):
    """Delete the temporary files of processes that were killed while they wrote."""
    for path in folder.glob(f".*{kernel_files.TEMPORARY}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


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
        and jit.FOLDERS.folder is not None
        and name.startswith("python")  # not a program that embeds Python
        and not getattr(sys, "frozen", False)
        and usable_cores() > 1
        and not complete()
    )


def _alone(work):
    """Run ``work`` in one process at a time, unless another process has done it meanwhile or takes too long."""
    descriptor = os.open(jit.FOLDERS.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
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
                _show_progress()
        if _wanted():
            work()
    finally:
        os.close(descriptor)


def _precompile():
    folder = jit.FOLDERS.folder
    processes = min(usable_cores(), MOST_PROCESSES)
    jit.compiles.announce_once()
    _tidy(folder)
    before = kernel_files.names(folder)
    began = time.perf_counter()
    running = []
    try:
        for names in shares(processes):
            running.append(_start(names))
        while any(process.poll() is None for process in running) and time.perf_counter() - began < PATIENCE:
            time.sleep(0.1)
            _show_progress()
    finally:  # even after a KeyboardInterrupt
        progress.end()
        for process in running:
            _stop(process)
    if all(process.returncode >= 0 for process in running):  # if one failed, this process compiles the rest
        note_complete()
    jit.compiles.kernels += map(kernel_files.function_of, sorted(kernel_files.names(folder) - before))
    jit.compiles.seconds += time.perf_counter() - began


def _show_progress():
    progress.show(len(kernel_files.names(jit.FOLDERS.folder)), NEEDED[KIND])


def _stop(process):
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _start(names):
    """Start a process that runs these tasks. It ends when its standard input does: with this process, however that ends."""
    folder = jit.FOLDERS.folder
    own = {
        "MINIRES_CACHE_DIR": str(folder.parent),
        "MINIRES_PRECOMPILE": "0",
        "PYTHONPATH": os.pathsep.join(_search_path()),
    }
    inherited = {k: v for k, v in os.environ.items() if not (sys.flags.ignore_environment and k.startswith("PYTHON"))}
    options = ["-P", *(["-s"] if sys.flags.no_user_site else [])]  # -P: no module from the current folder
    command = [sys.executable, *options, "-m", TASKS, str(folder), *names]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=inherited | own, **streams)


def _search_path():
    """This process's search path without the current folder, whatever that is by now, but with the folder of minires."""
    path = [entry for entry in sys.path if os.path.isabs(entry)]
    own = str(Path(sys.modules[TASKS.partition(".")[0]].__file__).absolute().parent.parent)
    return path if own in path else [own, *path]
