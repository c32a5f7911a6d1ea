"""What batch norm takes of a channel's sums to scale, shift and differentiate it: numbers of float64, on one thread.

Formulas as in Ioffe & Szegedy 2015. They are compiled because a training step needs them between its large kernels, which
leave nothing of Python's in the caches: there, thirty NumPy calls for one batch norm took as long as a kernel.
"""

import numpy as np

from .cache import njit


@njit()
def join(results, counts):
    """(2, C): mean and biased variance from the moments (items, 2, C), mean and Σ (y − mean)², of so many values each."""
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
def forward_terms(mean, var, eps, weight, bias):
    """(4, C): m, scale, shift and 1/√(σ² + ε), so that γ·x̂ + β = (x − m)·scale + shift.

    m is the mean rounded to the weight's dtype, which is x's: subtracting it first keeps the digits when the mean is large,
    and the shift has what the rounding left.
    """
    terms, rounded = np.empty((4, mean.size)), np.empty(mean.size, weight.dtype)
    for c in range(mean.size):
        rounded[c] = mean[c]
        near, inv_std = np.float64(rounded[c]), 1 / np.sqrt(var[c] + eps)
        scale = np.float64(weight[c]) * inv_std
        terms[0, c], terms[1, c], terms[3, c] = near, scale, inv_std
        terms[2, c] = np.float64(bias[c]) - (mean[c] - near) * scale
    return terms


@njit()
def backward_terms(sums, mean, terms, weight, count):
    """(4, C): m, a, b, d, so that ∂L/∂x = a·dy + b·(x − m) + d; and (2, C): ∂L/∂γ and ∂L/∂β, in the weight's dtype.

    sums (2, C): Σ dy and Σ dy·(x − m) over ``count`` values; terms: those of ``forward_terms``.
    """
    found, grads = np.empty((4, mean.size)), np.empty((2, mean.size), weight.dtype)
    for c in range(mean.size):
        near, a, inv_std = terms[0, c], terms[1, c], terms[3, c]
        rest, dbias = mean[c] - near, sums[0, c]
        dweight = (sums[1, c] - rest * dbias) * inv_std
        b = -a * inv_std * dweight / count
        found[0, c], found[1, c], found[2, c], found[3, c] = near, a, b, -a * dbias / count - b * rest
        grads[0, c], grads[1, c] = dweight, dbias
    return found, grads
