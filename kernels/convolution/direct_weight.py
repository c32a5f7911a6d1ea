"""The weight gradient of a direct convolution: dw = Σ over output pixels of the patch of x that the pixel sees, times dy.

The product's rows are (kh, kw, channel), its columns the filters, and the sum runs over pixels (``direct_plan.WeightPlan``).
It is divided into chunks of work items, independently of the number of threads, and the chunks are added in a fixed order.
"""

import numpy as np

from ..descriptors import PLAIN
from ..runtime.jit import njit
from ..runtime.memory_pool import empty
from ..runtime.parallel import on_threads
from ..runtime.threads import LOCK, get_num_threads, launch
from .direct_plan import weight_grad_plan
from .macrokernel import macro_kernel
from .prologue import apply_prologue, operand_arguments, pack_columns, pack_item, repeat_channels


@njit(inner=True)
def _item(
    item, layout, indirection,  # the work item, and the plan (direct_plan.WeightPlan)
    x, packed,  # the images, 1-D, and the buffer with the packed item, which is not used if they are read in place
    kind, dy, partner, parameters,  # the Operand dy
    panels,  # a buffer for the item's packed dy
    total, O,  # the sum that is added to, (KH·KW·I·O,), and the number of filters
    first_row, rows,  # which of its rows: the first one, and how many
    grid,  # rows and columns of dy
):  # fmt: skip
    """Add one work item's part to some rows of the sum."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    images = min(layout.images, layout.all_images - image)
    OH, OW = grid
    grid_rows = images * min(layout.band, OH - q)
    pixels = grid_rows * OW
    a = x if layout.direct else packed
    C = layout.channels
    at = (image * layout.source_height + q * layout.step) * layout.source_width * C if layout.direct else 0
    step, columns, width = layout.column_step * layout.pitch, layout.columns, layout.tile
    row_offsets, run_offsets = indirection[first_row : layout.rows], indirection[layout.rows :]
    out_offsets = np.arange(first_row, first_row + rows) * (O * x.itemsize)
    first, nothing = (image * OH + q) * OW, np.zeros((0, 4), np.int64)
    if layout.dense and panels.size:
        stretch = slice(first * O, (first + pixels) * O)
        apply_prologue(kind, dy[stretch], partner[stretch], parameters, panels[: pixels * O])
    for g in range(layout.groups):
        if layout.dense == 0:
            pack_columns(kind, dy, partner, parameters, first, pixels, O, g * columns, columns, width, panels)
            b, b_at, block, b_step = panels, 0, pixels * width, width
        elif panels.size:
            b, b_at, block, b_step = panels, g * columns, width, O
        else:
            b, b_at, block, b_step = dy, first * O + g * columns, width, O
        macro_kernel(
            a, at + g * (C // layout.groups), row_offsets, rows, step, run_offsets, grid_rows, OW, b, b_at, block,
            b_step, total, g * columns, out_offsets, columns, width, True, nothing,
        )  # fmt: skip


@njit()
def _weight_grad(
    share, shares, thread,
    x_kind, x, x_partner, x_parameters, x_folded,  # the Operand x (prologue.operand_arguments)
    kind, dy, partner, dy_parameters, dy_folded,  # the Operand dy
    totals, O,  # (chunks, KH·KW·I·O), and the number of filters
    record, indirection,  # the plan (direct_plan.WeightPlan)
    grid,  # rows and columns of dy
    scratch, spread,  # (threads, …): buffers for packed items of x and of dy
):  # fmt: skip
    """totals[chunk] = the sum over the chunk's work items."""
    if share < 0:
        return on_threads(share, shares)
    packed, panels = scratch[thread], spread[thread]
    layout = record[0]
    chunks, splits, rows = layout.chunks, layout.splits, layout.rows
    x_rows, parameters = repeat_channels(x_parameters, x_folded, x), repeat_channels(dy_parameters, dy_folded, dy)
    for part in range(share * chunks * splits // shares, (share + 1) * chunks * splits // shares):
        chunk, split = part // splits, part % splits
        first, last = split * rows // splits, (split + 1) * rows // splits
        total = totals[chunk]
        total[first * O : last * O] = 0
        for item in range(chunk * layout.items // chunks, (chunk + 1) * layout.items // chunks):
            if layout.direct == 0:
                pack_item(item, x_kind, x, x_partner, x_rows, layout, packed)
            _item(
                item, layout, indirection, x, packed, kind, dy, partner, parameters, panels, total, O, first,
                last - first, grid,
            )  # fmt: skip
    return 0


@njit()
def _sum(share, shares, thread, totals, dw):
    """dw = Σ totals, added in the order of the chunks."""
    if share < 0:
        return on_threads(share, shares)
    chunks = totals.shape[0]
    mine = slice(share * dw.size // shares, (share + 1) * dw.size // shares)
    total, first = dw[mine], totals[0, mine]
    for i in range(total.size):
        total[i] = first[i]
    for chunk in range(1, chunks):
        more = totals[chunk, mine]
        for i in range(total.size):
            total[i] += more[i]
    return 0


def convolve_weight_grad(problem, x, dy):
    """dw (KH, KW, I, O) of y = x ∗ w. x and dy are Operands."""
    dtype = x.array.dtype
    plan = weight_grad_plan(problem, dtype.itemsize, x.kind != PLAIN, dy.kind != PLAIN)
    dw = empty(problem.w_shape, dtype)
    totals = empty((plan.layout.chunks, dw.size), dtype)
    reads = *operand_arguments(x), *operand_arguments(dy), totals, problem.filters, plan.record, plan.indirection
    with LOCK:
        scratch, panels = (empty((get_num_threads(), size), dtype) for size in (plan.layout.packed_size, plan.panel))
        launch(_weight_grad, *reads, np.array(problem.out_size, np.int64), scratch, panels)
    launch(_sum, totals, dw.reshape(-1))
    return dw
