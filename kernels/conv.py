"""Convolution as an implicit im2col product: forward, input gradient and weight gradient, for any geometry.

The matrix of im2col is addressed, not stored (``conv_plan.py``); the register tile runs over it (``tile.py``). An item of
work is packed (``packing.py``), convolved, and finished (``epilogue.py``) while it is in cache: batch norm, ReLU and the
residual addition beside a convolution cost no passes over memory of their own. Work is cut into a fixed partition of image
bands, and every sum has one order, so results do not depend on the number of threads.
"""

from functools import lru_cache

import numpy as np

from .buffers import empty
from .cache import njit
from .checks import fits, one_dtype
from .conv_plan import Geometry, forward_plan, input_grad_plan
from .epilogue import MASK, MOMENTS, NOTHING, Epilogue, finish, join_moments
from .layout import contiguous
from .memory import STREAMS, add_stream, next_block
from .packing import GRADIENT, PLAIN, Operand, pack_item, pack_panels, repeated
from .parallel import on_threads
from .products import products, shares
from .threads import LOCK, get_num_threads, launch


@njit(inner=True)
def item_stretch(item, layout, O):
    """(start, stop): the elements of the outputs that an item computes."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, layout.all_images - image)
    rows = min(layout.band * layout.out_row, layout.out_pixels - q * layout.out_row)
    first = image * layout.out_pixels + q * layout.out_row
    return first * O, (first + (images * layout.out_pixels if layout.bands == 1 else rows)) * O


@njit(inner=True)
def item_source(item, layout):
    """(start, stop): the elements of the images that an item is packed from."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, layout.all_images - image)
    H, row = layout.source_height, layout.source_width * layout.channels
    top = q * layout.step - layout.top
    first, last = (0, images * H) if layout.bands == 1 else (max(0, top), min(H, top + layout.height))
    return (image * H + first) * row, (image * H + last) * row


@njit(inner=True)
def add_next_source(streams, n, item, last, kind, source, partner, layout, blocks, shares):
    """Streams of what the item behind this one is packed from, if it comes before ``last``. Returns their number."""
    if item + 1 < last:
        start, stop = item_source(item + 1, layout)
        n = add_stream(streams, n, source, start, stop, blocks, shares, 0)
        if kind == GRADIENT:
            n = add_stream(streams, n, partner, start, stop, blocks, shares, 0)
    return n


@njit(inner=True)
def add_epilogue(streams, n, flags, other, c, z, start, stop, blocks, shares):
    """Streams of what ``finish`` reads beside the outputs. Returns their number."""
    for array, wanted in ((other, flags[2] != 0), (c, flags[0] == MASK), (z, flags[3] != 0)):
        if wanted:
            n = add_stream(streams, n, array, start, stop, blocks, shares, 0)
    return n


@njit(inner=True)
def convolve_phase(f, item, source, packed, panels, out, O, layout, phases, rows_at, out_at, runs_at, streams):
    """One phase of one item, which is packed already, or read where it stands. Each group of it is a block of the streams."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, layout.all_images - image)
    grid_rows, grid_columns, runs, run, panel_at = phases[f]
    positions = images * min(layout.band, grid_rows - q) * grid_columns
    C, first = layout.channels, (image * layout.out_pixels + q * layout.out_row) * O
    if runs == 0:
        for p in range(positions):
            at = first + out_at[f, p] // out.itemsize
            out[at : at + O] = 0
        return
    a = source if layout.direct else packed
    at = (image * layout.source_height + q * layout.step) * layout.source_width * C if layout.direct else 0
    columns, width = layout.columns, layout.tile
    block = runs * run * width
    for g in range(layout.groups):
        a_at, c_at = at + g * (C // layout.groups), first + g * columns
        b_at = panel_at + g * ((columns + width - 1) // width * block)
        products(
            a, a_at, rows_at[f], positions, 1, runs_at[f], runs, run, panels, b_at, block, width,
            out, c_at, out_at[f], columns, width, False, streams,
        )  # fmt: skip
        next_block(streams)


@njit()
def _convolve(
    t, threads, kind, source, partner, parameters, folded, panels, out, O, record, phases, rows_at, out_at, runs_at,
    flags, other, c, z, after, after_folded, results, scratch,
):  # fmt: skip
    """out = Σ over taps of source · panels, item by item: the forward pass and the input gradient.

    source and partner: an ``Operand``; flags to results: an ``Epilogue`` (arrays that it has not are given as out).
    """
    if t < 0:
        return on_threads(t, threads)
    layout, packed = record[0], scratch[t]
    before, ends = repeated(parameters, folded, source), repeated(after, after_folded, out)
    streams = np.zeros((STREAMS, 4), np.int64)
    for item in range(t * layout.items // threads, (t + 1) * layout.items // threads):
        if layout.direct == 0:
            pack_item(item, kind, source, partner, before, layout, packed)
        start, stop = item_stretch(item, layout, O)
        blocks = len(phases) * layout.groups
        parts = shares((stop - start) // (O * len(phases)), layout.tile, out.itemsize)
        n = add_stream(streams, 0, out, start, stop, blocks, parts, 1)
        n = add_next_source(
            streams, n, item, (t + 1) * layout.items // threads, kind, source, partner, layout, blocks, parts
        )
        n = add_epilogue(streams, n, flags, other, c, z, start, stop, blocks, parts)
        for f in range(len(phases)):
            convolve_phase(
                f, item, source, packed, panels, out, O, layout, phases, rows_at, out_at, runs_at, streams[:n]
            )
        if flags[0] != NOTHING:
            finish(flags, out[start:stop], other[start:stop], c[start:stop], z[start:stop], ends, results[item])
    return 0


def _run_plan(plan, operand, w, out, transposed, epilogue):
    """Fill ``out``; the epilogue's result of each item, (items, 2, O) float64."""
    layout, O = plan.layout, out.shape[3]
    ins, outs = (w.shape[3], w.shape[2]) if transposed else (w.shape[2], w.shape[3] // layout.groups)
    ins = ins // layout.groups if transposed else ins
    panels = empty((plan.panels,), w.dtype)
    for at, taps in zip(plan.phases[:, 4], plan.taps):
        if len(taps):
            pack_panels(w, taps, layout.groups, ins, outs, transposed, layout.tile, panels, at)
    reads = *operand.arguments(), panels, out.reshape(-1), O
    tables = plan.record, plan.phases, plan.rows_at, plan.out_at, plan.runs_at
    results = np.zeros((0 if epilogue.kind == NOTHING else layout.items, 2, O))
    with LOCK:  # a buffer for each thread, and no change of their number between
        scratch = empty((get_num_threads(), layout.packed_size), w.dtype)
        launch(_convolve, *reads, *tables, *epilogue.arguments(out), results, scratch)
    return results


@lru_cache(maxsize=512)
def geometry(x_shape, w_shape, stride, padding, dilation, groups):
    """The Geometry of x (N, H, W, C) ∗ w (KH, KW, I, O)."""
    images, height, width, channels = x_shape
    return Geometry(
        images, (height, width), channels, w_shape[3], tuple(w_shape[:2]), stride, padding, dilation, groups
    )


def convolve(operand, w, convolution, epilogue):
    """y = x ∗ w with x as the operand has it, finished by the epilogue; convolution: (stride, padding, dilation, groups).

    Returns y and, for MOMENTS, the mean and the biased variance of its channels, float64; for others None.
    """
    g = geometry(operand.array.shape, w.shape, *convolution)
    out = empty((g.images, *g.out_size, g.filters), w.dtype)
    plan = forward_plan(g, w.itemsize, operand.kind != PLAIN)
    results = _run_plan(plan, operand, w, out, False, epilogue)
    if epilogue.kind != MOMENTS:
        return out, None
    return out, join_moments(results, values(plan.layout))


@lru_cache(maxsize=512)
def values(layout):
    """How many values of a channel each item has, an array of float64."""
    item = np.arange(layout.items)
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = np.minimum(layout.images, layout.all_images - image)
    rows = np.minimum(layout.band * layout.out_row, layout.out_pixels - q * layout.out_row)
    return np.asarray(images * layout.out_pixels if layout.bands == 1 else rows, np.float64)


def convolve_input_grad(operand, w, x_shape, convolution, epilogue):
    """dx of y = x ∗ w with dy as the operand has it, finished by the epilogue; and its sums (2, C), float64."""
    g = geometry(x_shape, w.shape, *convolution)
    plan = input_grad_plan(g, w.itemsize, operand.kind != PLAIN)
    out = empty(x_shape, w.dtype)
    return out, np.add.reduce(_run_plan(plan, operand, w, out, True, epilogue))


def conv2d(x, w, stride, padding, dilation, groups):
    """y[n, oh, ow, o] = Σ x[n, oh·s + kh·d − p, ow·s + kw·d − p, i] · w[kh, kw, i, o].

    x (N, H, W, C), w (KH, KW, C/groups, O) of one float dtype → (N, OH, OW, O); pairs are (height, width).
    """
    one_dtype("conv2d", x, w)
    fits("conv2d", x.shape[3] == w.shape[2] * groups and w.shape[3] % groups == 0, x, w)
    x, w = contiguous(x), contiguous(w)
    return convolve(Operand(x), w, (stride, padding, dilation, groups), Epilogue())[0]


def conv2d_input_grad(dy, w, x_shape, stride, padding, dilation, groups):
    """dx (N, H, W, C) = x_shape of y = x ∗ w, from dy (N, OH, OW, O)."""
    one_dtype("conv2d_input_grad", dy, w)
    dy, w = contiguous(dy), contiguous(w)
    g = geometry(x_shape, w.shape, stride, padding, dilation, groups)
    fits("conv2d_input_grad", dy.shape == (g.images, *g.out_size, g.filters), dy, w)
    return convolve_input_grad(Operand(dy), w, x_shape, (stride, padding, dilation, groups), Epilogue())[0]
