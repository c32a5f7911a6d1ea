"""The kernels of a training step, compiled by several processes at once.

Compiling holds one lock in a process, so threads do not help. With an empty cache folder, the first fused convolution in
float32 starts a process a core. Each does some of the tasks in ``precompile_tasks.py``, with a cache folder of its own
(Numba's index files are not made for two writers at once); what they compiled is then moved into ``jit.FOLDER``, and loaded
from there. One process at a time does so in a folder; another that comes meanwhile waits for it. Whatever goes wrong, the
kernels are compiled in this process, as they are needed. MINIRES_PRECOMPILE=0 switches it off.
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

MOST_PROCESSES = 4  # more would compile the same inner functions once more each
LOCK = "precompiling"  # a file that is locked; it stays behind and means nothing by being there
PATIENCE = 300  # seconds after which a process is not waited for any longer
_once = threading.Lock()
_looked = False


# Seconds of each of precompile_tasks.py's functions on a Zen 3 core. A convolution and its weight gradient compile some of the
# same inner functions, hence as few processes as cores.
SECONDS = {"direct": 9.0, "winograd": 9.0, "direct_weight": 5.0, "winograd_weight": 5.0, "rest": 5.0}
TASKS = f"{__package__.rpartition('.')[0]}.precompile_tasks"


def shares(processes):
    """Lists of tasks, one a process, of nearly equal time."""
    lists, totals = [[] for _ in range(processes)], [0.0] * processes
    for name, seconds in sorted(SECONDS.items(), key=lambda item: -item[1]):
        least = totals.index(min(totals))
        lists[least].append(name)
        totals[least] += seconds
    return [names for names in lists if names]


# --- the processes


def first_time():
    """Before the first fused convolution of a process in float32: compile on several cores if nothing is compiled yet."""
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
        and name.startswith("python")  # not a program that has Python inside
        and not getattr(sys, "frozen", False)
        and physical_cores() > 1
        and not any(jit.FOLDER.rglob("direct._convolve-*.nbi"))
        and not any(jit.FOLDER.rglob("winograd._convolve-*.nbi"))
    )


def _alone(work):
    """work(), one process at a time; not when another has done it meanwhile, nor when that takes too long."""
    descriptor = os.open(jit.FOLDER / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                try_lock(descriptor)
                break
            except (BlockingIOError, PermissionError):  # another is at it
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
        finally:  # a KeyboardInterrupt, too
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
    """Move compiled functions, whole, to where they belong; not those that another process has brought already."""
    names = []
    for index in sorted(folder.rglob("*.nbi")):
        to = jit.FOLDER / index.parent.relative_to(folder)
        if (to / index.name).exists():
            continue
        to.mkdir(exist_ok=True)
        for code in index.parent.glob(f"{index.stem}.*.nbc"):
            shutil.move(code, to / code.name)
        shutil.move(index, to / index.name)  # last: what it lists is there
        names.append(index.name.split("-")[0].split(".")[-1])
    return names
