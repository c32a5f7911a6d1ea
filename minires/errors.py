"""The exceptions of minires. A message names the cause, the values found and what to do."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

# What a terminal obeys, or shows in another order: C0, DEL and C1, line separators, bidirectional controls, half of a
# surrogate pair (a byte of a file name that is not UTF-8)
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, keep: str = "") -> str:
    """``str(text)`` with its control characters escaped, for a text that comes from a file or a path.

    keep: control characters that stay as they are.

    >>> print(printable("a\\x1b[2Jb\\u202ec"))
    a\\x1b[2Jb\\u202ec
    """
    return CONTROLS.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], str(text))


def brief(value: object, most: int = 100) -> str:
    """``repr(value)`` for a message about a value of any type and size: cut off after ``most`` characters.

    >>> brief("four"), brief([0] * 1000, most=8), brief(1 << 100_000)
    ("'four'", '[0, 0, 0 …', 'an int of more digits than Python prints')
    """
    try:
        text = repr(value)
    except ValueError:  # sys.set_int_max_str_digits
        inside = "" if isinstance(value, int) else f"{type(value).__name__} with an "
        return f"a {inside}int of more digits than Python prints".replace("a int", "an int")
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deep to print"
    return text if len(text) <= most else f"{text[:most]} …"


class MiniresError(Exception):
    """Base class of the exceptions that minires raises on purpose. The message is written for the user.

    Control characters in the message, which may quote a file or a path, are escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ShapeError(MiniresError, ValueError):
    """Shapes that do not fit together. Inside a model the message ends with the path of the module (``layer2.0.conv1``)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.module: Any = None  # the innermost nn.Module whose forward raised
        self.path = ""  # its path in the outermost module that was called

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} (in {printable(self.path)})" if self.path else message


class IndexShapeError(ShapeError, IndexError):
    """An index outside a tensor. Also an IndexError, which ends Python's loops over a tensor."""


class NoAxisError(ShapeError, TypeError):
    """A 0-d tensor where one with axes is needed. Also a TypeError, as Python raises for ``len(1.0)`` and ``iter(1.0)``."""


class DtypeError(MiniresError, TypeError):
    """Dtypes that are not supported, or do not fit together."""


class GraphError(MiniresError, RuntimeError):
    """A misuse of the autograd graph, such as a second backward() through freed buffers."""


class ConfigError(MiniresError, ValueError):
    """A setting that cannot work: an unknown name, a value out of range, more threads than there are."""


class DataError(MiniresError, ValueError):
    """A data set or checkpoint that is missing, truncated, corrupt or not what it claims to be."""


class CheckpointError(DataError):
    """A checkpoint whose metadata cannot be right. The message names the entry and what was found there."""


class ImageError(DataError):
    """A picture that cannot be read: not there, no image, damaged, or larger than is decoded. The message names the file."""


class WeightsError(DataError):
    """A file of weights that is missing, damaged, of another format, or does not fit the network.

    report: the ``interop.LoadReport`` that says what does not fit, or None.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class ExportError(MiniresError, ValueError):
    """A network that cannot be written in a format. The message names the operation, its module and the reason."""


class RunError(MiniresError, RuntimeError):
    """A training run that cannot continue as requested: its folder is in use, its disk full, its settings different."""


class AnomalyError(MiniresError, ArithmeticError):
    """A NaN or an Inf. The message names the operation that made it, its module and its inputs.

    phase: "forward" or "backward". op: the operation's name. path: the module's path, such as ``layer2.0.conv1``, or "".
    """

    def __init__(self, message: str, phase: str = "", op: str = "", path: str = "") -> None:
        super().__init__(message)
        self.phase, self.op, self.path = phase, op, path


def plural(count: int, noun: str) -> str:
    """A number with its noun.

    >>> plural(1, "epoch"), plural(2000, "epoch")
    ('1 epoch', '2,000 epochs')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def nearest(name: object, names: Iterable[str]) -> str:
    """The names most similar to ``name``, as text for an error message: `` (did you mean resnet20?)``; "" if there are none.

    >>> nearest("resnet2", ["resnet20", "plain56"])
    ' (did you mean resnet20?)'
    """
    found = difflib.get_close_matches(str(name), list(names), n=3)
    return f" (did you mean {', '.join(found)}?)" if found else ""
