"""The weight gradient of a convolution: dw = Σ over output pixels of the patch of x that a pixel saw, times its dy.

Rows of the product are (kh, kw, channel), columns the filters, and the sum runs over pixels (``conv_plan.WeightPlan``). It
is cut into chunks of items, whatever the number of threads, which are added up in their order.
"""

import numpy as np

from .buffers import empty
from .cache import njit
from .checks import fits, one_dtype
from .conv import geometry
from .conv_plan import weight_grad_plan
from .layout import contiguous
from .packing import PLAIN, Operand, pack_columns, pack_item, repeated, transform
from .parallel import on_threads
from .products import products
from .threads import LOCK, get_num_threads, launch


@njit(inner=True)
def _item(
    item, x, kind, dy, partner, parameters, total, O, layout, rows_at, first_row, rows, runs_at, grid, packed, panels
):
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, layout.all_images - image)
    OH, OW = grid
    grid_rows = images * min(layout.band, OH - q)
    pixels = grid_rows * OW
    a = x if layout.direct else packed
    C = layout.channels
    at = (image * layout.source_height + q * layout.step) * layout.source_width * C if layout.direct else 0
    step, columns, width = layout.column_step * layout.pitch, layout.columns, layout.tile
    out_at = np.arange(first_row, first_row + rows) * (O * x.itemsize)
    first, nothing = (image * OH + q) * OW, np.zeros((0, 4), np.int64)
    if layout.dense and panels.size:
        stretch = slice(first * O, (first + pixels) * O)
        transform(kind, dy[stretch], partner[stretch], parameters, panels[: pixels * O])
    for g in range(layout.groups):
        if layout.dense == 0:
            pack_columns(kind, dy, partner, parameters, first, pixels, O, g * columns, columns, width, panels)
            b, b_at, block, b_step = panels, 0, pixels * width, width
        elif panels.size:
            b, b_at, block, b_step = panels, g * columns, width, O
        else:
            b, b_at, block, b_step = dy, first * O + g * columns, width, O
        products(
            a, at + g * (C // layout.groups), rows_at[first_row:], rows, step, runs_at, grid_rows, OW, b, b_at, block,
            b_step, total, g * columns, out_at, columns, width, True, nothing,
        )  # fmt: skip


@njit()
def _weight_grad(
    t, threads, x_kind, x, x_parameters, x_folded, kind, dy, partner, dy_parameters, dy_folded, totals, O, record,
    rows_at, runs_at, grid, scratch, spread,
):  # fmt: skip
    """totals[chunk] = the part of the sum over the chunk's items."""
    if t < 0:
        return on_threads(t, threads)
    packed, panels = scratch[t], spread[t]
    layout, rows = record[0], rows_at.size
    chunks, splits = layout.chunks, layout.splits
    x_rows, parameters = repeated(x_parameters, x_folded, x), repeated(dy_parameters, dy_folded, dy)
    for part in range(t * chunks * splits // threads, (t + 1) * chunks * splits // threads):
        chunk, split = part // splits, part % splits
        first, last = split * rows // splits, (split + 1) * rows // splits
        total = totals[chunk]
        total[first * O : last * O] = 0
        for item in range(chunk * layout.items // chunks, (chunk + 1) * layout.items // chunks):
            if layout.direct == 0:
                pack_item(item, x_kind, x, x, x_rows, layout, packed)
            _item(
                item, x, kind, dy, partner, parameters, total, O, layout, rows_at, first, last - first, runs_at, grid,
                packed, panels,
            )  # fmt: skip
    return 0


@njit()
def _sum(t, threads, totals, dw):
    """dw = Σ totals, in the order of the chunks."""
    if t < 0:
        return on_threads(t, threads)
    chunks = totals.shape[0]
    mine = slice(t * dw.size // threads, (t + 1) * dw.size // threads)
    total, first = dw[mine], totals[0, mine]
    for i in range(total.size):
        total[i] = first[i]
    for chunk in range(1, chunks):
        more = totals[chunk, mine]
        for i in range(total.size):
            total[i] += more[i]
    return 0


def convolve_weight_grad(operand, gradient, w_shape, convolution):
    """dw (KH, KW, I, O) = w_shape of y = x ∗ w, with x and dy as the operands have them."""
    x = operand.array
    g = geometry(x.shape, w_shape, *convolution)
    plan = weight_grad_plan(g, x.itemsize, operand.kind != PLAIN, gradient.kind != PLAIN)
    dw = empty(w_shape, x.dtype)
    totals = empty((plan.layout.chunks, dw.size), x.dtype)
    kind, flat, _, *rows = operand.arguments()
    reads = kind, flat, *rows, *gradient.arguments()
    tables = g.filters, plan.record, plan.rows_at, plan.runs_at, np.array(g.out_size, np.int64)
    with LOCK:
        scratch, panels = (empty((get_num_threads(), size), x.dtype) for size in (plan.layout.packed_size, plan.panel))
        launch(_weight_grad, *reads, totals, *tables, scratch, panels)
    launch(_sum, totals, dw.reshape(-1))
    return dw


def conv2d_weight_grad(x, dy, w_shape, stride, padding, dilation, groups):
    """dw (KH, KW, C/groups, O) = w_shape of y = x ∗ w, from x (N, H, W, C) and dy (N, OH, OW, O)."""
    one_dtype("conv2d_weight_grad", x, dy)
    x, dy = contiguous(x), contiguous(dy)
    convolution = stride, padding, dilation, groups
    g = geometry(x.shape, w_shape, *convolution)
    fits("conv2d_weight_grad", dy.shape == (g.images, *g.out_size, g.filters), x, dy)
    return convolve_weight_grad(Operand(x), Operand(dy), w_shape, convolution)
