"""What may happen to a training image before the network sees it."""

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """Random crops, mirror images and cutout. The defaults are He et al.'s (2015, section 4.2).

    pad      a crop of the image's size out of the image with this many more pixels on each side; 0: no crop
    reflect  the border shows the image mirrored, else its mean colour
    flip     half of the images, at random, are seen in a mirror
    cutout   a square of this many pixels a side, anywhere, is blanked; 0: none (DeVries and Taylor, 2017)

    What happens to a sample is a function of (seed, epoch, sample). Raises ConfigError for a setting that cannot work.

    >>> Augmentation(cutout=8)
    Augmentation(pad=4, reflect=False, flip=True, cutout=8)
    """

    pad: int = 4
    reflect: bool = False
    flip: bool = True
    cutout: int = 0

    def __post_init__(self):
        for name in ("pad", "cutout"):
            pixels = getattr(self, name)
            if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 0:
                raise ConfigError(f"Augmentation: {name} is a whole number of pixels from 0 up, not {pixels!r}")


NOTHING = Augmentation(pad=0, flip=False)  # normalisation alone: evaluation, and training without augmentation
