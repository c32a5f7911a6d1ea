"""Batch normalisation over the last axis of x (…, C): statistics, scaling, gradient (Ioffe & Szegedy 2015).

Sums run over blocks of rows, shifted by the block's first row, and the blocks are joined in float64 in a fixed order.
Thus a mean of 1000 with deviation 0.1 keeps its variance in float32, and results are bitwise the same for any number of
threads.

Several rows are processed as one long row of ``fold`` · C elements, so that the inner loops are long for any C.
"""

import numpy as np

from ..checks import alike, fits
from ..descriptors import rounded
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.memory_pool import empty_like
from ..runtime.parallel import on_threads
from ..runtime.recording import computed
from ..runtime.threads import launch

LONG_ROW = 256  # elements; loops over just 16 channels would spend their time on loop entry
BLOCK = 64  # long rows in one partial sum


def _fold(x):
    """(long rows, elements of a long row) of x (…, C), for any number of rows."""
    C = x.shape[-1]
    rows = x.size // C
    fold = max(1, LONG_ROW // C)
    while rows % fold:
        fold -= 1
    return rows // fold, fold * C


@njit()
def _partial_moments(share, shares, thread, x, first, sums, squares):
    """For each block: its first long row, and Σ (x − first) and Σ (x − first)² for each element of a long row."""
    if share < 0:
        return on_threads(share, shares)
    rows, length = x.shape
    blocks = sums.shape[0]
    for block in range(share * blocks // shares, (share + 1) * blocks // shares):
        origin, s, q = first[block], sums[block], squares[block]
        start = block * BLOCK
        for i in range(length):
            origin[i], s[i], q[i] = x[start, i], 0, 0
        for r in range(start + 1, min(start + BLOCK, rows)):
            row = x[r]
            for i in range(length):
                d = row[i] - origin[i]
                s[i] += d
                q[i] += d * d
    return 0


def batch_norm_stats(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance over all axes but the last: two float64 arrays (C,)."""
    x = contiguous(x)
    C = x.shape[-1]
    rows, length = _fold(x)
    blocks = -(-rows // BLOCK)
    first, sums, squares = np.empty((3, blocks, length), x.dtype)
    launch(_partial_moments, x.reshape(rows, length), first, sums, squares)
    mean, var = computed(_join_blocks, (2, C), np.float64, first, sums, squares, rows, x.size // C)
    return mean, var


def _join_blocks(first, sums, squares, rows, count):
    """(2, C): mean and biased variance of ``count`` values a channel, from the sums of blocks of the long rows."""
    blocks, C = len(first), first.shape[1] * rows // count
    n = np.full((blocks, 1), BLOCK, np.float64)
    n[-1] = rows - (blocks - 1) * BLOCK
    means = first + sums / n  # float64 from here on; for each block and element
    deviations = squares - sums * (sums / n)
    mean = (n * means).sum(0) / rows
    deviation = deviations.sum(0) + (n * (means - mean) ** 2).sum(0)
    means, deviation = mean.reshape(-1, C), deviation.reshape(-1, C)  # now join the rows of a long row
    mean = means.mean(0)
    return mean, deviation.sum(0) / count + ((means - mean) ** 2).mean(0)


def _repeat(values, length, dtype):
    """Per-channel values (C,), repeated along a long row."""
    return np.tile(np.asarray(values, dtype), length // len(values))


@njit()
def _normalise(
    share, shares, thread,
    x,  # (long rows, length)
    mean, scale, shift,  # (length,)
    y,  # the output, like x
):  # fmt: skip
    """y = (x − mean)·scale + shift."""
    if share < 0:
        return on_threads(share, shares)
    rows, length = x.shape
    for r in range(share * rows // shares, (share + 1) * rows // shares):
        row, out = x[r], y[r]
        for i in range(length):
            out[i] = (row[i] - mean[i]) * scale[i] + shift[i]
    return 0


def _scale_and_shift(mean, scale, shift, dtype, length):
    near, rest = rounded(mean, dtype)
    return [_repeat(v, length, dtype) for v in (near, scale, shift - rest * scale)]


def batch_norm(x: Array, mean: Array, scale: Array, shift: Array) -> Array:
    """(x − mean)·scale + shift. Subtracting the mean first keeps precision when it is large.

    x: (…, C), float32 or float64; mean, scale, shift: (C,). Raises ShapeError.
    """
    x = contiguous(x)
    mean, scale, shift = (np.asarray(v) for v in (mean, scale, shift))
    fits("batch_norm", mean.shape == scale.shape == shift.shape == x.shape[-1:], x, mean, scale, shift)
    rows, length = _fold(x)
    y = empty_like(x)
    params = computed(_scale_and_shift, (3, length), x.dtype, mean, scale, shift, x.dtype, length)
    launch(_normalise, x.reshape(rows, length), *params, y.reshape(rows, length))
    return y


@njit()
def _partial_grads(
    share, shares, thread,
    dy, x,  # (long rows, length)
    mean,  # (length,)
    sums, products,  # the outputs, (blocks, length)
):  # fmt: skip
    """For each block: Σ dy and Σ dy·(x − mean)."""
    if share < 0:
        return on_threads(share, shares)
    rows, length = x.shape
    blocks = sums.shape[0]
    for block in range(share * blocks // shares, (share + 1) * blocks // shares):
        s, q = sums[block], products[block]
        s[:] = 0
        q[:] = 0
        for r in range(block * BLOCK, min(block * BLOCK + BLOCK, rows)):
            grad, row = dy[r], x[r]
            for i in range(length):
                s[i] += grad[i]
                q[i] += grad[i] * (row[i] - mean[i])
    return 0


@njit()
def _input_grad(
    share, shares, thread,
    dy, x,  # (long rows, length)
    mean, a, b, d,  # (length,)
    dx,  # the output, like x
):  # fmt: skip
    """dx = a·dy + b·(x − mean) + d."""
    if share < 0:
        return on_threads(share, shares)
    rows, length = x.shape
    for r in range(share * rows // shares, (share + 1) * rows // shares):
        grad, row, out = dy[r], x[r], dx[r]
        for i in range(length):
            out[i] = a[i] * grad[i] + b[i] * (row[i] - mean[i]) + d[i]
    return 0


def batch_norm_grad(
    dy: Array, x: Array, mean: Array, inv_std: Array, weight: Array, training: bool
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias of y = (x − mean)·inv_std·weight + bias.

        dweight = Σ dy·x̂        dbias = Σ dy        x̂ = (x − mean)·inv_std
        dx = weight·inv_std·(dy − dbias/M − x̂·dweight/M)     in training, where mean and inv_std depend on x
        dx = weight·inv_std·dy                               with fixed statistics

    dy, x: (…, C); mean, inv_std, weight: (C,) float64; M = x.size / C; dweight, dbias: (C,) float64. Raises ShapeError and
    DtypeError.
    """
    alike("batch_norm_grad", dy, x)
    fits("batch_norm_grad", mean.shape == inv_std.shape == weight.shape == x.shape[-1:], x, mean, inv_std, weight)
    dy, x = contiguous(dy), contiguous(x)
    C = x.shape[-1]
    rows, length = _fold(x)
    sums, products = np.empty((2, -(-rows // BLOCK), length), x.dtype)
    near = computed(_near, (length,), x.dtype, mean, x.dtype, length)
    folded = dy.reshape(rows, length), x.reshape(rows, length), near
    launch(_partial_grads, *folded, sums, products)
    dweight, dbias = computed(_parameter_grads, (2, C), np.float64, sums, products, mean, inv_std, x.dtype)
    M, dx = x.size // C, empty_like(x)
    known = mean, inv_std, weight, dweight, dbias, M, training, x.dtype, length
    launch(_input_grad, *folded, *computed(_input_grad_terms, (3, length), x.dtype, *known), dx.reshape(rows, length))
    return dx, dweight, dbias


def _near(mean, dtype, length):
    return _repeat(rounded(mean, dtype)[0], length, dtype)


def _parameter_grads(sums, products, mean, inv_std, dtype):
    """dweight and dbias, from the sums of blocks."""
    C, (_, rest) = len(mean), rounded(mean, dtype)
    dbias = sums.sum(0, dtype=np.float64).reshape(-1, C).sum(0)
    return (products.sum(0, dtype=np.float64).reshape(-1, C).sum(0) - rest * dbias) * inv_std, dbias


def _input_grad_terms(mean, inv_std, weight, dweight, dbias, M, training, dtype, length):
    """a, b and d of ``_input_grad``, along a long row."""
    _, rest = rounded(mean, dtype)
    a = weight * inv_std
    b, d = (-a * inv_std * dweight / M, -a * dbias / M) if training else np.zeros((2, len(a)))
    return [_repeat(v, length, dtype) for v in (a, b, d - b * rest)]
