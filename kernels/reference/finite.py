"""The search for NaN and Inf."""

from collections.abc import Sequence

import numpy as np

from ..memory_format import Array


def not_finite(arrays: Sequence[Array]) -> Array:
    """(arrays,) uint8: 1 for each array that has a NaN or an Inf, else 0."""
    return np.array([not np.isfinite(a).all() for a in arrays], np.uint8)
