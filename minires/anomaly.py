"""detect_anomaly: find the operation that made the first NaN or Inf, in the forward or the backward pass."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .decorators import Decorator
from .errors import AnomalyError
from .grad_mode import set_watcher
from .tensor import Op, Tensor


class detect_anomaly(Decorator):
    """Inside, the first operation whose output or gradients are not finite raises AnomalyError. PyTorch's name.

    The error names the operation, the module it belongs to, and the shape and range of its inputs. Call backward() inside
    too, so that its gradients are checked. Each array is summed once, which costs about as much as adding two arrays.

    >>> from minires import Tensor, functional as F
    >>> with detect_anomaly(), np.errstate(divide="ignore"):
    ...     F.log(Tensor(np.array([1.0, 0.0])))
    Traceback (most recent call last):
        ...
    minires.errors.AnomalyError: forward of log: 1 Inf in the output (2,); went in: input (2,) from 0 to 1
    """

    def __init__(self) -> None:
        self.before: list[Any] = []  # a stack: a decorated function may call itself
        self.modules: list[Any] = []  # those being called, outermost first
        self.names: dict[int, str] = {}  # id(module) -> its path in the outermost module

    def __enter__(self) -> Self:
        self.before.append(set_watcher(self))
        return self

    def __exit__(self, *exc: object) -> None:
        set_watcher(self.before.pop())

    # --- called by the tape and by modules

    def enter(self, module: Any) -> None:
        """``module`` is being called."""
        if not self.modules:
            self.names = {id(m): name for name, m in module.named_modules()}
        self.modules.append(module)

    def leave(self) -> None:
        """The innermost module has returned, or raised."""
        self.modules.pop()

    def forward(self, op: Op, inputs: Sequence[Tensor], y: Tensor) -> None:
        """``op`` computed the tensor y from the tensors ``inputs``."""
        vars(op)["called_in"] = (self.module_path(), self.modules[0] if self.modules else None)
        if not all_finite(y.data):
            raise _error("forward", op, inputs, f"{describe_nonfinite(y.data)} in the output {y.shape}")

    def backward(self, op: Op, dy: NDArray, gradients: Sequence[NDArray | None]) -> None:
        """``op`` computed the gradients of its inputs from dy, the gradient of its output."""
        for i, dx in enumerate(gradients):
            if dx is not None and not all_finite(dx):
                of = _names(op, op.inputs)[i]
                raise _error(
                    "backward", op, op.inputs, f"{describe_nonfinite(dx)} in the gradient {dx.shape} of {of}", dy
                )

    def module_path(self) -> str:
        """The path of the innermost module being called: ``layer1.0.conv1``, or the class name of the outermost one."""
        if not self.modules:
            return ""
        for module in reversed(self.modules):  # a module that is no attribute of another has none
            if self.names.get(id(module)):
                return self.names[id(module)]
        return type(self.modules[0]).__name__


def all_finite(array: NDArray) -> bool:
    """Whether an array has neither NaN nor Inf; integer arrays never have. A finite sum is a cheap proof."""
    if array.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def describe_nonfinite(array: NDArray) -> str:
    """The numbers of NaN and Inf in an array, in words.

    >>> describe_nonfinite(np.array([1.0, np.nan, -np.inf, np.nan]))
    '2 NaN and 1 Inf'
    """
    found = [(int(np.isnan(array).sum()), "NaN"), (int(np.isinf(array).sum()), "Inf")]
    return " and ".join(f"{n:,} {what}" for n, what in found if n)


def describe(array: NDArray) -> str:
    """The shape and range of an array, in words.

    >>> describe(np.array([1.0, np.nan, -2.5]))
    '(3,) from -2.5 to 1, with 1 NaN'
    """
    if array.dtype.kind != "f" or all_finite(array):
        return f"{array.shape} from {array.min():.4g} to {array.max():.4g}" if array.size else f"{array.shape}"
    finite = array[np.isfinite(array)]
    numbers = f" from {finite.min():.4g} to {finite.max():.4g}, with" if finite.size else ":"
    return f"{array.shape}{numbers} {describe_nonfinite(array)}"


def recorded_path(op: Op) -> str:
    """The path of the module that ``op`` was called in, as detect_anomaly noted it in the forward pass, or ""."""
    return _called_in(op)[0]


def _called_in(op: Op) -> tuple[str, Any]:
    """(path of the module that ``op`` was called in, the outermost module), or ("", None) where that is not known."""
    return vars(op).get("called_in", ("", None))


def _names(op: Op, inputs: Sequence[Tensor]) -> list[str]:
    """Names for the inputs of an operation: parameters are named by their paths."""
    _, root = _called_in(op)
    known = {id(p): name for name, p in root.named_parameters()} if root is not None else {}
    others = sum(id(x) not in known for x in inputs)
    return [known.get(id(x), "input" if others == 1 else f"input {i + 1}") for i, x in enumerate(inputs)]


def _error(phase: str, op: Op, inputs: Sequence[Tensor], what: str, dy: NDArray | None = None) -> AnomalyError:
    path, _ = _called_in(op)
    went_in = list(zip(_names(op, inputs), [x.data for x in inputs]))
    if dy is not None:
        went_in.append(("the output's gradient", dy))
    already = [name for name, array in went_in if not all_finite(array)]
    where = f" in {path}" if path else ""
    since = f" ({' and '.join(already)} had them already)" if already else ""
    spans = "; ".join(f"{name} {describe(array)}" for name, array in went_in)
    return AnomalyError(f"{phase} of {op.name}{where}: {what}{since}; went in: {spans}", phase, op.name, path)
