"""Convolution as an implicit im2col product: forward, input gradient and weight gradient, for any geometry.

The matrix of im2col is addressed, not stored (``conv_plan.py``); the register tile runs over it (``tile.py``). Work is cut
into a fixed partition of image bands, and every sum has one order, so results do not depend on the number of threads.
"""

import numpy as np
from numba import prange

from .buffers import empty
from .cache import njit
from .checks import fits, one_dtype
from .conv_plan import Geometry, forward_plan, input_grad_plan, weight_grad_plan
from .layout import contiguous
from .products import products
from .threads import LOCK, get_num_threads, launch


@njit()
def pack_band(source, image, first, layout, packed, at):
    """Copy rows of an image, beginning with row ``first`` (may be < 0), between zero borders, to packed[at:]."""
    H, W, C = source.shape[1:]
    pitch, left = layout.pitch, layout.left
    copied = max(0, min(W, layout.width - left))  # the right border, or what of the image no tap reaches
    for r in range(layout.height):
        row = packed[at + r * layout.width * pitch : at + (r + 1) * layout.width * pitch]
        h = first + r
        if h < 0 or h >= H:
            row[:] = 0
            continue
        row[: left * pitch] = 0
        row[(left + copied) * pitch :] = 0
        pixels = source[image, h].reshape(-1)
        if pitch == C:
            row[left * C : (left + copied) * C] = pixels[: copied * C]
        else:
            for w in range(copied):
                pixel, to = pixels[w * C : (w + 1) * C], row[(left + w) * pitch : (left + w) * pitch + C]
                for c in range(C):
                    to[c] = pixel[c]


@njit()
def pack_panels(w, taps, groups, ins, outs, transposed, width, panels, at):
    """B of ``products``: [group][block of columns][tap][in][column], columns beyond ``outs`` zero. w (KH, KW, I, O)."""
    for g in range(groups):
        for n in range(0, outs, width):
            for t in range(taps.shape[0]):
                kh, kw = taps[t]
                for i in range(ins):
                    for j in range(width):
                        if n + j >= outs:
                            panels[at + j] = 0
                        elif transposed:
                            panels[at + j] = w[kh, kw, n + j, g * ins + i]
                        else:
                            panels[at + j] = w[kh, kw, i, g * outs + n + j]
                    at += width


@njit()
def pack_item(source, item, layout, packed):
    """Pack the image, images or band of one item."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    size = layout.height * layout.width * layout.pitch
    for n in range(min(layout.images, source.shape[0] - image)):
        pack_band(source, image + n, q * layout.step - layout.top, layout, packed, n * size)


@njit()
def convolve_phase(f, item, source, packed, panels, out, layout, phases, rows_at, out_at, runs_at):
    """One phase of one item, which is packed already, or read where it stands."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, source.shape[0] - image)
    grid_rows, grid_columns, runs, run, panel_at = phases[f]
    positions = images * min(layout.band, grid_rows - q) * grid_columns
    C, O = source.shape[3], out.shape[3]
    y, first = out.reshape(-1), (image * layout.out_pixels + q * layout.out_row) * O
    if runs == 0:
        for p in range(positions):
            at = first + out_at[f, p] // out.itemsize
            y[at : at + O] = 0
        return
    a = source.reshape(-1) if layout.direct else packed
    at = (image * source.shape[1] + q * layout.step) * source.shape[2] * C if layout.direct else 0
    columns, width = layout.columns, layout.tile
    block = runs * run * width
    for g in range(layout.groups):
        a_at, c_at = at + g * (C // layout.groups), first + g * columns
        b_at = panel_at + g * ((columns + width - 1) // width * block)
        products(
            a, a_at, rows_at[f], positions, 1, runs_at[f], runs, run, panels, b_at, block, width,
            y, c_at, out_at[f], columns, width, False,
        )  # fmt: skip


@njit()
def _convolve_part(t, threads, source, panels, out, record, phases, rows_at, out_at, runs_at, packed):
    layout = record[0]
    for item in range(t * layout.items // threads, (t + 1) * layout.items // threads):
        if layout.direct == 0:
            pack_item(source, item, layout, packed)
        for f in range(len(phases)):
            convolve_phase(f, item, source, packed, panels, out, layout, phases, rows_at, out_at, runs_at)


@njit(parallel=True)
def _convolve(source, panels, out, record, phases, rows_at, out_at, runs_at, scratch, threads):
    """out = Σ over taps of source · panels, item by item: the forward pass and the input gradient."""
    for t in prange(threads):
        _convolve_part(np.int64(t), threads, source, panels, out, record, phases, rows_at, out_at, runs_at, scratch[t])


def _run_plan(plan, source, w, out, transposed):
    groups = plan.layout.groups
    ins, outs = (w.shape[3] // groups, w.shape[2]) if transposed else (w.shape[2], w.shape[3] // groups)
    panels = empty((plan.panels,), w.dtype)
    for at, taps in zip(plan.phases[:, 4], plan.taps):
        if len(taps):
            pack_panels(w, taps, groups, ins, outs, transposed, plan.layout.tile, panels, at)
    tables = plan.record, plan.phases, plan.rows_at, plan.out_at, plan.runs_at
    with LOCK:  # a buffer for each thread, and no change of their number between
        scratch = empty((get_num_threads(), plan.layout.packed_size), w.dtype)
        launch(_convolve, source, panels, out, *tables, scratch)
    return out


def geometry(x_shape, w_shape, stride, padding, dilation, groups):
    """The Geometry of x (N, H, W, C) ∗ w (KH, KW, I, O)."""
    images, height, width, channels = x_shape
    return Geometry(
        images, (height, width), channels, w_shape[3], tuple(w_shape[:2]), stride, padding, dilation, groups
    )


def conv2d(x, w, stride, padding, dilation, groups):
    """y[n, oh, ow, o] = Σ x[n, oh·s + kh·d − p, ow·s + kw·d − p, i] · w[kh, kw, i, o].

    x (N, H, W, C), w (KH, KW, C/groups, O) of one float dtype → (N, OH, OW, O); pairs are (height, width).
    """
    one_dtype("conv2d", x, w)
    fits("conv2d", x.shape[3] == w.shape[2] * groups and w.shape[3] % groups == 0, x, w)
    x, w = contiguous(x), contiguous(w)
    g = geometry(x.shape, w.shape, stride, padding, dilation, groups)
    out = empty((g.images, *g.out_size, g.filters), x.dtype)
    return _run_plan(forward_plan(g, x.itemsize), x, w, out, False)


def conv2d_input_grad(dy, w, x_shape, stride, padding, dilation, groups):
    """dx (N, H, W, C) = x_shape of y = x ∗ w, from dy (N, OH, OW, O)."""
    one_dtype("conv2d_input_grad", dy, w)
    dy, w = contiguous(dy), contiguous(w)
    g = geometry(x_shape, w.shape, stride, padding, dilation, groups)
    fits("conv2d_input_grad", dy.shape == (g.images, *g.out_size, g.filters), dy, w)
    return _run_plan(input_grad_plan(g, dy.itemsize), dy, w, empty(x_shape, dy.dtype), True)


@njit()
def _pack_columns(dy, first, pixels, first_column, columns, width, panels):
    """Pixels of dy, one group's channels: [block of columns][pixel][column], filled up with zeros to whole blocks."""
    at = 0
    for n in range(0, columns, width):
        full = min(width, columns - n)
        for p in range(pixels):
            for j in range(full):
                panels[at + j] = dy[first + p, first_column + n + j]
            for j in range(full, width):
                panels[at + j] = 0
            at += width


@njit()
def _weight_grad_item(item, x, dy, total, layout, rows_at, first_row, rows, runs_at, packed, panels):
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, x.shape[0] - image)
    OH, OW, O = dy.shape[1:]
    grid_rows = images * min(layout.band, OH - q)
    pixels = grid_rows * OW
    a = x.reshape(-1) if layout.direct else packed
    at = (image * x.shape[1] + q * layout.step) * x.shape[2] * x.shape[3] if layout.direct else 0
    step, columns, width = layout.column_step * layout.pitch, layout.columns, layout.tile
    out_at = np.arange(first_row, first_row + rows) * (O * x.itemsize)
    first = (image * OH + q) * OW
    for g in range(layout.groups):
        if panels.size:
            _pack_columns(dy.reshape(-1, O), first, pixels, g * columns, columns, width, panels)
            b, b_at, block, b_step = panels, 0, pixels * width, width
        else:
            b, b_at, block, b_step = dy.reshape(-1), first * O + g * columns, width, O
        a_at = at + g * (x.shape[3] // layout.groups)
        products(
            a, a_at, rows_at[first_row:], rows, step, runs_at, grid_rows, OW, b, b_at, block, b_step,
            total, g * columns, out_at, columns, width, True,
        )  # fmt: skip


@njit()
def _weight_grad_part(t, threads, x, dy, totals, record, rows_at, runs_at, packed, panels):
    layout, rows, O = record[0], rows_at.size, dy.shape[3]
    chunks, splits = layout.chunks, layout.splits
    for part in range(t * chunks * splits // threads, (t + 1) * chunks * splits // threads):
        chunk, split = part // splits, part % splits
        first, last = split * rows // splits, (split + 1) * rows // splits
        total = totals[chunk]
        total[first * O : last * O] = 0
        for item in range(chunk * layout.items // chunks, (chunk + 1) * layout.items // chunks):
            if layout.direct == 0:
                pack_item(x, item, layout, packed)
            _weight_grad_item(item, x, dy, total, layout, rows_at, first, last - first, runs_at, packed, panels)


@njit(parallel=True)
def _weight_grad(x, dy, totals, record, rows_at, runs_at, scratch, panels, threads):
    """totals[chunk] = the part of the sum over the chunk's items."""
    for t in prange(threads):
        _weight_grad_part(np.int64(t), threads, x, dy, totals, record, rows_at, runs_at, scratch[t], panels[t])


@njit()
def _sum_chunks(t, threads, totals, dw):
    """dw = Σ totals, in the order of the chunks."""
    chunks = totals.shape[0]
    for i in range(t * dw.size // threads, (t + 1) * dw.size // threads):
        value = totals[0, i]
        for chunk in range(1, chunks):
            value += totals[chunk, i]
        dw[i] = value


@njit(parallel=True)
def _sum(totals, dw, threads):
    for t in prange(threads):
        _sum_chunks(np.int64(t), threads, totals, dw)


def conv2d_weight_grad(x, dy, w_shape, stride, padding, dilation, groups):
    """dw (KH, KW, C/groups, O) = w_shape of y = x ∗ w, from x (N, H, W, C) and dy (N, OH, OW, O)."""
    one_dtype("conv2d_weight_grad", x, dy)
    x, dy = contiguous(x), contiguous(dy)
    g = geometry(x.shape, w_shape, stride, padding, dilation, groups)
    fits("conv2d_weight_grad", dy.shape == (g.images, *g.out_size, g.filters), x, dy)
    plan = weight_grad_plan(g, x.itemsize)
    dw = empty(w_shape, x.dtype)
    totals = empty((plan.layout.chunks, dw.size), x.dtype)
    with LOCK:
        scratch, panels = (empty((get_num_threads(), size), x.dtype) for size in (plan.layout.packed_size, plan.panel))
        launch(_weight_grad, x, dy, totals, plan.record, plan.rows_at, plan.runs_at, scratch, panels)
    launch(_sum, totals, dw.reshape(-1))
    return dw
