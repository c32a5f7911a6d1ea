"""The weight gradient by the Winograd algorithm: dw = Gᵀ [ Σ_tiles (Bᵀ d B) ⊙ (A dy Aᵀ) ] G, the transpose of ``winograd.py``.

The total over tiles consists of 36 matrices (channels, filters). The sum is divided into chunks of work items and the rows
into splits, independently of the number of threads; chunks are added in a fixed order.
"""

import numpy as np

from ..descriptors import GRADIENT, PLAIN
from ..runtime import target
from ..runtime.jit import njit
from ..runtime.memory_pool import empty, empty_together
from ..runtime.parallel import on_threads
from ..runtime.threads import LOCK, get_num_threads, launch
from .microkernel import indirect_micro_kernel
from .prefetch import STREAMS, add_stream, address, next_block, prefetch_share
from .prologue import apply_prologue, operand_arguments, pack_item, repeat_channels
from .winograd import count_blocks, transform_inputs
from .winograd_plan import winograd_weight_plan
from .winograd_transforms import PLANES, TILE, transform_gradient, transform_weight_grad
from .work_items import item_source, item_stretch, multiply_adds

VECTOR_BYTES, WIDE_ROWS, NARROW_ROWS = target.VECTOR_BYTES, target.WIDE_ROWS, target.NARROW_ROWS


@njit(inner=True)
def _transform_gradients(
    dy, at, image_step, row, pitch,  # pixel (r, c) of image n: dy[at + n·image_step + r·row + c·pitch]
    rows, columns,  # of dy in each image
    first, count,  # tiles first … first + count − 1 of the work item
    Z,  # the output: [plane][panel][tile][column], zero beyond the filters
    block,  # winograd_plan.Block
):  # fmt: skip
    """Z = A dy Aᵀ for some tiles."""
    size, filters, width = dy.itemsize, block.filters, block.width
    lanes, plane, panel = VECTOR_BYTES // size, block.m_plane * size, block.m_panel * size
    tile_rows, tile_columns = (rows + TILE - 1) // TILE, (columns + TILE - 1) // TILE
    corner = PLANES * block.m_plane  # room for the gradient of one tile, behind the planes
    edge = Z[corner : corner + TILE * TILE * lanes]
    to = address(Z)
    y, x = first // tile_columns % tile_rows, first % tile_columns
    image = at + first // tile_columns // tile_rows * image_step
    for _ in range(count):
        here = image + TILE * y * row + TILE * x * pitch
        across, down = min(TILE, columns - TILE * x), min(TILE, rows - TILE * y)
        whole = filters // width * width if across == TILE and down == TILE else 0
        for c in range(0, whole, lanes):
            source = address(dy) + (here + c) * size
            there = to + c // width * panel + c % width * size
            transform_gradient(dy.dtype, source, row * size, pitch * size, there, plane)
        for c in range(whole, block.m_panels * width, lanes):  # edge tiles and incomplete panels, filled up with zeros
            edge[:] = 0
            for i in range(down):
                for j in range(across):
                    start, inner = here + i * row + j * pitch + c, (i * TILE + j) * lanes
                    for n in range(min(lanes, filters - c)):
                        edge[inner + n] = dy[start + n]
            there = to + c // width * panel + c % width * size
            transform_gradient(dy.dtype, address(edge), TILE * VECTOR_BYTES, VECTOR_BYTES, there, plane)
        to += width * size
        x += 1
        if x == tile_columns:
            x, y = 0, y + 1
            if y == tile_rows:
                y = 0
                image += image_step


@njit(inner=True)
def _multiply_add(
    V, Z, total,  # the transformed inputs and gradients, and the sum that is added to
    count,  # tiles in V and Z
    first_row, last_row,  # channels first_row … last_row − 1
    block, tables,  # winograd_plan.Block, and its weight_tables_for
    streams,  # what to prefetch meanwhile (prefetch.py)
):  # fmt: skip
    """total += Vᵀ · Z for each of the 36 planes and some channels."""
    size = V.itemsize
    p_rows, p_out, p_run = address(tables[0]), address(tables[1]), address(tables[2])
    a_step, b_step = block.v_tile * size, block.m_tile * size
    for k in range(PLANES):
        prefetch_share(streams, k)
        a, c = address(V) + k * block.v_plane * size, address(total) + k * block.total_plane * size
        for n in range(block.m_panels):
            b = address(Z) + (k * block.m_plane + n * block.m_panel) * size
            to = c + n * block.width * size
            if block.wide:
                for i in range(first_row, last_row, WIDE_ROWS):
                    indirect_micro_kernel(
                        V.dtype, WIDE_ROWS, 2, 1,
                        a, p_rows + 8 * i, a_step, p_run, 1, count, b, b_step, to, p_out + 8 * i,
                    )  # fmt: skip
            else:
                for i in range(first_row, last_row, NARROW_ROWS):
                    indirect_micro_kernel(
                        V.dtype, NARROW_ROWS, 1, 1,
                        a, p_rows + 8 * i, a_step, p_run, 1, count, b, b_step, to, p_out + 8 * i,
                    )  # fmt: skip


@njit(inner=True)
def winograd_weight_item(
    packed, at, images, image_step, width, pitch,  # pixel (r, c) of image n: packed[at + n·image_step + (r·width + c)·pitch]
    rows, columns,  # of dy in each image
    dy, dy_at, dy_image, dy_row, dy_pitch,  # pixel (r, c) of image n: dy[dy_at + n·dy_image + r·dy_row + c·dy_pitch]
    first_row, last_row,  # channels first_row ≤ c < last_row; first_row is a multiple of the register tile's rows
    V, Z,  # scratch for a block of tiles: the transformed inputs and gradients
    total,  # the sum that is added to: [plane][channel][filter]
    block, tables,  # winograd_plan.Block, and its weight_tables_for
    streams,  # what to prefetch meanwhile (prefetch.py)
):  # fmt: skip
    """total[plane, c, o] += Σ over tiles of V[plane, tile, c] · Z[plane, tile, o] for some channels c.

    packed is read as by ``winograd_item``, but here everything that is read beyond its pixels must be finite. Rows of the
    total are written up to the next multiple of the register tile's rows after last_row.
    """
    lanes = VECTOR_BYTES // packed.itemsize
    tile_rows, tile_columns = (rows + TILE - 1) // TILE, (columns + TILE - 1) // TILE
    tiles, blocks = count_blocks(images, rows, columns, block)
    v_first, v_last = first_row // lanes, min(block.v_vectors, (last_row + block.rows + lanes - 1) // lanes)
    for n in range(blocks):
        first = n * tiles // blocks
        count = (n + 1) * tiles // blocks - first
        transform_inputs(
            packed, at, image_step, width, pitch, tile_rows, tile_columns, first, count, v_first, v_last, V, block
        )
        _transform_gradients(dy, dy_at, dy_image, dy_row, dy_pitch, rows, columns, first, count, Z, block)
        _multiply_add(V, Z, total, count, first_row, last_row, block, tables, streams)
        next_block(streams)


@njit(inner=True)
def finish_weights(totals, first, last, dw, column, edge, block):
    """dw = Gᵀ (Σ totals) G for channels first ≤ c < last. The chunks are added to the first one, in order.

    dw: (3, 3, C, O), and its column where the group begins; edge: scratch for nine vectors.
    """
    lanes, size, filters, row = VECTOR_BYTES // dw.itemsize, dw.itemsize, block.filters, block.total_row
    O = dw.shape[3]
    for k in range(PLANES):
        mine = slice(k * block.total_plane + first * row, k * block.total_plane + last * row)
        total = totals[0, mine]
        for chunk in range(1, totals.shape[0]):
            more = totals[chunk, mine]
            for i in range(total.size):
                total[i] += more[i]
    taps = dw.reshape(9, block.channels, O)
    plane, tap = block.total_plane * size, block.channels * O * size
    for c in range(first, last):
        source, to = address(totals) + c * row * size, address(dw) + (c * O + column) * size
        for o in range(0, filters, lanes):
            if o + lanes <= filters:
                transform_weight_grad(dw.dtype, source + o * size, plane, to + o * size, tap)
            else:
                transform_weight_grad(dw.dtype, source + o * size, plane, address(edge), VECTOR_BYTES)
                for t in range(9):
                    for j in range(filters - o):
                        taps[t, c, column + o + j] = edge[t * lanes + j]


@njit(inner=True)
def _add_next_images(
    streams,
    item, last,  # the next item is item + 1 if that is less than ``last``
    x,  # the array of the Operand x
    kind, dy, partner, O,  # the Operand dy, and the number of its channels
    layout,  # work_items.Layout
    blocks, shares,  # how an item is divided (prefetch.py)
):  # fmt: skip
    """Add streams for the next item's images and gradients. Returns their number."""
    if item + 1 >= last:
        return 0
    start, stop = item_source(item + 1, layout)
    n = add_stream(streams, 0, x, start, stop, blocks, shares, 0)
    start, stop = item_stretch(item + 1, layout, O)
    n = add_stream(streams, n, dy, start, stop, blocks, shares, 0)
    return add_stream(streams, n, partner, start, stop, blocks, shares, 0) if kind == GRADIENT else n


@njit(inner=True)
def _apply_to_slice(
    kind, dy, partner, parameters,  # the Operand dy; parameters are those of repeat_channels
    at, pixels, O,  # the element at which the slice of the first pixel begins, how many pixels, and their channels
    first, C,  # the slice's channels first … first + C − 1
    read,  # the buffer: (pixels, C)
):  # fmt: skip
    """The values of some pixels' slice of the channels."""
    if C == O:
        stretch = slice(at, at + pixels * O)
        apply_prologue(kind, dy[stretch], partner[stretch], parameters, 0, read[: pixels * O])
        return
    for p in range(pixels):
        mine = slice(at + p * O, at + p * O + C)
        apply_prologue(kind, dy[mine], partner[mine], parameters, first, read[p * C : (p + 1) * C])


@njit()
def _weight_grad(
    share, shares, thread,
    x_kind, x, x_partner, x_parameters, x_folded,  # the Operand x (prologue.operand_arguments)
    kind, dy, partner, dy_parameters, dy_folded,  # the Operand dy
    totals, O,  # (groups, chunks, 36 planes): the partial sums of the total; the channels of dy
    record, blocks, tables,  # the plan (winograd_plan.WinogradWeightPlan)
    scratch, reads, Vs, Zs,  # (threads, …): buffers for packed items of x, for those of dy, and for their transforms
):  # fmt: skip
    """totals[group, chunk] = the sum over the chunk's work items."""
    if share < 0:
        return on_threads(share, shares)
    layout, block, packed, read, V, Z = record[0], blocks[0], scratch[thread], reads[thread], Vs[thread], Zs[thread]
    x_rows, parameters = repeat_channels(x_parameters, x_folded, x), repeat_channels(dy_parameters, dy_folded, dy)
    chunks, splits, columns, mine = layout.chunks, layout.splits, layout.out_row, layout.groups * layout.columns
    image_step = layout.height * layout.width * layout.pitch
    row_tiles = (block.channels + block.rows - 1) // block.rows
    parts = layout.slices * chunks * splits
    streams = np.zeros((STREAMS, 4), np.int64)
    packed[layout.images * image_step :] = 0  # the elements read behind the last pixel must be finite
    for part in range(share * parts // shares, (share + 1) * parts // shares):
        slice_of, chunk, split = part // (chunks * splits), part // splits % chunks, part % splits
        first_row, last_row = split * row_tiles // splits * block.rows, (split + 1) * row_tiles // splits * block.rows
        for g in range(layout.groups):
            total = totals[slice_of * layout.groups + g, chunk]
            for k in range(PLANES):
                plane = total[k * block.total_plane : (k + 1) * block.total_plane]
                plane[first_row * block.total_row : last_row * block.total_row] = 0
        stop = (chunk + 1) * layout.items // chunks
        for item in range(chunk * layout.items // chunks, stop):
            pack_item(item, slice_of, x_kind, x, x_partner, x_rows, layout, packed)
            first, last = item_stretch(item, layout, O)
            images = (last - first) // (layout.out_pixels * O) if layout.bands == 1 else 1
            rows = (last - first) // (images * columns * O)
            n = 0
            if layout.slices == 1:  # streams are contiguous
                _, blocks = count_blocks(images, rows, columns, block)
                blocks *= layout.groups
                n = _add_next_images(streams, item, stop, x, kind, dy, partner, O, layout, blocks, PLANES)
            gradient, at, pitch = dy, first + slice_of * mine, O
            if kind != PLAIN:
                _apply_to_slice(kind, dy, partner, parameters, at, (last - first) // O, O, slice_of * mine, mine, read)
                gradient, at, pitch = read, 0, mine
            for g in range(layout.groups):
                winograd_weight_item(
                    packed, g * block.channels, images, image_step, layout.width, layout.pitch, rows, columns,
                    gradient, at + g * layout.columns, layout.out_pixels * pitch, columns * pitch, pitch,
                    first_row, min(last_row, block.channels), V, Z,
                    totals[slice_of * layout.groups + g, chunk], block, tables, streams[:n],
                )  # fmt: skip
    return 0


@njit()
def _finish(share, shares, thread, totals, dw, edges, blocks):
    """dw = Gᵀ (Σ totals) G. edges: (threads, …), scratch for ``finish_weights``; blocks: the plan's Block, a record array."""
    if share < 0:
        return on_threads(share, shares)
    all_groups, channels, block = totals.shape[0], dw.shape[2], blocks[0]
    start, stop = share * all_groups * channels // shares, (share + 1) * all_groups * channels // shares
    while start < stop:
        group, first = start // channels, start % channels
        last = min(channels, first + stop - start)
        finish_weights(totals[group], first, last, dw, group * block.filters, edges[thread], block)
        start += last - first
    return 0


def convolve_weight_grad(problem, x, dy):
    """``direct_weight.convolve_weight_grad`` for an ``applicable`` problem: dw (3, 3, C, O) of y = x ∗ w."""
    dtype = x.array.dtype
    plan = winograd_weight_plan(problem, dtype.itemsize, dy.kind != PLAIN)
    dw = empty(problem.w_shape, dtype)
    reads = *operand_arguments(x), *operand_arguments(dy)
    with LOCK:
        threads = get_num_threads()
        totals, *buffers, edges = empty_together([plan.totals, *[(threads, n) for n in plan.scratch]], dtype)
        launch(_weight_grad, *reads, totals, problem.filters, *plan.tables, *buffers, work=multiply_adds(problem))
        launch(_finish, totals, dw, edges, plan.tables[1])
    return dw
