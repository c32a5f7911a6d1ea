"""What is switched per thread: whether operations are recorded, and who watches them."""

import threading
from typing import Any

from .decorators import Decorator

_mode = threading.local()  # .recording: does Op.apply record?  .watcher: who looks at every array that goes by?


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread."""
    return getattr(_mode, "recording", True)


class _Recording(Decorator):
    """Sets whether operations are recorded, for the length of a ``with`` or of a decorated function."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = bool(enabled)
        self.before: list[bool] = []  # a stack: a context may be entered within itself

    def __enter__(self) -> None:
        self.before.append(is_grad_enabled())
        _mode.recording = self.enabled

    def __exit__(self, *exc: object) -> None:
        _mode.recording = self.before.pop()

    def _recreate_cm(self):  # of Decorator: every call of a decorated function, in whatever thread, has its own
        return _Recording(self.enabled)


class no_grad(_Recording):
    """Operations inside are not recorded: nothing is kept for a backward pass. A context manager and a decorator.

    >>> import minires as mr
    >>> with no_grad():
    ...     y = mr.tensor([1.0, 2.0], requires_grad=True) * 2
    >>> y.requires_grad
    False
    """

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_Recording):
    """Operations inside are recorded, even within ``no_grad``. A context manager and a decorator."""

    def __init__(self) -> None:
        super().__init__(True)


class set_grad_enabled(_Recording):
    """Record operations (True) or not (False): from here on in this thread, inside a ``with``, or in a decorated function."""

    def __init__(self, enabled: bool) -> None:
        super().__init__(enabled)
        super().__enter__()
        self.is_entered = True

    def __enter__(self) -> None:
        if not self.is_entered:  # as the constructor did for the first ``with``
            super().__enter__()
        self.is_entered = False

    def __call__(self, function: Any) -> Any:
        if self.is_entered:  # a decorator changes nothing before the function is called
            self.is_entered = False
            super().__exit__()
        return super().__call__(function)


def watcher() -> Any:
    """What looks at every operation of this thread (``minires.detect_anomaly``), or None."""
    return getattr(_mode, "watcher", None)


def set_watcher(watch: Any) -> Any:
    """Call ``watch.forward(op, inputs, y)`` and ``watch.backward(op, dy, grads)`` in this thread; returns the one before."""
    before, _mode.watcher = watcher(), watch
    return before
