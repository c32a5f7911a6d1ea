"""The weight gradient of a direct convolution: dw = Σ over output pixels of the patch of x that the pixel sees, times dy.

The product's rows are (kh, kw, channel), its columns the filters, and the sum runs over pixels (``direct_plan.WeightPlan``).
It is divided into parts independently of the number of threads: into chunks of work items, which are added in a fixed order,
or a large gradient of few pixels into rows and columns, for which all items are packed ahead (``direct_plan._parts``).
"""

import numpy as np

from ..descriptors import PLAIN
from ..runtime import target
from ..runtime.jit import njit
from ..runtime.memory_pool import empty
from ..runtime.parallel import on_threads
from ..runtime.threads import LOCK, get_num_threads, launch
from .direct_plan import weight_grad_plan
from .macrokernel import macro_kernel
from .prologue import apply_prologue, operand_arguments, pack_columns, pack_item, repeat_channels
from .work_items import multiply_adds

BOTH, PACK, MULTIPLY = 0, 1, 2  # stages of a weight gradient
VECTOR_BYTES, WIDE_ROWS, NARROW_ROWS = target.VECTOR_BYTES, target.WIDE_ROWS, target.NARROW_ROWS


@njit(inner=True)
def _item_pixels(item, layout, grid):
    """(image, row, grid rows, pixels) of dy in an item: its first image and row there. grid: rows and columns of dy."""
    image, q = item // layout.bands * layout.images, item % layout.bands * layout.band
    grid_rows = min(layout.images, layout.all_images - image) * min(layout.band, grid[0] - q)
    return image, q, grid_rows, grid_rows * grid[1]


@njit(inner=True)
def _pack_gradient(
    item, layout, grid, group,  # group: among those of all slices
    kind, dy, partner, parameters,  # the Operand dy
    panels,  # the buffer, which is empty if dy is read in place
):  # fmt: skip
    """Pack one group's channels of one work item of dy."""
    image, q, _, pixels = _item_pixels(item, layout, grid)
    O = layout.columns * layout.groups * layout.slices
    first = (image * grid[0] + q) * grid[1]
    if layout.dense == 0:
        columns = layout.columns
        pack_columns(kind, dy, partner, parameters, first, pixels, O, group * columns, columns, layout.tile, panels)
    elif panels.size and group == 0:
        stretch = slice(first * O, (first + pixels) * O)
        apply_prologue(kind, dy[stretch], partner[stretch], parameters, 0, panels[: pixels * O])


@njit(inner=True)
def _multiply(
    item, layout, indirection, grid,  # the work item, the plan (direct_plan.WeightPlan), rows and columns of dy
    group, inner,  # the group among those of all slices, and among those of the item
    x, packed,  # the images, 1-D, and the buffer with the packed item, which is not used if they are read in place
    dy, panels,  # the gradients, 1-D, and the buffer with the packed item, which is empty if they are read in place
    total, add,  # (KH·KW·I·O,), and whether to add to it or overwrite it
    first_row, last_row, first_block, last_block,  # which of its rows, and of its blocks of columns
):  # fmt: skip
    """Add one work item's part to some rows and columns of a group's total."""
    image, q, grid_rows, pixels = _item_pixels(item, layout, grid)
    C, columns, width = layout.channels, layout.columns, layout.tile
    O = columns * layout.groups * layout.slices
    a = x if layout.direct else packed
    at = (image * layout.source_height + q * layout.step) * layout.source_width * C if layout.direct else 0
    if layout.dense == 0:
        b, b_at, block, b_step = panels, 0, pixels * width, width
    elif panels.size:
        b, b_at, block, b_step = panels, group * columns, width, O
    else:
        b, b_at, block, b_step = dy, (image * grid[0] + q) * grid[1] * O + group * columns, width, O
    out_offsets = np.arange(first_row, last_row) * (O * x.itemsize)
    macro_kernel(
        a, at + inner * (C // layout.groups), indirection[first_row : layout.rows], last_row - first_row,
        layout.column_step * layout.pitch, indirection[layout.rows :], grid_rows, grid[1],
        b, b_at + first_block * block, block, b_step,
        total, group * columns + first_block * width, out_offsets,
        min(columns, last_block * width) - first_block * width, width, add, np.zeros((0, 4), np.int64),
    )  # fmt: skip


@njit()
def _weight_grad(
    share, shares, thread,
    stage,  # of a gradient that is packed ahead: first PACK, then MULTIPLY; of any other: BOTH
    x_kind, x, x_partner, x_parameters, x_folded,  # the Operand x (prologue.operand_arguments)
    kind, dy, partner, dy_parameters, dy_folded,  # the Operand dy
    totals,  # (chunks, KH·KW·I·O)
    record, indirection,  # the plan (direct_plan.WeightPlan)
    grid,  # rows and columns of dy
    scratch, spread,  # (threads, …), packed ahead (items, …): buffers for packed items of x and of dy
):  # fmt: skip
    """totals[chunk] = the sum over the chunk's work items."""
    if share < 0:
        return on_threads(share, shares)
    layout = record[0]
    chunks, splits, column_splits, items = layout.chunks, layout.splits, layout.column_splits, layout.items
    x_rows, parameters = repeat_channels(x_parameters, x_folded, x), repeat_channels(dy_parameters, dy_folded, dy)
    step = WIDE_ROWS if layout.tile * x.itemsize > VECTOR_BYTES else NARROW_ROWS
    row_tiles, blocks = (layout.rows + step - 1) // step, (layout.columns + layout.tile - 1) // layout.tile
    parts = items if stage == PACK else layout.slices * chunks * splits * column_splits
    for number in range(share * parts // shares, (share + 1) * parts // shares):
        slice_of, part = number // (parts // layout.slices), number % (parts // layout.slices)
        chunk = part // (splits * column_splits)
        row_split, column_split = part // column_splits % splits, part % column_splits
        first_row = row_split * row_tiles // splits * step
        last_row = min(layout.rows, (row_split + 1) * row_tiles // splits * step)
        first_block, last_block = column_split * blocks // column_splits, (column_split + 1) * blocks // column_splits
        first, last = (part, part + 1) if stage == PACK else (chunk * items // chunks, (chunk + 1) * items // chunks)
        for item in range(first, last):
            slot = thread if stage == BOTH else item
            packed, panels = scratch[slot], spread[slot]
            if layout.direct == 0 and stage != MULTIPLY:
                pack_item(item, slice_of, x_kind, x, x_partner, x_rows, layout, packed)
            for inner in range(layout.groups):
                group = slice_of * layout.groups + inner
                if stage != MULTIPLY:
                    _pack_gradient(item, layout, grid, group, kind, dy, partner, parameters, panels)
                if stage != PACK:
                    _multiply(
                        item, layout, indirection, grid, group, inner, x, packed, dy, panels, totals[chunk],
                        item > first, first_row, last_row, first_block, last_block,
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
    dw, layout = empty(problem.w_shape, dtype), plan.layout
    if not problem.images:
        dw[...] = 0
        return dw
    totals = dw.reshape(1, -1) if layout.chunks == 1 else empty((layout.chunks, dw.size), dtype)
    reads = *operand_arguments(x), *operand_arguments(dy), totals, plan.record, plan.indirection
    with LOCK:  # one buffer per thread, so the number of threads must not change in between
        buffers = layout.items if layout.ahead else get_num_threads()
        scratch, panels = (empty((buffers, size), dtype) for size in (layout.packed_size, plan.panel))
        for stage in (PACK, MULTIPLY) if layout.ahead else (BOTH,):
            out_size = np.array(problem.out_size, np.int64)
            launch(_weight_grad, stage, *reads, out_size, scratch, panels, work=multiply_adds(problem))
    if layout.chunks > 1:
        launch(_sum, totals, dw.reshape(-1))
    return dw
