"""Prologues and epilogues (``descriptors.py``) in plain NumPy: the maths of fused operations, written to be read."""

import numpy as np

from ..descriptors import ADD, GRADIENT, MASK, MOMENTS, NORMALISE, NORMALISED, PLAIN, as_operand
from .elementwise import relu
from .normalization import batch_norm_stats


def values(x):
    """The values of an Operand, (N, H, W, C). An array is its own values."""
    x = as_operand(x)
    rows = [np.asarray(row, x.array.dtype) for row in x.parameters]
    if x.kind == NORMALISED:
        mean, scale, shift = rows
        return relu((x.array - mean) * scale + shift)
    if x.kind == GRADIENT:
        mean, a, b, d = rows
        return a * x.array + b * (x.partner - mean) + d
    assert x.kind == PLAIN
    return x.array


def finish(y, epilogue):
    """(y, result): the outputs after the epilogue, and (2, C) float64 for MOMENTS and MASK, else None."""
    kind, parameters, rectify, other, c, z = epilogue
    rows = [np.asarray(row, y.dtype) for row in parameters]
    if kind == NORMALISE:
        mean, scale, shift = rows
        y = (y - mean) * scale + shift
    if other is not None:
        y = y + other
    if kind == NORMALISE and rectify:
        y = relu(y)
    if kind == MOMENTS:
        return y, np.stack(batch_norm_stats(y))
    if kind == MASK:
        mean = rows[0]
        passed = relu((c - mean) * rows[1] + rows[2]) if z is None else z
        y = np.where(passed <= 0, 0, y)  # NaN passes
        axes = (0, 1, 2)
        return y, np.stack([y.sum(axes, dtype=np.float64), (y * (c - mean)).sum(axes, dtype=np.float64)])
    assert kind in (ADD, NORMALISE) or other is None
    return y, None


def pointwise(operand, epilogue):
    """The values of an Operand, finished by an Epilogue, with no convolution in between: (y, result)."""
    return finish(values(operand), epilogue)


def norm_forward_terms(mean, var, eps, weight, bias):
    """(4, C) float64: m, scale, shift, 1/√(σ² + ε), so that γ·x̂ + β = (x − m)·scale + shift; m is the rounded mean."""
    near = mean.astype(weight.dtype).astype(np.float64)
    inv_std = 1 / np.sqrt(var + eps)
    scale = weight * inv_std
    return np.stack([near, scale, bias - (mean - near) * scale, inv_std])


def norm_backward_terms(sums, mean, terms, weight, count):
    """(4, C) float64: m, a, b, d, so that ∂L/∂x = a·dy + b·(x − m) + d; and (2, C), in the weight's dtype: ∂L/∂γ, ∂L/∂β.

    sums: (2, C), Σ dy and Σ dy·(x − m) over ``count`` values per channel; terms: the result of ``norm_forward_terms``.
    """
    near, a, _, inv_std = terms
    rest, dbias = mean - near, sums[0]
    dweight = (sums[1] - rest * dbias) * inv_std
    b = -a * inv_std * dweight / count
    return np.stack([near, a, b, -a * dbias / count - b * rest]), np.stack([dweight, dbias]).astype(weight.dtype)
