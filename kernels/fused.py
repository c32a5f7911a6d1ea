"""What fused operations are made of: convolutions that read ``Operand``s and end in an ``Epilogue``, and the same for
arrays without a convolution between. The fast back end alone has these; ``ops/fused.py`` puts them together.
"""

import numpy as np
from numba import prange

from .buffers import empty_like
from .cache import njit
from .conv import convolve, convolve_input_grad
from .conv_weight import convolve_weight_grad
from .epilogue import ADD, MASK, MOMENTS, NORMALISE, NOTHING, Epilogue, finish, join_moments
from .packing import PLAIN, Operand, gradient, normalised, rounded, transform
from .threads import launch

BLOCK = 64  # long rows in one item of work

__all__ = [
    "ADD",
    "MASK",
    "MOMENTS",
    "NORMALISE",
    "NOTHING",
    "PLAIN",
    "Epilogue",
    "Operand",
    "convolve",
    "convolve_input_grad",
    "convolve_weight_grad",
    "gradient",
    "normalised",
    "pointwise",
    "rounded",
]


@njit()
def _pointwise_part(t, threads, kind, x, partner, parameters, y, flags, other, c, z, after, results):
    items = results.shape[0]
    size = BLOCK * max(parameters.shape[1], after.shape[1])
    for item in range(t * items // threads, (t + 1) * items // threads):
        mine = slice(item * size, min(item * size + size, y.size))
        transform(kind, x[mine], partner[mine], parameters, y[mine])
        if flags[0] != NOTHING:
            finish(flags, y[mine], other[mine], c[mine], z[mine], after, results[item])


@njit(parallel=True)
def _pointwise(kind, x, partner, parameters, y, flags, other, c, z, after, results, threads):
    for t in prange(threads):
        _pointwise_part(np.int64(t), threads, kind, x, partner, parameters, y, flags, other, c, z, after, results)


def pointwise(operand, epilogue):
    """The operand, finished by the epilogue: an array (N, H, W, C), and the epilogue's result as in ``conv.py``."""
    x = operand.array
    y = empty_like(x)
    flat = y.reshape(-1)
    before, after = operand.rows(), epilogue.rows(y)
    length = before.shape[1]
    results = np.empty((-(-x.size // (BLOCK * length)), 2, x.shape[3]))
    partner = x if operand.partner is None else operand.partner
    arrays = [flat if a is None else a.reshape(-1) for a in (epilogue.other, epilogue.c, epilogue.z)]
    reads = operand.kind, x.reshape(-1), partner.reshape(-1), before
    launch(_pointwise, *reads, flat, epilogue.flags(), *arrays, after, results)
    if epilogue.kind == MOMENTS:
        counts = np.full(len(results), BLOCK * length // x.shape[3], np.float64)
        counts[-1] = x.size // x.shape[3] - counts[:-1].sum()
        return y, join_moments(results, counts)
    return y, results.sum(0) if epilogue.kind == MASK else None
