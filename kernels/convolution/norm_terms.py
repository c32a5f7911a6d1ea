"""Batch norm's terms: from the sums over a channel to the coefficients of its two passes. float64, one thread.

Formulas as in Ioffe & Szegedy 2015. They are compiled because a training step needs them between its large kernels, which
evict everything of Python's from the caches: there, thirty NumPy calls for one batch norm took as long as a kernel.
"""

import numpy as np

from ..checks import fits, one_dtype
from ..memory_format import Array, contiguous
from ..runtime.jit import njit


@njit()
def join_moments(results, counts):
    """(2, C): mean and biased variance, from each item's mean and Σ (y − mean)², (items, 2, C), and count, (items,)."""
    items, _, C = results.shape
    joined, total = np.zeros((2, C)), 0.0
    for item in range(items):
        total += counts[item]
        for c in range(C):
            joined[0, c] += counts[item] * results[item, 0, c]
    for c in range(C):
        joined[0, c] /= total
    for item in range(items):
        for c in range(C):
            away = results[item, 0, c] - joined[0, c]
            joined[1, c] += results[item, 1, c] + counts[item] * away * away
    for c in range(C):
        joined[1, c] /= total
    return joined


@njit()
def _forward_terms(mean, var, eps, weight, bias):
    terms, rounded = np.empty((4, mean.size)), np.empty(mean.size, weight.dtype)
    for c in range(mean.size):
        rounded[c] = mean[c]
        near, inv_std = np.float64(rounded[c]), 1 / np.sqrt(var[c] + eps)
        scale = np.float64(weight[c]) * inv_std
        terms[0, c], terms[1, c], terms[3, c] = near, scale, inv_std
        terms[2, c] = np.float64(bias[c]) - (mean[c] - near) * scale
    return terms


def norm_forward_terms(mean: Array, var: Array, eps: float, weight: Array, bias: Array) -> Array:
    """(4, C) float64: m, scale, shift and 1/√(σ² + ε), so that γ·x̂ + β = (x − m)·scale + shift.

    mean, var: (C,) float64, C-contiguous; weight, bias: (C,), float32 or float64, the dtype of x. m is the mean rounded to
    that dtype: subtracting it first keeps precision when the mean is large, and the shift corrects for the rounding. Raises
    ShapeError and DtypeError.
    """
    fits("norm_forward_terms", mean.shape == var.shape == weight.shape == bias.shape, mean, var, weight, bias)
    one_dtype("norm_forward_terms", weight, bias)
    return _forward_terms(mean, var, float(eps), contiguous(weight), contiguous(bias))


@njit()
def _backward_terms(sums, mean, terms, weight, count):
    found, grads = np.empty((4, mean.size)), np.empty((2, mean.size), weight.dtype)
    for c in range(mean.size):
        near, a, inv_std = terms[0, c], terms[1, c], terms[3, c]
        rest, dbias = mean[c] - near, sums[0, c]
        dweight = (sums[1, c] - rest * dbias) * inv_std
        b = -a * inv_std * dweight / count
        found[0, c], found[1, c], found[2, c], found[3, c] = near, a, b, -a * dbias / count - b * rest
        grads[0, c], grads[1, c] = dweight, dbias
    return found, grads


def norm_backward_terms(sums: Array, mean: Array, terms: Array, weight: Array, count: int) -> tuple[Array, Array]:
    """(4, C) float64: m, a, b, d, so that ∂L/∂x = a·dy + b·(x − m) + d; and (2, C), in the weight's dtype: ∂L/∂γ, ∂L/∂β.

    sums: (2, C) float64, C-contiguous, Σ dy and Σ dy·(x − m) over ``count`` values per channel; mean: (C,) float64; terms: the
    result of ``norm_forward_terms``; weight: (C,). Raises ShapeError.
    """
    (C,) = mean.shape
    shapes = sums.shape == (2, C) and terms.shape == (4, C) and weight.shape == (C,)
    fits("norm_backward_terms", shapes, sums, mean, terms, weight)
    return _backward_terms(sums, mean, terms, contiguous(weight), int(count))
