"""The layout of the files of a CIFAR data set."""

from dataclasses import dataclass, field
from typing import Literal

PIXELS = 3 * 32 * 32  # bytes of an image


@dataclass(frozen=True)
class Version:
    """One of the two forms in which the authors publish a data set."""

    kind: Literal["binary", "python"]
    folder: str
    archive: str
    md5: str  # of the official archive
    megabytes: int  # of the official archive
    train: tuple[str, ...]  # file names
    test: tuple[str, ...]
    checksums: dict[str, str] = field(default_factory=dict)  # file -> md5; there are none for the binary files

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all its files, training first."""
        return (*self.train, *self.test)


@dataclass(frozen=True)
class Layout:
    """A data set and the layout of its files."""

    name: str
    versions: tuple[Version, ...]  # the first is the one to download
    label_counts: tuple[int, ...]  # the numbers of classes of an image's labels; the last label is the one to learn
    label_keys: tuple[str, ...]  # the keys of these labels in the Python version
    classes: tuple[str, ...]
    counts: dict[str, int]  # file without suffix -> images in the official one

    @property
    def record(self) -> int:
        """The size of a record of the binary version in bytes."""
        return len(self.label_counts) + PIXELS

    def official_count(self, name: str) -> int:
        """The number of images in the official file of this name."""
        return self.counts[name.removesuffix(".bin")]
