"""``njit`` with minires' own cache folder, and the announcement of the first compilation.

The folder's name is a hash of the kernels' sources, the Numba version and the CPU target: stale machine code never runs
after an edit, an upgrade or a move to another CPU. (Numba's own check misses edits to other files with inlined functions.)
Nothing is read from a folder that other users could change (``trust.py``). The caches of other packages are untouched.
If kernels are missing, a training step's are compiled by several processes at once (``precompile.py``).
"""

import hashlib
import sys
import time
from pathlib import Path

from .environment import numba  # first: it checks the environment before Numba reads it

# isort: split
import llvmlite
from numba.core import event

from . import cache_folder, progress, signals, target
from .kernel_cache import KernelCache

PACKAGE = __package__.rpartition(".")[0] + "."  # minires.kernels.
KERNELS = Path(__file__).parent.parent  # the package minires.kernels, whose sources are hashed


def source_hash():
    """Twelve hexadecimal digits: a hash of the kernels' sources, the Python, Numba and llvmlite versions and the CPU target."""
    versions = (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, getattr(sys, "abiflags", ""))
    digest = hashlib.sha256(repr(versions).encode())
    digest.update(repr((target.TRIPLE, target.CPU_NAME, target.CPU_FEATURES)).encode())
    for path in sorted(KERNELS.rglob("*.py")):
        digest.update(path.relative_to(KERNELS).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


VERSIONS = (
    f"Python {'.'.join(map(str, sys.version_info[:2]))}, Numba {numba.__version__}, llvmlite {llvmlite.__version__}"
)
FOLDERS = cache_folder.choose(numba.config.CACHE_DIR, f"kernels-{target.KIND}-{source_hash()}")  # type: ignore[attr-defined]
cache_folder.warn(FOLDERS)


def njit(inner=False):
    """``numba.njit``, cached in FOLDERS and releasing the GIL. Kernels run on threads through ``parallel.py``.

    An ``inner`` function is called only by other compiled functions and gets no wrapper for Python, which took a tenth of the
    compile time.
    """
    options = {
        "no_cfunc_wrapper": True,  # only ``numba.cfunc`` needs this wrapper
        "no_cpython_wrapper": inner,
    }

    def decorate(function):
        dispatcher = numba.njit(nogil=True, error_model="numpy", **options)(function)
        dispatcher._cache = KernelCache(function, FOLDERS)  # as cache=True does, with Numba's own class
        return dispatcher

    return decorate


def _is_ours(dispatcher):
    return (dispatcher.__module__ or "").startswith(PACKAGE)  # a function made by exec() has no module


class CompileWatch(event.Listener):
    """Announces the first compilation of a process on standard error, and records compile times and kernel names."""

    def __init__(self):
        self.seconds = 0.0
        self.kernels = []  # those that were asked for; ``done`` counts the functions that they call too
        self.done = 0
        self.depth = 0
        self.announce = True

    def announce_once(self):
        if self.announce:
            self.announce = False
            kept = f"once (about half a minute in all, as they are first used; kept in {FOLDERS.folder})"
            if FOLDERS.folder is None:
                kept = "in this process alone (about half a minute in all, as they are first used)"
            ahead = ". `minires warmup` does it ahead" * (FOLDERS.folder is not None)
            print(f"minires: compiling its kernels for {target.CPU_NAME}, {kept}{ahead}.", file=sys.stderr)
            progress.begin()

    def on_start(self, started):
        if not _is_ours(started.data["dispatcher"]):
            return
        if not self.depth:
            self.began = time.perf_counter()
            self.announce_once()
            self.holding = signals.held_back()
            self.holding.__enter__()
        self.depth += 1

    def on_end(self, ended):
        dispatcher = ended.data["dispatcher"]
        if not _is_ours(dispatcher):
            return
        self.depth -= 1
        self.done += 1
        progress.show(self.done)
        if self.depth:
            signals.deliver()
        else:
            self.seconds += time.perf_counter() - self.began
            self.kernels.append(dispatcher.__name__)
            progress.end()
            self.holding.__exit__(None, None, None)


compiles = CompileWatch()
event.register("numba:compile", compiles)
