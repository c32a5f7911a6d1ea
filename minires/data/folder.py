"""One's own photographs as a training set and a test set: a folder with ``train`` and ``val`` or ``test`` inside, or one that
is split.

``test`` is the test set, or ``val`` if there is no ``test``; where there are both, ``val`` is the validation set. Of one folder
of classes a part is held out as the test set. Nothing is chosen on a test set, whatever its folder is called.
"""

import math
import os
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, plural
from ..files import expand_user
from .images.cache import ImageCache
from .images.folder import ImageFolder
from .map_dataset import MapDataset

VALIDATION = ("val", "valid", "validation")


class Parts(NamedTuple):
    """The data sets in a folder."""

    train: MapDataset
    test: MapDataset
    val: MapDataset | None


class Layout(NamedTuple):
    """The folders of a data set. test is None of one that is to be split."""

    train: Path
    test: Path | None = None
    val: Path | None = None


def folder_layout(data_dir: Path | str) -> Layout:
    """The Layout of a folder. Raises DataError where there is no folder, or train/ without anything to test on."""
    root = expand_user(data_dir)
    try:
        inside = {entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")}
    except FileNotFoundError as error:
        raise DataError(f"there is no folder {root}: give one that has a folder of images for each class") from error
    except OSError as error:
        raise DataError(f"{root} cannot be looked into: {error.strerror}") from error
    found = [name for name in VALIDATION if name in inside]
    if "train" not in inside or not (found or "test" in inside):
        if inside == {"train"}:
            raise DataError(
                f"{root} has train/ alone: put test/ or val/ beside it, or give {root / 'train'} with --val 0.1, which holds a "
                "tenth out"
            )
        return Layout(root)
    extra = sorted(inside - {"train", "test", *found[:1]})
    if extra:
        raise DataError(
            f"{root} has {', '.join(extra)} beside train and {'test' if 'test' in inside else found[0]}: a folder holds "
            "train, val and test, or else its folders are classes"
        )
    val = root / found[0] if found else None
    return Layout(root / "train", root / "test", val) if "test" in inside else Layout(root / "train", val)


def folder(
    data_dir: Path | str,
    image_size: int,
    val: float = 0,
    seed: int = 0,
    cache: ImageCache | None = None,
) -> Parts:
    """(training set, test set, validation set or None) of a folder of photographs; no image is read yet.

    val: of one folder of classes the part that is held out as the test set: a fraction below 1 of every class, or a number of
    images from 1 up, shared out among the classes. Which ones depends on the seed and their paths alone. Of a folder with
    train/ inside, that part of train/ is held out as the validation set. The colour statistics of all are those of the
    training set.
    Raises DataError for a folder that is no such data set, or has one class; ConfigError for a val that does not go with it.
    """
    layout, name = folder_layout(data_dir), "folder"
    images = ImageFolder(layout.train)
    if len(images.classes) < 2:
        raise DataError(
            f"{layout.train} has a single class, {images.classes[0]!r}: a network learns to tell two or more apart, so there "
            "must be a folder for each"
        )
    train = MapDataset(images, image_size, name=name, cache=cache)
    held_out = split(images, val, seed) if val else None
    parts = [None if part is None else ImageFolder(part, images.classes) for part in layout[1:]]
    test, own_val = (None if part is None else MapDataset(part, image_size, name=name, cache=cache) for part in parts)
    if test is None and held_out is None:
        raise ConfigError(
            f"{layout.train} has no train/ with val/ or test/ beside it, so a part of it is to be held out as the test set: "
            "say how much, such as --val 0.1"
        )
    if own_val is not None and held_out is not None:
        raise ConfigError(f"{expand_user(data_dir)} has a validation set, {layout.val}: leave --val out")
    if held_out is None:
        assert test is not None
        return Parts(train, test.like(train), None if own_val is None else own_val.like(train))
    rest = train.part(np.setdiff1d(np.arange(len(images)), held_out))
    part = train.part(held_out).like(rest)
    return Parts(rest, part, None) if test is None else Parts(rest, test.like(rest), part)


def split(images: ImageFolder, val: float, seed: int) -> NDArray[np.int64]:
    """The indices of the images to hold out, rising: a fraction of every class, or a number of images (``folder``)."""
    counts = np.bincount(images.labels, minlength=len(images.classes)).tolist()
    quotas = _fraction(counts, val) if val < 1 else _number(counts, int(val), images)
    if not any(quotas):
        raise ConfigError(f"{images.root} has no class with two images, so none can be held out")
    held_out: list[int] = []
    start = 0
    for count, quota in zip(counts, quotas):
        order = sorted(range(start, start + count), key=lambda i: _draw(images.files[i], seed))
        held_out += order[:quota]
        start += count
    return np.array(sorted(held_out), np.int64)


def _draw(file: str, seed: int) -> tuple[bytes, str]:
    """A random number of an image, which depends on its path and the seed."""
    return blake2b(b"%d\0%s" % (seed, os.fsencode(file)), digest_size=16).digest(), file


def _fraction(counts: list[int], fraction: float) -> list[int]:
    """That part of each class, rounded: at least one image, and not all."""
    return [min(max(1, math.floor(count * fraction + 0.5)), count - 1) if count else 0 for count in counts]


def _number(counts: list[int], number: int, images: ImageFolder) -> list[int]:
    """That number of images in all, in proportion to the classes; each keeps one."""
    most = [max(0, count - 1) for count in counts]
    if number > sum(most):
        raise ConfigError(
            f"val = {number} is too many of the {plural(len(images), 'image')} in {images.root}: each class keeps one to learn "
            f"from, so hold out at most {sum(most)}"
        )
    shares = [count * number / sum(counts) for count in counts]
    quotas = [min(int(share), limit) for share, limit in zip(shares, most)]
    while sum(quotas) < number:  # to the class that lacks most, the first of equals
        free = [c for c in range(len(counts)) if quotas[c] < most[c]]
        quotas[max(free, key=lambda c: (shares[c] - quotas[c], -c))] += 1
    return quotas
