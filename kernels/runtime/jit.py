"""``njit`` with minires' own cache folder, and the announcement of the first compilation.

The folder's name is a hash of the kernels' sources, the Numba version and the CPU target: stale machine code never runs
after an edit, an upgrade or a move to another CPU. (Numba's own check misses edits to other files with inlined functions.)
Numba's cache setting is changed only while a kernel is being decorated, so the caches of other packages are untouched.
If the folder is empty, a training step's kernels are compiled by several processes at once (``precompile.py``).
"""

import errno
import functools
import hashlib
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import llvmlite
import numba
import platformdirs
from llvmlite import binding
from numba.core import caching, config, event

from . import target

PACKAGE = __package__.rpartition(".")[0] + "."  # minires.kernels.
KERNELS = Path(__file__).parent.parent  # the package minires.kernels, whose sources are hashed


def source_hash():
    """Twelve hexadecimal digits: a hash of the kernels' sources, the Python, Numba and llvmlite versions and the CPU target."""
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version_info[:2])).encode())
    digest.update(repr((target.TRIPLE, target.CPU_NAME, target.CPU_FEATURES)).encode())
    for path in sorted(KERNELS.rglob("*.py")):
        digest.update(path.relative_to(KERNELS).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _refuse_strangers(base):
    """Raise PermissionError if, in the shared temporary folder, other users could plant machine code in ``base``."""
    if Path(tempfile.gettempdir()) == base.parent and hasattr(os, "getuid"):
        status = base.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "it belongs to, or can be written by, somebody else")


def _choose_folder():
    """The first writable one of $MINIRES_CACHE_DIR, $NUMBA_CACHE_DIR/minires, the user cache folder and a temporary folder."""
    bases = [os.environ.get("MINIRES_CACHE_DIR")]
    bases += [config.CACHE_DIR and os.path.join(config.CACHE_DIR, "minires"), platformdirs.user_cache_dir("minires")]
    bases += [os.path.join(tempfile.gettempdir(), f"minires-{os.getuid() if hasattr(os, 'getuid') else 'user'}")]
    name = f"kernels-{target.KIND}-{source_hash()}"
    refused = []
    for base in filter(None, bases):
        folder = Path(base) / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_strangers(Path(base))
            with tempfile.TemporaryFile(dir=folder):
                break
        except OSError as error:
            refused.append(f"{folder} ({error.strerror})")
    else:
        folder = None
    if refused:
        instead = f"{folder} is used instead" if folder else "kernels are compiled again in every process"
        warnings.warn(
            f"minires cannot write compiled kernels to {', '.join(refused)}: {instead}; "
            "set MINIRES_CACHE_DIR to a writable folder",
            stacklevel=2,
        )
    return folder


FOLDER = _choose_folder()  # a Path, or None if nothing is writable


# parallel=True alone would also look for parallelism in every array expression, at twice the compile time.
PRANGE_ALONE = dict.fromkeys(
    ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False
)


class _Cache(caching.FunctionCache):
    """Loads a compiled function without loading what only compilation needs.

    Numba would first import and register everything that it can compile (SciPy too, if installed), and compile its memory
    manager: 0.3 s and 50 MB of a first step with compiled kernels (measured). It still does so if something has to be
    compiled.
    """

    def load_overload(self, sig, target_context):
        if not _know_symbols():
            return super().load_overload(sig, target_context)
        try:
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except RuntimeError:  # the code needs more of the memory manager, which Numba now compiles
            return super().load_overload(sig, target_context)


@functools.cache
def _know_symbols():
    """Give the linker the addresses of Numba's memory manager. Returns False if this Numba keeps its functions elsewhere."""
    try:
        from numba.core.runtime import _nrt_python

        _ = caching.FunctionCache._load_overload, caching.FunctionCache._guard_against_spurious_io_errors
        for name, address in _nrt_python.c_helpers.items():
            binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
    except (ImportError, AttributeError):
        return False
    return True


def njit(parallel=False, inner=False):
    """``numba.njit``, cached in FOLDER and releasing the GIL; with ``parallel``, ``prange`` runs on threads.

    Only one function is parallel, and all others run on threads through it (``parallel.py``). An ``inner`` function is
    called only by other compiled functions and gets no wrapper for Python, which took a tenth of the compile time.
    """
    options = {"parallel": {**PRANGE_ALONE, "prange": True}} if parallel else {}
    options["no_cfunc_wrapper"] = True  # only ``numba.cfunc`` needs this wrapper
    options["no_cpython_wrapper"] = inner

    def decorate(function):
        before, config.CACHE_DIR = config.CACHE_DIR, str(FOLDER or "")
        try:
            dispatcher = numba.njit(nogil=True, error_model="numpy", **options)(function)
            if FOLDER is not None:
                dispatcher._cache = _Cache(function)  # as cache=True does, with Numba's own class
            return dispatcher
        finally:
            config.CACHE_DIR = before

    return decorate


def _is_ours(dispatcher):
    return (dispatcher.__module__ or "").startswith(PACKAGE)  # a function made by exec() has no module


class CompileWatch(event.Listener):
    """Announces the first compilation of a process on standard error, and records compile times and kernel names."""

    def __init__(self):
        self.seconds = 0.0
        self.kernels = []
        self.depth = 0
        self.announce = True

    def announce_once(self):
        if self.announce:
            self.announce = False
            print(
                f"minires: compiling its kernels for {target.CPU_NAME}, once (about half a minute in all, as they are "
                f"first used; kept in {FOLDER}). `minires warmup` does it ahead.",
                file=sys.stderr,
            )

    def on_start(self, started):
        if not _is_ours(started.data["dispatcher"]):
            return
        if not self.depth:
            self.began = time.perf_counter()
            self.announce_once()
        self.depth += 1

    def on_end(self, ended):
        dispatcher = ended.data["dispatcher"]
        if not _is_ours(dispatcher):
            return
        self.depth -= 1
        if not self.depth:
            self.seconds += time.perf_counter() - self.began
            self.kernels.append(dispatcher.__name__)


compiles = CompileWatch()
event.register("numba:compile", compiles)
