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
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

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


class InnerLibrary(JITCodeLibrary):
    """The LLVM module of an inner function, which becomes a part of its callers' modules and is optimised there alone.

    Numba optimises it by itself too, and again in every caller: a seventh of the compile time (measured). It is not given to
    the engine either: calls that were not inlined would be linked to this copy, which is not optimised, and not to their
    module's own, until the next process loads that module from the cache (a training step of ResNet-20 took 2.4 times as long).
    """

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name):
        return 0  # nobody but its callers runs it

    @property
    def codegen(self):
        return self  # on which Numba calls set_env alone

    def set_env(self, env_name, env):
        """Nothing: what Numba would tell the engine's copy, for printing and for errors with arguments."""


class InnerCompiler(Compiler):
    def __init__(self, typingctx, targetctx, library, *rest):
        library = InnerLibrary(targetctx.codegen(), "inner") if library is None else library
        super().__init__(typingctx, targetctx, library, *rest)


def njit(inner=False, lean=True):
    """``numba.njit``, cached in FOLDERS and releasing the GIL. Kernels run on threads through ``parallel.py``.

    An ``inner`` function is called only by other compiled functions and gets no wrapper for Python, which took a tenth of the
    compile time. If it is ``lean`` too, it is optimised in its callers alone and kept with them, not by itself. Long loops over
    slices are better optimised twice, or moved into the caller: augmentation took 1.3 times as long, max pooling 16 times.
    """
    lean = inner and lean
    options = {
        "no_cfunc_wrapper": True,  # only ``numba.cfunc`` needs this wrapper
        "no_cpython_wrapper": inner,
        **({"pipeline_class": InnerCompiler} if lean else {}),
    }

    def decorate(function):
        dispatcher = numba.njit(nogil=True, error_model="numpy", **options)(function)
        if not lean:
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
            kept = f"once (15 to 30 seconds in all, as they are first used; kept in {FOLDERS.folder})"
            if FOLDERS.folder is None:
                kept = "in this process alone (15 to 30 seconds in all, as they are first used)"
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
