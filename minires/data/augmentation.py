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

    The augmentation of a sample is a function of (seed, epoch, sample). Raises ConfigError for a negative number of pixels.

    >>> Augmentation(cutout=8)
    Augmentation(pad=4, reflect=False, flip=True, cutout=8, alternate=False, jitter=0.0)
    """

    pad: int = 4
    reflect: bool = False
    flip: bool = True
    cutout: int = 0
    alternate: bool = False
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("pad", "cutout"):
            pixels = getattr(self, name)
            if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 0:
                raise ConfigError(f"Augmentation: {name} is a whole number of pixels from 0 up, not {pixels!r}")
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"Augmentation: jitter is a number from 0 up and below 1, not {self.jitter!r}")


NO_AUGMENTATION = Augmentation(pad=0, flip=False)  # normalisation only
