"""Batch norm's terms: from the sums over a channel to the coefficients of its two passes. float64, one thread.

Formulas as in Ioffe & Szegedy 2015. They are compiled because a training step needs them between its large kernels, which
evict everything of Python's from the caches: there, thirty NumPy calls for one batch norm took as long as a kernel.
"""

import numpy as np

from ..checks import fits, one_dtype
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.parallel import on_threads
from ..runtime.recording import also, preparing
from ..runtime.threads import serial


@njit()
def _join_moments(share, shares, thread, results, counts, joined):
    if share < 0:
        return on_threads(share, shares)
    items, _, C = results.shape
    joined[:], total = 0, 0.0
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
    return 0


def join_moments(results, counts):
    """(2, C): mean and biased variance, from each item's mean and Σ (y − mean)², (items, 2, C), and count, (items,)."""
    joined = np.empty(results.shape[1:])
    serial(_join_moments, results, counts, joined)
    return joined


@njit()
def _join_sums(share, shares, thread, results, joined):
    if share < 0:
        return on_threads(share, shares)
    for i in range(joined.size):
        joined[i] = results[0, i]
    for item in range(1, results.shape[0]):
        for i in range(joined.size):
            joined[i] += results[item, i]
    return 0


def join_sums(results):
    """(2, C): the sum of each item's sums (items, 2, C)."""
    joined = np.empty(results.shape[1:])
    serial(_join_sums, results.reshape(len(results), -1), joined.reshape(-1))
    return joined


@njit()
def _forward_terms(share, shares, thread, mean, var, eps, weight, bias, rounded, terms):
    if share < 0:
        return on_threads(share, shares)
    for c in range(mean.size):
        rounded[c] = mean[c]
        near, inv_std = np.float64(rounded[c]), 1 / np.sqrt(var[c] + eps)
        scale = np.float64(weight[c]) * inv_std
        terms[0, c], terms[1, c], terms[3, c] = near, scale, inv_std
        terms[2, c] = np.float64(bias[c]) - (mean[c] - near) * scale
    return 0


def norm_forward_terms(mean: Array, var: Array, eps: float, weight: Array, bias: Array) -> Array:
    """(4, C) float64: m, scale, shift and 1/√(σ² + ε), so that γ·x̂ + β = (x − m)·scale + shift.

    mean, var: (C,) float64, C-contiguous; weight, bias: (C,), float32 or float64, the dtype of x. m is the mean rounded to
    that dtype: subtracting it first keeps precision when the mean is large, and the shift corrects for the rounding. Raises
    ShapeError and DtypeError.
    """
    fits("norm_forward_terms", mean.shape == var.shape == weight.shape == bias.shape, mean, var, weight, bias)
    one_dtype("norm_forward_terms", weight, bias)
    terms, rounded = np.empty((4, mean.size)), np.empty(mean.size, weight.dtype)
    serial(_forward_terms, mean, var, float(eps), contiguous(weight), contiguous(bias), rounded, terms)
    return terms


@njit()
def _fixed_terms(share, shares, thread, mean, var, eps, weight, bias, rounded, terms):
    if share < 0:
        return on_threads(share, shares)
    for c in range(mean.size):
        rounded[c] = mean[c]
        near, scale = np.float64(rounded[c]), np.float64(weight[c]) / np.sqrt(np.float64(var[c]) + eps)
        rest = np.float64(mean[c]) - near
        terms[0, c], terms[1, c], terms[2, c] = near, scale, np.float64(bias[c]) - rest * scale
    return 0


def norm_fixed_terms(mean: Array, var: Array, eps: float, weight: Array, bias: Array) -> Array:
    """(3, C) float64: m, scale and shift of batch norm with fixed statistics, as in ``norm_forward_terms``.

    mean, var: (C,) float32 or float64, both alike; weight, bias: (C,), float32 or float64. Raises ShapeError and DtypeError.
    """
    fits("norm_fixed_terms", mean.shape == var.shape == weight.shape == bias.shape, mean, var, weight, bias)
    one_dtype("norm_fixed_terms", weight, bias)
    one_dtype("norm_fixed_terms", mean, var)
    with preparing():
        terms, rounded = np.empty((3, mean.size)), np.empty(mean.size, weight.dtype)
        arrays = [contiguous(a) for a in (mean, var, weight, bias)]
        serial(_fixed_terms, *arrays[:2], float(eps), *arrays[2:], rounded, terms)
    return terms


@njit()
def _update_running_stats(
    share, shares, thread,
    means, variances, batches,  # the running statistics
    kept, momentum,  # kept: 1 − momentum, in their dtype
    mean, var, unbiased,  # the batch's
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    for c in range(means.size):
        means[c] = np.float64(kept * means[c]) + momentum * mean[c]
        variances[c] = np.float64(kept * variances[c]) + momentum * var[c] * unbiased
    batches[0] += 1
    return 0


def update_running_stats(
    running_mean: Array, running_var: Array, batches: Array, momentum: float, mean: Array, var: Array, count: int
) -> None:
    """running ← (1 − momentum)·running + momentum·batch, with the unbiased variance σ²·M/(M − 1); batches ← batches + 1.

    In place. running_mean, running_var: (C,) of one float dtype; batches: (), int64; mean, var: (C,) float64, mean and biased
    variance of the batch's M = count values. Raises ShapeError and DtypeError.
    """
    shapes = running_mean.shape == running_var.shape == mean.shape == var.shape and batches.shape == ()
    fits("update_running_stats", shapes, running_mean, running_var, mean, var)
    one_dtype("update_running_stats", running_mean, running_var)
    given, kept = (running_mean, running_var, batches.reshape(1)), running_mean.dtype.type(1 - momentum)
    running = [contiguous(a) for a in given]
    batch = contiguous(mean), contiguous(var)
    serial(_update_running_stats, *running, kept, float(momentum), *batch, count / (count - 1))
    for array, copy in zip(given, running):
        if copy is not array:
            also(np.copyto, array, copy)


@njit()
def _backward_terms(share, shares, thread, sums, mean, terms, weight, count, found, grads):
    if share < 0:
        return on_threads(share, shares)
    for c in range(mean.size):
        near, a, inv_std = terms[0, c], terms[1, c], terms[3, c]
        rest, dbias = mean[c] - near, sums[0, c]
        dweight = (sums[1, c] - rest * dbias) * inv_std
        b = -a * inv_std * dweight / count
        found[0, c], found[1, c], found[2, c], found[3, c] = near, a, b, -a * dbias / count - b * rest
        grads[0, c], grads[1, c] = dweight, dbias
    return 0


def norm_backward_terms(sums: Array, mean: Array, terms: Array, weight: Array, count: int) -> tuple[Array, Array]:
    """(4, C) float64: m, a, b, d, so that ∂L/∂x = a·dy + b·(x − m) + d; and (2, C), in the weight's dtype: ∂L/∂γ, ∂L/∂β.

    sums: (2, C) float64, C-contiguous, Σ dy and Σ dy·(x − m) over ``count`` values per channel; mean: (C,) float64; terms: the
    result of ``norm_forward_terms``; weight: (C,). Raises ShapeError.
    """
    (C,) = mean.shape
    shapes = sums.shape == (2, C) and terms.shape == (4, C) and weight.shape == (C,)
    fits("norm_backward_terms", shapes, sums, mean, terms, weight)
    found, grads = np.empty((4, C)), np.empty((2, C), weight.dtype)
    serial(_backward_terms, sums, mean, terms, contiguous(weight), int(count), found, grads)
    return found, grads
