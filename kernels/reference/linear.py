"""Matrix products."""

import numpy as np


def matmul(a, b):
    """a (…, M, K) · b (…, K, N) → (…, M, N)."""
    return np.matmul(a, b)
