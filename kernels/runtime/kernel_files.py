"""Compiled kernels on disk: a file for each function and signature, read only if it is whole and nobody else's.

A file is a first line, the SHA-256 sum of the names of folder and file and of the content, and the content. The names are in
the sum so that files that were swapped or renamed do not pass. A file is written beside its place and renamed, so processes
may read and write the same folder at once.
"""

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from .trust import other_writers, stranger

FIRST_LINE = b"minires kernel 1\n"
SUFFIX = ".kernel"
TEMPORARY = ".tmp"
LARGEST = 64 << 20  # bytes; the largest kernel has under 1 MB
MODE, FOLDER_MODE = 0o644, 0o755  # before the umask: others may use a shared cache, and never write to it
_START = len(FIRST_LINE) + hashlib.sha256().digest_size
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


class RejectedFile(Exception):
    """A file that must not be loaded. The message continues a sentence that begins with the file's path."""


def names(folder):
    """The names of the kernels' files in a folder; none if it cannot be read."""
    try:
        return {entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)}
    except OSError:
        return set()


def function_of(name):
    """The name of the function in the name of its file.

    >>> function_of("loss._cross_entropy-10.0123456789abcdef01234567.kernel")
    '_cross_entropy'
    """
    return name.split("-")[0].split(".")[-1]


def read(path):
    """The content of a kernel's file; None if there is no such file.

    Raises RejectedFile if it is damaged, is no regular file, or if another user could have written it.
    """
    try:
        # Not blocking: a pipe in the file's place would wait for ever for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RejectedFile(f"cannot be opened ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)  # of the open file, which nobody can exchange
        _check(descriptor, status)
        data = os.read(descriptor, status.st_size + 1)
    except OSError as error:
        raise RejectedFile(f"cannot be read ({error.strerror})") from None
    finally:
        os.close(descriptor)
    if data[: len(FIRST_LINE)] != FIRST_LINE or data[len(FIRST_LINE) : _START] != _digest(path, data[_START:]):
        raise RejectedFile("is damaged (its SHA-256 sum is wrong)")
    return data[_START:]


def _check(descriptor, status):
    if not stat.S_ISREG(status.st_mode):
        raise RejectedFile("is not a regular file")
    found = stranger(status) or other_writers(descriptor, status)
    if found:
        raise RejectedFile(found)
    if status.st_size > LARGEST:
        raise RejectedFile(f"is damaged (it has {status.st_size:,} bytes)")


def write(path, content):
    """Write a kernel's file. Raises OSError, after which no part of it is left."""
    replace(path, FIRST_LINE + _digest(path, content) + content)


def replace(path, content):
    """Write a file beside its place and rename it. Raises OSError, after which no part of it is left."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, MODE)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _digest(path, content):
    digest = hashlib.sha256(f"{Path(path).parent.name}/{Path(path).name}\n".encode())
    digest.update(content)
    return digest.digest()


def make_folder(folder):
    """Make a folder and those above it, writable by this user alone. Raises OSError."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        with suppress(FileExistsError):  # another process has just made it
            part.mkdir(mode=FOLDER_MODE)
