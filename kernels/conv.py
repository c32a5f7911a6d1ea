"""Convolution as an implicit im2col product: forward, input gradient and weight gradient, for any geometry.

The matrix of im2col is addressed, not stored (``conv_plan.py``); the register tile runs over it (``tile.py``). Work is cut
into a fixed partition of image bands, and every sum has one order, so results do not depend on the number of threads.
"""

import numpy as np
from numba import prange

from .buffers import empty
from .cache import njit
from .conv_plan import Geometry, forward_plan, input_grad_plan, weight_grad_plan
from .layout import contiguous
from .products import panel_width, products
from .threads import get_num_threads, launch

DENSE_BYTES = 128  # from one pixel to the next: measured, packing pays beyond


@njit()
def pack_band(source, image, first, packing, packed, at):
    """Copy rows of an image, beginning with row ``first`` (may be < 0), between zero borders, to packed[at:]."""
    H, W, C = source.shape[1:]
    pitch, left = packing.pitch, packing.left
    copied = max(0, min(W, packing.width - left))  # the right border, or what of the image no tap reaches
    for r in range(packing.height):
        row = packed[at + r * packing.width * pitch : at + (r + 1) * packing.width * pitch]
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
def pack_item(source, item, packing, packed):
    """Pack the image, images or band of one item."""
    image, q = item // packing.bands * packing.images, item % packing.bands * packing.band
    size = packing.height * packing.width * packing.pitch
    for n in range(min(packing.images, source.shape[0] - image)):
        pack_band(source, image + n, q * packing.step - packing.top, packing, packed, n * size)


@njit()
def convolve_phase(f, item, source, packed, panels, panel_at, out, groups, packing, tables, out_row, out_pixels, width):
    """One phase of one item, which is packed already, or read where it stands."""
    image, q = item // packing.bands * packing.images, item % packing.bands * packing.band
    images = min(packing.images, source.shape[0] - image)
    columns_of_grid = tables.grid[f, 1]
    positions = images * min(packing.band, tables.grid[f, 0] - q) * columns_of_grid
    runs, run = tables.runs[f]
    C, O = source.shape[3], out.shape[3]
    first = (image * out_pixels + q * out_row) * O
    y, out_at = out.reshape(-1), tables.out_at[f]
    if runs == 0:
        for p in range(positions):
            at = first + out_at[p] // out.itemsize
            y[at : at + O] = 0
        return
    a = source.reshape(-1) if packing.direct else packed
    at = (image * source.shape[1] + q * packing.step) * source.shape[2] * C if packing.direct else 0
    rows_at, runs_at, columns = tables.rows_at[f], tables.runs_at[f], O // groups
    block = runs * run * width
    panel = (columns + width - 1) // width * block
    for g in range(groups):
        a_at, b_at, c_at = at + g * (C // groups), panel_at + g * panel, first + g * columns
        products(
            a, a_at, rows_at, positions, 1, runs_at, runs, run, panels, b_at, block, width,
            y, c_at, out_at, columns, width, False,
        )  # fmt: skip


@njit()
def _convolve_part(
    t, threads, source, panels, panel_at, out, groups, packing, tables, out_row, out_pixels, width, packed
):
    for item in range(t * packing.items // threads, (t + 1) * packing.items // threads):
        if packing.direct == 0:
            pack_item(source, item, packing, packed)
        for f in range(tables.grid.shape[0]):
            convolve_phase(
                f, item, source, packed, panels, panel_at[f], out, groups, packing, tables, out_row, out_pixels, width
            )


@njit(parallel=True)
def _convolve(source, panels, panel_at, out, groups, packing, tables, out_row, out_pixels, width, scratch, threads):
    """out = Σ over taps of source · panels, item by item: the forward pass and the input gradient."""
    for t in prange(threads):
        _convolve_part(
            np.int64(t),
            threads,
            source,
            panels,
            panel_at,
            out,
            groups,
            packing,
            tables,
            out_row,
            out_pixels,
            width,
            scratch[t],
        )


def _run_plan(plan, source, w, out, groups, transposed):
    ins, outs = (w.shape[2], w.shape[3] // groups) if not transposed else (w.shape[3] // groups, w.shape[2])
    width = panel_width(outs, w.dtype)
    phase_size = [groups * -(-outs // width) * len(taps) * ins * width for taps in plan.taps]
    panel_at = np.cumsum([0, *phase_size[:-1]])
    panels = empty((sum(phase_size),), w.dtype)
    for at, taps in zip(panel_at, plan.taps):
        if len(taps):
            pack_panels(w, taps, groups, ins, outs, transposed, width, panels, at)
    args = (source, panels, panel_at, out, groups, plan.packing, plan.tables, plan.out_row, plan.out_pixels, width)
    launch(_convolve, *args, scratch_for(plan.packing, source))
    return out


def scratch_for(packing, source):
    """A packed item for each thread, (threads, elements)."""
    item = 0 if packing.direct else packing.images * packing.height * packing.width * packing.pitch
    return empty((get_num_threads(), item), source.dtype)


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
    x, w = contiguous(x), contiguous(w)
    g = geometry(x.shape, w.shape, stride, padding, dilation, groups)
    out = empty((g.images, *g.out_size, g.filters), x.dtype)
    return _run_plan(forward_plan(g, x.itemsize), x, w, out, groups, False)


def conv2d_input_grad(dy, w, x_shape, stride, padding, dilation, groups):
    """dx (N, H, W, C) = x_shape of y = x ∗ w, from dy (N, OH, OW, O)."""
    dy, w = contiguous(dy), contiguous(w)
    g = geometry(x_shape, w.shape, stride, padding, dilation, groups)
    return _run_plan(input_grad_plan(g, dy.itemsize), dy, w, empty(x_shape, dy.dtype), groups, True)


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
def _weight_grad_item(item, x, dy, total, groups, packing, rows_at, first_row, rows, runs_at, packed, panels, width):
    image, q = item // packing.bands * packing.images, item % packing.bands * packing.band
    images = min(packing.images, x.shape[0] - image)
    OH, OW, O = dy.shape[1:]
    C, columns = x.shape[3], O // groups
    grid_rows = images * min(packing.band, OH - q)
    pixels = grid_rows * OW
    a = x.reshape(-1) if packing.direct else packed
    at = (image * x.shape[1] + q * packing.step) * x.shape[2] * C if packing.direct else 0
    step = packing.column_step * packing.pitch
    out_at = np.arange(first_row, first_row + rows) * (O * x.itemsize)
    first = (image * OH + q) * OW
    for g in range(groups):
        if panels.size:
            _pack_columns(dy.reshape(-1, O), first, pixels, g * columns, columns, width, panels)
            b, b_at, block, b_step = panels, 0, pixels * width, width
        else:
            b, b_at, block, b_step = dy.reshape(-1), first * O + g * columns, width, O
        products(
            a, at + g * (C // groups), rows_at[first_row:], rows, step, runs_at, grid_rows, OW, b, b_at, block, b_step,
            total, g * columns, out_at, columns, width, True,
        )  # fmt: skip


@njit()
def _weight_grad_part(t, threads, x, dy, totals, groups, packing, rows_at, runs_at, splits, width, packed, panels):
    chunks, rows, O = totals.shape[0], rows_at.size, dy.shape[3]
    work = chunks * splits
    for part in range(t * work // threads, (t + 1) * work // threads):
        chunk, split = part // splits, part % splits
        first, last = split * rows // splits, (split + 1) * rows // splits
        total = totals[chunk]
        total[first * O : last * O] = 0
        for item in range(chunk * packing.items // chunks, (chunk + 1) * packing.items // chunks):
            if packing.direct == 0:
                pack_item(x, item, packing, packed)
            _weight_grad_item(
                item, x, dy, total, groups, packing, rows_at, first, last - first, runs_at, packed, panels, width
            )


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
def _weight_grad(x, dy, totals, groups, packing, rows_at, runs_at, splits, width, scratch, panels, threads):
    """totals[chunk] = the part of the sum over the chunk's items."""
    for t in prange(threads):
        _weight_grad_part(
            np.int64(t), threads, x, dy, totals, groups, packing, rows_at, runs_at, splits, width, scratch[t], panels[t]
        )


@njit(parallel=True)
def _sum(totals, dw, threads):
    for t in prange(threads):
        _sum_chunks(np.int64(t), threads, totals, dw)


def conv2d_weight_grad(x, dy, w_shape, stride, padding, dilation, groups):
    """dw (KH, KW, C/groups, O) = w_shape of y = x ∗ w, from x (N, H, W, C) and dy (N, OH, OW, O)."""
    x, dy = contiguous(x), contiguous(dy)
    plan = weight_grad_plan(geometry(x.shape, w_shape, stride, padding, dilation, groups), x.itemsize)
    columns = w_shape[3] // groups
    width = panel_width(columns, x.dtype)
    # dy is read where it stands if its columns are whole vectors and its pixels not so far apart that they share a few
    # sets of the cache
    as_it_is = columns % width == 0 and w_shape[3] * x.itemsize <= DENSE_BYTES
    panel = 0 if as_it_is else plan.packing.images * plan.packing.band * dy.shape[2] * -(-columns // width) * width
    dw = empty(w_shape, x.dtype)
    totals = empty((plan.chunks, dw.size), x.dtype)
    scratch, panels = scratch_for(plan.packing, x), empty((get_num_threads(), panel), x.dtype)
    tables = (groups, plan.packing, plan.rows_at, plan.runs_at, plan.splits, width)
    launch(_weight_grad, x, dy, totals, *tables, scratch, panels)
    launch(_sum, totals, dw.reshape(-1))
    return dw
