"""Epilogues (``descriptors.py``): what is done with a convolution's outputs while they are in cache.

Sums run over one work item, in the array's dtype and shifted by a value of the channel; items are joined in float64 in a
fixed order. Thus a mean of 1000 with deviation 0.1 keeps its variance in float32, and results are bitwise the same for any
number of threads.
"""

import numpy as np

from ..checks import alike
from ..descriptors import ADD, MASK, MOMENTS, NORMALISE
from ..memory_format import contiguous
from ..runtime.jit import njit
from .norm_terms import join_moments, join_sums
from .prologue import as_rows, fold


def epilogue_arguments(epilogue, out):
    """The arguments through which kernels that write ``out`` take an Epilogue.

    They are the flags for ``finish`` (kind, relu?, other?, z?), the arrays other, c and z as 1-D (``out`` if missing), and
    parameters and fold for ``repeat_channels``. Raises ShapeError and DtypeError.
    """
    kind, parameters, relu, other, c, z = epilogue
    flags = np.array([kind, relu, other is not None, z is not None], np.int64)
    flat, arrays = out.reshape(-1), []
    for a in (other, c, z):
        if a is None:
            arrays.append(flat)
            continue
        if a.shape != out.shape or a.dtype is not out.dtype:
            alike("epilogue", out, a)  # says what is wrong
        arrays.append(contiguous(a).reshape(-1))
    return flags, *arrays, as_rows(parameters, out.shape[-1]), fold(*out.shape[-2:])


def join_items(epilogue, results, counts):
    """Join the results of all items (items, 2, C) into the epilogue's: (2, C) float64 for MOMENTS and MASK, else None.

    counts: the number of values per channel in each item, float64.
    """
    if epilogue.kind == MOMENTS:
        return join_moments(results, counts)
    return join_sums(results) if epilogue.kind == MASK else None


@njit(inner=True)
def _moments(
    y, length, step,  # the work item's stretch, 1-D; elements of a long row, and from one long row to the next
    result, first, C,  # (2, all channels) float64; the stretch has the channels first … first + C − 1
):  # fmt: skip
    """result[0] = mean and result[1] = Σ (y − mean)² of each channel of y, in float64."""
    rows = (y.size + step - length) // step
    origin, s, q = y[:length].copy(), np.zeros(length, y.dtype), np.zeros(length, y.dtype)
    for r in range(1, rows):
        row = y[r * step : r * step + length]
        for i in range(length):
            d = row[i] - origin[i]
            s[i] += d
            q[i] += d * d
    mean, squares = result[0, first : first + C], result[1, first : first + C]
    mean[:] = 0
    squares[:] = 0
    for i in range(0, length, C):
        for c in range(C):
            mean[c] += np.float64(origin[i + c]) + np.float64(s[i + c]) / rows
    for c in range(C):
        mean[c] /= length // C
    for i in range(0, length, C):
        for c in range(C):
            near = np.float64(s[i + c]) / rows
            away = np.float64(origin[i + c]) + near - mean[c]
            squares[c] += np.float64(q[i + c]) - np.float64(s[i + c]) * near + rows * away * away


@njit(inner=True)
def _normalise(y, other, relu, add, parameters, first, length, step):
    mean, scale, shift = parameters[0, first:], parameters[1, first:], parameters[2, first:]
    for at in range(0, y.size, step):
        ys, others = y[at : at + length], other[at : at + length]
        for i in range(length):
            ys[i] = (ys[i] - mean[i]) * scale[i] + shift[i]
        if add:
            for i in range(length):
                ys[i] += others[i]
        if relu:
            for i in range(length):
                ys[i] = 0 if ys[i] <= 0 else ys[i]


@njit(inner=True)
def _mask(
    y, other, c, z,  # the work item's stretch of the arrays, 1-D
    add, by_z,  # add other? mask by z, or else by the ReLU's output computed from c?
    parameters,  # rows mean, scale, shift (prologue.repeat_channels)
    length, step,  # elements of a long row, and from one long row to the next
    result, first, C,  # (2, all channels) float64, Σ y and Σ y·(c − mean); the item has the channels first … first + C − 1
):  # fmt: skip
    """Short loops, each over a long row in the L1 cache: one loop over nine arrays would not vectorise."""
    mean, scale, shift = parameters[0, first:], parameters[1, first:], parameters[2, first:]
    s, q = np.zeros(length, y.dtype), np.zeros(length, y.dtype)
    for at in range(0, y.size, step):
        ys, cs = y[at : at + length], c[at : at + length]
        if add:
            others = other[at : at + length]
            for i in range(length):
                ys[i] += others[i]
        if by_z:
            zs = z[at : at + length]
            for i in range(length):
                ys[i] = 0 if zs[i] <= 0 else ys[i]
        else:
            for i in range(length):
                ys[i] = 0 if (cs[i] - mean[i]) * scale[i] + shift[i] <= 0 else ys[i]
        for i in range(length):
            s[i] += ys[i]
            q[i] += ys[i] * (cs[i] - mean[i])
    sums, products = result[0, first : first + C], result[1, first : first + C]
    sums[:] = 0
    products[:] = 0
    for i in range(0, length, C):
        for k in range(C):
            sums[k] += s[i + k]
            products[k] += q[i + k]


@njit(inner=True)
def finish(flags, y, other, c, z, parameters, result, first, C):
    """Apply the epilogue to one work item.

    flags: see ``epilogue_arguments``; y, other, c, z: the item's stretch of the arrays, 1-D; parameters: rows from
    ``repeat_channels``; result: (2, all channels) float64, where the sums are stored. The item has the channels first …
    first + C − 1 of each pixel: its stretch begins with the first of them, and in what lies between it touches nothing.
    """
    kind, relu, add, by_z = flags[0], flags[1] != 0, flags[2] != 0, flags[3] != 0
    length = step = parameters.shape[1]
    if C < result.shape[1]:
        length, step = C, result.shape[1]
    if add and (kind == ADD or kind == MOMENTS):
        for at in range(0, y.size, step):
            ys, others = y[at : at + length], other[at : at + length]
            for i in range(length):
                ys[i] += others[i]
    if kind == MOMENTS:
        _moments(y, length, step, result, first, C)
    elif kind == NORMALISE:
        _normalise(y, other, relu, add, parameters, first, length, step)
    elif kind == MASK:
        _mask(y, other, c, z, add, by_z, parameters, length, step, result, first, C)
