"""Folders of images as the data of a run: all are read before it begins, and it is written down which it was trained on.

``images.json`` in the run's folder has the path and the digest of each image, by set: {"train": {"cat/1.jpg": "9f…", …}, …}. A
run goes on only with the same images, and an evaluation leaves out those that the run was trained on, wherever they are now.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, models
from ..data.folder import folder_layout
from ..errors import CheckpointError, ConfigError, DataError, ImageError, plural
from ..files import atomic_write, command_line, expand_user
from . import metadata
from .recipe import Recipe

Images = data.Dataset | data.MapDataset
Listing = dict[str, dict[str, str]]  # set → path → digest
SETS = ("train", "test", "val")


def normalization_of(recipe: Recipe, train: Images) -> data.Normalization:
    """The recipe's normalisation, or that of the training images."""
    mean, std = (recipe.mean, recipe.std) if recipe.mean else (train.mean.tolist(), train.std.tolist())
    return data.Normalization(mean, std)


def load_folder(recipe: Recipe, on_read: Callable[[int, int], object] | None = None) -> data.Parts:
    """The data sets of a recipe's folder, after each image has been read once. Warns of test images that are training images.

    on_read(done, all) is called after each image. Raises ConfigError and DataError as ``data.folder`` does; ImageError for an
    image that cannot be read.
    """
    parts = data.folder(_place(recipe), image_size(recipe), recipe.val, recipe.seed, _cache(recipe))
    sets = [part for part in parts if part is not None]
    done, total = 0, sum(map(len, sets))

    def count() -> None:
        nonlocal done
        done += 1
        if on_read is not None:
            on_read(done, total)

    train = parts.train if not recipe.mean else normalization_of(recipe, parts.train).applied(parts.train)
    try:
        train.read_all(bool(recipe.crop_scale), count)
        normalization = normalization_of(recipe, train)
        train, test = normalization.applied(train), normalization.applied(parts.test)
        val = None if parts.val is None else normalization.applied(parts.val)
        for part in (test, val):
            if part is not None:
                part.read_all(on_read=count)
    except ImageError as error:
        verify = command_line("minires", "data", "verify", "folder", "--data-dir", _place(recipe))
        raise ImageError(f"{error}. Which others there are says {verify}") from error
    _warn_of_copies(train, [("test", test), ("validation", val)])
    return data.Parts(train, test, val)


def _place(recipe: Recipe) -> Path:
    if recipe.data_dir is None:
        raise ConfigError("which folder of images? Name it with data_dir (--data-dir)")
    return expand_user(recipe.data_dir)


def _cache(recipe: Recipe) -> data.ImageCache | None:
    if recipe.cache is None:
        return None
    cache, root = expand_user(recipe.cache).resolve(), _place(recipe).resolve()
    if cache.is_relative_to(root) and not any(part.startswith(".") for part in cache.relative_to(root).parts):
        raise ConfigError(f"the cache {recipe.cache} is in {root}, whose folders are classes: give a folder elsewhere")
    return data.ImageCache(cache)


def _cache_or_none(recipe: Recipe) -> data.ImageCache | None:
    """``_cache`` of a run that is only evaluated, for which one that cannot be had is not needed."""
    try:
        return _cache(recipe)
    except ConfigError as error:
        warnings.warn(f"minires decodes the images without the run's cache: {error}", stacklevel=3)
        return None


def image_size(recipe: Recipe) -> int:
    """The side that the images of a folder are resized to."""
    return models.image_size(recipe.model) if recipe.image_size is None else recipe.image_size


def _warn_of_copies(train: data.MapDataset, others: Iterable[tuple[str, data.MapDataset | None]]) -> None:
    known = {train.digest(i) for i in range(len(train))}
    for name, images in others:
        copies = [i for i in range(len(images)) if images.digest(i) in known] if images is not None else []
        if images is not None and copies:
            warnings.warn(
                f"minires has found copies of training images among the {len(images):,} {name} images: {len(copies):,}, "
                f"such as {images.path(copies[0])}. The {name} accuracy is better than it would be on new ones",
                stacklevel=3,
            )


def listing(parts: Mapping[str, Images | None], root: Path | str | None) -> Listing | None:
    """The Listing of a folder's data sets by name; None for other data."""
    found: Listing = {}
    for name, images in parts.items():
        if isinstance(images, data.MapDataset) and isinstance(images.samples, data.ImageFolder) and root is not None:
            place = expand_user(root)
            found[name] = {_name(images.path(i), place): images.digest(i).hex() for i in range(len(images))}
    return found if "train" in found else None


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def write_listing(path: Path, found: Listing) -> None:
    """Write ``images.json``."""
    with atomic_write(path, "w") as file:
        json.dump(found, file, indent=0)


def read_listing(path: Path) -> Listing | None:
    """The Listing in ``images.json``; None where there is none. Raises DataError for a damaged one."""
    try:
        found: Any = metadata.parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except CheckpointError as error:
        raise DataError(f"{path} is damaged ({error}): the images of the run are not known without it") from error
    if not isinstance(found, dict) or not all(name in SETS and _is_part(part) for name, part in found.items()):
        raise DataError(f"{path} is damaged: it is no list of images by set")
    return found


def _is_part(part: Any) -> bool:
    """Whether a part of a Listing is one: digests by path."""
    return isinstance(part, dict) and all(isinstance(digest, str) for digest in part.values())


def changes(then: Listing, now: Listing) -> str:
    """How the images of a folder differ from those of a listing, in words; "" if they do not."""
    before, after = ({k: v for part in sets.values() for k, v in part.items()} for sets in (then, now))
    said = []
    for word, names in (
        ("new", [name for name in after if name not in before]),
        ("gone", [name for name in before if name not in after]),
        ("changed", [name for name in before if after.get(name, before[name]) != before[name]]),
    ):
        if names:
            said.append(
                f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''} {'is' if len(names) == 1 else 'are'} {word}"
            )
    return "; ".join(said)


def load_test_images(
    recipe: Recipe,
    classes: tuple[str, ...] | None = None,
    then: Listing | None = None,
    checksum: int | None = None,
) -> tuple[data.MapDataset, list[str]]:
    """(the images of a recipe's folder to test on, what is to be said about them). None is read yet.

    They are those of its test set that the run was not trained on. Of a folder that is one set, the images that the run has
    held out or, if it has none of them, all that it was not trained on.

    classes: those of the network; by default those of the folder's training set. then: the run's listing; without it, its
    ``checksum`` of the test set must be that of the images held out now. Without both all images are taken. Raises DataError
    for no image that could be taken, or when it is not known which were held out.
    """
    layout = folder_layout(_place(recipe))
    if classes is None and layout.test is not None:
        classes = data.ImageFolder(layout.train).classes
    images = data.ImageFolder(layout.test or layout.train, classes)
    if layout.test is None and then is None and checksum is not None:
        _, held_out, _ = data.folder(
            _place(recipe), image_size(recipe), recipe.val, recipe.seed, _cache_or_none(recipe)
        )
        if held_out.checksum() != checksum:
            raise DataError(
                f"the images in {layout.train} are not those that the run was begun with, and which ones it was trained on is "
                "written in images.json of its folder, which is not here: give the run's folder, or other images (--data-dir)"
            )
        return normalization_of(recipe, held_out).applied(held_out), []
    chosen, notes = _not_trained_on(images, _place(recipe), then or {}, layout.test is None)
    if not chosen:
        raise DataError(
            f"there is nothing to test on in {images.root}: the run was trained on all {len(images):,} images"
        )
    return _tested(recipe, images, chosen, layout.train), notes


def _tested(recipe: Recipe, images: data.ImageFolder, indices: list[int], train: Path) -> data.MapDataset:
    """These images, with the colour statistics of the recipe or of those in ``train``."""
    size, name, cache = image_size(recipe), recipe.dataset, _cache_or_none(recipe)
    tested = data.MapDataset(images, size, name=name, cache=cache).take(np.array(indices, np.int64))
    if recipe.mean or train == images.root:
        return normalization_of(recipe, tested).applied(tested)
    of_training = data.MapDataset(data.ImageFolder(train), size, name=name, cache=cache)
    return normalization_of(recipe, of_training).applied(tested)


def _not_trained_on(images: data.ImageFolder, root: Path, then: Listing, one: bool) -> tuple[list[int], list[str]]:
    """(indices, notes). one: whether the folder is one set, of which those held out are taken."""
    held_out, trained = then.get("test", {}), then.get("train", {}) | then.get("val", {})
    digests = set(trained.values())
    same, new, copies = [], [], 0
    named = [i for i in range(len(images)) if one and _name(images.path(i), root) in trained]
    for i in sorted({*range(len(images))} - {*named}):
        if not then:
            new.append(i)
            continue
        digest = images.digest(i).hex()
        if held_out.get(_name(images.path(i), root)) == digest:
            same.append(i)
        elif digest in digests:
            copies += 1
        else:
            new.append(i)
    if not same:  # perhaps another folder, whose images may have the names of those of the run
        others = [i for i in named if images.digest(i).hex() not in digests]
        new, copies = sorted(new + others), copies + len(named) - len(others)
    notes = []
    if copies:
        notes.append(
            f"{plural(copies, 'image')} that the run was trained on {'is' if copies == 1 else 'are'} left out."
        )
    if len(same) < len(held_out) and same:
        notes.append(f"{len(held_out) - len(same):,} of the {len(held_out):,} images it has held out are gone.")
    if one and same and new:
        notes.append(
            f"{plural(len(new), 'image')} that the run does not know {'is' if len(new) == 1 else 'are'} left out: to test on "
            "new images, put them into a folder of their own (--data-dir)."
        )
        return same, notes
    return sorted(same + new), notes
