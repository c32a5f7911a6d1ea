"""Read pickles of NumPy arrays and plain containers, and refuse all others before they can do anything.

The machine of ``machine.py``, with the few names that arrays are pickled with. It never imports those names, but
builds arrays of numbers itself.

A few bytes can ask for much. So a file of n bytes may have MORE_WORK + n / BYTES_AN_INSTRUCTION instructions, each of which
takes time in proportion to its argument alone, and 2 n bytes of arrays; and containers are nested DEEPEST deep.
"""

import math
import re
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .machine import DAMAGED, Machine, Name, UnpicklingError, short

MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
ARRAY = {(module, "_reconstruct") for module in MODULES}
BUFFER = {("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}
DTYPE, ENCODE, CLASS = ("numpy", "dtype"), ("_codecs", "encode"), ("numpy", "ndarray")
BYTES = ("__builtin__", "bytes")  # without arguments: how Python 3 writes b"" for Python 2
NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
PLAIN = (bool, int, float, str, bytes, bytearray, type(None))
MORE_WORK, BYTES_AN_INSTRUCTION = 20_000, 64  # a CIFAR file has one instruction in 700 bytes
DEEPEST = 20
MOST_AXES, LONGEST_AXIS = 32, 2**40  # of an array


def unpickle(file: IO[bytes], where: object) -> Any:
    """The object in a pickle: numbers, strings, lists, tuples, dicts and (read-only) ndarrays of numbers, nested in any way.

    file: a binary file. where: its name in messages. A str of Python 2 becomes a str, byte for byte. Raises DataError, with
    the offset, for anything else: other names and calls, a truncated file, bytes after the end, containers that hold
    themselves or are nested more than 20 deep, dicts with keys other than short strings and small integers, and more
    instructions or more bytes of arrays than a file of this size needs.

    >>> import io, pickle
    >>> unpickle(io.BytesIO(pickle.dumps({"labels": [3, 1]})), "memory")
    {'labels': [3, 1]}
    """
    start = file.tell()
    size = file.seek(0, 2) - start
    file.seek(start)
    machine = ArrayMachine(MORE_WORK + size // BYTES_AN_INSTRUCTION, size)
    try:
        value = machine.run(file)
        after = file.read(1)
        if after:
            machine.at += 1
            raise UnpicklingError("the pickle ends there, but the file goes on")
        return _plain(value)
    except UnpicklingError as error:
        raise DataError(
            f"{where}, at byte {machine.at:,}: {error}. minires reads NumPy arrays and plain containers out of a pickle, "
            "nothing else; get the file from its authors again"
        ) from None
    except DAMAGED as error:
        raise DataError(
            f"{where} ({size:,} bytes) is a damaged pickle, cut short or none at all: {short(error)} "
            f"(at byte {machine.at:,} or after)"
        ) from error


class Array:
    """An array whose content comes with a later instruction; then its ``value``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray | None = None


class Dtype:
    """A dtype, whose byte order may come with a later instruction."""

    __slots__ = ("value",)

    def __init__(self, value: np.dtype) -> None:
        self.value = value


class ArrayMachine(Machine):
    """The stack machine with arrays of NumPy. size: of the file, in bytes."""

    admitted = frozenset({*ARRAY, *BUFFER, DTYPE, ENCODE, CLASS, BYTES})

    def __init__(self, instructions: int, size: int) -> None:
        super().__init__(instructions)
        self.bytes = 2 * size  # that may still be copied: twice, since text becomes bytes, and these an array

    def finished(self, item: Any) -> Any:
        return item.value if type(item) is Array and item.value is not None else item

    def call(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        if function in ARRAY:
            return Array()
        if function in BUFFER:
            data, dtype, shape, order = arguments
            return self.numbers(data, dtype, shape, word(order) == "F")
        if function == DTYPE:
            return _dtype(arguments[0])
        if function == ENCODE and len(arguments) == 2 and word(arguments[1]) in ("latin1", "latin-1"):
            return self.copy(arguments[0])  # how Python 3 writes bytes for Python 2
        if function == BYTES and not arguments:
            return b""
        return super().call(function, arguments)

    def set_state(self, target: Any, state: Any) -> Any:
        if type(target) not in (Array, Dtype):
            return super().set_state(target, state)
        if type(state) is not tuple or len(state) > MOST_AXES:
            raise UnpicklingError("it sets a state that is not an array's")
        if type(target) is Array:
            _, shape, dtype, fortran, data = state
            target.value = self.numbers(data, dtype, shape, type(fortran) in (bool, int) and bool(fortran))
            return target.value
        _, order, *fields = state
        byteorder: Any = word(order)
        if byteorder not in ("<", ">", "|", "=") or any(field is not None for field in fields[:3]):
            raise UnpicklingError("it holds an array of something other than numbers")
        target.value = target.value.newbyteorder(byteorder)
        return target

    def numbers(self, data: Any, dtype: Any, shape: Any, fortran: bool) -> NDArray:
        """The array of these bytes."""
        if type(dtype) is not Dtype or not is_shape(shape):
            raise UnpicklingError("it holds an array without a proper dtype and shape")
        if isinstance(data, list):
            raise UnpicklingError("it holds an array of objects")
        data = self.copy(data)
        if len(data) != math.prod(shape) * dtype.value.itemsize:
            raise UnpicklingError(f"it gives {len(data):,} bytes to an array of shape {shape} and dtype {dtype.value}")
        return np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C")

    def copy(self, text: Any) -> bytes:
        """A text's or bytearray's bytes, within the limit on all of them together."""
        if type(text) not in (str, bytes, bytearray):
            raise UnpicklingError(f"it takes a {type(text).__name__} for the bytes of an array")
        self.bytes -= len(text)
        if self.bytes < 0:
            raise UnpicklingError("its arrays have more bytes than the file")
        return text.encode("latin-1") if isinstance(text, str) else bytes(text)


def word(text: Any) -> str:
    """A short str or bytes as a str."""
    if type(text) not in (str, bytes, bytearray) or len(text) > 20:
        raise UnpicklingError("it describes an array in other words than NumPy")
    return text if isinstance(text, str) else text.decode("latin-1")


def is_shape(shape: Any) -> bool:
    """Whether it is a tuple of few whole numbers from 0 up."""
    if type(shape) is not tuple or len(shape) > MOST_AXES:
        return False
    return all(type(n) is int and 0 <= n <= LONGEST_AXIS for n in shape)


def _dtype(code: Any) -> Dtype:
    code = word(code)
    if not NUMBERS.fullmatch(code):
        raise UnpicklingError(f"it holds an array of dtype {code!r}, which is not a number type")
    return Dtype(np.dtype(code))


def _plain(value: Any) -> Any:
    """``value``, if all its parts are finished, of permitted types and not nested too deep."""
    depths: dict[int, int] = {}  # of containers that have been looked into, by id
    left = [(value, 1)]
    while left:
        item, depth = left.pop()
        if isinstance(item, np.ndarray) or type(item) in PLAIN:
            continue
        if type(item) not in (list, tuple, dict):
            raise UnpicklingError(_unfit(item))
        if depth > DEEPEST:
            raise UnpicklingError(f"it holds containers that are nested more than {DEEPEST} deep, or hold themselves")
        if depths.get(id(item), 0) < depth:  # a container that is used again may be deeper there
            depths[id(item)] = depth
            parts = item.values() if type(item) is dict else item
            left.extend((part, depth + 1) for part in parts if type(part) not in PLAIN)
    return value


def _unfit(item: Any) -> str:
    """Why ``item`` is refused."""
    if type(item) is Array:
        return "it holds an array without content"
    if type(item) is Name:
        return f"it holds the name {'.'.join(item)} by itself"
    return f"it holds a {type(item).__name__.lower()} by itself"
