"""The built-in data set of shapes and textures, which minires draws itself: no files, no download."""

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..kernels.keyed_random import key_of
from .dataset import Dataset

CLASSES = ("disc", "triangle", "square", "star", "cross", "stripes", "checks", "dots", "rings", "zigzag")
TRAIN, TEST = 20_000, 4_000


def shapes(seed: int = 0, train: int = TRAIN, test: int = TEST) -> tuple[Dataset, Dataset]:
    """Draw the built-in data set: (training set, test set) of 32×32 RGB images of five shapes and five textures.

    train, test: the numbers of images. Colour, position, size, orientation, outline or filling, background, clutter and
    noise vary; colour is independent of the class, and classes alternate. Image i is a function of (seed, split, i), the same
    for any number of images and threads and on any machine. All 24,000 take about a second on two cores.
    Raises ConfigError for fewer than one image.
    """
    if train < 1 or test < 1:
        raise ConfigError(f"a data set has at least one image for training and one for testing, not {train} and {test}")
    training = Dataset(*_draw(train, seed, split=0), CLASSES, "shapes")
    return training, Dataset(*_draw(test, seed, split=1), CLASSES, "shapes", training.mean, training.std)


def _draw(count: int, seed: int, split: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from ..kernels.compiled.drawing import SIZE, draw_shapes  # here, since it imports Numba

    images, labels = np.empty((count, SIZE, SIZE, 3), np.uint8), np.arange(count) % len(CLASSES)
    draw_shapes(images, labels, key_of("shapes", seed, split))
    return images, labels
