"""Number types of weight files, under PyTorch's names, and how their bytes become arrays."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError


class Kind(NamedTuple):
    """code: NumPy's, of the numbers as they are stored; None for types that are refused. size: bytes of an element."""

    code: str | None
    size: int


KINDS = {
    "float64": Kind("f8", 8),
    "float32": Kind("f4", 4),
    "float16": Kind("f2", 2),
    "bfloat16": Kind("u2", 2),  # NumPy has none: the upper halves of float32 numbers
    "int64": Kind("i8", 8),
    "int32": Kind("i4", 4),
    "int16": Kind("i2", 2),
    "int8": Kind("i1", 1),
    "uint64": Kind("u8", 8),
    "uint32": Kind("u4", 4),
    "uint16": Kind("u2", 2),
    "uint8": Kind("u1", 1),
    "bool": Kind("?", 1),
    "complex32": Kind(None, 4),
    "complex64": Kind(None, 8),
    "complex128": Kind(None, 16),
    "float8_e4m3fn": Kind(None, 1),
    "float8_e4m3fnuz": Kind(None, 1),
    "float8_e5m2": Kind(None, 1),
    "float8_e5m2fnuz": Kind(None, 1),
    "float8_e8m0fnu": Kind(None, 1),
    "qint8": Kind(None, 1),
    "quint8": Kind(None, 1),
    "qint32": Kind(None, 4),
}
MOST_ELEMENTS = 2**56  # NumPy counts bytes in 63 bits, of empty arrays too


def damaged(what: str) -> WeightsError:
    """The error for a file that says what cannot be."""
    return WeightsError(f"{what}. The file is cut off or damaged: fetch it again")


def flat_array(content: memoryview, dtype: str, byteorder: str = "<") -> NDArray:
    """The numbers in these bytes: a read-only 1-d array that shares their memory; bfloat16 as uint16.

    byteorder: "<" or ">". Raises WeightsError for a dtype that is refused.
    """
    code = KINDS[dtype].code
    if code is None:
        raise WeightsError(
            f"it is of dtype {dtype}, which no weights here have: convert it to float32 and save it again"
        )
    return np.frombuffer(content, np.dtype(byteorder + code))


def widened(array: NDArray, dtype: str) -> NDArray:
    """The array with float16 and bfloat16 as float32, and in the machine's byte order; other arrays as they are."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "float16":
        return array.astype(np.float32)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def is_possible(shape: tuple[int, ...]) -> bool:
    """Whether NumPy can have an array of this shape, empty or not."""
    return len(shape) <= 32 and math.prod(max(n, 1) for n in shape) <= MOST_ELEMENTS
