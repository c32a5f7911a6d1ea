"""What ``x + y`` and ``x.mean()`` call: the operators and methods of Tensor, line by line.

They are defined here, and given to the class at the end, because operations are built on Tensor.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .errors import ConfigError, GraphError, NoAxisError, ShapeError
from .grad_mode import is_grad_enabled
from .ops import activation, arithmetic, linear, reduction, shape
from .ops.checks import as_tensor
from .tensor import Tensor

Dim = int | tuple[int, ...] | list[int] | None


def _compare(comparison: Callable[[Any, Any], Any], x: Tensor, other: Any) -> NDArray[np.bool_]:
    other = other.data if isinstance(other, Tensor) else other
    try:
        return np.asarray(comparison(x.data, other))
    except ValueError:
        raise ShapeError(f"{comparison.__name__}: shapes {x.shape} and {np.shape(other)} do not broadcast") from None


def _single(op: str, x: Tensor) -> Any:
    if x.size != 1:
        raise ShapeError(f"{op}: needs a tensor with one element, got shape {x.shape}")
    return x.data.item()


def _no_out(op: str, out: Any) -> None:
    if out is not None:
        raise ConfigError(f"{op}: out= is for ndarrays, and a Tensor is not written into: use what {op} returns")


def _in_dtype(x: Tensor, dtype: DTypeLike | None) -> Tensor:
    return x if dtype is None else arithmetic.astype(x, dtype)


def _in_place(op: Callable[[Any, Any], Tensor], name: str, x: Any, other: Any) -> Tensor:
    """``x op= other`` for a leaf that requires a gradient, as in PyTorch; of any other tensor the name gets the new one."""
    if x.op is not None or not x.requires_grad:
        return op(x, other)
    if is_grad_enabled():
        raise GraphError(f"{name}: a leaf that requires a gradient is changed in place under no_grad() only")
    value = op(x, other).data
    if value.shape != x.shape:
        raise ShapeError(f"{name}: a result of shape {value.shape} does not fit into shape {x.shape}")
    x.data[...] = value
    x.count_change()
    return x


class TensorMethods:
    """The operators and methods of Tensor. Reductions take the keywords that NumPy passes on: ``axis``, ``keepdims`` …"""

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

    def __iadd__(self: Any, other: Any) -> Tensor:
        return _in_place(arithmetic.add, "+=", self, other)

    def __isub__(self: Any, other: Any) -> Tensor:
        return _in_place(arithmetic.sub, "-=", self, other)

    def __imul__(self: Any, other: Any) -> Tensor:
        return _in_place(arithmetic.mul, "*=", self, other)

    def __itruediv__(self: Any, other: Any) -> Tensor:
        return _in_place(arithmetic.div, "/=", self, other)

    def __neg__(self: Any) -> Tensor:
        return arithmetic.neg(self)

    def __matmul__(self: Any, other: Any) -> Tensor:
        return linear.matmul(self, as_tensor(other, self))

    def __rmatmul__(self: Any, other: Any) -> Tensor:
        return linear.matmul(as_tensor(other, self), self)

    # --- what Python and NumPy convert

    def item(self: Any) -> Any:
        """The value of a tensor with a single element, as a Python number."""
        return _single("item", self)

    def __bool__(self: Any) -> bool:
        return bool(_single("bool", self))

    def __float__(self: Any) -> float:
        return float(_single("float", self))

    def __int__(self: Any) -> int:
        return int(_single("int", self))

    def __format__(self: Any, spec: str) -> str:
        return format(_single(f"format {spec!r}", self), spec) if spec else str(self)

    def __len__(self: Any) -> int:
        if not self.ndim:
            raise NoAxisError("len: a tensor of shape () has no rows; its value is x.item()")
        return self.shape[0]

    def __iter__(self: Any) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __contains__(self: Any, value: Any) -> bool:
        return bool((self == value).any())

    # --- comparisons: NumPy's, on the values

    def __eq__(self: Any, other: object) -> NDArray[np.bool_]:  # type: ignore[override]
        return _compare(operator.eq, self, other)

    def __ne__(self: Any, other: object) -> NDArray[np.bool_]:  # type: ignore[override]
        return _compare(operator.ne, self, other)

    def __lt__(self: Any, other: Any) -> NDArray[np.bool_]:
        return _compare(operator.lt, self, other)

    def __le__(self: Any, other: Any) -> NDArray[np.bool_]:
        return _compare(operator.le, self, other)

    def __gt__(self: Any, other: Any) -> NDArray[np.bool_]:
        return _compare(operator.gt, self, other)

    def __ge__(self: Any, other: Any) -> NDArray[np.bool_]:
        return _compare(operator.ge, self, other)

    __hash__ = object.__hash__  # by identity: tensors are keys of dicts and members of sets

    # --- reductions: np.sum(x) calls x.sum(axis=…, dtype=…, out=None)

    def sum(
        self: Any,
        dim: Dim = None,
        keepdim: bool = False,
        *,
        axis: Dim = None,
        keepdims: bool = False,
        dtype: DTypeLike | None = None,
        out: None = None,
    ) -> Tensor:
        _no_out("sum", out)
        return reduction.sum(_in_dtype(self, dtype), dim if axis is None else axis, keepdim or keepdims)

    def mean(
        self: Any,
        dim: Dim = None,
        keepdim: bool = False,
        *,
        axis: Dim = None,
        keepdims: bool = False,
        dtype: DTypeLike | None = None,
        out: None = None,
    ) -> Tensor:
        _no_out("mean", out)
        return reduction.mean(_in_dtype(self, dtype), dim if axis is None else axis, keepdim or keepdims)

    def max(
        self: Any, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool = False, out: None = None
    ) -> Tensor:
        _no_out("max", out)
        return reduction.max(self, dim if axis is None else axis, keepdim or keepdims)

    def min(
        self: Any, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool = False, out: None = None
    ) -> Tensor:
        """The minimum over ``dim`` (an int, a tuple, or None for all): values alone, as torch.amin."""
        _no_out("min", out)
        return reduction.min(self, dim if axis is None else axis, keepdim or keepdims)

    def any(
        self: Any, axis: int | tuple[int, ...] | None = None, out: None = None, keepdims: bool = False
    ) -> NDArray[np.bool_]:
        """Whether any value over ``axis`` is not 0, as NumPy bools."""
        _no_out("any", out)
        return np.asarray(self.data.any(axis=axis, keepdims=keepdims))

    def all(
        self: Any, axis: int | tuple[int, ...] | None = None, out: None = None, keepdims: bool = False
    ) -> NDArray[np.bool_]:
        """Whether no value over ``axis`` is 0, as NumPy bools."""
        _no_out("all", out)
        return np.asarray(self.data.all(axis=axis, keepdims=keepdims))

    def clip(self: Any, min: ArrayLike | None = None, max: ArrayLike | None = None, *, out: None = None) -> Tensor:
        _no_out("clip", out)
        return arithmetic.clip(self, min, max)

    clamp = clip
    clip.__doc__ = arithmetic.clip.__doc__
    sum.__doc__, mean.__doc__, max.__doc__ = reduction.sum.__doc__, reduction.mean.__doc__, reduction.max.__doc__

    @property
    def T(self: Any) -> Tensor:
        """All axes in reverse order."""
        return shape.permute(self, *range(self.ndim)[::-1])

    __getitem__ = shape.getitem
    __abs__ = arithmetic.abs
    exp, log, sqrt, abs = arithmetic.exp, arithmetic.log, arithmetic.sqrt, arithmetic.abs
    reshape = view = shape.reshape
    flatten, permute, transpose = shape.flatten, shape.permute, shape.transpose
    relu, sigmoid, tanh = activation.relu, activation.sigmoid, activation.tanh
    softmax, log_softmax = activation.softmax, activation.log_softmax
    astype = arithmetic.astype


for _name, _method in vars(TensorMethods).items():
    if callable(_method) or isinstance(_method, property):
        setattr(Tensor, _name, _method)
