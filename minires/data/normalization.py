"""The normalisation of images: what their pixels have subtracted and are divided by before a network sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

from ..errors import ConfigError, brief, nearest
from .dataset import Dataset
from .map_dataset import MapDataset

D = TypeVar("D", Dataset, MapDataset)


@dataclass(frozen=True)
class Normalization:
    """(x - mean) / std, channel by channel, of pixels x scaled to [0, 1]. Raises ConfigError for what cannot be one.

    >>> Normalization.named("imagenet").mean
    (0.485, 0.456, 0.406)
    >>> Normalization((0.5,), (0.0,))
    Traceback (most recent call last):
        ...
    minires.errors.ConfigError: std is a number above 0 for each channel, not [0.0]
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = (v.item() if isinstance(v, np.number) else v for v in getattr(self, name))  # of an array, too
            object.__setattr__(self, name, tuple(values))
        check_normalization(self.mean, self.std)
        if not self.mean:
            raise ConfigError("a normalisation has a mean and a std for each channel, not none")
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))

    @classmethod
    def named(cls, name: str) -> Self:
        """That of the training images of "imagenet", "cifar10" or "cifar100". Raises ConfigError for another name."""
        if name not in NORMALIZATIONS:
            raise ConfigError(
                f"unknown normalisation {name!r}{nearest(name, NORMALIZATIONS)}: choose one of {', '.join(NORMALIZATIONS)}, or "
                "give a mean and a std"
            )
        return cls(*NORMALIZATIONS[name])

    def applied(self, dataset: D) -> D:
        """The data set with this normalisation. Raises ConfigError for images with another number of channels."""
        channels = dataset.image_shape[2]
        if channels != len(self.mean):
            raise ConfigError(
                f"the normalisation is of {len(self.mean)} channels, and the images of {dataset.name} have {channels}"
            )
        return dataset.with_statistics(self.mean, self.std)


# As published with the weights that were trained with them, in torchvision's and other public codes
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ConfigError unless there are as many finite means as deviations above 0; both may be empty."""
    for name, values, least in (("mean", mean, "a number"), ("std", std, "a number above 0")):
        if not all(_is_number(v) and (name == "mean" or v > 0) for v in values):
            raise ConfigError(f"{name} is {least} for each channel, not {brief(list(values))}")
    if len(mean) != len(std):
        raise ConfigError(
            f"mean and std go together, a number for each channel: there are {len(mean)} and {len(std)} numbers"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
