"""The stack machine of pickles: its instructions for plain values and containers, which run nothing.

A pickle is a program for a small stack machine. Two of its instructions import a name and call it, which is how a file can
run code. The machine here knows the instructions that build numbers, strings, lists, tuples and dicts. Names are pushed as
what they are, two texts, if a subclass admits them; they are never imported. What calling one of them stands for, a subclass
builds itself: arrays of NumPy (``arrays.py``), tensors of PyTorch (``minires/interop``).

Each instruction takes time and memory in proportion to its argument alone, and a limit on their number is given: an object
that is used again costs one instruction, whatever its size. Keys of dicts, which are hashed and compared, are short.
"""

import threading
import warnings
from typing import IO, Any

VALUES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT"),
    *("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
QUIET = threading.Lock()  # two threads that change and restore the filters of warnings may leave them changed
LONGEST_KEY = 1000  # characters or bytes of a dict's key
DAMAGED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)  # what damage makes of a pickle


class UnpicklingError(Exception):
    """A pickle that is refused; the message says why."""


class Name(tuple):
    """A name that the pickle mentions: (module, name). Never imported."""

    __slots__ = ()


class Machine:
    """A stack, the marks in it, and the memo of objects that are used again. instructions: that a pickle may have at most.

    A subclass sets ``admitted``, the names that a pickle may mention, and defines ``call`` and ``set_state``.
    """

    admitted: frozenset[tuple[str, str]] = frozenset()

    def __init__(self, instructions: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.instructions = instructions  # that may still come
        self.at = 0  # the position of the last instruction in the file

    def run(self, file: IO[bytes]) -> Any:
        """The object in the pickle that begins at the file's position, and ends before its new position.

        Raises UnpicklingError for what is refused, and one of DAMAGED where the instructions make no sense.
        """
        import pickletools  # here, since nothing else needs it

        with QUIET, warnings.catch_warnings(action="ignore"):  # on escapes in strings that Python 2 knew
            for opcode, argument, position in pickletools.genops(file):
                self.at = position or 0
                self.step(opcode.name, argument)
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction, as ``pickletools.genops`` yields it."""
        self.spend(1)
        if name in VALUES:
            self.stack.append(FIXED.get(name, argument))
            return
        method = getattr(self, f"_{name.lower()}", None)
        if method is None:
            raise UnpicklingError(f"it holds the instruction {name}, which builds other objects")
        method(argument)

    def spend(self, steps: int) -> None:
        """Count so many instructions, or steps that take as long. Raises UnpicklingError beyond the limit."""
        self.instructions -= steps
        if self.instructions < 0:
            raise UnpicklingError("it has more instructions than a file of arrays of this size needs")

    def call(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        """The object that this call of an admitted name stands for."""
        raise UnpicklingError(f"it calls {'.'.join(function)} in a way that builds no array")

    def set_state(self, target: Any, state: Any) -> Any:
        """``target``, an object of the stack, when its state has been set."""
        raise UnpicklingError(f"it sets the state of a {type(target).__name__}")

    def finished(self, item: Any) -> Any:
        """``item`` of the memo, or what has become of it since."""
        return item

    def refusal(self, opcode: str, module: str, name: str) -> str:
        """Why the name is not admitted."""
        return f"it asks for {short(f'{module}.{name}')}, which a file of arrays does not need"

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
        self.stack.append(self.finished(self.memo[int(key)]))

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

    def last(self, count: int) -> list[Any]:
        """Take so many objects off the stack."""
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError("an instruction finds too little on the stack")
        del self.stack[-count:]
        return items

    def _tuple1(self, _: object) -> None:
        self.stack.append(tuple(self.last(1)))

    def _tuple2(self, _: object) -> None:
        self.stack.append(tuple(self.last(2)))

    def _tuple3(self, _: object) -> None:
        self.stack.append(tuple(self.last(3)))

    def _append(self, _: object) -> None:
        (item,) = self.last(1)
        self._top(list).append(item)

    def _appends(self, _: object) -> None:
        items = self._from_mark()
        self._top(list).extend(items)

    def _setitem(self, _: object) -> None:
        self._fill(self.last(2))

    def _setitems(self, _: object) -> None:
        self._fill(self._from_mark())

    def _fill(self, items: list[Any]) -> None:
        """Set [key, value, key, value, …] in the dict on top of the stack."""
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ValueError(f"an instruction for a {kind.__name__} meets a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    # names and calls

    def _global(self, argument: Any) -> None:
        self._admit("GLOBAL", *argument.split(" ", 1))

    def _stack_global(self, _: object) -> None:
        module, name = self.last(2)
        if type(module) is not str or type(name) is not str:
            raise UnpicklingError("it asks for a name that is not text")
        self._admit("STACK_GLOBAL", module, name)

    def _admit(self, opcode: str, module: str, name: str) -> None:
        if (module, name) not in self.admitted:
            raise UnpicklingError(self.refusal(opcode, module, name))
        self.stack.append(Name((module, name)))

    def _reduce(self, _: object) -> None:
        function, arguments = self.last(2)
        if type(function) is not Name or type(arguments) is not tuple:
            raise UnpicklingError("it calls something that is not a function")
        self.stack.append(self.call(function, arguments))

    def _build(self, _: object) -> None:
        (state,) = self.last(1)
        self.stack[-1] = self.set_state(self.stack[-1], state)


def checked_key(key: Any) -> Any:
    """``key``, if it is one that a dict finds at once. Raises UnpicklingError otherwise."""
    if (type(key) in (str, bytes) and len(key) <= LONGEST_KEY) or (type(key) is int and abs(key) < 2**31):
        return key
    raise UnpicklingError(
        f"it holds a dict with a key ({type(key).__name__}) that is neither a string of at most {LONGEST_KEY:,} characters "
        "nor a small integer"
    )


def short(text: object) -> str:
    """A text for a message, cut where it is long."""
    text = str(text)
    return text if len(text) <= 200 else f"{text[:200]} …"
