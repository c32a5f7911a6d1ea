"""Read pickles of NumPy arrays and plain containers, and refuse all others before they can do anything.

A pickle is a program for a small stack machine. Two of its instructions import a name and call it, which is how a file can
run code. The machine here knows the instructions that build numbers, strings, lists, tuples and dicts, and the few names
that arrays are pickled with. It never imports those names, but builds arrays of numbers itself.
"""

import math
import re
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


class UnpicklingError(Exception):
    """A pickle that is refused; the message says why."""


def unpickle(file: IO[bytes], where: object) -> Any:
    """The object in a pickle: numbers, strings, lists, tuples, dicts and (read-only) ndarrays of numbers, nested in any way.

    file: a binary file. where: its name in messages. A str of Python 2 becomes a str, byte for byte. Raises DataError, with
    the offset, for anything else: other names and calls, a truncated file, bytes after the end.

    >>> import io, pickle
    >>> unpickle(io.BytesIO(pickle.dumps({"labels": [3, 1]})), "memory")
    {'labels': [3, 1]}
    """
    import pickletools  # here, since nothing else needs it

    machine, at = _Machine(), 0
    try:
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
        size = file.seek(0, 2)
        raise DataError(
            f"{where} ({size:,} bytes) is a damaged pickle, cut short or none at all: {error} (at byte {at:,} or after)"
        ) from error


class _Name(tuple):
    """A name that the pickle mentions: (module, name). Never imported."""

    __slots__ = ()


class _Array:
    """A placeholder for an array whose content comes with a later instruction."""

    __slots__ = ()


class _Machine:
    """The stack machine: a stack, the marks in it, and the memo of objects that are used again."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction, as ``pickletools.genops`` yields it."""
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
        self.stack.append(self.memo[int(key)])

    _binget = _long_binget = _get

    def _replace(self, new: Any) -> None:
        """Replace the unfinished object on top of the stack by the finished one, in the memo too."""
        old, self.stack[-1] = self.stack[-1], new
        for key, value in self.memo.items():
            if value is old:
                self.memo[key] = new

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
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

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
        key, value = self._last(2)
        self._top(dict)[key] = value

    def _setitems(self, _: object) -> None:
        items = self._from_mark()
        self._top(dict).update(zip(items[::2], items[1::2], strict=True))

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ValueError(f"an instruction for a {kind.__name__} meets a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    # names and calls

    def _global(self, argument: Any) -> None:
        self._admit(*argument.split(" ", 1))

    def _stack_global(self, _: object) -> None:
        self._admit(*self._last(2))

    def _admit(self, module: str, name: str) -> None:
        if (module, name) not in ADMITTED:
            raise UnpicklingError(f"it asks for {module}.{name}, which a file of arrays does not need")
        self.stack.append(_Name((module, name)))

    def _reduce(self, _: object) -> None:
        function, arguments = self._last(2)
        if type(function) is not _Name or type(arguments) is not tuple:
            raise UnpicklingError("it calls something that is not a function")
        if function in ARRAY:
            self.stack.append(_Array())
        elif function in BUFFER:
            data, dtype, shape, order = arguments
            self.stack.append(_array(data, dtype, shape, order == "F"))
        elif function == DTYPE:
            self.stack.append(_dtype(arguments[0]))
        elif function == ENCODE and arguments[1:] in (("latin1",), ("latin-1",)):  # how Python 3 writes bytes for 2
            self.stack.append(_bytes(arguments[0]))
        elif function == BYTES and not arguments:
            self.stack.append(b"")
        else:
            raise UnpicklingError(f"it calls {'.'.join(function)} in a way that builds no array")

    def _build(self, _: object) -> None:
        (state,) = self._last(1)
        unfinished = self.stack[-1]
        if type(unfinished) is _Array:
            _, shape, dtype, fortran, data = state
            self._replace(_array(data, dtype, shape, fortran))
        elif isinstance(unfinished, np.dtype):
            _, order, *fields = state
            byteorder: Any = _bytes(order).decode()
            if byteorder not in ("<", ">", "|", "=") or any(field is not None for field in fields[:3]):
                raise UnpicklingError("it holds an array of something other than numbers")
            self._replace(unfinished.newbyteorder(byteorder))
        else:
            raise UnpicklingError(f"it sets the state of a {type(unfinished).__name__}")


def _bytes(text: Any) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else bytes(memoryview(text))


def _dtype(code: Any) -> np.dtype:
    code = _bytes(code).decode("latin-1")
    if not NUMBERS.fullmatch(code):
        raise UnpicklingError(f"it holds an array of dtype {code!r}, which is not a number type")
    return np.dtype(code)


def _array(data: Any, dtype: Any, shape: Any, fortran: Any) -> NDArray:
    if not isinstance(dtype, np.dtype) or type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
        raise UnpicklingError("it holds an array without a proper dtype and shape")
    if isinstance(data, list):
        raise UnpicklingError("it holds an array of objects")
    data = _bytes(data)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise UnpicklingError(f"it gives {len(data):,} bytes to an array of shape {shape} and dtype {dtype}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _plain(value: Any) -> Any:
    """``value``, if all its parts are finished and of permitted types."""
    seen, left = set(), [value]
    while left:
        item = left.pop()
        if isinstance(item, np.ndarray) or type(item) in PLAIN:
            continue
        if type(item) not in (list, tuple, dict):
            if type(item) is _Array:
                raise UnpicklingError("it holds an array without content")
            what = f"the name {'.'.join(item)}" if type(item) is _Name else f"a {type(item).__name__}"
            raise UnpicklingError(f"it holds {what} by itself")
        if id(item) not in seen:  # a list may hold itself
            seen.add(id(item))
            left.extend(item)
            if type(item) is dict:
                left.extend(item.values())
    return value
