"""Find and read the files of CIFAR: both official versions, unpacked or in their archive.

A record of the binary version has the labels (CIFAR-100: the coarse one, then the fine one), one byte each, and 3,072 pixel
bytes: the red, green and blue planes, 32 × 32 each, in row-major order. A file of the Python version is a pickled dict with
an array "data" of shape (N, 3072), whose rows are such planes, and lists of labels.
"""

import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import platformdirs
from numpy.typing import NDArray

from ...errors import DataError
from ...files import expand_user
from ..pickles.arrays import unpickle
from . import tar
from .layout import Layout, Version

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, 32, 32, 3), labels (N,)
Content = NDArray[np.uint8]  # the bytes of a file


@dataclass(frozen=True)
class Source:
    """Where the files of a data set are: a folder with one version of it, or an archive."""

    layout: Layout
    path: Path
    version: Version | None  # None for an archive, whose content tells

    def contents(self) -> Iterator[tuple[Version, str, Path | str, Content]]:
        """Yield (version, file name, its place in words, its bytes as a uint8 array) for each file.

        An archive is read once, from its beginning to its end; nothing is unpacked to disk. Raises DataError for what
        cannot be read.
        """
        yield from _of_folder(self.layout, self.version, self.path) if self.version else _of_archive(self)


def default_folder() -> Path:
    """The folder for downloads: ``data`` in $MINIRES_CACHE_DIR, or else in the user's cache folder."""
    return expand_user(os.environ.get("MINIRES_CACHE_DIR") or platformdirs.user_cache_dir("minires")) / "data"


def find(layout: Layout, data_dir: Path | str | None = None) -> Source:
    """The Source in ``data_dir``, by default in ``default_folder()``. Raises DataError where there is none."""
    place = default_folder() if data_dir is None else expand_user(data_dir)
    try:
        source = _find(layout, place)
        held = sorted(path.name for path in place.iterdir()) if source is None and place.is_dir() else []
    except OSError as error:
        raise DataError(f"{error.filename} cannot be looked into: {error.strerror}") from error
    if source is not None:
        return source
    if data_dir is None:
        raise DataError(
            f"{layout.name} is not in {place}: `minires data download {layout.name}` fetches it "
            f"({layout.versions[0].megabytes} MB); if it is elsewhere, give data_dir (--data-dir)"
        )
    if not place.exists():
        raise DataError(f"{place} does not exist. {_way_out(layout)}")
    holds = ", ".join(held[:5]) + (" …" if len(held) > 5 else "") if held else "nothing"
    raise DataError(f"{place} holds no {layout.name}, but {holds}. {_way_out(layout)}")


def _find(layout: Layout, place: Path) -> Source | None:
    if place.is_file():
        return Source(layout, place, None)
    for version in layout.versions:
        for folder in (place / version.folder, place):
            if (folder / version.train[0]).is_file() or (folder.name == version.folder and folder.is_dir()):
                return Source(layout, folder, version)
    for version in layout.versions:
        if (place / version.archive).is_file():
            return Source(layout, place / version.archive, None)
    return None


def read(layout: Layout, data_dir: Path | str | None = None) -> tuple[Version, dict[str, Arrays]]:
    """(version, {file name: (images, labels)}) of the Source in ``data_dir``; see ``find`` and ``parse``. Raises DataError."""
    source, parts = find(layout, data_dir), {}
    with enough_memory(source.path):
        for version, name, where, content in source.contents():
            parts[name] = parse(layout, version, content, where)
    return version, parts


def join(parts: dict[str, Arrays], names: Sequence[str]) -> Arrays:
    """(images, labels) of all these files, concatenated."""
    with enough_memory(", ".join(names)):
        return np.concatenate([parts[name][0] for name in names]), np.concatenate([parts[name][1] for name in names])


def _way_out(layout: Layout) -> str:
    holds = ", ".join(f"{version.folder}/ or {version.archive}" for version in layout.versions)
    return f"A folder with {holds} is what to give; `minires data download {layout.name}` fetches it"


def again(layout: Layout) -> str:
    """The end of a sentence about damaged files."""
    return f"get it again (minires data download {layout.name})"


def _of_folder(layout: Layout, version: Version, folder: Path) -> Iterator[tuple[Version, str, Path, Content]]:
    missing = [name for name in version.files if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}: unpack {version.archive} again, or {again(layout)}")
    refuse_too_much(sum((folder / name).stat().st_size for name in version.files), folder)
    for name in version.files:
        try:
            content = np.fromfile(folder / name, np.uint8)
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read: {error.strerror or error}") from error
        yield version, name, folder / name, content


def _of_archive(source: Source) -> Iterator[tuple[Version, str, str, Content]]:
    """Yield the files of an archive, as ``Source.contents`` does."""
    layout, path = source.layout, source.path
    version_of = {name: version for version in layout.versions for name in version.files}
    found: dict[str, set[str]] = {version.kind: set() for version in layout.versions}
    seen: list[str] = []
    total = 0
    with _reading(layout, path) as members:
        for member in members:
            name = PurePosixPath(member.name).name
            if len(seen) < 8:
                seen.append(name[:100])
            if name not in version_of:
                continue
            version = version_of[name]
            if name in found[version.kind]:
                raise DataError(f"{path} holds two files {name}: it is not an official archive; {again(layout)}")
            total += member.size
            refuse_too_much(total, path)
            found[version.kind].add(name)
            yield version, name, f"{path}: {member.name}", np.frombuffer(member.read(), np.uint8)
    version = next((version for version in layout.versions if found[version.kind]), layout.versions[0])
    missing = sorted(set(version.files) - found[version.kind])
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(seen)}. {_way_out(layout)}")


@contextmanager
def _reading(layout: Layout, path: Path) -> Iterator[Iterator[tar.Member]]:
    """The members of an archive. An error in the block becomes a DataError that says how far it could be read."""
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            try:
                yield tar.members(raw, size)
            except tar.RefusedArchive as error:
                raise DataError(
                    f"{path} is not read: {error}. An archive of plain files is what to give; {again(layout)}"
                ) from error
            except (tar.ArchiveError, EOFError, zlib.error, OSError) as error:
                raise DataError(
                    f"{path} ({size:,} bytes) cannot be read as a .tar.gz archive past byte "
                    f"{raw.tell():,}: {error}. It is damaged, cut short or something else; {again(layout)}"
                ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def parse(layout: Layout, version: Version, content: Content, where: Path | str) -> Arrays:
    """The bytes of a file → (images (N, 32, 32, 3) uint8, labels (N,) int64). Raises DataError, with the offset."""
    rows, labels = (_parse_binary if version.kind == "binary" else _parse_python)(layout, content, where)
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels.astype(np.int64)


def _parse_binary(layout: Layout, content: Content, where: Path | str) -> tuple[NDArray, NDArray]:
    count, rest = divmod(len(content), layout.record)
    if rest or not count:
        raise DataError(
            f"{where} has {len(content):,} bytes, which is not a whole number of records of {layout.record:,} bytes "
            f"(record {count}, at byte {count * layout.record:,}, is not all there): it is cut short, or no "
            f"{layout.name} file; {again(layout)}"
        )
    records = content.reshape(count, layout.record)
    for byte, limit in enumerate(layout.label_counts):
        wrong = np.flatnonzero(records[:, byte] >= limit)
        if wrong.size:
            raise DataError(
                f"{where}: the label at byte {wrong[0] * layout.record + byte:,} (record {wrong[0]}) is "
                f"{records[wrong[0], byte]}, but {_range(layout, limit)}"
            )
    labels = len(layout.label_counts)
    return records[:, labels:], records[:, labels - 1]


def _parse_python(layout: Layout, content: Content, where: Path | str) -> tuple[NDArray, NDArray]:
    batch = unpickle(io.BytesIO(content.data), where)
    if type(batch) is not dict:
        raise DataError(f"{where} holds a {type(batch).__name__}, not the dict of a {layout.name} file")
    batch = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    rows = batch.get("data")
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3072:
        said = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else f"a {type(rows).__name__}"
        raise DataError(f"{where}: 'data' is {said}, not a uint8 array of shape (N, 3072); {again(layout)}")
    if not len(rows):
        raise DataError(f"{where} holds no image; {again(layout)}")
    for key, limit in zip(layout.label_keys, layout.label_counts):
        labels = batch.get(key)
        labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
        if type(labels) is not list or len(labels) != len(rows):
            said = f"{len(labels)} of them" if type(labels) is list else f"a {type(labels).__name__}"
            raise DataError(f"{where}: '{key}' should be {len(rows)} labels and is {said}; {again(layout)}")
        for place, label in enumerate(labels):
            if type(label) is not int or not 0 <= label < limit:
                fits = type(label) is int and abs(label) < 2**63
                said = label if fits else f"of type {type(label).__name__}"
                raise DataError(f"{where}: label {place} of '{key}' is {said}, but {_range(layout, limit)}")
    return rows, np.array(labels)


def _range(layout: Layout, limit: int) -> str:
    """The end of a sentence about a label that is no class."""
    return f"{layout.name} has the labels 0 to {limit - 1}: the file is damaged or no {layout.name}"


def machine_memory() -> int | None:
    """The memory that this process may use, in bytes, as far as the system tells; None where it does not."""
    limits = []
    try:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (AttributeError, ValueError, OSError):  # not a Unix; "max", or no such file
        pass
    return min(limits, default=None)


def refuse_too_much(size: int, where: Path | str) -> None:
    """Raise DataError when files of ``size`` bytes do not fit into memory, where they are held twice while they are read."""
    memory = machine_memory()
    if memory is not None and 2 * size > memory:
        raise DataError(
            f"{where} holds {size / 1e9:,.1f} GB of images, and reading it takes twice as much memory; this machine has "
            f"{memory / 1e9:,.1f} GB. Data sets are held in memory: use a smaller one or a bigger machine"
        )


@contextmanager
def enough_memory(where: Path | str) -> Iterator[None]:
    """Turn a MemoryError in the block into a DataError that names what did not fit."""
    try:
        yield
    except MemoryError as error:
        raise DataError(
            f"the memory that is free is not enough to read {where}: close other programs or use a smaller data set"
        ) from error
