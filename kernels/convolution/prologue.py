"""Packing: how a convolution copies its operands into cache, and applies their prologues (``descriptors.py``) on the way.

The macro-kernel multiplies packed panels that stay in cache (Goto & van de Geijn 2008). Images are packed with zero borders,
weights and gradients in panels as wide as a register tile.
"""

from functools import cache

import numpy as np

from ...errors import ShapeError
from ..checks import alike
from ..descriptors import GRADIENT, NORMALISED, PLAIN
from ..memory_format import contiguous
from ..runtime import target
from ..runtime.jit import njit
from ..runtime.parallel import on_threads
from .microkernel import copy_vectors
from .prefetch import address
from .winograd_transforms import transpose

VECTOR_BYTES = target.VECTOR_BYTES
LONG_ROW = 512  # elements; loops over just 16 channels would spend their time on loop entry


def operand_arguments(operand):
    """The arguments through which kernels take an Operand.

    They are its kind, array and partner as 1-D, and parameters and fold for ``repeat_channels``. Raises ShapeError and
    DtypeError.
    """
    array, kind, parameters, partner = operand
    _, _, W, C = array.shape
    flat = array.reshape(-1)
    if partner is None:
        partner = array
    elif partner.shape != array.shape or partner.dtype is not array.dtype:
        alike("prologue", array, partner)  # says what is wrong
    return kind, flat, contiguous(partner).reshape(-1), as_rows(parameters, C), fold(W, C)


def as_rows(parameters, channels):
    """Parameters in the form that kernels take: an array (rows, channels), or one row of zeros if there are none.

    Raises ShapeError for another number of channels: a kernel would read past the array.
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
    """The number of pixels that are processed as one long row: a divisor of the width."""
    most = max(1, LONG_ROW // channels)
    return next(n for n in range(min(most, width), 0, -1) if width % n == 0)


@njit(inner=True)
def repeat_channels(parameters, fold, like):
    """(parameters, fold·channels), in the dtype of ``like``: each row repeated ``fold`` times, for loops over many pixels."""
    count, channels = parameters.shape
    rows = np.empty((count, fold * channels), like.dtype)
    for k in range(count):
        for at in range(0, fold * channels, channels):
            for c in range(channels):
                rows[k, at + c] = parameters[k, c]
    return rows


@njit(inner=True)
def apply_prologue(kind, x, partner, parameters, first, y):
    """y = the values of x under a prologue. All arrays are 1-D; x begins with channel ``first``; if that is not 0, it is no
    longer than a row of the parameters from there on. The loops are short, to vectorise.
    """
    if kind == PLAIN:
        for i in range(x.size):  # y[:] = x would also compile an error message
            y[i] = x[i]
        return
    length = parameters.shape[1] - first
    mean = parameters[0, first:]
    for at in range(0, x.size, length):
        xs, ys = x[at : at + length], y[at : at + length]
        if kind == NORMALISED:
            scale, shift = parameters[1, first:], parameters[2, first:]
            for i in range(xs.size):
                value = (xs[i] - mean[i]) * scale[i] + shift[i]
                ys[i] = 0 if value <= 0 else value  # NaN stays NaN
        else:
            partners, a, b, d = (
                partner[at : at + length],
                parameters[1, first:],
                parameters[2, first:],
                parameters[3, first:],
            )
            for i in range(xs.size):
                ys[i] = a[i] * xs[i] + b[i] * (partners[i] - mean[i]) + d[i]


@njit(inner=True)
def pack_band(
    kind, source, partner, parameters,  # an Operand; parameters are those of repeat_channels
    image, first,  # which image, and its first row (may be < 0)
    slice_of,  # which slice of the channels
    layout,  # work_items.Layout
    packed, at,  # the buffer, and the element at which the band begins
):  # fmt: skip
    """Pack a band of rows of one image, with zero borders."""
    H, W, C = layout.source_height, layout.source_width, layout.channels
    pitch, left, slices = layout.pitch, layout.left, 1 if layout.shared else layout.slices
    source_pitch, first_channel = C * slices, C * slice_of if slices > 1 else 0
    copied = max(0, min(W, layout.width - left))  # fewer than W if no tap reaches the last columns
    spread = np.empty(copied * C if pitch != C and kind != PLAIN and slices == 1 else 0, source.dtype)
    for r in range(layout.height):
        row = packed[at + r * layout.width * pitch : at + (r + 1) * layout.width * pitch]
        h = first + r
        if h < 0 or h >= H:
            row[:] = 0
            continue
        row[: left * pitch] = 0
        row[(left + copied) * pitch :] = 0
        start = (image * H + h) * W * source_pitch + first_channel
        if slices > 1:
            for w in range(copied):
                here, to = start + w * source_pitch, (left + w) * pitch
                mine = slice(here, here + C)
                apply_prologue(kind, source[mine], partner[mine], parameters, first_channel, row[to : to + C])
            continue
        pixels = source[start : start + copied * C]
        partners = partner[start : start + copied * C] if kind == GRADIENT else pixels
        if pitch == C:
            apply_prologue(kind, pixels, partners, parameters, 0, row[left * C : (left + copied) * C])
            continue
        if kind != PLAIN:
            apply_prologue(kind, pixels, partners, parameters, 0, spread)
            pixels = spread
        for w in range(copied):
            pixel, to = pixels[w * C : (w + 1) * C], row[(left + w) * pitch : (left + w) * pitch + C]
            for c in range(C):
                to[c] = pixel[c]


@njit(inner=True)
def pack_item(
    item, slice_of,  # the work item, and its slice of the channels
    kind, source, partner, parameters,  # an Operand; parameters are those of repeat_channels
    layout,  # work_items.Layout
    packed,  # the buffer
):  # fmt: skip
    """Pack the images of one work item, or its band of an image."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    size = layout.height * layout.width * layout.pitch
    for n in range(min(layout.images, layout.all_images - image)):
        first = q * layout.step - layout.top
        pack_band(kind, source, partner, parameters, image + n, first, slice_of, layout, packed, n * size)


@njit(inner=True)
def _copy_tile_row(dtype, source, to, row_bytes):
    """Copy a row of a register tile, one or two vectors, from one address to another."""
    if row_bytes > VECTOR_BYTES:
        copy_vectors(dtype, 2, source, to)
    else:
        copy_vectors(dtype, 1, source, to)


@njit()
def pack_panels(
    share, shares, thread,
    w, taps,  # the weights (KH, KW, I, O), and the taps to pack, (taps, 2)
    groups, ins, outs,  # the groups, and per group the channels that are summed over and that are computed
    transposed,  # whether the sum runs over O (input gradient) or over I
    width,  # columns of the register tile
    panels, at,  # the buffer, and the element at which the panels begin
):  # fmt: skip
    """B of ``macro_kernel``: [group][block of columns][tap][in][column], with zero columns beyond ``outs``."""
    if share < 0:
        return on_threads(share, shares)
    size, count, blocks = w.itemsize, taps.shape[0], (outs + width - 1) // width
    parts, panel = groups * blocks * count, ins * width
    row, to_row, lanes = w.shape[3] * size, width * size, VECTOR_BYTES // size
    for part in range(share * parts // shares, (share + 1) * parts // shares):
        g, n, t = part // (blocks * count), part // count % blocks * width, part % count
        kh, kw = taps[t]
        full, to = min(width, outs - n), at + part * panel
        tap, p_to = address(w) + (kh * w.shape[1] + kw) * w.shape[2] * row, address(panels) + to * size
        done = 0  # rows that vectors have copied
        if full == width and transposed:
            done = ins // lanes * lanes
            for i in range(0, done, lanes):
                for j in range(0, width, lanes):
                    square = tap + (n + j) * row + (g * ins + i) * size
                    transpose(w.dtype, square, row, p_to + i * to_row + j * size, to_row)
        elif full == width:
            done = ins
            for i in range(ins):
                _copy_tile_row(w.dtype, tap + i * row + (g * outs + n) * size, p_to + i * to_row, to_row)
        for i in range(done, ins):
            for j in range(width):
                at_w = (n + j, g * ins + i) if transposed else (i, g * outs + n + j)
                panels[to + i * width + j] = w[kh, kw, at_w[0], at_w[1]] if j < full else 0
    return 0


@njit(inner=True)
def pack_columns(
    kind, source, partner, parameters,  # the gradient, an Operand; parameters are those of repeat_channels
    first, pixels, O,  # the first pixel, how many, and their channels: pixel p begins at element (first + p)·O
    first_column, columns,  # the group's channels
    width,  # columns of the register tile
    panels,  # the buffer
):  # fmt: skip
    """Pack one group's channels of some pixels: [block of columns][pixel][column], with zeros in the last block."""
    size = source.itemsize
    step = max(1, parameters.shape[1] // O) if columns == O else 1  # pixels at a time
    row = np.empty(step * columns if kind != PLAIN else 0, source.dtype)
    whole = columns // width * width
    for p in range(0, pixels, step):
        count, start = min(step, pixels - p), (first + p) * O + first_column
        read, at = source, start
        if kind != PLAIN:
            stretch = slice(start, start + count * columns)
            apply_prologue(kind, source[stretch], partner[stretch], parameters, first_column, row[: count * columns])
            read, at = row, 0
        p_read, p_panels = address(read) + at * size, address(panels) + p * width * size
        for r in range(count):
            for n in range(0, whole, width):
                pixel, to = p_read + (r * O + n) * size, p_panels + (n * pixels + r * width) * size
                _copy_tile_row(source.dtype, pixel, to, width * size)
            if whole < columns:
                last = panels[whole * pixels + (p + r) * width : whole * pixels + (p + r + 1) * width]
                for j in range(width):
                    last[j] = read[at + r * O + whole + j] if whole + j < columns else 0
    return row  # Numba would free it after its last use, even if its address is still in use
