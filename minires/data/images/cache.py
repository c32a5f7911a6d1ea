"""Decoded images on disk, so that they need not be decoded in every epoch."""

import os
import re
import struct
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ...files import expand_user

MAGIC = b"minires image 1\n"
HEADER = struct.Struct("<16s 3I 4x 32s")  # magic, height, width, channels, checksum of key, shape and pixels
UNFINISHED = re.compile("[0-9a-f]{32}")  # names of unfinished files
ABANDONED = 3600  # seconds after which an unfinished file is that of a process that was killed


class ImageCache:
    """A folder of decoded images, one file for each, found by the bytes of the file that it was decoded from.

    An entry is written beside its place and moved there when it is whole, so that processes can be killed at any time and
    several can use a cache at once. It has a checksum, of its key too: an entry that is damaged, or not what its name says,
    is decoded again and replaced. When an entry cannot be written, as on a full disk, a warning says so, once, and no more
    are written. Files of other versions of Pillow, which may decode differently, are not used. Nothing is ever deleted: a
    folder can be deleted at any time.

    folder: is created. Raises ConfigError when it cannot be.
    """

    def __init__(self, folder: Path | str) -> None:
        from PIL import __version__  # here, since it is slow to import

        self.folder, self.version, self.full = expand_user(folder), __version__, False
        self.temporary = self.folder / "unfinished"
        try:
            self.temporary.mkdir(parents=True, exist_ok=True)
            probe = self._unfinished()
            probe.touch()
            probe.unlink()
            self._clean()
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot be a cache of images: {error.strerror or error}. Give a folder to write to, or none"
            ) from error

    def get(self, digest: bytes, kind: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The image (H, W, C) that was made from a file; ``make()`` makes it if it is not there.

        digest: of the file's bytes; kind: what was made of it, such as "evaluation 224".
        """
        key = blake2b(b"\0".join((digest, kind.encode(), self.version.encode())), digest_size=32)
        name = key.hexdigest()
        path = self.folder / name[:2] / name[2:]
        found = self._read(path, key.digest())
        if found is not None:
            return found
        image = make()
        if not self.full:
            self._write(path, key.digest(), image)
        return image

    def _read(self, path: Path, key: bytes) -> NDArray[np.uint8] | None:
        """The image in an entry, or None if there is none that is whole."""
        try:
            with open(path, "rb") as file:
                head = file.read(HEADER.size)
                if len(head) < HEADER.size:
                    return None
                magic, height, width, channels, checksum = HEADER.unpack(head)
                size = height * width * channels
                if magic != MAGIC or os.fstat(file.fileno()).st_size != HEADER.size + size:
                    return None
                pixels = file.read(size)
        except OSError:
            return None
        if len(pixels) != size or _checksum(key, head[16:28], pixels) != checksum:
            return None
        return np.frombuffer(pixels, np.uint8).reshape(height, width, channels)

    def _write(self, path: Path, key: bytes, image: NDArray[np.uint8]) -> None:
        shape, pixels = struct.pack("<3I", *image.shape), np.ascontiguousarray(image).data.cast("B")
        head = HEADER.pack(MAGIC, *image.shape, _checksum(key, shape, pixels))
        temporary = self._unfinished()
        try:
            path.parent.mkdir(exist_ok=True)
            with open(temporary, "xb") as file:  # not flushed to disk: the checksum tells after a power cut
                file.write(head)
                file.write(pixels)
            os.replace(temporary, path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self.full:
                self.full = True
                warnings.warn(
                    f"minires keeps no more decoded images in {self.folder} ({error.strerror or error}): the run goes on, and "
                    "those that are not there are decoded in every epoch",
                    stacklevel=2,
                )

    def _unfinished(self) -> Path:
        return self.temporary / os.urandom(16).hex()

    def _clean(self) -> None:
        """Remove what killed processes have left."""
        for path in self.temporary.iterdir():
            with suppress(OSError):
                if UNFINISHED.fullmatch(path.name) and time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()


def _checksum(key: bytes, shape: bytes, pixels: bytes | memoryview) -> bytes:
    found = blake2b(key, digest_size=32)
    found.update(shape)
    found.update(pixels)
    return found.digest()
