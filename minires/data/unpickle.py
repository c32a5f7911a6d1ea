"""Read pickles of NumPy arrays and plain containers, and refuse all others before they can do anything.

A pickle is a program for a small stack machine. Two of its instructions import a name and call it, which is how a file can
run code. The machine here knows the instructions that build numbers, strings, lists, tuples and dicts, and the few names
that arrays are pickled with. It never imports those names, but builds arrays of numbers itself.

A few bytes can ask for much: an object that is used again costs one instruction, whatever its size. So a file of n bytes may
have MORE_WORK + n / BYTES_AN_INSTRUCTION instructions, each of which takes time in proportion to its argument alone, and
2 n bytes of arrays; keys of dicts, which are hashed and compared, are short; and containers are nested DEEPEST deep.
"""

import math
import re
import warnings
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
ARRAY = {(module, "_reconstruct") for module in MODULES}
BUFFER = {("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}
DTYPE, ENCODE, CLASS = ("numpy", "dtype"), ("_codecs", "encode"), ("numpy", "ndarray")
BYTES = ("__builtin__", "bytes")  # without arguments: how Python 3 writes b"" for Python 2
ADMITTED = {*ARRAY, *BUFFER, DTYPE, ENCODE, CLASS, BYTES}
NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
PLAIN = (bool, int, float, str, bytes, bytearray, type(None))
VALUES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT"),
    *("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MORE_WORK, BYTES_AN_INSTRUCTION = 20_000, 64  # a CIFAR file has one instruction in 700 bytes
DEEPEST = 20
LONGEST_KEY = 1000  # characters or bytes of a dict's key
MOST_AXES, LONGEST_AXIS = 32, 2**40  # of an array


class UnpicklingError(Exception):
    """A pickle that is refused; the message says why."""


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
    import pickletools  # here, since nothing else needs it

    start = file.tell()
    size = file.seek(0, 2) - start
    file.seek(start)
    machine, at = _Machine(size), 0
    try:
        with warnings.catch_warnings(action="ignore"):  # on escapes in strings that Python 2 knew
            for opcode, argument, position in pickletools.genops(file):
                at = position or 0
                machine.step(opcode.name, argument)
        after = file.read(1)
        if after:
            at += 1
            raise UnpicklingError("the pickle ends there, but the file goes on")
        return _plain(machine.stack.pop())
    except UnpicklingError as error:
        raise DataError(
            f"{where}, at byte {at:,}: {error}. minires reads NumPy arrays and plain containers out of a pickle, "
            "nothing else; get the file from its authors again"
        ) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{where} ({size:,} bytes) is a damaged pickle, cut short or none at all: {_short(error)} "
            f"(at byte {at:,} or after)"
        ) from error


class _Name(tuple):
    """A name that the pickle mentions: (module, name). Never imported."""

    __slots__ = ()


class _Array:
    """An array whose content comes with a later instruction; then its ``value``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray | None = None


class _Dtype:
    """A dtype, whose byte order may come with a later instruction."""

    __slots__ = ("value",)

    def __init__(self, value: np.dtype) -> None:
        self.value = value


class _Machine:
    """The stack machine: a stack, the marks in it, and the memo of objects that are used again. size: of the file, in bytes."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.instructions = MORE_WORK + size // BYTES_AN_INSTRUCTION  # that may still come
        self.bytes = 2 * size  # that may still be copied: twice, since text becomes bytes, and these an array

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction, as ``pickletools.genops`` yields it."""
        self.instructions -= 1
        if self.instructions < 0:
            raise UnpicklingError("it has more instructions than a file of arrays of this size needs")
        if name in VALUES:
            self.stack.append(FIXED.get(name, argument))
            return
        method = getattr(self, f"_{name.lower()}", None)
        if method is None:
            raise UnpicklingError(f"it holds the instruction {name}, which builds other objects")
        method(argument)

    def _proto(self, version: Any) -> None:
        pass

    _frame = _stop = _proto

    def _mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def _from_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _pop(self, _: object) -> None:
        self.stack.pop()

    def _pop_mark(self, _: object) -> None:
        self._from_mark()

    def _dup(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    # memo

    def _put(self, key: Any) -> None:
        self.memo[int(key)] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, key: Any) -> None:
        item = self.memo[int(key)]
        self.stack.append(item.value if type(item) is _Array and item.value is not None else item)

    _binget = _long_binget = _get

    # containers

    def _empty_list(self, _: object) -> None:
        self.stack.append([])

    def _empty_tuple(self, _: object) -> None:
        self.stack.append(())

    def _empty_dict(self, _: object) -> None:
        self.stack.append({})

    def _list(self, _: object) -> None:
        self.stack.append(self._from_mark())

    def _tuple(self, _: object) -> None:
        self.stack.append(tuple(self._from_mark()))

    def _dict(self, _: object) -> None:
        items = self._from_mark()
        self.stack.append({})
        self._fill(items)

    def _last(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError("an instruction finds too little on the stack")
        del self.stack[-count:]
        return items

    def _tuple1(self, _: object) -> None:
        self.stack.append(tuple(self._last(1)))

    def _tuple2(self, _: object) -> None:
        self.stack.append(tuple(self._last(2)))

    def _tuple3(self, _: object) -> None:
        self.stack.append(tuple(self._last(3)))

    def _append(self, _: object) -> None:
        (item,) = self._last(1)
        self._top(list).append(item)

    def _appends(self, _: object) -> None:
        items = self._from_mark()
        self._top(list).extend(items)

    def _setitem(self, _: object) -> None:
        self._fill(self._last(2))

    def _setitems(self, _: object) -> None:
        self._fill(self._from_mark())

    def _fill(self, items: list[Any]) -> None:
        """Set [key, value, key, value, …] in the dict on top of the stack."""
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ValueError(f"an instruction for a {kind.__name__} meets a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    # names and calls

    def _global(self, argument: Any) -> None:
        self._admit(*argument.split(" ", 1))

    def _stack_global(self, _: object) -> None:
        module, name = self._last(2)
        if type(module) is not str or type(name) is not str:
            raise UnpicklingError("it asks for a name that is not text")
        self._admit(module, name)

    def _admit(self, module: str, name: str) -> None:
        if (module, name) not in ADMITTED:
            raise UnpicklingError(f"it asks for {_short(f'{module}.{name}')}, which a file of arrays does not need")
        self.stack.append(_Name((module, name)))

    def _reduce(self, _: object) -> None:
        function, arguments = self._last(2)
        if type(function) is not _Name or type(arguments) is not tuple:
            raise UnpicklingError("it calls something that is not a function")
        if function in ARRAY:
            self.stack.append(_Array())
        elif function in BUFFER:
            data, dtype, shape, order = arguments
            self.stack.append(self._numbers(data, dtype, shape, _word(order) == "F"))
        elif function == DTYPE:
            self.stack.append(_dtype(arguments[0]))
        elif function == ENCODE and len(arguments) == 2 and _word(arguments[1]) in ("latin1", "latin-1"):
            self.stack.append(self._copy(arguments[0]))  # how Python 3 writes bytes for Python 2
        elif function == BYTES and not arguments:
            self.stack.append(b"")
        else:
            raise UnpicklingError(f"it calls {'.'.join(function)} in a way that builds no array")

    def _build(self, _: object) -> None:
        (state,) = self._last(1)
        unfinished = self.stack[-1]
        if type(unfinished) not in (_Array, _Dtype):
            raise UnpicklingError(f"it sets the state of a {type(unfinished).__name__}")
        if type(state) is not tuple or len(state) > MOST_AXES:
            raise UnpicklingError("it sets a state that is not an array's")
        if type(unfinished) is _Array:
            _, shape, dtype, fortran, data = state
            unfinished.value = self._numbers(data, dtype, shape, type(fortran) in (bool, int) and bool(fortran))
            self.stack[-1] = unfinished.value
        else:
            _, order, *fields = state
            byteorder: Any = _word(order)
            if byteorder not in ("<", ">", "|", "=") or any(field is not None for field in fields[:3]):
                raise UnpicklingError("it holds an array of something other than numbers")
            unfinished.value = unfinished.value.newbyteorder(byteorder)

    def _numbers(self, data: Any, dtype: Any, shape: Any, fortran: bool) -> NDArray:
        """The array of these bytes."""
        if type(dtype) is not _Dtype or not _is_shape(shape):
            raise UnpicklingError("it holds an array without a proper dtype and shape")
        if isinstance(data, list):
            raise UnpicklingError("it holds an array of objects")
        data = self._copy(data)
        if len(data) != math.prod(shape) * dtype.value.itemsize:
            raise UnpicklingError(f"it gives {len(data):,} bytes to an array of shape {shape} and dtype {dtype.value}")
        return np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C")

    def _copy(self, text: Any) -> bytes:
        """A text's or bytearray's bytes, within the limit on all of them together."""
        if type(text) not in (str, bytes, bytearray):
            raise UnpicklingError(f"it takes a {type(text).__name__} for the bytes of an array")
        self.bytes -= len(text)
        if self.bytes < 0:
            raise UnpicklingError("its arrays have more bytes than the file")
        return text.encode("latin-1") if isinstance(text, str) else bytes(text)


def _key(key: Any) -> Any:
    """``key``, if it is one that a dict finds at once. Raises UnpicklingError otherwise."""
    if (type(key) in (str, bytes) and len(key) <= LONGEST_KEY) or (type(key) is int and abs(key) < 2**31):
        return key
    raise UnpicklingError(
        f"it holds a dict with a key ({type(key).__name__}) that is neither a string of at most {LONGEST_KEY:,} characters "
        "nor a small integer"
    )


def _word(text: Any) -> str:
    """A short str or bytes as a str."""
    if type(text) not in (str, bytes, bytearray) or len(text) > 20:
        raise UnpicklingError("it describes an array in other words than NumPy")
    return text if isinstance(text, str) else text.decode("latin-1")


def _is_shape(shape: Any) -> bool:
    if type(shape) is not tuple or len(shape) > MOST_AXES:
        return False
    return all(type(n) is int and 0 <= n <= LONGEST_AXIS for n in shape)


def _dtype(code: Any) -> _Dtype:
    code = _word(code)
    if not NUMBERS.fullmatch(code):
        raise UnpicklingError(f"it holds an array of dtype {code!r}, which is not a number type")
    return _Dtype(np.dtype(code))


def _short(text: object) -> str:
    """A text for a message, cut where it is long."""
    text = str(text)
    return text if len(text) <= 200 else f"{text[:200]} …"


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
    if type(item) is _Array:
        return "it holds an array without content"
    if type(item) is _Name:
        return f"it holds the name {'.'.join(item)} by itself"
    return f"it holds a {'dtype' if type(item) is _Dtype else type(item).__name__} by itself"
