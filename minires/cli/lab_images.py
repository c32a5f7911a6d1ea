"""What ``minires lab cam`` and ``features`` look at: photographs, or test images of a data set, and classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.builtin import CLASSES as SHAPES
from ..errors import ConfigError, brief, nearest, plural

if TYPE_CHECKING:
    from ..data import Dataset
    from ..training.source import TrainedNetwork

MOST_NAMES = 20  # of classes in a message
FIRST = 4  # test images that are taken where nothing is said


class Picture(NamedTuple):
    """An image as the network sees it, (H, W, 3) uint8, its name, the network's input, (C, H, W) float32, and its file."""

    name: str
    photograph: NDArray[np.uint8]
    input: NDArray[np.float32]
    file: Path | None = None


def pictures(
    network: TrainedNetwork,
    paths: Sequence[Path],
    index: str | None,
    dataset: str | None,
    data_dir: Path | None,
    most: int,
) -> list[Picture]:
    """The photographs of files and folders, or the test images with these numbers ("0,3") of a data set.

    dataset: by default that of the run, of which without paths and numbers the first images are taken. most: the greatest
    number of images. Raises ConfigError for options that do not go together, and what reading raises.
    """
    if paths:
        for option, value in (("--index", index), ("--dataset", dataset), ("--data-dir", data_dir)):
            if value is not None:
                raise ConfigError(f"{option} is of the test images of a data set: leave it out, or the files")
        return _photographs(network, paths, most)
    if dataset is None and network.recipe is None:
        raise ConfigError(
            "which images? Give files or folders of photographs, or --dataset NAME and --index NUMBER for its test images"
        )
    return _test_images(network, index, dataset, data_dir, most)


def _photographs(network: TrainedNetwork, paths: Sequence[Path], most: int) -> list[Picture]:
    """As ``predict`` sees them."""
    from ..data import evaluation_transform, find_images, read_image
    from ..training.prediction import grey, input_channels, pixel_normalization

    channels = input_channels(network.model)
    mean, std = pixel_normalization(network, channels)
    files = find_images(paths)
    _check_number(len(files), most)
    names = [file.name for file in files]
    found = []
    for file in files:
        seen = evaluation_transform(read_image(file), network.image_size)
        pixels = seen if channels == 3 else grey(seen)
        seen = seen if channels == 3 else pixels.repeat(3, axis=2)
        name = file.name if names.count(file.name) == 1 else f"{file.parent.name}/{file.name}"
        found.append(Picture(name, seen, ((pixels - mean) / std).transpose(2, 0, 1), file))
    return found


def _test_images(
    network: TrainedNetwork, index: str | None, dataset: str | None, data_dir: Path | None, most: int
) -> list[Picture]:
    from ..training.prediction import input_channels

    test, channels = _test_set(network, dataset, data_dir), input_channels(network.model)
    if test.images.shape[3] != channels:
        raise ConfigError(
            f"the network takes images of {channels} channels, and those of {test.name} have {test.images.shape[3]}"
        )
    numbers = range(min(FIRST, len(test), most)) if index is None else _numbers(index, len(test))
    _check_number(len(numbers), most)
    found = []
    for number in numbers:
        image = test.images[number]
        photograph = image if image.shape[2] == 3 else image[..., :1].repeat(3, axis=2)
        name = f"image {number}: {test.classes[test.labels[number]]}"
        normalised = (image.astype(np.float32) / 255 - test.mean) / test.std
        found.append(Picture(name, photograph, normalised.transpose(2, 0, 1)))
    return found


def _test_set(network: TrainedNetwork, name: str | None, data_dir: Path | None) -> Dataset:
    """A data set's test images, with the network's normalisation if it has one."""
    from .. import data, training
    from ..data import Dataset

    if name is None:
        assert network.recipe is not None  # ``pictures`` has looked
        recipe = network.recipe
        if recipe.dataset == "folder":
            raise ConfigError(f"the data set of {network.source} is a folder of images: name some of its files")
        if data_dir is not None:
            recipe = recipe.with_settings(data_dir=str(data_dir.absolute()))
        _, test, _ = training.load_data(recipe)
        assert isinstance(test, Dataset)
        return test
    train, test = data.load(name, data_dir)
    if network.normalization is not None:
        return network.normalization.applied(test)
    return data.Normalization(tuple(train.mean.tolist()), tuple(train.std.tolist())).applied(test)


def _numbers(index: str, count: int) -> list[int]:
    try:
        numbers = [int(part) for part in index.split(",")]
    except ValueError:
        raise ConfigError(f"--index takes numbers of test images, such as 0 or 0,3, not {index!r}") from None
    for number in numbers:
        if not 0 <= number < count:
            raise ConfigError(f"there is no test image {number}: their numbers are 0 to {count - 1}")
    return numbers


def _check_number(found: int, most: int) -> None:
    if found > most:
        raise ConfigError(f"a picture is of up to {plural(most, 'image')}, and these are {found:,}: name some of them")


def check_out(out: Path, seen: Sequence[Picture]) -> None:
    """Raise ConfigError for a picture that is to be written over one of the photographs."""
    if out.exists() and any(picture.file is not None and out.samefile(picture.file) for picture in seen):
        raise ConfigError(f"{out} is one of the photographs: name another file to draw (--out)")


# --- classes


def class_names(network: TrainedNetwork, path: Path | None, dataset: str | None) -> tuple[str, ...]:
    """The names of a network's classes, by default its own, a data set's of as many, or ImageNet's; () if none are known."""
    from .. import data

    own = network.classes
    if own is None and dataset is not None:
        data.check_name(dataset)
        own = data.LAYOUTS[dataset].classes if dataset in data.LAYOUTS else SHAPES
    if path is None and network.num_classes not in (1000, len(own or ())):
        return ()
    return data.class_names(network.num_classes, path, own)


def class_number(network: TrainedNetwork, names: Sequence[str], text: str) -> int:
    """The number of a class that is given by its name or number. Raises ConfigError."""
    same = [i for i, name in enumerate(names) if name == text]
    same = same or [i for i, name in enumerate(names) if name.lower() == text.lower()]
    if len(same) > 1:
        raise ConfigError(f"several classes are called {text!r}: give the number, {' or '.join(map(str, same))}")
    if same:
        return same[0]
    if not text.isdecimal() or len(text) > 9:
        if not names:
            raise ConfigError(
                f"the {network.num_classes} classes of {network.source} have no names here: give --target a number, or "
                f"--classes a file of them, not {brief(text)}"
            )
        known = ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names):,}, from {names[0]} to {names[-1]}"
        raise ConfigError(
            f"there is no class {brief(text)}{nearest(text, names)}: those of {network.source} are {known}"
        )
    if int(text) >= network.num_classes:
        raise ConfigError(f"there is no class {text}: those of {network.source} are 0 to {network.num_classes - 1}")
    return int(text)
