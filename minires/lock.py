"""Locks on run folders. They are the operating system's, which releases them when the process ends in any way."""

import os
import weakref
from pathlib import Path

from .errors import RunError

NAME = ".lock"  # the file remains; its existence means nothing
_BYTE = 1 << 30  # Windows locks bytes, which others cannot read then: one far behind the text


class FolderLock:
    """The lock on a run's folder, held until ``release()``. Raises RunError when another run holds it."""

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        self.release = weakref.finalize(self, os.close, descriptor)  # also when it is garbage-collected
        try:
            try_lock(descriptor)
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
