"""Writing files so that a crash at any moment leaves the old file or the new one, never half of one."""

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal


def expand_user(path: Path | str) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder; as it is if there is none."""
    return Path(os.path.expanduser(path))


@contextmanager
def atomic_write(path: Path | str, mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a file that replaces ``path`` when the block ends normally; after an error ``path`` is unchanged.

    The file is written beside ``path``, flushed to disk and renamed over it, so that readers see either the old file or
    the new one, complete, even after a crash. A file that is replaced passes its permissions on; of a symbolic link the
    target is replaced. mode: "wb", or "w" for UTF-8 text. Raises OSError, with ``path`` as its file name, also where
    ``path`` is a folder, a device or anything else but a file.
    """
    with name_in_errors(path):
        target = Path(os.path.realpath(path))
        permissions = _permissions(path)
        if permissions is not None and not target.exists():  # /dev/stdout, sent to a file that has been deleted
            raise OSError(errno.EINVAL, "Not a regular file")
        temporary = target.with_name(_temporary_name(target.name))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with open(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
                if permissions is not None:
                    with suppress(OSError):  # not every file system has permissions
                        os.chmod(descriptor if os.chmod in os.supports_fd else temporary, permissions)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        fsync_folder(target.parent)


def remove_temporary_files(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed processes have left of ``atomic_write`` to the files of these names in a folder."""
    left = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.[0-9a-f]{{16}}\.tmp")
    for path in folder.iterdir():
        if left.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    return f".{name[:50]}.{os.urandom(8).hex()}.tmp"  # cut, since file systems limit names, mostly to 255 bytes


def _permissions(path: Path | str) -> int | None:
    """The permission bits of a file, None where there is none. Raises OSError for anything that is not a regular file."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    return mode & 0o777


@contextmanager
def name_in_errors(path: Path | str) -> Iterator[None]:
    """Set the file name of an OSError raised in the block: that of a full disk names no file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def fsync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a new or renamed file in it survives a power cut. Does nothing on Windows."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
