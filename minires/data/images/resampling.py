"""The resized middle of an image, as Pillow would resize all of it.

Pillow's bilinear filter (libImaging/Resample.c): a triangle as wide as two pixels of the smaller image, in a horizontal and
then a vertical pass, each rounded to whole grey levels; its weights have 22 bits behind the point.
"""

import numpy as np
from numpy.typing import NDArray

BITS = 22


def resized_window(
    image: NDArray[np.uint8], size: tuple[int, int], corner: tuple[int, int], window: tuple[int, int]
) -> NDArray[np.uint8]:
    """The pixels from ``corner`` on, ``window`` of them, of the image (H, W, C) resized to ``size``; all are (rows, columns).

    The grey levels of Pillow's ``resize`` and then ``crop``, without the memory for the resized image. From Pillow 13 on some
    are one level off, since it chooses the order of its passes by the sizes.
    """
    (y, vertical), (x, horizontal) = (_weights(image.shape[i], size[i], corner[i], window[i]) for i in (0, 1))
    part = image[y : y + vertical.shape[1], x : x + horizontal.shape[1]]  # (h, w, C)
    part = _rounded(horizontal @ part.astype(np.float64))  # (h, columns, C)
    return _rounded(np.einsum("rh,hcd->rcd", vertical, part, optimize=True))


def _weights(old: int, new: int, start: int, count: int) -> tuple[int, NDArray[np.float64]]:
    """(first, (count, pixels)): what the pixels of an axis from the first on weigh in the new ones from ``start`` on.

    Whole numbers, 2^22 in a row; products with grey levels and their sums are exact in float64.
    """
    scale = old / new
    width = max(scale, 1.0)
    centres = (np.arange(start, start + count) + 0.5) * scale
    low = np.maximum((centres - width + 0.5).astype(np.int64), 0)
    high = np.minimum((centres + width + 0.5).astype(np.int64), old)
    first = int(low[0])
    pixels = np.arange(first, int(high[-1]))
    triangle = 1 - np.abs((pixels - centres[:, None] + 0.5) * (1 / width))
    inside = (pixels >= low[:, None]) & (pixels < high[:, None])
    weights = np.where(inside, np.maximum(triangle, 0), 0)
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # summed one by one, as Pillow does
    return first, np.trunc(weights * (1 << BITS) + 0.5)


def _rounded(sums: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.floor(sums / (1 << BITS) + 0.5), 0, 255).astype(np.uint8)
