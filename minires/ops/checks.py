"""What an operation asks of its arguments, and what it says when they do not fit."""

import numbers

import numpy as np

from ..errors import ConfigError, DtypeError, ShapeError
from ..tensor import Tensor

Pair = int | tuple[int, int]  # one number for height and width, or (height, width)


def as_tensor(value, like):
    """``value`` for an operation with the Tensor ``like``: scalars take its dtype, arrays keep theirs."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (numbers.Number, np.generic)):
        return Tensor(np.asarray(value, like.dtype))
    return Tensor(np.asarray(value))


def same_dtype(op, *tensors):
    """All of one float dtype, or DtypeError that names them."""
    dtypes = [x.dtype for x in tensors if x is not None]
    if len(set(dtypes)) > 1:
        raise DtypeError(
            f"{op}: arrays of different dtypes, {' and '.join(map(str, dtypes))}; convert one of them (x.astype(…))"
        )
    if dtypes[0] not in (np.float32, np.float64):
        raise DtypeError(f"{op}: needs float32 or float64, got {dtypes[0]}")


def needs_tensor(op, *values):
    """Every value a Tensor, or a TypeError-like message that shows how to make one."""
    for value in values:
        if not isinstance(value, Tensor):
            raise DtypeError(f"{op}: takes Tensors, got {type(value).__name__}; wrap it with mr.tensor(…)")


def image(op, x):
    """x is (N, C, H, W)."""
    if x.ndim != 4:
        raise ShapeError(f"{op}: needs images of shape (N, C, H, W), got shape {x.shape}")


def pair(op, name, value, least=1):
    """An int or a pair of ints, each ≥ least, as a pair."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int and min(value) >= least:
        return value
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(isinstance(v, numbers.Integral) and v >= least for v in values):
        raise ConfigError(f"{op}: {name} is a whole number from {least} up, or a pair of them, not {value!r}")
    return tuple(int(v) for v in values)


def axis_in(op, dim, ndim):
    """dim as a non-negative axis of ndim."""
    if not isinstance(dim, numbers.Integral) or not -ndim <= dim < ndim:
        raise ShapeError(f"{op}: dim {dim!r} is not an axis of a tensor with {ndim} dimensions")
    return int(dim) % ndim
