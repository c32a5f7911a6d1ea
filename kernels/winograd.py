"""Winograd's F(2×2, 3×3): 3×3 convolutions of stride 1 with 2.25 times fewer multiplications (Lavin & Gray 2016).

    forward          Y = Aᵀ [ Σ_c (G w Gᵀ) ⊙ (Bᵀ d B) ] A      for each 2×2 of outputs, d the 4×4 of inputs they see
    input gradient   the same, with w turned by 180° and its channels and filters exchanged
    weight gradient  dw = Gᵀ [ Σ_tiles (Bᵀ d B) ⊙ (A dy Aᵀ) ] G

⊙ is taken for each of the 16 numbers of a 4×4 at once for all tiles, channels and filters: 16 matrix products, on the same
register tile as the direct convolution. ``winograd_plan.py`` says where everything stands, ``winograd_ir.py`` has the
transforms. Items are serial functions over images that are packed already; the drivers at the end pack them.
"""

import numpy as np
from numba import prange

from . import target
from .buffers import empty
from .cache import njit
from .checks import fits, one_dtype
from .conv import pack_item
from .layout import contiguous
from .threads import LOCK, get_num_threads, launch
from .tile import accumulate_tile
from .winograd_ir import (
    transform_filter,
    transform_gradient,
    transform_input,
    transform_output,
    transform_weight_grad,
)
from .winograd_plan import block_for, chunks_for, item_layout, tables_for, weight_block_for, weight_tables_for

VECTOR_BYTES, WIDE_ROWS, NARROW_ROWS = target.VECTOR_BYTES, target.WIDE_ROWS, target.NARROW_ROWS
MOST_ROWS = max(WIDE_ROWS, NARROW_ROWS)


@njit()
def _start(array):
    """Its address, signed: Numba takes an unsigned and a signed integer to a floating-point sum."""
    return np.int64(array.ctypes.data)


@njit()
def transform_filters(w, transposed, first, last, U, block):
    """U = G w Gᵀ for input channels first ≤ i < last, in panels: [plane][panel][channel][column], zero beyond the filters.

    w (3, 3, I, O). ``transposed``: for the input gradient, w[2 − kh, 2 − kw, o, i] in place of w[kh, kw, i, o].
    """
    lanes = VECTOR_BYTES // w.itemsize
    ins, outs, width, size = block.channels, block.filters, block.width, w.itemsize
    corner = 16 * block.u_plane  # behind the planes of U: weights of lanes × lanes, in the order in which they are needed
    edge = U[corner : corner + 9 * lanes * lanes]
    p_edge, p_u, plane = _start(U) + corner * size, _start(U), block.u_plane * size
    taps = w.reshape(9, w.shape[2], w.shape[3])
    for o in range(0, block.m_panels * width, lanes):
        to = p_u + (o // width * block.u_panel + o % width) * size
        for i in range(first, last, lanes):
            if not transposed and o + lanes <= outs:
                tap = ins * outs * size
                for n in range(i, min(last, i + lanes)):
                    transform_filter(
                        w.dtype, _start(w) + (n * outs + o) * size, 3 * tap, tap, to + n * width * size, plane
                    )
                continue
            count, filled = min(lanes, last - i), min(lanes, outs - o)
            edge[:] = 0
            for t in range(9):
                for m in range(filled):
                    for n in range(count):
                        value = taps[8 - t, o + m, i + n] if transposed else taps[t, i + n, o + m]
                        edge[(t * lanes + n) * lanes + m] = value
            tap = lanes * lanes * size
            for n in range(count):
                transform_filter(
                    w.dtype, p_edge + n * lanes * size, 3 * tap, tap, to + (i + n) * width * size, plane
                )


@njit()
def _transform_inputs(
    packed, at, image_step, width, pitch, tile_rows, tile_columns, first, count, v_first, v_last, V, block
):
    """V of tiles first … first + count − 1 of an item, its vectors of channels v_first … v_last − 1."""
    size = packed.itemsize
    source, to = _start(packed) + at * size, _start(V)
    row, column, plane = width * pitch * size, pitch * size, block.v_plane * size
    vector, tile, vectors = block.v_vector * size, block.v_tile * size, v_last - v_first
    y, x = first // tile_columns % tile_rows, first % tile_columns
    image = source + (first // tile_columns // tile_rows * image_step) * size
    source, to = image + 2 * y * row + 2 * x * column + v_first * VECTOR_BYTES, to + v_first * vector
    for _ in range(count):
        for v in range(vectors):
            transform_input(packed.dtype, source + v * VECTOR_BYTES, row, column, to + v * vector, plane)
        to += tile
        x += 1
        source += 2 * column
        if x == tile_columns:
            x, y = 0, y + 1
            source += 2 * row - 2 * tile_columns * column
            if y == tile_rows:
                y = 0
                source += image_step * size - 2 * tile_rows * row


@njit()
def _transform_outputs(M, out, at, image_step, rows, columns, tile_rows, tile_columns, first, count, block):
    """out of the same tiles, what of them lies within rows × columns."""
    size, filters = out.itemsize, block.filters
    pixel, row, plane, tile = filters * size, columns * filters * size, block.m_plane * size, block.m_tile * size
    lanes = VECTOR_BYTES // size
    corner = 16 * block.m_plane  # room for four vectors, behind the planes
    nowhere, source = _start(M) + corner * size, _start(M)
    vectors, left = filters // lanes, filters % lanes
    y, x = first // tile_columns % tile_rows, first % tile_columns
    image = at + first // tile_columns // tile_rows * image_step
    to = _start(out) + image * size + 2 * y * row + 2 * x * pixel
    for _ in range(count):
        right, below = 2 * x + 1 < columns, 2 * y + 1 < rows
        if right and below:
            for v in range(vectors):
                here = to + v * VECTOR_BYTES
                transform_output(
                    out.dtype, source + v * VECTOR_BYTES, plane, here, here + pixel, here + row, here + row + pixel
                )
        else:
            for v in range(vectors):
                here = to + v * VECTOR_BYTES
                transform_output(
                    out.dtype, source + v * VECTOR_BYTES, plane,
                    here, here + pixel if right else nowhere, here + row if below else nowhere, nowhere,
                )  # fmt: skip
        if left:
            transform_output(
                out.dtype, source + vectors * VECTOR_BYTES, plane,
                nowhere, nowhere + VECTOR_BYTES, nowhere + 2 * VECTOR_BYTES, nowhere + 3 * VECTOR_BYTES,
            )  # fmt: skip
            for j in range(4):
                if (j % 2 == 0 or right) and (j < 2 or below):
                    start = image + ((2 * y + j // 2) * columns + 2 * x + j % 2) * filters + vectors * lanes
                    for c in range(left):
                        out[start + c] = M[corner + j * lanes + c]
        source += tile
        to += 2 * pixel
        x += 1
        if x == tile_columns:
            x, y = 0, y + 1
            to += 2 * row - 2 * tile_columns * pixel
            if y == tile_rows:
                y = 0
                image += image_step
                to += image_step * size - 2 * tile_rows * row


@njit()
def _multiply(V, U, M, count, block, tables):
    """M = V · U for each of the 16 planes; rows beyond ``count`` that fill up a register tile are made of what is there."""
    size = V.itemsize
    p_rows, p_out, p_run = _start(tables[0]), _start(tables[1]), _start(tables[2])
    channels, b_step = block.channels, block.width * size
    for k in range(16):
        a, c = _start(V) + k * block.v_plane * size, _start(M) + k * block.m_plane * size
        for n in range(block.m_panels):
            b = _start(U) + (k * block.u_plane + n * block.u_panel) * size
            to = c + n * block.m_panel * size
            if block.wide:
                for i in range(0, count, WIDE_ROWS):
                    accumulate_tile(
                        V.dtype, WIDE_ROWS, 2, 0,
                        a, p_rows + 8 * i, size, p_run, 1, channels, b, b_step, to, p_out + 8 * i,
                    )  # fmt: skip
            else:
                for i in range(0, count, NARROW_ROWS):
                    accumulate_tile(
                        V.dtype, NARROW_ROWS, 1, 0,
                        a, p_rows + 8 * i, size, p_run, 1, channels, b, b_step, to, p_out + 8 * i,
                    )  # fmt: skip


@njit()
def winograd_item(
    packed, at, images, image_step, width, pitch, rows, columns, U, V, M, out, out_at, out_step, block, tables
):
    """rows × columns outputs of each of some images, or of a band of one, from packed inputs.

    Pixel (r, c) of image n is read at packed[at + n·image_step + (r·width + c)·pitch], and written, less the border, at
    out[out_at + n·out_step + (r·columns + c)·filters]. One row or column beyond (rows + 2) × (columns + 2) is read where
    they are odd, and a vector less one element behind the last pixel; that must be memory of ``packed``, whatever it holds.
    """
    tile_rows, tile_columns = (rows + 1) // 2, (columns + 1) // 2
    tiles = images * tile_rows * tile_columns
    for first in range(0, tiles, block.tiles):
        count = min(block.tiles, tiles - first)
        _transform_inputs(
            packed, at, image_step, width, pitch, tile_rows, tile_columns, first, count, 0, block.v_vectors, V, block
        )
        _multiply(V, U, M, count, block, tables)
        _transform_outputs(M, out, out_at, out_step, rows, columns, tile_rows, tile_columns, first, count, block)


@njit()
def _transform_gradients(dy, at, image_step, row, pitch, rows, columns, first, count, Z, block):
    """Z of tiles first … first + count − 1: [plane][panel][tile][column], zero beyond the filters."""
    size, filters, width = dy.itemsize, block.filters, block.width
    lanes, plane, panel = VECTOR_BYTES // size, block.m_plane * size, block.m_panel * size
    tile_rows, tile_columns = (rows + 1) // 2, (columns + 1) // 2
    corner = 16 * block.m_plane  # room for four vectors, behind the planes
    p_corner, to = _start(Z) + corner * size, _start(Z)
    panels = filters // width  # whole ones
    y, x = first // tile_columns % tile_rows, first % tile_columns
    image = at + first // tile_columns // tile_rows * image_step
    right, below = pitch * size, row * size
    for _ in range(count):
        here = image + 2 * y * row + 2 * x * pitch
        done = 0
        if 2 * x + 1 < columns and 2 * y + 1 < rows:
            source = _start(dy) + here * size
            for n in range(panels):
                for v in range(0, width * size, VECTOR_BYTES):
                    transform_gradient(
                        dy.dtype, source, source + right, source + below, source + below + right, to + n * panel + v, plane
                    )
                    source += VECTOR_BYTES
            done = panels * width
        for c in range(done, block.m_panels * width, lanes):  # at an edge, or less than a panel: the rest is zero
            Z[corner : corner + 4 * lanes] = 0
            for j in range(4):
                if (j % 2 == 0 or 2 * x + 1 < columns) and (j < 2 or 2 * y + 1 < rows):
                    start = here + j // 2 * row + j % 2 * pitch + c
                    for i in range(min(lanes, filters - c)):
                        Z[corner + j * lanes + i] = dy[start + i]
            transform_gradient(
                dy.dtype, p_corner, p_corner + VECTOR_BYTES, p_corner + 2 * VECTOR_BYTES, p_corner + 3 * VECTOR_BYTES,
                to + c // width * panel + c % width * size, plane,
            )  # fmt: skip
        to += width * size
        x += 1
        if x == tile_columns:
            x, y = 0, y + 1
            if y == tile_rows:
                y = 0
                image += image_step


@njit()
def _multiply_add(V, Z, total, count, first_row, last_row, block, tables):
    """total += Vᵀ · Z for each of the 16 planes, its rows of channels first_row … last_row − 1."""
    size = V.itemsize
    p_rows, p_out, p_run = _start(tables[0]), _start(tables[1]), _start(tables[2])
    a_step, b_step = block.v_tile * size, block.m_tile * size
    for k in range(16):
        a, c = _start(V) + k * block.v_plane * size, _start(total) + k * block.total_plane * size
        for n in range(block.m_panels):
            b = _start(Z) + (k * block.m_plane + n * block.m_panel) * size
            to = c + n * block.width * size
            if block.wide:
                for i in range(first_row, last_row, WIDE_ROWS):
                    accumulate_tile(
                        V.dtype, WIDE_ROWS, 2, 1,
                        a, p_rows + 8 * i, a_step, p_run, 1, count, b, b_step, to, p_out + 8 * i,
                    )  # fmt: skip
            else:
                for i in range(first_row, last_row, NARROW_ROWS):
                    accumulate_tile(
                        V.dtype, NARROW_ROWS, 1, 1,
                        a, p_rows + 8 * i, a_step, p_run, 1, count, b, b_step, to, p_out + 8 * i,
                    )  # fmt: skip


@njit()
def winograd_weight_item(
    packed, at, images, image_step, width, pitch, rows, columns,
    dy, dy_at, dy_image, dy_row, dy_pitch, first_row, last_row, V, Z, total, block, tables,
):  # fmt: skip
    """total[plane, c, o] += Σ over tiles of V[plane, tile, c] · Z[plane, tile, o], channels first_row ≤ c < last_row.

    packed is read as by ``winograd_item``, but what stands where a row or column too many is read must be finite. Pixel
    (r, c) of dy, rows × columns an image, is at dy[dy_at + n·dy_image + r·dy_row + c·dy_pitch]. first_row is a multiple of
    the register tile's rows (``row_step``); rows up to the next multiple behind last_row are written.
    """
    lanes = VECTOR_BYTES // packed.itemsize
    tile_rows, tile_columns = (rows + 1) // 2, (columns + 1) // 2
    tiles = images * tile_rows * tile_columns
    v_first, v_last = first_row // lanes, min(block.v_vectors, (last_row + MOST_ROWS + lanes - 1) // lanes)
    for first in range(0, tiles, block.tiles):
        count = min(block.tiles, tiles - first)
        _transform_inputs(
            packed, at, image_step, width, pitch, tile_rows, tile_columns, first, count, v_first, v_last, V, block
        )
        _transform_gradients(dy, dy_at, dy_image, dy_row, dy_pitch, rows, columns, first, count, Z, block)
        _multiply_add(V, Z, total, count, first_row, last_row, block, tables)


@njit()
def finish_weights(totals, first, last, dw, edge, block):
    """dw = Gᵀ (Σ totals) G for input channels first ≤ c < last, summed in the order of the chunks. dw (3, 3, C, O)."""
    lanes, size = VECTOR_BYTES // dw.itemsize, dw.itemsize
    filters, plane = block.filters, block.total_plane
    sums, result = edge[: 16 * lanes], edge[16 * lanes : 25 * lanes]
    p_sums, p_result = _start(sums), _start(result)
    taps = dw.reshape(9, dw.shape[2], filters)
    for i in range(first, last):
        for o in range(0, filters, lanes):
            filled = min(lanes, filters - o)
            to = _start(dw) + (i * filters + o) * size
            tap = block.channels * filters * size
            p_total = _start(totals[0]) + (i * block.total_row + o) * size
            if totals.shape[0] > 1:
                for k in range(16):
                    start = k * plane + i * block.total_row + o
                    for j in range(lanes):
                        value = totals[0, start + j]
                        for chunk in range(1, totals.shape[0]):
                            value += totals[chunk, start + j]
                        sums[k * lanes + j] = value
            if filled < lanes:
                to, tap = p_result, VECTOR_BYTES
            if totals.shape[0] > 1:
                transform_weight_grad(dw.dtype, p_sums, VECTOR_BYTES, to, tap)
            else:
                transform_weight_grad(dw.dtype, p_total, plane * size, to, tap)
            if filled < lanes:
                for t in range(9):
                    for j in range(filled):
                        taps[t, i, o + j] = result[t * lanes + j]


@njit()
def _transform_filters_part(t, threads, w, transposed, U, block):
    lanes = VECTOR_BYTES // w.itemsize
    groups = (block.channels + lanes - 1) // lanes
    first, last = t * groups // threads * lanes, min(block.channels, (t + 1) * groups // threads * lanes)
    transform_filters(w, transposed, first, last, U, block)


@njit()
def _convolve_part(t, threads, source, U, out, layout, packed, V, M, block, tables):
    item_rows, image_step = layout.band, layout.height * layout.width * layout.pitch
    pixels, columns, filters = layout.out_pixels, layout.out_row, block.filters
    for item in range(t * layout.items // threads, (t + 1) * layout.items // threads):
        pack_item(source, item, layout, packed)
        image, row = item // layout.bands * layout.images, item % layout.bands * item_rows
        images, rows = min(layout.images, source.shape[0] - image), min(item_rows, pixels // columns - row)
        winograd_item(
            packed, 0, images, image_step, layout.width, layout.pitch, rows, columns, U, V, M,
            out, (image * pixels + row * columns) * filters, pixels * filters, block, tables,
        )  # fmt: skip


@njit(parallel=True)
def _convolve(source, w, transposed, U, out, layout, packed, V, M, block, tables, threads):
    for t in prange(threads):
        _convolve_part(np.int64(t), threads, source, U, out, layout[0], packed[t], V[t], M[t], block[0], tables)


def _run(source, w, out, padding, transposed):
    channels, filters = source.shape[3], out.shape[3]
    block = block_for(channels, filters, w.itemsize)
    layout = item_layout(len(out), *out.shape[1:3], padding, channels, w.itemsize)
    v, m, u = block.sizes(w.itemsize)
    U = empty((u,), w.dtype)
    transform_filters(w, transposed, 0, channels, U, block.record()[0])
    threads = get_num_threads()
    packed, V, M = (empty((threads, n), w.dtype) for n in (layout.packed_size + 64 // w.itemsize, v, m))
    with LOCK:
        launch(
            _convolve, source, w, transposed, U, out.reshape(-1), layout.record(), packed, V, M,
            block.record(), tables_for(block, w.itemsize),
        )  # fmt: skip
    return out


def conv2d_input_grad(dy, w, x_shape, padding):
    return _run(dy, w, empty(x_shape, dy.dtype), (2 - padding[0], 2 - padding[1]), True)


@njit()
def _weight_grad_part(t, threads, x, dy, totals, layout, packed, V, Z, block, tables):
    chunks, splits, image_step = layout.chunks, layout.splits, layout.height * layout.width * layout.pitch
    pixels, columns, filters = layout.out_pixels, layout.out_row, block.filters
    row_step = WIDE_ROWS if block.wide else NARROW_ROWS
    groups = (block.channels + row_step - 1) // row_step
    flat = dy.reshape(-1)
    packed[:] = 0  # what is read behind the last image must be finite
    for part in range(t * chunks * splits // threads, (t + 1) * chunks * splits // threads):
        chunk, split = part // splits, part % splits
        first, last = split * groups // splits * row_step, (split + 1) * groups // splits * row_step
        total = totals[chunk]
        for k in range(16):
            start = k * block.total_plane
            total[start + first * block.total_row : start + last * block.total_row] = 0
        for item in range(chunk * layout.items // chunks, (chunk + 1) * layout.items // chunks):
            pack_item(x, item, layout, packed)
            image, row = item // layout.bands * layout.images, item % layout.bands * layout.band
            images, rows = min(layout.images, x.shape[0] - image), min(layout.band, pixels // columns - row)
            winograd_weight_item(
                packed, 0, images, image_step, layout.width, layout.pitch, rows, columns,
                flat, (image * pixels + row * columns) * filters, pixels * filters, columns * filters, filters,
                first, min(last, block.channels), V, Z, total, block, tables,
            )  # fmt: skip


@njit(parallel=True)
def _weight_grad(x, dy, totals, layout, packed, V, Z, block, tables, threads):
    for t in prange(threads):
        _weight_grad_part(np.int64(t), threads, x, dy, totals, layout[0], packed[t], V[t], Z[t], block[0], tables)


@njit()
def _finish_part(t, threads, totals, dw, edge, block):
    channels = dw.shape[2]
    finish_weights(totals, t * channels // threads, (t + 1) * channels // threads, dw, edge, block)


@njit(parallel=True)
def _finish(totals, dw, edges, block, threads):
    for t in prange(threads):
        _finish_part(np.int64(t), threads, totals, dw, edges[t], block[0])


def conv2d_weight_grad(x, dy, padding):
    channels, filters, size = x.shape[3], dy.shape[3], x.itemsize
    block = weight_block_for(channels, filters, size)
    layout = item_layout(len(x), *dy.shape[1:3], padding, channels, size)
    chunks, splits = chunks_for(layout.items, block, size)
    layout = layout._replace(chunks=chunks, splits=splits)
    dw = empty((3, 3, channels, filters), x.dtype)
    totals = empty((chunks, 16 * block.total_plane), x.dtype)
    v, z, _ = block.sizes(size)
    with LOCK:
        threads = get_num_threads()
        packed, V, Z, edges = (
            empty((threads, n), x.dtype) for n in (layout.packed_size + 64 // size, v, z, 25 * 64 // size)
        )
        launch(
            _weight_grad, x, dy, totals, layout.record(), packed, V, Z, block.record(), weight_tables_for(block, size)
        )
        launch(_finish, totals, dw, edges, block.record())
    return dw
def conv2d(x, w, padding):
    N,H,W,C=x.shape
    out = empty((N,H+2*padding[0]-2,W+2*padding[1]-2,w.shape[3]), x.dtype)
    return _run(x,w,out,padding,False)
