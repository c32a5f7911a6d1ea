"""The settings of data augmentation. ``kernels.augment_batch`` applies them."""

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """Random crops, horizontal flips and cutout. The defaults are those of He et al. 2015, §4.2.

    pad      pixels added on each side before a random crop of the original size; 0: no crop
    reflect  pad by reflection, else with the mean colour
    flip     flip a random half of the images horizontally
    cutout   side of a square at a random position that is set to the mean colour; 0: none (DeVries & Taylor 2017)
    jitter   the most by which contrast and brightness change: pixels are multiplied by 1 ± jitter and then moved by ± jitter
             standard deviations of the colours, each a random amount; 0: not at all
    alternate  flip each image in every other epoch, which ones in the first is random (Jordan 2024, arXiv:2404.00498)
    scale    of images that are read from files or a user's object (``MapDataset``): random resized crops, whose area is from
             scale[0] to scale[1] of the image's, such as (0.08, 1.0); None: no such crops. All else is done to the crops

    The augmentation of a sample is a function of (seed, epoch, sample). Raises ConfigError for a number out of range.

    >>> Augmentation(cutout=8)
    Augmentation(pad=4, reflect=False, flip=True, cutout=8, alternate=False, jitter=0.0, scale=None)
    """

    pad: int = 4
    reflect: bool = False
    flip: bool = True
    cutout: int = 0
    alternate: bool = False
    jitter: float = 0.0
    scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("pad", "cutout"):
            pixels = getattr(self, name)
            if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 0:
                raise ConfigError(f"Augmentation: {name} is a whole number of pixels from 0 up, not {pixels!r}")
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"Augmentation: jitter is a number from 0 up and below 1, not {self.jitter!r}")
        if self.scale is not None and not is_scale(self.scale):
            raise ConfigError(f"Augmentation: scale is two parts of the area, rising from 0 to 1, not {self.scale!r}")


def is_scale(values: object) -> bool:
    """Whether these are the least and the largest part of an image's area, such as (0.08, 1.0)."""
    if not isinstance(values, tuple | list) or len(values) != 2:
        return False
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return False
    return 0 < values[0] <= values[1] <= 1


NO_AUGMENTATION = Augmentation(pad=0, flip=False)  # normalisation only
