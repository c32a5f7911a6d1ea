"""Prologues and epilogues (``descriptors.py``) in plain NumPy: the maths of fused operations, written to be read."""

import numpy as np

from ..descriptors import (
    ADD,
    GRADIENT,
    MASK,
    MOMENTS,
    NORMALISE,
    NORMALISED,
    PLAIN,
    Epilogue,
    Operand,
    as_operand,
    rounded,
)
from ..memory_format import Array
from .elementwise import relu
from .normalization import batch_norm_stats


def values(x: Operand | Array) -> Array:
    """The values of an Operand, (N, H, W, C). An array is its own values."""
    array, kind, parameters, partner = as_operand(x)
    rows = [np.asarray(row, array.dtype) for row in parameters]
    if kind == NORMALISED:
        mean, scale, shift = rows
        return relu((array - mean) * scale + shift)
    if kind == GRADIENT:
        mean, a, b, d = rows
        return a * array + b * (partner - mean) + d
    assert kind == PLAIN
    return array


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


def pointwise(operand: Operand | Array, epilogue: Epilogue) -> tuple[Array, Array | None]:
    """The values of an Operand, finished by an Epilogue, with no convolution in between: (y, result)."""
    return finish(values(operand), epilogue)


def norm_forward_terms(mean: Array, var: Array, eps: float, weight: Array, bias: Array) -> Array:
    """(4, C) float64: m, scale, shift, 1/√(σ² + ε), so that γ·x̂ + β = (x − m)·scale + shift; m is the rounded mean."""
    near = mean.astype(weight.dtype).astype(np.float64)
    inv_std = 1 / np.sqrt(var + eps)
    scale = weight * inv_std
    return np.stack([near, scale, bias - (mean - near) * scale, inv_std])


def norm_fixed_terms(mean: Array, var: Array, eps: float, weight: Array, bias: Array) -> Array:
    """(3, C) float64: m, scale and shift of batch norm with fixed statistics, as in ``norm_forward_terms``."""
    near, rest = rounded(mean, weight.dtype)
    scale = weight.astype(np.float64) / np.sqrt(var.astype(np.float64) + eps)
    return np.stack([near, scale, bias - rest * scale])


def norm_backward_terms(sums: Array, mean: Array, terms: Array, weight: Array, count: int) -> tuple[Array, Array]:
    """(4, C) float64: m, a, b, d, so that ∂L/∂x = a·dy + b·(x − m) + d; and (2, C), in the weight's dtype: ∂L/∂γ, ∂L/∂β.

    sums: (2, C), Σ dy and Σ dy·(x − m) over ``count`` values per channel; terms: the result of ``norm_forward_terms``.
    """
    near, a, _, inv_std = terms
    rest, dbias = mean - near, sums[0]
    dweight = (sums[1] - rest * dbias) * inv_std
    b = -a * inv_std * dweight / count
    return np.stack([near, a, b, -a * dbias / count - b * rest]), np.stack([dweight, dbias]).astype(weight.dtype)
