"""Random resized crops of images of any size (Szegedy et al. 2015, section 6), with torchvision's sizes and shapes."""

import math

import numpy as np
from numpy.typing import NDArray

from ...kernels.keyed_random import key_of, scramble

ATTEMPTS = 10  # to find a window that fits, as in torchvision
RATIO = 3 / 4, 4 / 3  # of width to height
REDUCED = 3  # images whose shorter side is more than this many times the size are reduced to that first

Window = tuple[int, int, int, int]  # left, top, right, bottom


def random_window(height: int, width: int, scale: tuple[float, float], seed: int, epoch: int, sample: int) -> Window:
    """A window of an image: its area is a fraction of the image's in ``scale``, its shape in ``RATIO``.

    It is a function of (height, width, scale, seed, epoch, sample). The fraction is uniform, and so is the logarithm of the
    ratio of width to height; the largest window of a permitted shape in the middle, if 10 attempts do not fit.
    """
    key = scramble(key_of("window", seed, epoch), np.array([sample], np.uint64))
    draws = scramble(key, np.arange(4 * ATTEMPTS, dtype=np.uint64)) >> np.uint64(11)
    uniform = (draws.astype(np.float64) / 2**53).reshape(ATTEMPTS, 4).tolist()  # in [0, 1)
    for area, shape, x, y in uniform:
        pixels = height * width * (scale[0] + area * (scale[1] - scale[0]))
        low, high = map(math.log, RATIO)
        ratio = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width < RATIO[0] * height:
        h = round(width / RATIO[0])
    elif width > RATIO[1] * height:
        w = round(height * RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized_crop(image: NDArray[np.uint8], window: Window, size: int) -> NDArray[np.uint8]:
    """That window of an image (H, W, C) with size × size pixels, as torchvision's ``resized_crop`` of a PIL image."""
    left, top, right, bottom = window
    return resized(np.ascontiguousarray(image[top:bottom, left:right]), size, size)


def reduced(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The image (H, W, C), made smaller if its shorter side is more than ``REDUCED`` times the size."""
    height, width = image.shape[:2]
    most = REDUCED * size
    if min(height, width) <= most:
        return image
    if height < width:
        return resized(image, most, round(width * most / height))
    return resized(image, round(height * most / width), most)


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """An image (H, W, C) with height × width pixels: bilinear with antialiasing, as Pillow and torchvision do it."""
    from PIL import Image  # here, since it is slow to import

    if image.shape[:2] == (height, width):
        return image
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    bands = (np.ascontiguousarray(image[..., c]) for c in range(image.shape[2]))
    small = [np.asarray(Image.fromarray(b).resize((width, height), Image.Resampling.BILINEAR)) for b in bands]
    return np.stack(small, axis=2)
