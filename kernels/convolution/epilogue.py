"""Epilogues (``descriptors.py``): what is done with a convolution's outputs while they are in cache.

Sums run over one item of work, in the array's dtype and shifted by a value of the channel; items are joined in float64 in
a fixed order. So mean 1000 with deviation 0.1 keeps its variance in float32, and the bits do not depend on the threads.
"""

import numpy as np

from ..checks import alike
from ..descriptors import ADD, MASK, MOMENTS, NORMALISE
from ..memory_format import contiguous
from ..runtime.jit import njit
from .norm_terms import join_moments
from .prologue import as_rows, fold


def epilogue_arguments(epilogue, out):
    """An Epilogue as kernels that write ``out`` take it: flags, the arrays as 1-d (``out`` for one that is missing), and
    parameters and fold as ``repeat_channels`` takes them. The flags are what ``finish`` reads: kind, relu?, other?, z?"""
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
    """The epilogue's result from those of its items (items, 2, C): (2, C) float64 for MOMENTS and MASK, else None.

    counts: how many values of a channel each item has, float64.
    """
    if epilogue.kind == MOMENTS:
        return join_moments(results, counts)
    return np.add.reduce(results) if epilogue.kind == MASK else None


@njit(inner=True)
def _moments(y, length, result):
    """result[0] = mean, result[1] = Σ (y − mean)² of each channel over the stretch y, of float64."""
    C = result.shape[1]
    rows = y.size // length
    origin, s, q = y[:length].copy(), np.zeros(length, y.dtype), np.zeros(length, y.dtype)
    for r in range(1, rows):
        row = y[r * length : (r + 1) * length]
        for i in range(length):
            d = row[i] - origin[i]
            s[i] += d
            q[i] += d * d
    mean, squares = result[0], result[1]
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
def _normalise(y, other, relu, add, parameters):
    mean, scale, shift = parameters[0], parameters[1], parameters[2]
    length = mean.size
    for at in range(0, y.size, length):
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
def _mask(y, other, c, z, add, by_z, parameters, result):
    """Short loops, each over a long row in the first-level cache: one loop over nine arrays would not vectorise."""
    mean = parameters[0]
    length, C = mean.size, result.shape[1]
    s, q = np.zeros(length, y.dtype), np.zeros(length, y.dtype)
    for at in range(0, y.size, length):
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
            scale, shift = parameters[1], parameters[2]
            for i in range(length):
                ys[i] = 0 if (cs[i] - mean[i]) * scale[i] + shift[i] <= 0 else ys[i]
        for i in range(length):
            s[i] += ys[i]
            q[i] += ys[i] * (cs[i] - mean[i])
    result[:] = 0
    for i in range(0, length, C):
        for k in range(C):
            result[0, k] += s[i + k]
            result[1, k] += q[i + k]


@njit(inner=True)
def finish(flags, y, other, c, z, parameters, result):
    """Apply the epilogue to one item. y, other, c, z: its stretch of the arrays, 1-d; result (2, C) float64: its sums."""
    kind, relu, add, by_z = flags[0], flags[1] != 0, flags[2] != 0, flags[3] != 0
    if add and (kind == ADD or kind == MOMENTS):
        for i in range(y.size):
            y[i] += other[i]
    if kind == MOMENTS:
        _moments(y, parameters.shape[1], result)
    elif kind == NORMALISE:
        _normalise(y, other, relu, add, parameters)
    elif kind == MASK:
        _mask(y, other, c, z, add, by_z, parameters, result)
