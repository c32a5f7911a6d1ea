"""The convolutions of the ``numba`` back end, and the choice between the direct and the Winograd algorithm.

The Winograd algorithm is used where the committed table says that it is faster (``winograd_table.py``). The choice depends
on the CPU target, the shapes and a switch, never on a measurement, so that runs are reproducible bit for bit.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from ..checks import fits, one_dtype
from ..descriptors import STORE, Epilogue, Operand, as_operand
from ..memory_format import Array, Pair, Shape, contiguous
from ..runtime import precompile
from ..switches import uses_winograd
from . import direct, direct_weight, winograd, winograd_weight
from .groups import join, join_weights, split_gradient
from .winograd_plan import faster
from .work_items import problem_of

MANY = 1 << 18  # values of an input, from which a convolution is likely to be one of a network's


def _choose(direct, other, use, problem):
    return other if uses_winograd() and _faster(problem, use) else direct


@lru_cache(maxsize=1024)
def _faster(problem, use):
    return faster(problem, use)


def _checked(op, *operands):
    """Operands of one float dtype with arrays that kernels can address: C-contiguous, aligned and writeable."""
    one_dtype(op, *[operand.array for operand in operands])
    return [o if o.array.flags.carray else o._replace(array=contiguous(o.array)) for o in operands]


def conv2d(
    x: Operand | Array,
    w: Array,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    epilogue: Epilogue | None = None,
) -> Any:
    """y[n, oh, ow, o] = Σ x[n, oh·s + kh·d − p, ow·s + kw·d − p, i] · w[kh, kw, i, o].

    x: (N, H, W, C), an array or an Operand; w: (KH, KW, C/groups, O), of the same float dtype; stride, padding, dilation:
    pairs (height, width). Returns y (N, OH, OW, O), or with an Epilogue (y, its result), as in ``descriptors.py``. Raises
    ShapeError and DtypeError.
    """
    images, filters = _checked("conv2d", as_operand(x), as_operand(w))
    w, shape = filters.array, images.array.shape
    fits("conv2d", shape[3] == w.shape[2] * groups and w.shape[3] % groups == 0, images.array, w)
    if w.dtype == np.float32 and (epilogue is not None or images.array.size >= MANY):
        precompile.first_time()  # a training step begins with one, perhaps with nothing compiled yet
    problem, together = join(problem_of(shape, w.shape, stride, padding, dilation, groups), w.itemsize)
    w = w if together == 1 else join_weights(w, together, groups)
    y, result = _choose(direct, winograd, "forward", problem).convolve(problem, images, w, epilogue or STORE)
    return y if epilogue is None else (y, result)


def conv2d_input_grad(
    dy: Operand | Array,
    w: Array,
    x_shape: Shape,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    epilogue: Epilogue | None = None,
) -> Any:
    """dx (N, H, W, C) of y = x ∗ w, from dy (N, OH, OW, O), an array or an Operand. x_shape: that of dx. See ``conv2d``."""
    gradient, filters = _checked("conv2d_input_grad", as_operand(dy), as_operand(w))
    w = filters.array
    problem = problem_of(tuple(x_shape), w.shape, stride, padding, dilation, groups)
    matches = gradient.array.shape == problem.y_shape and problem.w_shape == w.shape
    fits("conv2d_input_grad", matches, gradient.array, w)
    problem, together = join(problem, w.itemsize)
    w = w if together == 1 else join_weights(w, together, groups)
    algorithm = _choose(direct, winograd, "input_grad", problem)
    dx, result = algorithm.convolve_input_grad(problem, gradient, w, epilogue or STORE)
    return dx if epilogue is None else (dx, result)


def conv2d_weight_grad(
    x: Operand | Array, dy: Operand | Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """dw (KH, KW, C/groups, O) of y = x ∗ w, from x (N, H, W, C) and dy (N, OH, OW, O), arrays or Operands.

    w_shape: that of dw. See ``conv2d``.
    """
    images, gradient = _checked("conv2d_weight_grad", as_operand(x), as_operand(dy))
    problem = problem_of(images.array.shape, tuple(w_shape), stride, padding, dilation, groups)
    matches = gradient.array.shape == problem.y_shape and problem.w_shape == tuple(w_shape)
    fits("conv2d_weight_grad", matches, images.array, gradient.array)
    problem, together = join(problem, images.array.itemsize)
    algorithm = _choose(direct_weight, winograd_weight, "weight_grad", problem)
    dw = algorithm.convolve_weight_grad(problem, images, gradient)
    return dw if together == 1 else split_gradient(dw, together, groups)
