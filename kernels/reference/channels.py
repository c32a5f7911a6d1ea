"""Channels of several images side by side, and apart again. Images are (N, H, W, C)."""

from collections.abc import Sequence

import numpy as np

from ..memory_format import Array


def concat_channels(xs: Sequence[Array]) -> Array:
    """(N, H, W, ΣC): the channels of the xs (N, H, W, C), one after another."""
    return np.concatenate(xs, axis=3)


def split_channels(y: Array, channels: Sequence[int]) -> list[Array]:
    """The reverse: arrays with so many channels each, (N, H, W, C)."""
    return [part.copy() for part in np.split(y, np.cumsum(channels)[:-1], axis=3)]
