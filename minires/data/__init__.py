"""Data sets by name, augmentation, and the loader that makes batches."""

from pathlib import Path

from ..errors import ConfigError, nearest
from .augmentation import Augmentation, is_scale
from .builtin import shapes
from .cifar.datasets import LAYOUTS, cifar10, cifar100
from .cifar.downloads import download
from .cifar.verification import verify
from .class_names import class_names, imagenet_classes, read_class_names
from .dataset import Dataset
from .folder import Parts, folder
from .images.cache import ImageCache
from .images.folder import ImageFolder
from .images.photographs import evaluation_transform, find_images, read_image
from .loader import Loader
from .map_dataset import MapDataset
from .normalization import NORMALIZATIONS, Normalization, check_normalization

FROM_DISK = {"cifar10": cifar10, "cifar100": cifar100}


def names() -> list[str]:
    """The names of the data sets.

    >>> names()
    ['shapes', 'cifar10', 'cifar100', 'folder']
    """
    return ["shapes", *FROM_DISK, "folder"]


def check_name(name: str) -> None:
    """Raise ConfigError for a name that is not in ``names()``."""
    if name not in names():
        raise ConfigError(f"unknown data set {name!r}{nearest(name, names())}: choose one of {', '.join(names())}")


def load(name: str, data_dir: Path | str | None = None, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A data set by name: (training set, test set).

    "shapes" is drawn by minires from the seed; "cifar10" and "cifar100" are read from ``data_dir``, by default the folder
    that ``download`` uses, and ignore the seed. Raises ConfigError for an unknown name, a ``data_dir`` with "shapes", or
    "folder", which ``folder`` reads; DataError when files are missing or damaged.
    """
    check_name(name)
    if name == "folder":
        raise ConfigError(
            "a data set that is held in memory is needed here, and a folder of images is not: choose one of shapes, "
            f"{', '.join(FROM_DISK)}"
        )
    if name in FROM_DISK:
        return FROM_DISK[name](data_dir)
    if data_dir is not None:
        raise ConfigError(
            f"the built-in data set 'shapes' reads no files, so data_dir {str(data_dir)!r} is of no use: "
            f"choose the data set it holds ({', '.join(FROM_DISK)}), or leave it out"
        )
    return shapes(seed)


__all__ = [
    "LAYOUTS",
    "NORMALIZATIONS",
    "Augmentation",
    "Dataset",
    "ImageCache",
    "ImageFolder",
    "Loader",
    "MapDataset",
    "Normalization",
    "Parts",
    "check_name",
    "check_normalization",
    "cifar10",
    "cifar100",
    "class_names",
    "download",
    "evaluation_transform",
    "find_images",
    "folder",
    "imagenet_classes",
    "is_scale",
    "load",
    "names",
    "read_class_names",
    "read_image",
    "shapes",
    "verify",
]
