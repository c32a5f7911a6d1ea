"""Matrix products."""

import numpy as np

from ..memory_format import Array


def matmul(a: Array, b: Array, weights: bool = False) -> Array:
    """a (…, M, K) · b (…, K, N) → (…, M, N)."""
    return np.matmul(a, b)
