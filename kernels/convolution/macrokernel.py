"""The macro-kernel (Goto & van de Geijn 2008): a product of packed panels, tile by tile, over indirection tables.

The serial routine between the micro-kernel (``microkernel.py``) and the convolutions and matrix products made of it.
"""

import numpy as np

from ..runtime import target
from ..runtime.jit import njit
from .microkernel import indirect_micro_kernel
from .prefetch import address, prefetch_share

VECTOR_BYTES, WIDE_ROWS, NARROW_ROWS = target.VECTOR_BYTES, target.WIDE_ROWS, target.NARROW_ROWS
MOST_ROWS = max(WIDE_ROWS, NARROW_ROWS)


@njit(inner=True)
def _micro_kernel(wide, add, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at, dtype):
    """``indirect_micro_kernel`` with the literals that it needs; …_at: addresses in the tables."""
    if wide and add:
        indirect_micro_kernel(dtype, WIDE_ROWS, 2, 1, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at)
    elif wide:
        indirect_micro_kernel(dtype, WIDE_ROWS, 2, 0, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at)
    elif add:
        indirect_micro_kernel(dtype, NARROW_ROWS, 1, 1, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at)
    else:
        indirect_micro_kernel(dtype, NARROW_ROWS, 1, 0, a, rows_at, a_step, runs_at, runs, run, b, b_step, c, out_at)


@njit(inner=True)
def prefetch_shares(rows, width, size):
    """The shares in which ``macro_kernel`` prefetches what comes next; size: bytes of an element."""
    step = WIDE_ROWS if width * size > VECTOR_BYTES else NARROW_ROWS
    return (rows + step - 1) // step


@njit(inner=True)
def macro_kernel(
    a, a_at, row_offsets, rows, a_step, run_offsets, runs, run,  # A
    b, b_at, block, b_step,  # B
    c, c_at, out_offsets, columns, width, add,  # C; add to it, or overwrite it
    streams,  # what is prefetched meanwhile (prefetch.py)
):  # fmt: skip
    """C[out_offsets[i], :columns] (+)= Σ_r Σ_k A[row_offsets[i] + run_offsets[r] + k·a_step] · B[r·run + k, :].

    a, b, c: 1-d arrays of one float dtype; a_at, b_at, c_at the elements where A, B and C begin; the tables are int64, in
    bytes; a_step and b_step in elements. Columns are taken ``width`` at a time (``target.tile_columns``): block n of B begins
    n·block elements after B. B's rows must be readable over the whole width, C's are written over ``columns`` alone. Each
    tile of the first columns prefetches a share of the streams: ``prefetch_shares(rows, width, size)`` in all.
    """
    size = a.itemsize
    wide = width * size > VECTOR_BYTES
    step = WIDE_ROWS if wide else NARROW_ROWS
    edge = np.empty((MOST_ROWS, width), a.dtype)  # a tile that sticks out over the last row or column lands here first
    edge_rows, edge_out = np.empty(MOST_ROWS, np.int64), np.arange(MOST_ROWS) * (width * size)
    flat_edge = edge.reshape(-1)
    pa, pc = address(a) + a_at * size, address(c) + c_at * size
    p_rows, p_out, p_runs = address(row_offsets), address(out_offsets), address(run_offsets)
    p_edge, p_edge_rows, p_edge_out = address(edge), address(edge_rows), address(edge_out)
    a_bytes, b_bytes = a_step * size, b_step * size
    for n in range((columns + width - 1) // width):
        pb = address(b) + (b_at + n * block) * size
        pc_n = pc + n * width * size
        full = min(width, columns - n * width)
        for i in range(0, rows, step):
            at = 8 * i
            if n == 0:
                prefetch_share(streams, i // step)
            if full == width and i + step <= rows:
                _micro_kernel(
                    wide, add, pa, p_rows + at, a_bytes, p_runs, runs, run, pb, b_bytes, pc_n, p_out + at, a.dtype
                )
                continue
            for j in range(step):
                edge_rows[j] = row_offsets[min(i + j, rows - 1)]
            _micro_kernel(
                wide, False, pa, p_edge_rows, a_bytes, p_runs, runs, run, pb, b_bytes, p_edge, p_edge_out, a.dtype
            )
            for j in range(min(step, rows - i)):
                first = c_at + out_offsets[i + j] // size + n * width
                # Read through edge_out: Numba frees an array after its last use, whoever still has its address.
                tile_row = flat_edge[edge_out[j] // size :]
                for k in range(full):
                    c[first + k] = c[first + k] + tile_row[k] if add else tile_row[k]
