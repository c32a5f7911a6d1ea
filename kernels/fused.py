"""What fused operations are made of: convolutions that read ``Operand``s and end in an ``Epilogue``, and the same for
arrays without a convolution between. The fast back end alone has these; ``ops/fused.py`` puts them together.
"""

import numpy as np

from . import choice, precompile
from .buffers import empty_like
from .cache import njit
from .choice import convolve_input_grad, convolve_weight_grad
from .epilogue import ADD, MASK, MOMENTS, NORMALISE, NOTHING, Epilogue, finish, join_moments
from .norm_terms import backward_terms, forward_terms
from .packing import GRADIENT, NORMALISED, PLAIN, Operand, fold, normalised, repeated, rounded, transform
from .parallel import on_threads
from .threads import launch

BLOCK = 64  # long rows in one item of work

__all__ = [
    "ADD",
    "GRADIENT",
    "MASK",
    "MOMENTS",
    "NORMALISE",
    "NORMALISED",
    "NOTHING",
    "PLAIN",
    "Epilogue",
    "Operand",
    "backward_terms",
    "convolve",
    "convolve_input_grad",
    "convolve_weight_grad",
    "forward_terms",
    "normalised",
    "pointwise",
    "rounded",
]


def convolve(operand, w, convolution, epilogue):
    """``choice.convolve``; the first one of all is where a training step begins, and may find nothing compiled."""
    if w.dtype == np.float32:
        precompile.first_time()
    return choice.convolve(operand, w, convolution, epilogue)


@njit()
def _pointwise(
    t, threads, kind, x, partner, parameters, folded, y, flags, other, c, z, after, after_folded, size, results
):
    if t < 0:
        return on_threads(t, threads)
    items = results.shape[0]
    before, ends = repeated(parameters, folded, x), repeated(after, after_folded, y)
    for item in range(t * items // threads, (t + 1) * items // threads):
        mine = slice(item * size, min(item * size + size, y.size))
        transform(kind, x[mine], partner[mine], before, y[mine])
        if flags[0] != NOTHING:
            finish(flags, y[mine], other[mine], c[mine], z[mine], ends, results[item])
    return 0


def pointwise(operand, epilogue):
    """The operand, finished by the epilogue: an array (N, H, W, C), and the epilogue's result as in ``conv.py``."""
    x = operand.array
    y = empty_like(x)
    size = BLOCK * fold(*x.shape[-2:]) * x.shape[3]
    results = np.zeros((-(-x.size // size), 2, x.shape[3]))
    launch(_pointwise, *operand.arguments(), y.reshape(-1), *epilogue.arguments(y), size, results)
    if epilogue.kind == MOMENTS:
        counts = np.full(len(results), size // x.shape[3], np.float64)
        counts[-1] = x.size // x.shape[3] - counts[:-1].sum()
        return y, join_moments(results, counts)
    return y, np.add.reduce(results) if epilogue.kind == MASK else None
