"""The built-in data set: shapes and textures, drawn by the package itself. No file, no download."""

import numpy as np

from ..errors import ConfigError
from ..kernels.keyed_random import key_of
from .dataset import Dataset

CLASSES = ("disc", "triangle", "square", "star", "cross", "stripes", "checks", "dots", "rings", "zigzag")
TRAIN, TEST = 20_000, 4_000


def shapes(seed=0, train=TRAIN, test=TEST):
    """Draw the built-in set: (training set, test set) of 32×32 colour images of five shapes and five textures.

    Colour, place, size, direction, outline or filling, background, clutter and noise vary; colour says nothing about
    the class. The classes take turns. Image i is a function of (seed, split, i): it is the same however many are drawn,
    on any number of threads, on any machine. All 24,000 take about a second on two cores.
    Raises ConfigError for fewer than one image.
    """
    if train < 1 or test < 1:
        raise ConfigError(f"a data set has at least one image for training and one for testing, not {train} and {test}")
    training = Dataset(*_draw(train, seed, split=0), CLASSES, "shapes")
    return training, Dataset(*_draw(test, seed, split=1), CLASSES, "shapes", training.mean, training.std)


def _draw(count, seed, split):
    from ..kernels.compiled.drawing import SIZE, draw_shapes  # here, since it imports Numba

    images, labels = np.empty((count, SIZE, SIZE, 3), np.uint8), np.arange(count) % len(CLASSES)
    draw_shapes(images, labels, key_of("shapes", seed, split))
    return images, labels
