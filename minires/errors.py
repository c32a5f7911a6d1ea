"""What minires says when something is wrong: the cause, the values seen, the way out."""

import difflib


class MiniresError(Exception):
    """Base of every error that minires raises on purpose. The message is written for the user."""


class ShapeError(MiniresError, ValueError):
    """Shapes that do not fit. Inside a model the message ends with the path of the module (``layer2.0.conv1``)."""

    def __init__(self, message):
        super().__init__(message)
        self.module = None  # the innermost nn.Module whose forward raised
        self.path = ""  # its name, as seen from the outermost module that was called

    def __str__(self):
        return f"{self.args[0]} (in {self.path})" if self.path else self.args[0]


class IndexShapeError(ShapeError, IndexError):
    """An index outside a tensor: also an IndexError, so that Python's own loops over a tensor end."""


class DtypeError(MiniresError, TypeError):
    """Arrays whose dtypes do not go together."""


class GraphError(MiniresError, RuntimeError):
    """A misuse of the autograd graph, such as a second backward() over freed buffers."""


class ConfigError(MiniresError, ValueError):
    """A setting that cannot work: an unknown name, a value out of range, a thread count the machine does not have."""


class DataError(MiniresError, ValueError):
    """A dataset that is missing, truncated, corrupt or not what it claims to be."""


class RunError(MiniresError, RuntimeError):
    """A training run that cannot go on as asked: its folder is in use, its disk is full, its settings are others."""


class AnomalyError(MiniresError, ArithmeticError):
    """A NaN or an Inf. The message says which operation made it, in which module, out of what.

    phase: "forward" or "backward". op: the operation's name. path: the module's, as in ``layer2.0.conv1``, or "".
    """

    def __init__(self, message, phase="", op="", path=""):
        super().__init__(message)
        self.phase, self.op, self.path = phase, op, path


def nearest(name, names):
    """The end of a sentence that offers the names nearest to ``name``: `` (did you mean resnet20?)``, or nothing.

    >>> nearest("resnet2", ["resnet20", "plain56"])
    ' (did you mean resnet20?)'
    """
    found = difflib.get_close_matches(str(name), list(names), n=3)
    return f" (did you mean {', '.join(found)}?)" if found else ""
