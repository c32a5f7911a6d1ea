"""Create tensors from arrays and numbers."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import DtypeError, ShapeError
from .kernels import to_channels_last
from .tensor import Tensor


def tensor(data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with a copy of ``data``: a number, a nested sequence, an ndarray or a Tensor.

    Python floats become float32; arrays keep their dtype; integers stay integers. Arrays with four axes are stored
    channels-last. Raises ShapeError for nested sequences of unequal length, DtypeError for dtypes that minires lacks.

    >>> tensor([1.0, 2.0]).dtype, tensor(np.zeros(2)).dtype, tensor([1, 2]).dtype
    (dtype('float32'), dtype('float64'), dtype('int64'))
    """
    array = data.data if isinstance(data, Tensor) else data
    keeps = isinstance(array, (np.ndarray, np.generic))
    try:
        array = np.array(array, dtype=dtype, order="K")
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ShapeError("tensor: the rows of the nested sequence differ in length: make them equal") from None
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"tensor: cannot hold {array.dtype}; minires has float32, float64, integers and booleans")
    if dtype is None and not keeps and array.dtype == np.float64:
        array = array.astype(np.float32)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        raise DtypeError(f"tensor: {array.dtype} is not supported; use float32 or float64")
    return Tensor(to_channels_last(array), requires_grad)


def from_numpy(array: NDArray) -> Tensor:
    """A Tensor that shares the memory of an ndarray: changes to one change the other. Raises DtypeError for anything else."""
    if not isinstance(array, np.ndarray):
        raise DtypeError(f"from_numpy: takes an ndarray, got {type(array).__name__}; mr.tensor(…) copies anything")
    return Tensor(array)
