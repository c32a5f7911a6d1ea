"""A folder with a folder of images for each class."""

import os
import stat
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, ImageError, nearest, plural
from ...files import expand_user
from .photographs import EXTENSIONS, MAX_BYTES, decode_image

DIGEST = 16  # bytes of a digest


class _Known(NamedTuple):
    """What a file was when it was read first: the digest of its bytes, its size and its time of modification."""

    digest: bytes
    size: int
    time: int


class ImageFolder:
    """Labelled images in a folder that has a folder for each class. An image is read each time it is asked for.

    ``folder[i]`` is (image, label): uint8 (H, W, 3), RGB, as ``read_image`` gives it, and an int. The classes are the folders
    in the order of their names, as of torchvision's ImageFolder. Images may be in folders inside these; symbolic links are
    followed, but not to a folder that has been looked into already or that contains ``root``. What is hidden (its name begins
    with a dot) is ignored, and so are files that are not named as images are.

    root     the folder
    classes  the names of the classes; by default those of its folders. Some of these may be missing then, as in a test set.
    files    the paths of the images relative to root, with ``/``; paths: the whole paths
    labels   (N,) int64, indices into classes

    Raises DataError for a folder that is not there, cannot be looked into, has no folders or one without an image.

    >>> photos = ImageFolder("photos/train")                             # doctest: +SKIP
    >>> photos.classes, len(photos), photos[0][0].shape                  # doctest: +SKIP
    (('cat', 'dog'), 2000, (375, 500, 3))
    """

    def __init__(self, root: Path | str, classes: Sequence[str] | None = None) -> None:
        self.root = expand_user(root)
        found = _folders(self.root)
        self.classes = tuple(found if classes is None else classes)
        _check_classes(self.root, found, self.classes)
        outside = {_identity(folder) for folder in (self.root, *self.root.resolve().parents)}
        identities = {name: _identity(self.root / name) for name in found}
        self.files: list[str] = []
        counts = [0] * len(self.classes)
        for label, name in enumerate(self.classes):
            if name not in identities:
                continue
            others = {other for other in identities.values() if other != identities[name]}
            files = _images(self.root, name, outside | others)
            if not files:
                raise DataError(
                    f"{self.root / name} holds no images ({', '.join(EXTENSIONS)}), and each folder in {self.root} is a class: "
                    "put some into it, or take it away"
                )
            self.files += files
            counts[label] = len(files)
        self.labels: NDArray[np.int64] = np.repeat(np.arange(len(self.classes)), counts)
        self._known: list[_Known | None] = [None] * len(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"ImageFolder {self.root}: {plural(len(self), 'image')}, {len(self.classes)} classes"

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        """(image, label). Raises ImageError, which names the file, when it cannot be read."""
        return self.decoded(index, self.content(index)), int(self.labels[index])

    @property
    def paths(self) -> list[Path]:
        """The paths of the images."""
        return [self.root / file for file in self.files]

    def path(self, index: int) -> Path:
        """The path of an image."""
        return self.root / self.files[index]

    def decoded(self, index: int, content: bytes) -> NDArray[np.uint8]:
        """The image in the bytes of its file, (H, W, 3). Raises ImageError."""
        return decode_image(content, str(self.path(index)))

    def content(self, index: int, remember: bool = False) -> bytes:
        """The bytes of an image's file.

        remember: note their digest. The file must have the same bytes then whenever it is read again. Raises DataError when it
        has others, ImageError when it cannot be read.
        """
        path = self.path(index)
        try:
            with open(path, "rb", opener=_no_waiting) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                    what = f"{status.st_size:,} bytes" if stat.S_ISREG(status.st_mode) else "no regular file"
                    raise ImageError(f"{path} is {what}: images are files of at most {MAX_BYTES:,} bytes")
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
        before = self._known[index]
        if before is not None or remember:
            known = _Known(blake2b(content, digest_size=DIGEST).digest(), status.st_size, status.st_mtime_ns)
            if before is not None and before.digest != known.digest:
                raise DataError(
                    f"{path} is no longer the file that it was ({before.size:,} bytes then, {len(content):,} now): "
                    "put it back, or begin again with the new one"
                )
            self._known[index] = known
        return content

    def digest(self, index: int) -> bytes:
        """The digest of a file's bytes, 16 bytes. Errors as of ``content``.

        A file of the same size and time of modification as at the first time is not read again.
        """
        known = self._known[index]
        if known is not None:
            try:
                status = os.stat(self.path(index))
            except OSError as error:
                raise ImageError(f"{self.path(index)} cannot be read: {error.strerror or error}") from error
            if (status.st_size, status.st_mtime_ns) == (known.size, known.time):
                return known.digest
        self.content(index, remember=True)
        known = self._known[index]
        assert known is not None
        return known.digest


def _no_waiting(path: str, flags: int) -> int:
    """Opens a file; not a pipe that nobody writes to, which would wait."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


def _folders(root: Path) -> list[str]:
    """The names of the folders in ``root``, sorted. Raises DataError when there are none."""
    try:
        entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
        names = sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError as error:
        raise DataError(f"there is no folder {root}: give one that has a folder of images for each class") from error
    except NotADirectoryError as error:
        raise DataError(f"{root} is a file: give a folder that has a folder of images for each class") from error
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be looked into: {error.strerror}") from error
    if not names:
        images = sum(is_image_name(entry.name) for entry in entries)
        holds = f"{plural(images, 'image')} and no folders" if images else "no folders"
        raise DataError(f"{root} holds {holds}: it must have a folder of images for each class")
    return names


def _check_classes(root: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    """Raise DataError for names of folders that cannot be classes, or are none of ``classes``."""
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the name of the folder {root / name} is not UTF-8, and it would be the name of a class: give it another"
            ) from error
        if name not in classes:
            raise DataError(
                f"{root} has a folder {name!r}{nearest(name, classes)}, and there is no such class: "
                f"there are {', '.join(classes[:10])}{' …' if len(classes) > 10 else ''}"
            )


def is_image_name(name: str) -> bool:
    """Whether a file is named as images are, and is not hidden."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder and the links to it have in common."""
    try:
        status = os.stat(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be looked into: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _images(root: Path, folder: str, seen: set[tuple[int, int]]) -> list[str]:
    """The images in a folder and those inside it, relative to root, in the order of their folders and names.

    seen: folders not to look into, to which are added those that have been.
    """
    found, left = [], [folder]
    while left:
        below = left.pop()
        identity = _identity(root / below)
        if identity in seen:
            continue
        seen.add(identity)
        folders = []
        try:
            for entry in os.scandir(root / below):
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(f"{below}/{entry.name}")
                elif is_image_name(entry.name) and (entry.is_symlink() or entry.is_file()):
                    found.append((below, entry.name))
        except OSError as error:
            raise DataError(f"{error.filename or root / below} cannot be looked into: {error.strerror}") from error
        left += sorted(folders, reverse=True)
    return [f"{below}/{name}" for below, name in sorted(found)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
