"""Switches, among them whether convolutions may go Winograd's way. Importing this compiles nothing and needs no Numba."""

import threading
from contextlib import ContextDecorator

_mode = threading.local()


class Switch(ContextDecorator):
    """Sets a thing on or off in this thread, for the length of a ``with`` or of a decorated function. A subclass a thing."""

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = bool(enabled)
        self.before = []  # a stack: a context may be entered within itself

    @classmethod
    def is_on(cls) -> bool:
        """Whether it is on in this thread; it is until somebody says otherwise."""
        return getattr(_mode, cls.__name__, True)

    def __enter__(self):
        self.before.append(self.is_on())
        setattr(_mode, type(self).__name__, self.enabled)

    def __exit__(self, *exc):
        setattr(_mode, type(self).__name__, self.before.pop())

    def _recreate_cm(self):  # of ContextDecorator: every call of a decorated function, in whatever thread, has its own
        return type(self)(self.enabled)


class winograd(Switch):
    """``with winograd(False):`` computes every convolution directly. A context manager and a decorator.

    Winograd's way computes 3×3 convolutions of stride 1 with 4 times fewer multiplications, and rounds differently
    (``kernels/winograd.py`` says how much). On, it is taken where the committed table says that it is faster on this
    target (``kernels/winograd_table.py``); the switch is this thread's.

    >>> with winograd(False):
    ...     uses_winograd()
    False
    """


def uses_winograd() -> bool:
    """Whether convolutions of this thread may go Winograd's way."""
    return winograd.is_on()
