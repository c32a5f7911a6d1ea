"""A memory pass with a prologue and an epilogue, and no convolution in between."""

import numpy as np

from ..checks import one_dtype
from ..descriptors import NOTHING, PLAIN, STORE, Epilogue, Operand, as_operand
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.memory_pool import empty_like
from ..runtime.parallel import on_threads
from ..runtime.threads import launch
from .epilogue import epilogue_arguments, finish, join_items
from .prologue import apply_prologue, fold, operand_arguments, repeat_channels

BLOCK = 64  # long rows in one work item


@njit()
def _pointwise(
    share, shares, thread,
    kind, x, partner, parameters, folded,  # an Operand (prologue.operand_arguments)
    y,  # the output, 1-D
    flags, other, c, z, after, after_folded,  # an Epilogue (epilogue.epilogue_arguments)
    size,  # elements of a work item
    results,  # (items, 2, C) float64: the epilogue's sums over each item
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    items = results.shape[0]
    before, ends = repeat_channels(parameters, folded, x), repeat_channels(after, after_folded, y)
    for item in range(share * items // shares, (share + 1) * items // shares):
        mine = slice(item * size, min(item * size + size, y.size))
        apply_prologue(kind, x[mine], partner[mine], before, 0, y[mine])
        if flags[0] != NOTHING:
            finish(flags, y[mine], other[mine], c[mine], z[mine], ends, results[item], 0, results.shape[2])
    return 0


def pointwise(operand: Operand | Array, epilogue: Epilogue) -> tuple[Array, Array | None]:
    """The values of an Operand, finished by an Epilogue: a new array (N, H, W, C), and the epilogue's result.

    The result is (2, C) float64, mean and biased variance for MOMENTS and the two sums for MASK, else None. Raises
    ShapeError and DtypeError.
    """
    reads = as_operand(operand)
    one_dtype("pointwise", reads.array)
    x = contiguous(reads.array)
    y = empty_like(x)
    size = BLOCK * fold(*x.shape[-2:]) * x.shape[3]
    results = np.zeros((-(-x.size // size), 2, x.shape[3]))
    read = operand_arguments(reads if x is reads.array else reads._replace(array=x))
    launch(_pointwise, *read, y.reshape(-1), *epilogue_arguments(epilogue, y), size, results)
    counts = np.full(len(results), size // x.shape[3], np.float64)
    counts[-1:] = x.size // x.shape[3] - counts[:-1].sum()
    return y, join_items(epilogue, results, counts)


def values(x: Operand | Array) -> Array:
    """The values of an Operand, (N, H, W, C): its array itself if there is no prologue. An array is its own values."""
    operand = as_operand(x)
    return operand.array if operand.kind == PLAIN else pointwise(operand, STORE)[0]
