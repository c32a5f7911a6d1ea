"""Read the files of a .tar.gz archive one after the other, within limits, whatever its headers claim.

``tarfile`` takes a header of any size into memory and fills the holes of sparse files, so that a small archive may take all
the memory there is. Here the headers of long names and attributes have MOST_HEADERS bytes together, only regular files and
folders are admitted, and an archive of n bytes may unpack to FREE + MOST_RATIO · n bytes. Nothing is written to disk.

A tar archive is a sequence of blocks of 512 bytes: for each member a header and then its content, padded to whole blocks.
"""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

BLOCK = 512
CHUNK = 1 << 20
MOST_HEADERS = 1 << 20  # bytes of extended headers
MOST_MEMBERS = 10_000
LONGEST_NAME = 1000
FREE, MOST_RATIO = 64 << 20, 100  # images of the real world compress to a tenth at best
FILE, FOLDER = (b"0", b"\0", b"7"), b"5"
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", (b"x", b"X"), b"g"
SPECIAL = {b"1": "a link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "sparse"}
SPARSE = (b"GNU.sparse.", b"SCHILY.realsize")  # beginnings of attributes


class ArchiveError(Exception):
    """An archive that is damaged or no archive at all."""


class RefusedArchive(Exception):
    """An archive that holds what is not admitted; the message says what."""


@dataclass(frozen=True)
class Member:
    """A regular file in an archive. name: its path there. size: in bytes. read: returns its content, once, before the next."""

    name: str
    size: int
    read: Callable[[], bytes]


def members(raw: IO[bytes], size: int) -> Iterator[Member]:
    """Yield the regular files of a .tar.gz archive, and then read it to its end, where its checksum is.

    raw: the archive, of ``size`` bytes. Raises ArchiveError, OSError, EOFError or zlib.error for a damaged archive;
    RefusedArchive for links, devices, pipes and sparse files, names outside of the archive's folder, and what is larger than
    the limits of this file.
    """
    with gzip.GzipFile(fileobj=raw) as file:
        archive = _Archive(file, FREE + MOST_RATIO * size)
        yield from archive.members()
        archive.skip_rest()


class _Archive:
    """The stream of blocks. limit: the number of bytes that it may unpack to."""

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self.file, self.left = file, limit
        self.headers = MOST_HEADERS  # bytes of extended headers that may still come

    def members(self) -> Iterator[Member]:
        count, extended = 0, dict[bytes, bytes]()
        while (header := self._header(first=not count)) is not None:
            count += 1
            if count > MOST_MEMBERS:
                raise RefusedArchive(f"it has more than {MOST_MEMBERS:,} members")
            kind, size = header[156:157], _number(header[124:136])
            if kind in (*PAX, LONG_NAME, LONG_LINK, PAX_GLOBAL):
                extended |= self._extended(kind, size)
                continue
            name, size = _name(header, extended), _size(extended, size)
            _admit(name, kind, extended)
            extended = {}
            if kind in FILE and not name.endswith("/"):
                yield from self._file(name, size)

    def _file(self, name: str, size: int) -> Iterator[Member]:
        """Yield the Member, and skip of its content what has not been read by then."""
        self._spend(size)
        unread = size

        def read() -> bytes:
            nonlocal unread
            unread = 0
            return self._exactly(size)

        yield Member(name, size, read)
        self._skip(unread)
        self._skip_padding(size)

    def _header(self, first: bool) -> bytes | None:
        """The next header; None at the end of the archive. first: of the archive, which must be there."""
        self._spend(BLOCK)
        header = self.file.read(BLOCK)
        if len(header) < BLOCK and (header or first):
            raise ArchiveError("the archive ends in the middle of a header")
        if not header.strip(b"\0"):  # all zeros: the mark of the end
            return None
        field = header[148:156]
        rest = header[:148] + b" " * 8 + header[156:]
        signed = sum(rest) - 256 * sum(byte > 127 for byte in rest)  # as some programs add them
        if _number(field) not in (sum(rest), signed):
            raise ArchiveError("a header's checksum is not right")
        return header

    def _extended(self, kind: bytes, size: int) -> dict[bytes, bytes]:
        """What an extended header says of the next member: its attributes, of which "path" and "size" count."""
        self.headers -= size
        if self.headers < 0:
            raise RefusedArchive(f"its headers have more than {MOST_HEADERS:,} bytes")
        self._spend(size)
        content = self._exactly(size)
        self._skip_padding(size)
        if kind in PAX:
            return dict(_records(content))
        return {b"path": content} if kind == LONG_NAME else {}

    def skip_rest(self) -> None:
        while content := self.file.read(CHUNK):
            self._spend(len(content))

    def _exactly(self, size: int) -> bytes:
        content = self.file.read(size)
        if len(content) < size:
            raise ArchiveError("the archive ends in the middle of a file")
        return content

    def _skip(self, size: int) -> None:
        for start in range(0, size, CHUNK):
            self._exactly(min(CHUNK, size - start))

    def _skip_padding(self, size: int) -> None:
        self._spend(-size % BLOCK)
        self._exactly(-size % BLOCK)

    def _spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise RefusedArchive(f"it unpacks to more than {MOST_RATIO} times its size")


def _number(field: bytes) -> int:
    """A number in a header: octal digits or, after a byte 0x80, big-endian bytes."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise ArchiveError("a header has a size or a checksum that is no number")
    return int(digits or b"0", 8)


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The attributes in a pax header: "LENGTH KEY=VALUE\\n", where LENGTH is that of the whole record."""
    start = 0
    while start < len(content):
        space = content.find(b" ", start, start + 8)
        length = content[start : max(space, start)]
        end = start + int(length) if length.isdigit() else 0
        if not space < end <= len(content) or content[end - 1 : end] != b"\n":
            raise ArchiveError("a header's attributes are damaged")
        key, _, value = content[space + 1 : end - 1].partition(b"=")
        yield key, value
        start = end


def _name(header: bytes, extended: dict[bytes, bytes]) -> str:
    """The path of a member."""
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return extended.get(b"path", name).partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _size(extended: dict[bytes, bytes], size: int) -> int:
    digits = extended.get(b"size", b"")
    if digits and not (digits.isdigit() and len(digits) < 20):
        raise ArchiveError("a header has a size that is no number")
    return int(digits or size)


def _admit(name: str, kind: bytes, extended: dict[bytes, bytes]) -> None:
    """Raise RefusedArchive unless it is a regular file or a folder, with a name inside of the archive's folder."""
    if len(name) > LONGEST_NAME:
        raise RefusedArchive(f"the name of a member has {len(name):,} characters")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise RefusedArchive(f"the name of its member {name} leads out of the archive's folder")
    if any(key.startswith(SPARSE) for key in extended):
        kind = b"S"
    if kind not in FILE and kind != FOLDER:
        raise RefusedArchive(f"its member {name} is {SPECIAL.get(kind, f'of the unknown type {kind!r}')}")
