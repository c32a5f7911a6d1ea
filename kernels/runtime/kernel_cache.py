"""Numba's cache of one function, over the files of ``kernel_files.py``.

Numba's own cache unpickles whatever is in its folder, and keeps an index for each function, which several processes cannot
write to at once. Here every signature has its file, which is unpickled only after it has been checked. A kernel whose file
cannot be used is compiled again, and a file that cannot be written is no reason to stop: both are said once in a process.
"""

import errno
import functools
import hashlib
import os
import pickle
import warnings
from pathlib import Path

from llvmlite import binding
from numba.core import caching
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from . import kernel_files
from .signals import held_back

_warned: set[tuple[Path, str]] = set()  # folders that this process has warned of, each with "read" or "write"


class KernelCache(caching.NullCache):
    """The compiled versions of a function, one for each signature. folders: the Folders that they are kept in."""

    def __init__(self, function, folders):
        self.function = function
        self.folders = folders

    @property
    def cache_path(self):
        return str(self.folders.folder) if self.folders.folder else None

    def load_overload(self, sig, target_context):
        """The compiled function (a CompileResult), or None if it has to be compiled."""
        name = self.file_name(sig)
        for folder in self.folders.reading:
            try:
                content = kernel_files.read(folder / name)
                if content is not None:
                    with held_back():
                        return _rebuild(content, target_context)
            except kernel_files.RejectedFile as error:
                _warn_of_file(folder / name, error)
        return None

    def save_overload(self, sig, data):
        """Keep a CompileResult, unless its code contains addresses of this process."""
        folder = self.folders.folder
        if folder is None or data.library.has_dynamic_globals or not all(lifted.can_cache for lifted in data.lifted):
            return
        try:
            kernel_files.write(folder / self.file_name(sig), dumps(data._reduce()))
        except OSError as error:
            if os.name == "nt" and error.errno == errno.EACCES:
                return  # another process is reading this file
            _warn_of_folder(folder, error)

    def file_name(self, sig):
        """Module, function and a hash of the signature. The folder's name has a hash of all else: sources, versions, target."""
        code = self.function.__code__
        where = f"{Path(code.co_filename).stem}.{self.function.__qualname__}-{code.co_firstlineno}"
        key = f"{self.function.__module__}\n{where}\n{sig!r}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:24]
        return f"{where.replace('<', '').replace('>', '')}.{digest}{kernel_files.SUFFIX}"


def _rebuild(content, target_context):
    """The CompileResult of a file's content. Raises RejectedFile if this Numba cannot load it.

    Numba would first import and register everything that it can compile (SciPy too, if installed), and compile its memory
    manager: 0.3 s and 50 MB of a first step with compiled kernels (measured). That is done only for code that needs it.
    """
    try:
        if know_symbols():
            try:
                return CompileResult._rebuild(target_context, *pickle.loads(content))
            except RuntimeError:  # the code needs more of the memory manager, which Numba now compiles
                pass
        target_context.refresh()
        return CompileResult._rebuild(target_context, *pickle.loads(content))
    except MemoryError:
        raise
    except Exception as error:
        raise kernel_files.RejectedFile(f"cannot be loaded ({type(error).__name__}: {error})") from error


@functools.cache
def know_symbols():
    """Give the linker the addresses of Numba's memory manager. Returns False if this Numba keeps its functions elsewhere."""
    try:
        from numba.core.runtime import _nrt_python

        for name, address in _nrt_python.c_helpers.items():
            binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
    except (ImportError, AttributeError):
        return False
    return True


def not_kept():
    """Whether this process could not write a kernel that it has compiled."""
    return any(what == "write" for _, what in _warned)


def _warn_of_file(path, reason):
    if (path.parent, "read") in _warned:
        return
    _warned.add((path.parent, "read"))
    warnings.warn(
        f"minires does not run the compiled kernel {path}, which {reason}: this one, and any other such, is compiled again",
        stacklevel=2,
    )


def _warn_of_folder(folder, error):
    if (folder, "write") in _warned:
        return
    _warned.add((folder, "write"))
    warnings.warn(
        f"minires cannot write compiled kernels to {folder} ({error.strerror}): what is not there already is compiled again "
        "in every process; make room, or set MINIRES_CACHE_DIR to another folder",
        stacklevel=2,
    )
