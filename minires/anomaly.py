"""detect_anomaly: who made the first NaN or Inf, on the way forward or on the way back."""

from contextlib import ContextDecorator

import numpy as np

from .errors import AnomalyError
from .tensor import set_watcher


class detect_anomaly(ContextDecorator):
    """Inside, the first operation whose output or gradients are not finite raises AnomalyError.

    The error names the operation, the module it belongs to, and the range of everything that went in. Both passes are
    watched: run backward() inside too. Every array is looked at, which costs about as much as a pass of additions.

    >>> from minires import Tensor, functional as F
    >>> with detect_anomaly(), np.errstate(divide="ignore"):
    ...     F.log(Tensor(np.array([1.0, 0.0])))
    Traceback (most recent call last):
        ...
    minires.errors.AnomalyError: forward of log: 1 Inf in the output (2,); went in: input (2,) from 0 to 1
    """

    def __init__(self):
        self.before = []  # a stack: one decorated function may call itself
        self.modules = []  # those being called, from the outside in
        self.names = {}  # id(module) -> its path in the outermost one

    def __enter__(self):
        self.before.append(set_watcher(self))
        return self

    def __exit__(self, *exc):
        set_watcher(self.before.pop())

    # --- what the tape and the modules report

    def enter(self, module):
        """``module`` is being called."""
        if not self.modules:
            self.names = {id(m): name for name, m in module.named_modules()}
        self.modules.append(module)

    def leave(self):
        """The innermost module has returned, or raised."""
        self.modules.pop()

    def forward(self, op, inputs, y):
        """``op`` made the tensor y out of the tensors ``inputs``."""
        op.place = (self._path(), self.modules[0] if self.modules else None)
        if not all_finite(y.data):
            raise _error("forward", op, inputs, f"{count(y.data)} in the output {y.shape}")

    def backward(self, op, dy, gradients):
        """``op`` made the gradients of its inputs out of dy, that of its output."""
        for i, dx in enumerate(gradients):
            if dx is not None and not all_finite(dx):
                of = _names(op, op.inputs)[i]
                raise _error("backward", op, op.inputs, f"{count(dx)} in the gradient {dx.shape} of {of}", dy)

    def _path(self):
        """Where in the outermost module this is: ``layer1.0.conv1``; the outermost one itself by its class."""
        if not self.modules:
            return ""
        for module in reversed(self.modules):  # one that is no attribute of another has no name
            if self.names.get(id(module)):
                return self.names[id(module)]
        return type(self.modules[0]).__name__


def all_finite(array):
    """Whether an array has neither NaN nor Inf; integers never have. A sum that is finite is proof, and cheap."""
    if array.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def count(array):
    """How many NaN and Inf an array holds.

    >>> count(np.array([1.0, np.nan, -np.inf, np.nan]))
    '2 NaN and 1 Inf'
    """
    found = [(int(np.isnan(array).sum()), "NaN"), (int(np.isinf(array).sum()), "Inf")]
    return " and ".join(f"{n:,} {what}" for n, what in found if n)


def span(array):
    """Shape and range of an array.

    >>> span(np.array([1.0, np.nan, -2.5]))
    '(3,) from -2.5 to 1, with 1 NaN'
    """
    if array.dtype.kind != "f" or all_finite(array):
        return f"{array.shape} from {array.min():.4g} to {array.max():.4g}" if array.size else f"{array.shape}"
    finite = array[np.isfinite(array)]
    numbers = f" from {finite.min():.4g} to {finite.max():.4g}, with" if finite.size else ":"
    return f"{array.shape}{numbers} {count(array)}"


def _names(op, inputs):
    """What to call the inputs of an operation: parameters by their paths."""
    _, root = vars(op).get("place", ("", None))
    known = {id(p): name for name, p in root.named_parameters()} if root is not None else {}
    others = sum(id(x) not in known for x in inputs)
    return [known.get(id(x), "input" if others == 1 else f"input {i + 1}") for i, x in enumerate(inputs)]


def _error(phase, op, inputs, what, dy=None):
    path, _ = vars(op).get("place", ("", None))
    went_in = list(zip(_names(op, inputs), [x.data for x in inputs]))
    if dy is not None:
        went_in.append(("the output's gradient", dy))
    already = [name for name, array in went_in if not all_finite(array)]
    where = f" in {path}" if path else ""
    since = f" ({' and '.join(already)} had them already)" if already else ""
    spans = "; ".join(f"{name} {span(array)}" for name, array in went_in)
    return AnomalyError(f"{phase} of {op.name}{where}: {what}{since}; went in: {spans}", phase, op.name, path)
