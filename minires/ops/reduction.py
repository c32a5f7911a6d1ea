"""Sums, means and maxima over axes. Backward spreads a gradient over what was reduced."""

from collections.abc import Sequence

import numpy as np

from ..errors import ShapeError
from ..kernels import to_channels_last
from ..tensor import Op, Tensor
from .checks import axis_in, needs_tensor, same_dtype


class Reduce(Op):
    """A reduction over ``axes``; ``spread`` undoes the shape."""

    reads = ()

    def __init__(self, dim, keepdim):
        self.dim, self.keepdim = dim, keepdim

    def apply(self, x):
        name = self.name
        needs_tensor(name, x)
        same_dtype(name, x)
        dims = range(x.ndim) if self.dim is None else self.dim if isinstance(self.dim, (tuple, list)) else (self.dim,)
        self.axes = tuple(sorted(axis_in(name, d, x.ndim) for d in dims))
        if len(set(self.axes)) < len(self.axes):
            raise ShapeError(f"{name}: dim {tuple(dims)} names an axis of shape {x.shape} twice")
        return super().apply(x)

    def kept(self, dy):
        """dy with the reduced axes back, of length 1."""
        return dy if self.keepdim else np.expand_dims(dy, self.axes)

    def spread(self, dy):
        return to_channels_last(np.broadcast_to(self.kept(dy), self.shape))


class Sum(Reduce):
    """y = Σ x, added up in float64. dx = dy, spread."""

    aliases = True  # a broadcast view is nothing to add into

    def forward(self, x):
        self.shape = x.shape
        return np.asarray(x.sum(axis=self.axes, keepdims=self.keepdim, dtype=np.float64)).astype(x.dtype)

    def backward(self, dy, needs):
        return (self.spread(dy),)


class Mean(Reduce):
    """y = Σ x / n. dx = dy/n, spread."""

    aliases = True

    def forward(self, x):
        self.shape = x.shape
        y = np.asarray(x.mean(axis=self.axes, keepdims=self.keepdim, dtype=np.float64)).astype(x.dtype)
        self.count = x.size // (y.size or 1)
        return y

    def backward(self, dy, needs):
        return (self.spread(dy / self.count),)


class Max(Reduce):
    """y = max x. dx = dy at the maximum, shared evenly among equals (PyTorch's amax)."""

    extreme = staticmethod(np.max)

    def forward(self, x):
        self.shape = x.shape
        if not x.size and 0 in [x.shape[axis] for axis in self.axes]:
            raise ShapeError(
                f"{self.name}: shape {x.shape} has nothing along dim {self.axes} to take the {self.name} of"
            )
        y = self.extreme(x, axis=self.axes, keepdims=True)
        self.mask = x == y
        return np.asarray(y if self.keepdim else y.squeeze(self.axes))

    def backward(self, dy, needs):
        ties = self.mask.sum(axis=self.axes, keepdims=True)
        return (to_channels_last((self.mask * (self.kept(dy) / ties)).astype(dy.dtype, copy=False)),)


class Min(Max):
    """y = min x. dx = dy at the minimum, shared evenly among equals (PyTorch's amin)."""

    extreme = staticmethod(np.min)


def sum(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Σ over ``dim`` (an int, a tuple, or None for all)."""
    return Sum(dim, keepdim).apply(x)


def mean(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """The mean over ``dim`` (an int, a tuple, or None for all)."""
    return Mean(dim, keepdim).apply(x)


def max(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """The maximum over ``dim`` (an int, a tuple, or None for all): values alone, as torch.amax."""
    return Max(dim, keepdim).apply(x)


def min(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """The minimum over ``dim`` (an int, a tuple, or None for all): values alone, as torch.amin."""
    return Min(dim, keepdim).apply(x)
