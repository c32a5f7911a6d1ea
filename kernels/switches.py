"""Per-thread switches, and the one for the Winograd algorithm. Importing this compiles nothing and needs no Numba."""

import threading

from ..decorators import Decorator

_mode = threading.local()


class Switch(Decorator):
    """Turns a feature on or off in this thread, for a ``with`` block or a decorated function. One subclass per feature."""

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = bool(enabled)
        self.before: list[bool] = []  # a stack: a context may be nested in itself

    @classmethod
    def is_on(cls) -> bool:
        """Whether the feature is on in this thread. It is on by default."""
        return getattr(_mode, cls.__name__, True)

    def __enter__(self):
        self.before.append(self.is_on())
        setattr(_mode, type(self).__name__, self.enabled)

    def __exit__(self, *exc):
        setattr(_mode, type(self).__name__, self.before.pop())

    def _recreate_cm(self):  # for Decorator: each call of a decorated function gets its own instance
        return type(self)(self.enabled)


class winograd(Switch):
    """``with winograd(False):`` computes every convolution directly. A context manager and a decorator.

    The Winograd algorithm computes 3×3 convolutions of stride 1 with 4 times fewer multiplications. Its rounding errors
    are larger (``kernels/convolution/winograd.py`` gives figures). When on, it is used where the committed table says that
    it is faster on this CPU target (``kernels/convolution/winograd_table.py``). The switch is per thread.

    >>> with winograd(False):
    ...     uses_winograd()
    False
    """


def uses_winograd() -> bool:
    """Whether convolutions in this thread may use the Winograd algorithm."""
    return winograd.is_on()
