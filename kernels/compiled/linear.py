"""Matrix products by the macro-kernel. Unlike with BLAS, results are bitwise the same for any number of threads."""

from contextlib import nullcontext

import numpy as np

from ..checks import fits, one_dtype
from ..convolution.macrokernel import macro_kernel
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.memory_pool import empty, zeros
from ..runtime.parallel import on_threads
from ..runtime.recording import preparing
from ..runtime.target import tile_columns
from ..runtime.threads import launch, serial

ROWS = 96  # of A in one work item: a multiple of every register tile's rows
PARTS = 8  # if there are fewer such items, each is divided into columns, for so many


@njit()
def _pack_columns(share, shares, thread, b, width, panels):
    """Pack b (K, N) in blocks of ``width`` columns: [block][k][column], with zeros at the end of the last block."""
    if share < 0:
        return on_threads(share, shares)
    K, N = b.shape
    at = 0
    for n in range(0, N, width):
        full = min(width, N - n)
        for k in range(K):
            for j in range(full):
                panels[at + j] = b[k, n + j]
            for j in range(full, width):
                panels[at + j] = 0
            at += width
    return 0


@njit()
def _matmul(
    share, shares, thread,
    a, a_step,  # (M·K,) with a_step 1, or its transpose (K·M,) with a_step M
    panels,  # b (K, N), packed
    row_offsets, out_offsets,  # (M,) int64: where the rows of a and of c begin, in bytes
    K, N, width,  # sizes, and the columns of a register tile
    c,  # (M·N,)
):  # fmt: skip
    """c = a · b."""
    if share < 0:
        return on_threads(share, shares)
    M = row_offsets.size
    blocks, tiles = (M + ROWS - 1) // ROWS, (N + width - 1) // width
    splits = min(tiles, (PARTS + blocks - 1) // blocks)
    origin, nothing = np.zeros(1, np.int64), np.zeros((0, 4), np.int64)
    for part in range(share * blocks * splits // shares, (share + 1) * blocks * splits // shares):
        i, split = part // splits * ROWS, part % splits
        first, last = split * tiles // splits, (split + 1) * tiles // splits
        macro_kernel(
            a, 0, row_offsets[i:], min(ROWS, M - i), a_step, origin, 1, K, panels, first * K * width, K * width, width,
            c, first * width, out_offsets[i:], min(N, last * width) - first * width, width, False, nothing,
        )  # fmt: skip
    return 0


def matmul(a: Array, b: Array, weights: bool = False) -> Array:
    """a (…, M, K) · b (…, K, N) → (…, M, N). Leading axes broadcast, as in np.matmul. One float dtype.

    weights: whether b follows from weights alone: a recording of predictions then packs it once (``recording.py``). Raises
    ShapeError and DtypeError.
    """
    one_dtype("matmul", a, b)
    (M, K), N = a.shape[-2:], b.shape[-1]
    fits("matmul", b.shape[-2] == K, a, b)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if not (M and K and N and all(lead)):
        return zeros((*lead, M, N), a.dtype)
    batch = int(np.prod(lead, dtype=int))
    # Aᵀ is read in place: dW = dyᵀ·x
    transposed = a.ndim == b.ndim == 2 and a.T.flags.carray and not a.flags.carray
    left = contiguous(a.T if transposed else np.broadcast_to(a, (*lead, M, K))).reshape(batch, M * K)
    row_offsets = np.arange(M) * (a.itemsize * (1 if transposed else K))
    out_offsets = np.arange(M) * (N * a.itemsize)
    width, a_step = tile_columns(N, a.itemsize), M if transposed else 1
    c = empty((batch, M, N), a.dtype)
    with preparing() if weights else nullcontext():
        right = contiguous(np.broadcast_to(b, (*lead, K, N))).reshape(batch, K, N)
        panels = empty((batch if weights else 1, -(-N // width) * K * width), a.dtype)
        for n in range(batch if weights else 0):
            serial(_pack_columns, right[n], width, panels[n])
    for n in range(batch):
        packed = panels[n if weights else 0]
        if not weights:
            serial(_pack_columns, right[n], width, packed)
        launch(_matmul, left[n], a_step, packed, row_offsets, out_offsets, K, N, width, c[n].reshape(-1))
    return c.reshape(*lead, M, N)
