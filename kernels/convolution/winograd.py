"""The Winograd algorithm F(4×4, 3×3): 3×3 convolutions of stride 1 with 4 times fewer multiplications (Lavin & Gray 2016).

    forward          Y = Aᵀ [ Σ_c (G w Gᵀ) ⊙ (Bᵀ d B) ] A      for each 4×4 tile of outputs; d is the 6×6 of inputs it sees
    input gradient   the same, with w rotated by 180° and its channels and filters exchanged
    weight gradient  dw = Gᵀ [ Σ_tiles (Bᵀ d B) ⊙ (A dy Aᵀ) ] G                                 (``winograd_weight.py``)

Each of the 36 elements of a 6×6 is multiplied for all tiles, channels and filters at once: 36 matrix products, computed by the
micro-kernels (``microkernel.py``). ``winograd_plan.py`` has the memory layout, ``winograd_transforms.py`` the transforms.
The functions have the same signatures as those of ``direct.py`` and are called instead of them where ``faster`` says so.

Why F(4×4) and not F(2×2), with 2.25 times fewer multiplications: on one AVX2 thread, forward with 16 channels at 32×32, the
direct kernel reached 82 nominal GFLOP/s, F(2×2) 86 and F(4×4) 122. The price is rounding. In float32, results differ from
those of float64 by at most 1.8e-5 of the largest one (16, 64, 256 channels, normal random arrays: 5.2e-6, 7.7e-6, 1.8e-5;
direct: 2.5e-6). The root mean square of the errors is 4 to 5.3 times the direct kernels' in the forward pass and the input
gradient, and 9 to 10.4 times in the weight gradient (F(2×2): 3 times, 3e-6). ``tests/kernels/test_winograd_network.py``
measures the effect on the gradients of a network.

A NaN or Inf in an input reaches all 16 outputs of each tile that reads it, but from a tile's outermost rows and columns only
the outputs that depend on it directly.
"""

from functools import lru_cache

import numpy as np

from ..descriptors import NOTHING
from ..runtime import target
from ..runtime.jit import njit
from ..runtime.memory_pool import empty, empty_together
from ..runtime.parallel import on_threads
from ..runtime.recording import preparing
from ..runtime.threads import LOCK, get_num_threads, launch
from .epilogue import epilogue_arguments, finish, join_items
from .microkernel import micro_kernel
from .prefetch import LINE, STREAMS, add_stream, address, next_block, prefetch_share
from .prologue import operand_arguments, pack_item, repeat_channels
from .winograd_plan import winograd_plan
from .winograd_transforms import PLANES, TILE, transform_filter, transform_input, transform_output, transpose
from .work_items import add_epilogue, add_next_source, item_counts, item_stretch, multiply_adds

STEPS = 8  # of a product's sum that are unrolled; with 16, the AVX-512 tile spills registers
VECTOR_BYTES, WIDE_ROWS, NARROW_ROWS = target.VECTOR_BYTES, target.WIDE_ROWS, target.NARROW_ROWS


@njit()
def transform_filters(
    w, transposed,  # (3, 3, I, O); for the input gradient, w[2 − kh, 2 − kw, o, i] is read instead of w[kh, kw, i, o]
    column,  # of w, where the group begins
    first, last,  # input channels first ≤ i < last; first is a multiple of a cache line
    U,  # the output, in panels: [plane][panel][channel][column], zero beyond the filters
    edge,  # scratch: nine taps of a cache line of channels × a vector of filters
    block,  # winograd_plan.Block
):  # fmt: skip
    """U = G w Gᵀ for some input channels."""
    size, outs, width, plane = w.itemsize, block.filters, block.width, block.u_plane * w.itemsize
    lanes, line = VECTOR_BYTES // size, LINE // size
    p_edge, p_u, p_w = address(edge), address(U), address(w) + column * size
    taps = w.reshape(9, w.shape[2], w.shape[3])
    row, tap, square = w.shape[3] * size, w.shape[2] * w.shape[3] * size, line * lanes * size
    for i in range(first, last, line):
        count = min(line, last - i)
        for o in range(0, block.m_panels * width, lanes):
            to = p_u + (o // width * block.u_panel + i * width + o % width) * size
            filled = max(0, min(lanes, outs - o))
            if not transposed and filled == lanes:
                for n in range(count):
                    source = p_w + (i + n) * row + o * size
                    transform_filter(w.dtype, source, 3 * tap, tap, to + n * width * size, plane)
                continue
            if transposed and filled == lanes and count == line:
                for t in range(9):
                    for n in range(0, line, lanes):
                        corner = p_w + (8 - t) * tap + o * row + (i + n) * size
                        transpose(w.dtype, corner, row, p_edge + t * square + n * VECTOR_BYTES, VECTOR_BYTES)
            else:
                edge[:] = 0
                for t in range(9):
                    for m in range(filled):
                        for n in range(count):
                            inner, outer = (o + m, column + i + n) if transposed else (i + n, column + o + m)
                            value = taps[8 - t, inner, outer] if transposed else taps[t, inner, outer]
                            edge[(t * line + n) * lanes + m] = value
            for n in range(count):
                source = p_edge + n * VECTOR_BYTES
                transform_filter(w.dtype, source, 3 * square, square, to + n * width * size, plane)


@njit(inner=True)
def transform_inputs(
    packed, at, image_step, width, pitch,  # pixel (r, c) of image n: packed[at + n·image_step + (r·width + c)·pitch]
    tile_rows, tile_columns,  # tiles of one image
    first, count,  # tiles first … first + count − 1 of the work item
    v_first, v_last,  # vectors of channels v_first … v_last − 1
    V, block,  # the output, and winograd_plan.Block
):  # fmt: skip
    """V = Bᵀ d B for some tiles and channels."""
    size = packed.itemsize
    source, to = address(packed) + at * size, address(V)
    row, column, plane = width * pitch * size, pitch * size, block.v_plane * size
    vector, tile, vectors = block.v_vector * size, block.v_tile * size, v_last - v_first
    y, x = first // tile_columns % tile_rows, first % tile_columns
    image = source + (first // tile_columns // tile_rows * image_step) * size
    source, to = image + TILE * y * row + TILE * x * column + v_first * VECTOR_BYTES, to + v_first * vector
    for _ in range(count):
        for v in range(vectors):
            transform_input(packed.dtype, source + v * VECTOR_BYTES, row, column, to + v * vector, plane)
        to += tile
        x += 1
        source += TILE * column
        if x == tile_columns:
            x, y = 0, y + 1
            source += TILE * row - TILE * tile_columns * column
            if y == tile_rows:
                y = 0
                source += image_step * size - TILE * tile_rows * row


@njit(inner=True)
def _transform_outputs(
    M,  # the products, with room for one tile's outputs behind them
    out, at, image_step, pitch,  # pixel (r, c) of image n: out[at + n·image_step + (r·columns + c)·pitch]
    rows, columns,  # of an image's outputs
    tile_rows, tile_columns,  # tiles of one image
    first, count,  # tiles first … first + count − 1 of the work item
    block,  # winograd_plan.Block
):  # fmt: skip
    """out = Aᵀ M A for some tiles, without what lies beyond rows × columns."""
    size, filters = out.itemsize, block.filters
    pixel, row, plane, tile = pitch * size, columns * pitch * size, block.m_plane * size, block.m_tile * size
    lanes = VECTOR_BYTES // size
    corner = PLANES * block.m_plane  # room for the outputs of one tile, behind the planes
    source = address(M)
    vectors = (filters + lanes - 1) // lanes
    y, x = first // tile_columns % tile_rows, first % tile_columns
    image = at + first // tile_columns // tile_rows * image_step
    for _ in range(count):
        here = image + (TILE * y * columns + TILE * x) * pitch
        across, down = min(TILE, columns - TILE * x), min(TILE, rows - TILE * y)
        whole = filters // lanes if across == TILE and down == TILE else 0
        for v in range(whole):
            to = address(out) + here * size + v * VECTOR_BYTES
            transform_output(out.dtype, source + v * VECTOR_BYTES, plane, to, row, pixel)
        for v in range(whole, vectors):
            to = address(M) + corner * size
            transform_output(out.dtype, source + v * VECTOR_BYTES, plane, to, TILE * VECTOR_BYTES, VECTOR_BYTES)
            for i in range(down):
                for j in range(across):
                    start, inner = here + (i * columns + j) * pitch + v * lanes, corner + (i * TILE + j) * lanes
                    for c in range(min(lanes, filters - v * lanes)):
                        out[start + c] = M[inner + c]
        source += tile
        x += 1
        if x == tile_columns:
            x, y = 0, y + 1
            if y == tile_rows:
                y = 0
                image += image_step


@njit(inner=True)
def _clear_rows(V, count, block):
    """Zero the rows of V beyond ``count`` that complete a register tile. Nobody uses their products, but multiplying what
    memory held before took 15 times as long where that was denormal.
    """
    whole = (count + block.rows - 1) // block.rows * block.rows
    if count < whole:
        for k in range(PLANES):
            V[k * block.v_plane + count * block.v_tile : k * block.v_plane + whole * block.v_tile] = 0


@njit(inner=True)
def _multiply(V, U, M, count, block, streams):
    """M = V · U for each of the 36 planes. V has whole register tiles of rows, see ``_clear_rows``.

    streams: what to prefetch meanwhile (``prefetch.py``).
    """
    size, channels = V.itemsize, block.channels
    a_row, c_row = block.v_tile * size, block.m_tile * size
    for k in range(PLANES):
        prefetch_share(streams, k)
        a, c = address(V) + k * block.v_plane * size, address(M) + k * block.m_plane * size
        for n in range(block.m_panels):
            b = address(U) + (k * block.u_plane + n * block.u_panel) * size
            to = c + n * block.m_panel * size
            if block.wide and channels % STEPS == 0:
                for i in range(0, count, WIDE_ROWS):
                    row, out = a + i * a_row, to + i * c_row
                    micro_kernel(V.dtype, WIDE_ROWS, 2, STEPS, row, a_row, b, channels // STEPS, out, c_row)
            elif block.wide:
                for i in range(0, count, WIDE_ROWS):
                    micro_kernel(V.dtype, WIDE_ROWS, 2, 1, a + i * a_row, a_row, b, channels, to + i * c_row, c_row)
            else:
                for i in range(0, count, NARROW_ROWS):
                    micro_kernel(V.dtype, NARROW_ROWS, 1, 1, a + i * a_row, a_row, b, channels, to + i * c_row, c_row)


@njit(inner=True)
def count_blocks(images, rows, columns, block):
    """(tiles, blocks of tiles) in some images or a band of one, with rows × columns outputs each."""
    tiles = images * ((rows + TILE - 1) // TILE) * ((columns + TILE - 1) // TILE)
    return tiles, (tiles + block.tiles - 1) // block.tiles


@njit()
def winograd_item(
    packed, at, images, image_step, width, pitch,  # pixel (r, c) of image n: packed[at + n·image_step + (r·width + c)·pitch]
    rows, columns,  # of each image's outputs, or of a band of one
    U,  # the transformed filters
    V, M,  # scratch for a block of tiles: the transformed inputs, the products
    out, out_at, out_step, out_pitch,  # pixel (r, c) of image n: out[out_at + n·out_step + (r·columns + c)·out_pitch]
    block,  # winograd_plan.Block
    streams,  # what to prefetch meanwhile (prefetch.py)
):  # fmt: skip
    """Compute rows × columns outputs of each image, or of a band of one, from packed inputs.

    If rows or columns are not multiples of 4, up to three rows and columns beyond (rows + 2) × (columns + 2) are read, and
    in any case up to a vector less one element behind the last pixel. All of it must be memory of ``packed``. The extra rows
    and columns contribute rounding errors to the outputs, so they must be finite (``pack_item`` makes them zero). The
    elements behind the last pixel contribute nothing.
    """
    tile_rows, tile_columns = (rows + TILE - 1) // TILE, (columns + TILE - 1) // TILE
    tiles, blocks = count_blocks(images, rows, columns, block)
    most = (tiles + blocks * block.rows - 1) // (blocks * block.rows) * block.rows  # blocks of nearly equal size
    for first in range(0, tiles, most):
        count = min(most, tiles - first)
        transform_inputs(
            packed, at, image_step, width, pitch, tile_rows, tile_columns, first, count, 0, block.v_vectors, V, block
        )
        _clear_rows(V, count, block)
        _multiply(V, U, M, count, block, streams)
        next_block(streams)
        _transform_outputs(
            M, out, out_at, out_step, out_pitch, rows, columns, tile_rows, tile_columns, first, count, block
        )


@njit()
def _filters(
    share, shares, thread,
    w, transposed, U, all_groups,  # arguments of transform_filters; U: (all_groups, …)
    edges,  # (threads, …): its scratch
    blocks,  # the plan's Block, a record array
):  # fmt: skip
    """Transform all filters."""
    if share < 0:
        return on_threads(share, shares)
    block, line = blocks[0], LINE // w.itemsize
    lines, columns = (block.channels + line - 1) // line, w.shape[3] // all_groups
    for n in range(share * lines * all_groups // shares, (share + 1) * lines * all_groups // shares):
        group, first = n // lines, n % lines * line
        last = min(block.channels, first + line)
        transform_filters(w, transposed, group * columns, first, last, U[group], edges[thread], block)
    return 0


@njit()
def _convolve(
    share, shares, thread,
    kind, source, partner, parameters, folded,  # an Operand (prologue.operand_arguments)
    U,  # the transformed filters (groups, …)
    out, O,  # the outputs, 1-D, and the number of their channels
    record, blocks,  # the plan (winograd_plan.WinogradPlan)
    flags, other, c, z, after, after_folded,  # an Epilogue (epilogue.epilogue_arguments)
    results,  # (items, 2, O) float64: the epilogue's sums over each item
    scratch, Vs, Ms,  # (threads, …): buffers for packed items, their transforms and the products
):  # fmt: skip
    """out = x ∗ w, one work item after another: the forward pass and the input gradient."""
    if share < 0:
        return on_threads(share, shares)
    layout, block, packed, V, M = record[0], blocks[0], scratch[thread], Vs[thread], Ms[thread]
    items = layout.slices * layout.items
    start, stop = share * items // shares, (share + 1) * items // shares
    if start == stop:
        return 0
    before, ends = repeat_channels(parameters, folded, source), repeat_channels(after, after_folded, out)
    columns, mine = layout.out_row, layout.groups * layout.columns
    streams = np.zeros((STREAMS, 4), np.int64)
    image_step, out_step = layout.height * layout.width * layout.pitch, layout.out_pixels * O
    for number in range(start, stop):
        slice_of, item = number // layout.items, number % layout.items
        pack_item(item, slice_of, kind, source, partner, before, layout, packed)
        first, last = item_stretch(item, layout, O)
        images = (last - first) // out_step if layout.bands == 1 else 1
        rows = (last - first) // (images * columns * O)
        n = 0
        if layout.slices == 1:  # streams are contiguous
            _, blocks = count_blocks(images, rows, columns, block)
            blocks *= layout.groups
            n = add_stream(streams, n, out, first, last, blocks, PLANES, 1)
            n = add_next_source(streams, n, item, stop, layout, kind, source, partner, blocks, PLANES)
            n = add_epilogue(streams, n, flags, other, c, z, first, last, blocks, PLANES)
        first += slice_of * mine
        for g in range(layout.groups):
            winograd_item(
                packed, g * block.channels, images, image_step, layout.width, layout.pitch, rows, columns,
                U[slice_of * layout.groups + g], V, M, out, first + g * layout.columns, out_step, O, block, streams[:n],
            )  # fmt: skip
        if flags[0] != NOTHING:
            ys, others, cs, zs = out[first:last], other[first:last], c[first:last], z[first:last]
            finish(flags, ys, others, cs, zs, ends, results[item], slice_of * mine, mine)
    return 0


def _run(problem, operand, w, out, transposed, epilogue):
    """Fill ``out``. Returns it with the epilogue's result. problem: of the forward pass, or that of the input gradient."""
    plan = winograd_plan(problem, w.itemsize)
    results = np.zeros((0 if epilogue.kind == NOTHING else plan.layout.items, 2, out.shape[3]))
    with LOCK:  # buffers for each thread, so the number of threads must not change in between
        threads = get_num_threads()
        packed, V, M, edges = empty_together([(threads, n) for n in plan.scratch], w.dtype)
        with preparing():
            U = empty((problem.groups, plan.filters // problem.groups), w.dtype)
            launch(_filters, w, transposed, U, problem.groups, edges, plan.tables[1])
        reads = *operand_arguments(operand), U, out.reshape(-1), out.shape[3], *plan.tables
        launch(
            _convolve, *reads, *epilogue_arguments(epilogue, out), results, packed, V, M, work=multiply_adds(problem)
        )
    return out, join_items(epilogue, results, item_counts(plan.layout))


@lru_cache(maxsize=512)
def backwards(problem):
    """The Problem that the input gradient is: dx = dy ∗ (w rotated, with its channels and filters exchanged)."""
    padding = tuple(2 - p for p in problem.padding)
    exchanged = problem.filters, problem.channels
    return problem._replace(size=problem.out_size, channels=exchanged[0], filters=exchanged[1], padding=padding)


def convolve(problem, x, w, epilogue):
    """``direct.convolve`` for an ``applicable`` problem: y = x ∗ w, and the epilogue's result."""
    return _run(problem, x, w, empty(problem.y_shape, w.dtype), False, epilogue)


def convolve_input_grad(problem, dy, w, epilogue):
    """``direct.convolve_input_grad`` for an ``applicable`` problem: dx of y = x ∗ w, and the epilogue's result."""
    return _run(backwards(problem), dy, w, empty(problem.x_shape, w.dtype), True, epilogue)
