"""Products over address tables: the serial routine between the register tile and the kernels that are made of it."""

import numpy as np

from . import target
from .cache import njit
from .memory import address, ask
from .tile import accumulate_tile

VECTOR_BYTES, WIDE_ROWS, NARROW_ROWS = target.VECTOR_BYTES, target.WIDE_ROWS, target.NARROW_ROWS
MOST_ROWS = max(WIDE_ROWS, NARROW_ROWS)


@njit(inner=True)
def _tile(wide, add, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at, dtype):
    if wide and add:
        accumulate_tile(dtype, WIDE_ROWS, 2, 1, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at)
    elif wide:
        accumulate_tile(dtype, WIDE_ROWS, 2, 0, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at)
    elif add:
        accumulate_tile(dtype, NARROW_ROWS, 1, 1, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at)
    else:
        accumulate_tile(dtype, NARROW_ROWS, 1, 0, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at)


@njit(inner=True)
def shares(rows, width, size):
    """The shares in which ``products`` asks for what comes next; size: bytes of an element."""
    step = WIDE_ROWS if width * size > VECTOR_BYTES else NARROW_ROWS
    return (rows + step - 1) // step


@njit(inner=True)
def products(
    a, a_at, rows_at, rows, a_step, runs_at, runs, run, b, b_at, block, b_step, c, c_at, out_at, columns, width, add,
    streams,
):  # fmt: skip
    """C[out_at[i], :columns] (+)= Σ_r Σ_k A[rows_at[i] + runs_at[r] + k·a_step] · B[r·run + k, :].

    a, b, c: 1-d arrays of one float dtype; a_at, b_at, c_at the elements where A, B and C begin; the tables are int64, in
    bytes; a_step and b_step in elements. Columns are taken ``width`` at a time (``target.tile_columns``): block n of B begins
    n·block elements after B. B's rows must be readable over the whole width, C's are written over ``columns`` alone. Each
    tile of the first columns asks for a share of the streams (``memory.py``): ``shares(rows, width, size)`` in all.
    """
    size = a.itemsize
    wide = width * size > VECTOR_BYTES
    step = WIDE_ROWS if wide else NARROW_ROWS
    edge = np.empty((MOST_ROWS, width), a.dtype)  # a tile that sticks out over the last row or column lands here first
    edge_rows, edge_out = np.empty(MOST_ROWS, np.int64), np.arange(MOST_ROWS) * (width * size)
    flat_edge = edge.reshape(-1)
    pa, pc = address(a) + a_at * size, address(c) + c_at * size
    p_rows, p_out, p_runs = address(rows_at), address(out_at), address(runs_at)
    p_edge, p_edge_rows, p_edge_out = address(edge), address(edge_rows), address(edge_out)
    a_bytes, b_bytes = a_step * size, b_step * size
    for n in range((columns + width - 1) // width):
        pb = address(b) + (b_at + n * block) * size
        pc_n = pc + n * width * size
        full = min(width, columns - n * width)
        for i in range(0, rows, step):
            at = 8 * i
            if n == 0:
                ask(streams, i // step)
            if full == width and i + step <= rows:
                _tile(wide, add, pa, p_rows + at, a_bytes, p_runs, runs, run, pb, b_bytes, pc_n, p_out + at, a.dtype)
                continue
            for j in range(step):
                edge_rows[j] = rows_at[min(i + j, rows - 1)]
            _tile(wide, False, pa, p_edge_rows, a_bytes, p_runs, runs, run, pb, b_bytes, p_edge, p_edge_out, a.dtype)
            for j in range(min(step, rows - i)):
                first = c_at + out_at[i + j] // size + n * width
                # Read through edge_out: Numba frees an array after its last use, whoever still has its address.
                tile_row = flat_edge[edge_out[j] // size :]
                for k in range(full):
                    c[first + k] = c[first + k] + tile_row[k] if add else tile_row[k]
