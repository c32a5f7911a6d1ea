"""What ``x + y`` and ``x.mean()`` call: the operators and methods of Tensor, line by line.

They are defined here, and given to the class at the end, because operations are built on Tensor.
"""

from typing import Any

from .ops import activation, arithmetic, linear, reduction, shape
from .ops.checks import as_tensor
from .tensor import Tensor

Dim = int | tuple[int, ...] | list[int] | None


class TensorMethods:
    """The operators and methods of Tensor. Reductions take NumPy's ``axis`` and ``keepdims`` too."""

    def __add__(self: Any, other: Any) -> Tensor:
        return arithmetic.add(self, other)

    __radd__ = __add__

    def __sub__(self: Any, other: Any) -> Tensor:
        return arithmetic.sub(self, other)

    def __rsub__(self: Any, other: Any) -> Tensor:
        return arithmetic.sub(as_tensor(other, self), self)

    def __mul__(self: Any, other: Any) -> Tensor:
        return arithmetic.mul(self, other)

    __rmul__ = __mul__

    def __truediv__(self: Any, other: Any) -> Tensor:
        return arithmetic.div(self, other)

    def __rtruediv__(self: Any, other: Any) -> Tensor:
        return arithmetic.div(as_tensor(other, self), self)

    def __pow__(self: Any, other: Any) -> Tensor:
        return arithmetic.pow(self, other)

    def __rpow__(self: Any, other: Any) -> Tensor:
        return arithmetic.pow(as_tensor(other, self), self)

    def __neg__(self: Any) -> Tensor:
        return arithmetic.neg(self)

    def __matmul__(self: Any, other: Any) -> Tensor:
        return linear.matmul(self, as_tensor(other, self))

    def __rmatmul__(self: Any, other: Any) -> Tensor:
        return linear.matmul(as_tensor(other, self), self)

    def sum(self: Any, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool = False) -> Tensor:
        return reduction.sum(self, dim if axis is None else axis, keepdim or keepdims)

    def mean(self: Any, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool = False) -> Tensor:
        return reduction.mean(self, dim if axis is None else axis, keepdim or keepdims)

    def max(self: Any, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool = False) -> Tensor:
        return reduction.max(self, dim if axis is None else axis, keepdim or keepdims)

    sum.__doc__, mean.__doc__, max.__doc__ = reduction.sum.__doc__, reduction.mean.__doc__, reduction.max.__doc__

    @property
    def T(self: Any) -> Tensor:
        """All axes in reverse order."""
        return shape.permute(self, *range(self.ndim)[::-1])

    __getitem__ = shape.getitem
    exp, log, sqrt, abs = arithmetic.exp, arithmetic.log, arithmetic.sqrt, arithmetic.abs
    clip = clamp = arithmetic.clip
    reshape = view = shape.reshape
    flatten, permute, transpose = shape.flatten, shape.permute, shape.transpose
    relu, sigmoid, tanh = activation.relu, activation.sigmoid, activation.tanh
    softmax, log_softmax = activation.softmax, activation.log_softmax
    astype = arithmetic.astype


for _name, _method in vars(TensorMethods).items():
    if callable(_method) or isinstance(_method, property):
        setattr(Tensor, _name, _method)
