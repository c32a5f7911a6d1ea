"""Check whether the files of a data set are complete and well-formed, and whether they are the official ones."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from . import files
from .downloads import md5_of
from .layout import Layout, Version


@dataclass(frozen=True)
class Check:
    """The result of checking one file."""

    name: str
    passed: bool
    note: str


def verify(layout: Layout, data_dir: Path | str | None = None, own: bool = False) -> Iterator[Check]:
    """Yield a Check for each file, and a failed one for what could not be read.

    The structure is always checked: archive, sizes, labels, shapes. Files with the official names, in an archive or a
    folder with its official name, must also have the official md5 sum or, where the authors publish none (unpacked binary
    files), the official number of images. own: do not expect official files. Raises DataError when there are no files.
    """
    source = files.find(layout, data_dir)
    if source.version is None:
        yield from _verify_archive(layout, source.path, own)
    official = not own and source.version is not None and source.path.name == source.version.folder
    try:
        with files.enough_memory(source.path):
            for version, name, where, content in source.contents():
                yield _verify_file(layout, version, name, where, content, official)
    except DataError as error:
        yield Check(source.path.name, False, str(error))


def _verify_archive(layout: Layout, path: Path, own: bool) -> Iterator[Check]:
    """Yield a Check of its md5 sum if it is the official archive, or has the name of one."""
    versions = {version.archive: version for version in layout.versions}
    try:
        md5 = md5_of(path)
    except DataError:
        return  # reading it will fail with the same message
    if any(md5 == version.md5 for version in layout.versions):
        yield Check(path.name, True, f"the official archive, md5 {md5}")
    elif path.name in versions and not own:
        yield Check(
            path.name,
            False,
            f"is not the official archive: md5 {md5}, not {versions[path.name].md5}. Download it again, or, if it is "
            "your own, give it another name or say --own",
        )


def _verify_file(
    layout: Layout, version: Version, name: str, where: Path | str, content: NDArray[np.uint8], official: bool
) -> Check:
    """The Check of one file; ``official``: whether it must be the official one."""
    try:
        images, labels = files.parse(layout, version, content, where)
    except DataError as error:
        return Check(name, False, str(error))
    found = f"{len(images):,} images, labels {labels.min()} to {labels.max()}"
    if not official:
        return Check(name, True, found)
    count = layout.official_count(name)
    if len(images) != count:
        return Check(
            name, False, f"{where} has {len(content):,} bytes, {len(images):,} images; the official file {count:,}"
        )
    if name not in version.checksums:
        return Check(name, True, f"{found}, the official size")
    md5 = hashlib.md5(content.data, usedforsecurity=False).hexdigest()
    if md5 != version.checksums[name]:
        return Check(name, False, f"{where} has md5 {md5}; the official file has {version.checksums[name]}")
    return Check(name, True, f"{found}, md5 as the official file")
