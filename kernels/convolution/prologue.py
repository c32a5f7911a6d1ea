"""Packing: how a convolution copies its operands into cache, and applies their prologues (``descriptors.py``) on the way.

Goto & van de Geijn 2008: a macro-kernel multiplies packed panels that stay in cache. Images are packed between zero borders,
weights and gradients into panels as wide as a register tile.
"""

from functools import cache

import numpy as np

from ...errors import ShapeError
from ..checks import alike
from ..descriptors import GRADIENT, NORMALISED, PLAIN
from ..memory_format import contiguous
from ..runtime.jit import njit

LONG_ROW = 512  # elements; a loop over 16 channels alone spends its time on loop entry


def operand_arguments(operand):
    """An Operand as kernels take it: kind, array and partner as 1-d, and what ``repeat_channels`` takes."""
    array, kind, parameters, partner = operand
    _, _, W, C = array.shape
    flat = array.reshape(-1)
    if partner is None:
        partner = array
    elif partner.shape != array.shape or partner.dtype is not array.dtype:
        alike("prologue", array, partner)  # says what is wrong
    return kind, flat, contiguous(partner).reshape(-1), as_rows(parameters, C), fold(W, C)


def as_rows(parameters, channels):
    """Parameters as kernels take them, an array (rows, channels); a row of zeros where there are none.

    ShapeError for another number of channels: a kernel would read past them.
    """
    if not len(parameters):
        return _no_parameters(channels)
    rows = np.asarray(parameters, np.float64)
    if rows.shape[1:] != (channels,):
        raise ShapeError(f"a prologue's or epilogue's parameters of shape {rows.shape} for {channels} channels")
    return contiguous(rows)


@cache
def _no_parameters(channels):
    return np.zeros((1, channels))


@cache
def fold(width, channels):
    """How many pixels are taken as one long row: a divisor of the width."""
    most = max(1, LONG_ROW // channels)
    return next(n for n in range(min(most, width), 0, -1) if width % n == 0)


@njit(inner=True)
def repeat_channels(parameters, fold, like):
    """(parameters, fold·channels), in the dtype of the array ``like``: each row of channels repeated ``fold`` times, so that
    one loop runs over many pixels."""
    count, channels = parameters.shape
    rows = np.empty((count, fold * channels), like.dtype)
    for k in range(count):
        for at in range(0, fold * channels, channels):
            for c in range(channels):
                rows[k, at + c] = parameters[k, c]
    return rows


@njit(inner=True)
def apply_prologue(kind, x, partner, parameters, y):
    """y = the values of the stretch x under a prologue. All 1-d; x begins with channel 0. Loops short enough to vectorise."""
    if kind == PLAIN:
        for i in range(x.size):  # y[:] = x would compile the words of an exception
            y[i] = x[i]
        return
    length = parameters.shape[1]
    mean = parameters[0]
    for at in range(0, x.size, length):
        xs, ys = x[at : at + length], y[at : at + length]
        if kind == NORMALISED:
            scale, shift = parameters[1], parameters[2]
            for i in range(xs.size):
                value = (xs[i] - mean[i]) * scale[i] + shift[i]
                ys[i] = 0 if value <= 0 else value  # NaN stays NaN
        else:
            partners, a, b, d = partner[at : at + length], parameters[1], parameters[2], parameters[3]
            for i in range(xs.size):
                ys[i] = a[i] * xs[i] + b[i] * (partners[i] - mean[i]) + d[i]


@njit(inner=True)
def pack_band(kind, source, partner, parameters, image, first, layout, packed, at):
    """Copy rows of an image, beginning with row ``first`` (may be < 0), between zero borders, to packed[at:]."""
    H, W, C = layout.source_height, layout.source_width, layout.channels
    pitch, left = layout.pitch, layout.left
    copied = max(0, min(W, layout.width - left))  # the right border, or what of the image no tap reaches
    spread = np.empty(copied * C if pitch != C and kind != PLAIN else 0, source.dtype)
    for r in range(layout.height):
        row = packed[at + r * layout.width * pitch : at + (r + 1) * layout.width * pitch]
        h = first + r
        if h < 0 or h >= H:
            row[:] = 0
            continue
        row[: left * pitch] = 0
        row[(left + copied) * pitch :] = 0
        start = (image * H + h) * W * C
        pixels = source[start : start + copied * C]
        partners = partner[start : start + copied * C] if kind == GRADIENT else pixels
        if pitch == C:
            apply_prologue(kind, pixels, partners, parameters, row[left * C : (left + copied) * C])
            continue
        if kind != PLAIN:
            apply_prologue(kind, pixels, partners, parameters, spread)
            pixels = spread
        for w in range(copied):
            pixel, to = pixels[w * C : (w + 1) * C], row[(left + w) * pitch : (left + w) * pitch + C]
            for c in range(C):
                to[c] = pixel[c]


@njit(inner=True)
def pack_item(item, kind, source, partner, parameters, layout, packed):
    """Pack the image, images or band of one item."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    size = layout.height * layout.width * layout.pitch
    for n in range(min(layout.images, layout.all_images - image)):
        first = q * layout.step - layout.top
        pack_band(kind, source, partner, parameters, image + n, first, layout, packed, n * size)


@njit()
def pack_panels(w, taps, groups, ins, outs, transposed, width, panels, at):
    """B of ``macro_kernel``: [group][block of columns][tap][in][column], columns beyond ``outs`` zero. w (KH, KW, I, O)."""
    for g in range(groups):
        for n in range(0, outs, width):
            full = min(width, outs - n)
            for t in range(taps.shape[0]):
                kh, kw = taps[t]
                panel = panels[at : at + ins * width].reshape((ins, width))
                at += ins * width
                if transposed:
                    for j in range(full):
                        column = w[kh, kw, n + j, g * ins : (g + 1) * ins]
                        for i in range(ins):
                            panel[i, j] = column[i]
                else:
                    for i in range(ins):
                        row, to = w[kh, kw, i, g * outs + n : g * outs + n + full], panel[i, :full]
                        for j in range(full):
                            to[j] = row[j]
                if full < width:
                    for i in range(ins):
                        for j in range(full, width):
                            panel[i, j] = 0


@njit(inner=True)
def pack_columns(kind, source, partner, parameters, first, pixels, O, first_column, columns, width, panels):
    """Pixels of a gradient, one group's channels: [block of columns][pixel][column], filled up to whole blocks.

    source, partner: 1-d, of which pixel p begins at (first + p)·O.
    """
    step = max(1, parameters.shape[1] // O)  # pixels at a time
    row = np.empty(step * O, source.dtype)
    for p in range(0, pixels, step):
        count = min(step, pixels - p)
        stretch = slice((first + p) * O, (first + p + count) * O)
        apply_prologue(kind, source[stretch], partner[stretch], parameters, row[: count * O])
        for n in range(0, columns, width):
            full = min(width, columns - n)
            for r in range(count):
                to = panels[(n // width * pixels + p + r) * width : (n // width * pixels + p + r + 1) * width]
                pixel = row[r * O + first_column + n : r * O + first_column + n + full]
                for j in range(full):
                    to[j] = pixel[j]
                to[full:] = 0
