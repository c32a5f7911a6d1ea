"""Which folders compiled kernels are read from and written to."""

import os
import re
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from . import kernel_files, trust

NAME = re.compile(r"kernels-[a-z0-9]+-[0-9a-f]{12}")  # of the folders that are made here: CPU target and hash


@dataclass
class Folders:
    """folder: where kernels are written to, and read from; None if there is no such place.
    shared: a folder with kernels that cannot be written to; it is read first. None if there is none.
    untrusted, unwritable: the folders before these that were refused, with the reasons."""

    folder: Path | None = None
    shared: Path | None = None
    untrusted: list[str] = field(default_factory=list)
    unwritable: list[str] = field(default_factory=list)

    @property
    def reading(self):
        """The folders to look for a kernel in, in this order."""
        return [folder for folder in (self.shared, self.folder) if folder is not None]


def bases(numba_folder):
    """The folders that may hold the cache, best first. numba_folder: that of Numba's settings, or ""."""
    found = [os.path.expanduser(os.environ.get("MINIRES_CACHE_DIR", ""))]
    found += [numba_folder and os.path.join(numba_folder, "minires"), platformdirs.user_cache_dir("minires")]
    found += [os.path.join(tempfile.gettempdir(), f"minires-{os.getuid() if hasattr(os, 'getuid') else 'user'}")]
    return [Path(base) for base in found if base]


def choose(numba_folder, name):
    """The Folders of this process: of that name in the first base that is trusted and writable, which is made if necessary."""
    found = Folders()
    for base in bases(numba_folder):
        folder = base / name
        try:
            kernel_files.make_folder(trust.resolve(folder))
            folder = trust.resolve(folder, own=True)
            with tempfile.TemporaryFile(dir=folder):
                found.folder = folder
                break
        except OSError as error:
            _refuse(found, folder, error)
    return found


def _refuse(found, folder, error):
    """Note why a folder cannot be written to, or use it as ``shared``."""
    try:
        folder = trust.resolve(folder, own=True)
    except OSError as distrust:
        refused = found.untrusted if isinstance(distrust, trust.UntrustedError) else found.unwritable
        refused.append(f"{folder} ({distrust.strerror})")
        return
    if found.shared is None and kernel_files.names(folder):
        found.shared = folder
    else:
        found.unwritable.append(f"{folder} ({error.strerror})")


def warn(found):
    """Warn of refused folders: once, where they are chosen."""
    instead = f"{found.folder} is used instead" if found.folder else "kernels are compiled again in every process"
    if found.untrusted:
        warnings.warn(
            f"minires does not trust compiled kernels in {', '.join(found.untrusted)}: {instead}; "
            "set MINIRES_CACHE_DIR to a folder that nobody but you, or root, can change",
            stacklevel=3,
        )
    if found.unwritable and found.shared is None:
        warnings.warn(
            f"minires cannot write compiled kernels to {', '.join(found.unwritable)}: {instead}; "
            "set MINIRES_CACHE_DIR to a writable folder",
            stacklevel=3,
        )
