"""ReLU and the residual addition, element by element. Arrays may have any shape; their memory order is kept."""

import numpy as np

from ..checks import alike
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.memory_pool import empty_like
from ..runtime.parallel import on_threads
from ..runtime.recording import also
from ..runtime.threads import launch

FEW = 1 << 14  # elements; below this a NumPy call costs less than waking the threads


def has_no_gaps(x):
    """Whether x's elements are contiguous in memory, with the axes in any order: ``flat(x)`` is then a view."""
    return x.transpose(np.argsort([-stride for stride in x.strides], kind="stable")).flags.c_contiguous


def flat(x):
    """x as a 1-D array, in memory order: a view, unless x has gaps."""
    return contiguous(x.ravel(order="K"))


def same_order(x, like):
    """x in the memory order of ``like``: x itself, or a copy."""
    if x.strides == like.strides:
        return x
    copy = empty_like(like)
    also(np.copyto, copy, x)
    return copy


@njit(inner=True)
def part(n, share, shares):
    """Thread share t of n elements, as a slice. LLVM vectorises loops over slices that start from 0."""
    return slice(share * n // shares, (share + 1) * n // shares)


@njit()
def _relu(share, shares, thread, x, y):
    if share < 0:
        return on_threads(share, shares)
    mine = part(x.size, share, shares)
    xs, ys = x[mine], y[mine]
    for i in range(xs.size):
        ys[i] = 0 if xs[i] <= 0 else xs[i]  # NaN stays NaN
    return 0


def relu(x: Array) -> Array:
    """max(x, 0), in x's memory order."""
    y = empty_like(x)
    launch(_relu, flat(same_order(x, y)), flat(y))
    return y


@njit()
def _relu_grad(share, shares, thread, dy, y, dx):
    if share < 0:
        return on_threads(share, shares)
    mine = part(y.size, share, shares)
    grads, ys, dxs = dy[mine], y[mine], dx[mine]
    for i in range(ys.size):
        dxs[i] = 0 if ys[i] <= 0 else grads[i]
    return 0


def relu_grad(dy: Array, y: Array) -> Array:
    """dy where y = relu(x) is above 0 or NaN, else 0. Raises ShapeError and DtypeError."""
    alike("relu_grad", dy, y)
    dx = empty_like(y)
    launch(_relu_grad, flat(same_order(dy, dx)), flat(same_order(y, dx)), flat(dx))
    return dx


@njit()
def _add(share, shares, thread, a, b, y):
    if share < 0:
        return on_threads(share, shares)
    mine = part(a.size, share, shares)
    xs, zs, ys = a[mine], b[mine], y[mine]
    for i in range(ys.size):
        ys[i] = xs[i] + zs[i]
    return 0


def add(a: Array, b: Array, out: Array | None = None) -> Array:
    """a + b, of the same shape. ``out`` may be a itself."""
    y = empty_like(a) if out is None else out
    if y.size < FEW or y.dtype.kind != "f" or not (y.flags.behaved and has_no_gaps(y)):
        also(np.add, a, b, out=y)
        return y
    alike("add", a, b, y)
    launch(_add, flat(same_order(a, y)), flat(same_order(b, y)), flat(y))
    return y


@njit()
def _add_relu(share, shares, thread, a, b, y):
    if share < 0:
        return on_threads(share, shares)
    mine = part(a.size, share, shares)
    xs, zs, ys = a[mine], b[mine], y[mine]
    for i in range(ys.size):
        total = xs[i] + zs[i]
        ys[i] = 0 if total <= 0 else total
    return 0


def add_relu(a: Array, b: Array) -> Array:
    """max(a + b, 0), of the same shape: the end of a residual block (He et al. 2015, Fig. 2)."""
    alike("add_relu", a, b)
    y = empty_like(a)
    launch(_add_relu, flat(same_order(a, y)), flat(same_order(b, y)), flat(y))
    return y
