"""Locks on run folders. They are the operating system's, which releases them when the process ends in any way."""

import os
import stat
import weakref
from contextlib import suppress
from pathlib import Path

from .errors import RunError

NAME = ".lock"  # the file remains; its existence means nothing
_BYTE = 1 << 30  # Windows locks bytes, which others cannot read then: one far behind the text


class FolderLock:
    """The lock on a run's folder, held until ``release()``.

    Raises RunError when another run holds it, or when the lock file is a link, a folder or a device.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = folder = Path(folder)
        self.descriptor = descriptor = _open(folder / NAME)
        self.release = weakref.finalize(self, os.close, descriptor)  # also when it is garbage-collected
        try:
            try_lock(descriptor)
            self.check()  # the file may have been deleted before it was locked
        except RunError:
            self.release()
            raise
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            self.release()
            who = f" (process {holder})" if holder else ""
            raise RunError(
                f"{folder} is in use by another run{who}: wait until it ends, or choose another folder"
            ) from None
        except OSError as error:
            self.release()
            raise RunError(
                f"{folder} cannot be locked ({error.strerror}): choose a folder on a file system with locks"
            ) from error
        _write_pid(descriptor)

    def check(self) -> None:
        """Check that the locked file is still the one in the folder, which may have been deleted, renamed or made again.

        To be called before the folder is written to. Raises RunError.
        """
        if not self.release.alive:
            raise RunError(f"the lock on {self.folder} has been released: open the run again to write to it")
        try:
            same = os.path.samestat(os.fstat(self.descriptor), os.lstat(self.folder / NAME))
        except OSError as error:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise
            same = False
        if not same:
            raise RunError(
                f"{self.folder} is no longer the folder that this run has locked: it, or the {NAME} in it, was deleted, "
                "renamed or replaced. The run has ended and writes nothing more there; if the folder has another name now, "
                "resume the run there"
            )


def _open(path: Path) -> int:
    """Open the lock file, creating it where there is none, and never the target of a link. Raises RunError, OSError."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise RunError(f"{path} is a link, a folder or a device, not the lock file of a run: delete it")
    # NOFOLLOW: a link may have been put there since; Windows has no such flag
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _write_pid(descriptor: int) -> None:
    """Write the process id, for the error message of other runs. A full disk is no reason to fail."""
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError:
        pass


try:
    import fcntl

    def try_lock(descriptor: int) -> None:
        """Lock an open file until it is closed. Raises BlockingIOError or PermissionError while another process has the
        lock, other OSErrors where there are no locks."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

except ImportError:  # Windows
    import msvcrt

    def try_lock(descriptor: int) -> None:
        """As above, with the locks of Windows."""
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]  # Windows only
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
