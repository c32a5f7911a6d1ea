"""The kernels of a training step, compiled by several processes at once: ``python -m minires.kernels.precompile SHARE …``.

Compiling holds one lock in a process, so threads do not help. With an empty cache folder, the first fused convolution in
float32 starts a process a core. Each compiles a share of the kernels into a folder of its own (Numba's index files are not
made for two writers at once); they are then moved into ``cache.FOLDER``, and loaded from there. One process at a time does
so in a folder; another that comes meanwhile waits for it. Whatever goes wrong, the kernels are compiled in this process, as
they are needed. MINIRES_PRECOMPILE=0 switches it off.
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

import numpy as np

from ..lock import try_lock
from . import cache
from .threads import physical_cores

MOST_PROCESSES = 4  # more would compile the same inner functions once more each
LOCK = "precompiling"  # a file that is locked; it stays behind and means nothing by being there
PATIENCE = 300  # seconds after which a process is not waited for any longer
_once = threading.Lock()
_looked = False


# --- the shares


def _arrays():
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 8, 8, 16), (2, 8, 8, 16), (3, 3, 16, 16)))


_CONVOLUTION = (1, 1), (1, 1), (1, 1), 1


def _forward(module):
    from .epilogue import Epilogue
    from .packing import Operand

    x, dy, w = _arrays()
    module.convolve(Operand(x), w, _CONVOLUTION, Epilogue())
    module.convolve_input_grad(Operand(dy), w, x.shape, _CONVOLUTION, Epilogue())


def _weight_grad(module):
    from .packing import Operand

    x, dy, w = _arrays()
    module.convolve_weight_grad(Operand(x), Operand(dy), w.shape, _CONVOLUTION)


def conv():
    from . import conv

    _forward(conv)


def conv_weight():
    from . import conv_weight

    _weight_grad(conv_weight)


def winograd():
    from . import winograd

    _forward(winograd)


def winograd_weight():
    from . import winograd_weight

    _weight_grad(winograd_weight)


def rest():
    """What else a ResNet's step runs."""
    from . import fast, fused, norm_terms
    from .parallel import parallel_for_address

    x, *_ = _arrays()
    parallel_for_address()
    fused.pointwise(fused.Operand(x), fused.Epilogue())
    weight, mean = np.ones(16, np.float32), np.zeros(16)
    terms = fused.forward_terms(*norm_terms.join(np.ones((1, 2, 16)), np.ones(1)), 1e-5, weight, weight)
    fused.backward_terms(np.ones((2, 16)), mean, terms, weight, 1)
    y = fast.avg_pool2d(x, (8, 8), (8, 8), (0, 0), True)
    fast.avg_pool2d_grad(y, x.shape, (8, 8), (8, 8), (0, 0), True)
    fast.zero_pad_shortcut_grad(fast.zero_pad_shortcut(x, 2, 8, 8), x.shape, 2, 8)
    features, weights = y.reshape(2, 16), np.ones((16, 10), np.float32)
    logits = fast.matmul(features, weights)
    fast.matmul(features.T, logits)
    losses, p = fast.cross_entropy(logits, np.zeros(2, np.int64), 0.0)
    fast.cross_entropy_grad(p, np.zeros(2, np.int64), 0.0, losses)
    large = np.zeros((3, 3, 64, 64), np.float32)
    fast.add(large, large)
    for param in (weights, large):
        fast.sgd_step(param, param.copy(), param.copy(), 0.1, 0.9, 1e-4, False)


# Seconds of each on a Zen 3 core; convolutions and their weight gradients share inner functions, hence a process.
SECONDS = {conv: 9.0, winograd: 9.0, conv_weight: 5.0, winograd_weight: 5.0, rest: 5.0}


def shares(processes):
    """Lists of names, one a process, of nearly equal time; without Winograd's where the target does not use it."""
    from .target import KIND
    from .winograd_table import GAINS

    wanted = {f: s for f, s in SECONDS.items() if KIND in GAINS or f not in (winograd, winograd_weight)}
    lists, totals = [[] for _ in range(processes)], [0.0] * processes
    for function, seconds in sorted(wanted.items(), key=lambda item: -item[1]):
        least = totals.index(min(totals))
        lists[least].append(function.__name__)
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
        and cache.FOLDER is not None
        and name.startswith("python")  # not a program that has Python inside
        and not getattr(sys, "frozen", False)
        and physical_cores() > 1
        and not any(cache.FOLDER.rglob("*conv*._convolve-*.nbi"))
        and not any(cache.FOLDER.rglob("winograd._convolve-*.nbi"))
    )


def _alone(work):
    """work(), one process at a time; not when another has done it meanwhile, nor when that takes too long."""
    descriptor = os.open(cache.FOLDER / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
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
    cache.compiles.announce_once()
    began = time.perf_counter()
    running = []
    with tempfile.TemporaryDirectory(dir=cache.FOLDER, prefix="precompiling-", ignore_cleanup_errors=True) as scratch:
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
                cache.compiles.kernels += _adopt(Path(scratch) / str(n) / cache.FOLDER.name)
    cache.compiles.seconds += time.perf_counter() - began


def _start(names, folder):
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    own = {"MINIRES_CACHE_DIR": str(folder), "MINIRES_PRECOMPILE": "0", "PYTHONPATH": path}
    command = [sys.executable, "-m", __name__, cache.FOLDER.name, *names]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return subprocess.Popen(command, env=os.environ | own, **quiet)


def _adopt(folder):
    """Move compiled functions, whole, to where they belong; not those that another process has brought already."""
    names = []
    for index in sorted(folder.rglob("*.nbi")):
        to = cache.FOLDER / index.parent.relative_to(folder)
        if (to / index.name).exists():
            continue
        to.mkdir(exist_ok=True)
        for code in index.parent.glob(f"{index.stem}.*.nbc"):
            shutil.move(code, to / code.name)
        shutil.move(index, to / index.name)  # last: what it lists is there
        names.append(index.name.split("-")[0].split(".")[-1])
    return names


def main(folder, *names):
    """What a process does: 3 where it would compile something else than its parent."""
    if cache.FOLDER is None or cache.FOLDER.name != folder:
        return 3
    cache.compiles.announce = False
    for name in names:
        next(function for function in SECONDS if function.__name__ == name)()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
