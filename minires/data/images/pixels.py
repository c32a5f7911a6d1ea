"""The pixels of images that come from other libraries or a user's own code."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, DtypeError


def pixels_of(image: Any, what: str) -> NDArray[np.uint8]:
    """An array or a Pillow image as (H, W, C) uint8 with 1 or 3 channels; (H, W) becomes (H, W, 1).

    Pillow images that are neither RGB nor grey are converted to RGB. what: its name in messages.
    Raises DtypeError, DataError for other arrays.
    """
    mode = getattr(image, "mode", None)
    if isinstance(mode, str) and mode.startswith(("I", "F")):
        raise DtypeError(
            f"{what} is a Pillow image of mode {mode}, which does not say what white is: scale it to uint8"
        )
    if mode not in (None, "L", "RGB") and hasattr(image, "convert"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise DtypeError(f"{what} is of dtype {pixels.dtype}: images are uint8, with values from 0 to 255")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not pixels.size or pixels.shape[2] not in (1, 3):
        first = pixels.ndim == 3 and pixels.shape[0] in (1, 3)
        hint = "; channels come last: image.transpose(1, 2, 0)" if first else ""
        raise DataError(f"{what} has shape {pixels.shape}: it is (H, W, C) with 1 or 3 channels{hint}")
    return pixels
