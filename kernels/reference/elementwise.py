"""ReLU and the residual addition. ``np.asarray``: of 0-d arrays, ufuncs return scalars."""

import numpy as np

from ..memory_format import Array


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.asarray(np.maximum(x, 0))


def relu_grad(dy: Array, y: Array) -> Array:
    """dy where y = relu(x) is above 0 or NaN, else 0."""
    return np.where(y <= 0, 0, dy).astype(dy.dtype, copy=False)


def add(a: Array, b: Array, out: Array | None = None) -> Array:
    """a + b, of the same shape. ``out`` may be a itself."""
    return np.asarray(np.add(a, b, out=out))


def add_relu(a: Array, b: Array) -> Array:
    """max(a + b, 0)."""
    return np.asarray(np.maximum(a + b, 0))
