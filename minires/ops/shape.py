"""Operations that move elements: reshape, transpose, slice, concatenate, pad. Backward moves them back.

Results with four axes come out channels-last, whatever NumPy would have made of the memory order.
"""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..errors import ConfigError, IndexShapeError, ShapeError
from ..kernels import nchw, nhwc, reshaped, to_channels_last, zeros
from ..lazy import is_lazy, unseen, values
from ..tensor import Op, Tensor
from .checks import axis_in, needs_tensor, same_dtype


def zeros_of(shape, dtype):
    """Zeros of a logical shape; channels-last for four axes."""
    if len(shape) == 4:
        N, C, H, W = shape
        return nchw(zeros((N, H, W, C), dtype))
    return zeros(shape, dtype)


class Reshape(Op):
    """y = x in another shape. dx = dy in the old one."""

    reads = ()
    is_view = True
    aliases = True

    def __init__(self, shape):
        self.shape = shape

    def forward(self, x):
        self.before = x.shape
        try:
            return to_channels_last(reshaped(x, self.shape))
        except ValueError:
            raise ShapeError(f"reshape: {x.size} elements of shape {x.shape} do not fill shape {self.shape}") from None

    def backward(self, dy, needs):
        return (to_channels_last(reshaped(dy, self.before)),)


class Permute(Op):
    """y = x with its axes in another order. dx = dy with them put back."""

    reads = ()
    is_view = True
    aliases = True

    def __init__(self, dims):
        self.dims = dims

    def forward(self, x):
        return to_channels_last(x.transpose(self.dims))

    def backward(self, dy, needs):
        return (to_channels_last(dy.transpose(np.argsort(self.dims))),)


class Slice(Op):
    """y = x[index]. dx = 0, but dy at the index, summed where the index repeats."""

    reads = ()

    def __init__(self, index):
        self.index = index

    def forward(self, x):
        self.shape, self.dtype = x.shape, x.dtype
        try:
            y = x[self.index]
        except (IndexError, ValueError) as error:  # the latter for a list of rows of different lengths
            raise IndexShapeError(f"index: {error} (tensor of shape {x.shape})") from None
        y = to_channels_last(np.asarray(y))
        return y.copy(order="K") if np.may_share_memory(y, x) else y

    def backward(self, dy, needs):
        dx = zeros_of(self.shape, self.dtype)
        parts = self.index if isinstance(self.index, tuple) else (self.index,)
        if all(isinstance(p, (slice, numbers.Integral, type(None), type(Ellipsis))) for p in parts):
            dx[self.index] = dy  # a basic index meets each element once
        else:
            np.add.at(dx, self.index, dy)
        return (dx,)


class Concatenate(Op):
    """y = the inputs, one after another along ``dim``. Each dx is its stretch of dy."""

    reads = ()
    aliases = True

    def __init__(self, dim):
        self.dim = dim

    def forward(self, *xs):
        self.ends = np.cumsum([x.shape[self.dim] for x in xs])[:-1]
        return to_channels_last(np.concatenate(xs, axis=self.dim))

    def backward(self, dy, needs):
        return tuple(to_channels_last(dx) for dx in np.split(dy, self.ends, axis=self.dim))


class ConcatenateChannels(Op):
    """y (N, ΣC, H, W) = the channels of images, one after another. Each dx is its channels of dy.

    Where the mean and variance of every input's channels are known, so are those of y: the batch norm that follows in a
    DenseNet (Huang et al. 2017) need not look for them again.
    """

    reads = ()
    label = "cat"
    dim = 1

    def __init__(self):
        self.moments = []

    def read(self, i, x):
        self.moments.append(x.moments if is_lazy(x) else None)
        return values(x)

    def forward(self, *xs):
        self.channels = [x.shape[3] for x in xs]
        return kernels.concat_channels(xs)

    def wrap(self, y):
        known = all(moments is not None for moments in self.moments)
        parts = [row for moments in self.moments for row in moments] if known else None
        return unseen(y, kernels.computed(_side_by_side, (2, y.shape[3]), np.float64, *parts) if known else None)

    def backward(self, dy, needs):
        return tuple(nchw(dx) for dx in kernels.split_channels(nhwc(dy), self.channels))


def _side_by_side(*parts):
    """(2, ΣC): means and variances of inputs, from (mean, variance, mean, variance …)."""
    return np.concatenate(parts[::2]), np.concatenate(parts[1::2])


class Pad(Op):
    """y = x with a border of ``value``. dx = dy without it."""

    reads = ()
    aliases = True

    def __init__(self, widths, value):
        self.widths, self.value = widths, value

    def forward(self, x):
        self.inner = tuple(slice(before, before + n) for (before, _), n in zip(self.widths, x.shape))
        shape = tuple(before + n + after for (before, after), n in zip(self.widths, x.shape))
        y = zeros_of(shape, x.dtype)
        if self.value:
            y[...] = self.value
        y[self.inner] = x
        return y

    def backward(self, dy, needs):
        return (to_channels_last(dy[self.inner]),)


def _integers(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """(2, 3) from the arguments 2, 3 or from the one argument (2, 3)."""
    return tuple(arguments[0]) if len(arguments) == 1 and isinstance(arguments[0], Sequence) else arguments


def reshape(x: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """x in another shape; one length may be −1."""
    return Reshape(_integers(shape)).apply(x)


def flatten(x: Tensor, start_dim: int = 0) -> Tensor:
    """All axes from ``start_dim`` on made one, in the logical order (C, H, W)."""
    start = axis_in("flatten", start_dim, x.ndim)
    return Reshape((*x.shape[:start], int(np.prod(x.shape[start:], dtype=int)))).apply(x)


def permute(x: Tensor, *dims: int | Sequence[int]) -> Tensor:
    """x with its axes in the order ``dims``."""
    axes = tuple(axis_in("permute", d, x.ndim) for d in _integers(dims))
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError(f"permute: {_integers(dims)} is no order of the {x.ndim} axes of shape {x.shape}")
    return Permute(axes).apply(x)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """x with two axes exchanged."""
    dims = list(range(x.ndim))
    a, b = axis_in("transpose", dim0, x.ndim), axis_in("transpose", dim1, x.ndim)
    dims[a], dims[b] = dims[b], dims[a]
    return Permute(tuple(dims)).apply(x)


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index]: integers, slices, None, Ellipsis, integer or boolean arrays (ndarrays or Tensors)."""

    return Slice(_frozen(index)).apply(x)


def _frozen(index):
    """A copy of an index: backward needs it as it is now. Tensors become ndarrays."""
    if isinstance(index, (tuple, list)):
        return (list if isinstance(index, list) else tuple)(map(_frozen, index))
    if isinstance(index, (Tensor, np.ndarray)):
        return np.array(index)
    return index


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along ``dim``; all other lengths must agree."""
    tensors = tuple(tensors)
    if not tensors:
        raise ShapeError("cat: needs one tensor at least")
    needs_tensor("cat", *tensors)
    same_dtype("cat", *tensors)
    axis = axis_in("cat", dim, tensors[0].ndim)
    shapes = [x.shape for x in tensors]
    if len({(len(s), s[:axis] + s[axis + 1 :]) for s in shapes}) > 1:
        raise ShapeError(f"cat: shapes {' and '.join(map(str, shapes))} differ in an axis other than {axis}")
    if axis == 1 and len(shapes[0]) == 4 and all(0 not in s for s in shapes):
        return ConcatenateChannels().apply(*tensors)
    return Concatenate(axis).apply(*tensors)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, of one shape, along a new axis ``dim``."""
    tensors = tuple(tensors)
    if not tensors:
        raise ShapeError("stack: needs one tensor at least")
    needs_tensor("stack", *tensors)
    axis = axis_in("stack", dim, tensors[0].ndim + 1)
    if len({x.shape for x in tensors}) > 1:
        raise ShapeError(f"stack: shapes {' and '.join(str(x.shape) for x in tensors)} differ")
    return cat([reshape(x, (*x.shape[:axis], 1, *x.shape[axis:])) for x in tensors], axis)


def pad(x: Tensor, pad: Sequence[int], *, value: float = 0.0) -> Tensor:
    """A border of ``value``. ``pad`` has a pair (before, after) for each axis, the last axis first, as in PyTorch.

    >>> import minires as mr
    >>> mr.functional.pad(mr.tensor([[1.0, 2.0]]), (1, 0)).numpy()
    array([[0., 1., 2.]], dtype=float32)
    """
    if len(pad) % 2 or len(pad) > 2 * x.ndim or not all(isinstance(p, numbers.Integral) and p >= 0 for p in pad):
        raise ConfigError(
            f"pad: {tuple(pad)} is no list of pairs (before, after) ≥ 0, last axis first, for a tensor of shape {x.shape}"
        )
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[i : i + 2]) for i in range(len(pad) - 2, -1, -2)]
    return Pad(pairs, value).apply(x)


__all__ = ["cat", "flatten", "getitem", "pad", "permute", "reshape", "stack", "transpose"]
