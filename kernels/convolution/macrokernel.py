"""The macro-kernel (Goto & van de Geijn 2008): a product of packed panels, tile by tile, through indirection tables.

The serial routine between the micro-kernel (``microkernel.py``) and the convolutions and matrix products that use it.
"""

import numpy as np

from ..runtime import target
from ..runtime.jit import njit
from .microkernel import indirect_micro_kernel
from .prefetch import address, prefetch_share

VECTOR_BYTES, WIDE_ROWS, NARROW_ROWS = target.VECTOR_BYTES, target.WIDE_ROWS, target.NARROW_ROWS
MOST_ROWS = max(WIDE_ROWS, NARROW_ROWS)


@njit(inner=True)
def _micro_kernel(
    wide, add,  # whether the tile is two vectors wide, and whether to add to C or overwrite it
    a, rows_at, a_step,  # A: its address, the address of the tile's row offsets, bytes from one k to the next
    runs_at, runs, run,  # the address of the run offsets, the number of runs, the elements in a run
    b, b_step,  # B: its address, bytes from one row to the next
    c, out_at,  # C: its address, the address of the tile's row offsets
    dtype,
):  # fmt: skip
    """``indirect_micro_kernel`` with the literals that it needs."""
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
    """The number of shares in which ``macro_kernel`` prefetches its streams. size: bytes of an element."""
    step = WIDE_ROWS if width * size > VECTOR_BYTES else NARROW_ROWS
    return (rows + step - 1) // step


@njit(inner=True)
def macro_kernel(
    a, a_at, row_offsets, rows, a_step, run_offsets, runs, run,  # A
    b, b_at, block, b_step,  # B
    c, c_at, out_offsets, columns, width, add,  # C, and whether to add to it or overwrite it
    streams,  # what to prefetch meanwhile (prefetch.py)
):  # fmt: skip
    """C[out_offsets[i], :columns] (+)= Σ_r Σ_k A[row_offsets[i] + run_offsets[r] + k·a_step] · B[r·run + k, :].

    a, b, c: 1-D arrays of one float dtype, in which A, B and C begin at elements a_at, b_at and c_at. The tables are int64,
    in bytes; a_step and b_step are in elements. Columns are computed ``width`` at a time (``target.tile_columns``): block n
    of B begins n·block elements after B. Rows of B must be readable over the whole width; only ``columns`` columns of C are
    written. Each tile of the first block prefetches one share of the streams: ``prefetch_shares(rows, width, size)`` in all.
    """
    size = a.itemsize
    wide = width * size > VECTOR_BYTES
    step = WIDE_ROWS if wide else NARROW_ROWS
    edge = np.empty((MOST_ROWS, width), a.dtype)  # for tiles that extend beyond the last row or column
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
                # Read through edge_out: Numba frees an array after its last use, even if its address is still in use.
                tile_row = flat_edge[edge_out[j] // size :]
                for k in range(full):
                    c[first + k] = c[first + k] + tile_row[k] if add else tile_row[k]
