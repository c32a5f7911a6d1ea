"""Whether convolutions may go Winograd's way: the switch alone, so that importing it compiles nothing and needs no Numba."""

import threading
from contextlib import ContextDecorator

_mode = threading.local()


class winograd(ContextDecorator):
    """``with winograd(False):`` computes every convolution directly. A context manager and a decorator.

    Winograd's way computes 3×3 convolutions of stride 1 with 4 times fewer multiplications, and rounds differently
    (``kernels/winograd.py`` says how much). On, it is taken where the committed table says that it is faster on this
    target (``kernels/winograd_table.py``); the switch is this thread's.

    >>> with winograd(False):
    ...     uses_winograd()
    False
    """

    def __init__(self, enabled=True):
        self.enabled = bool(enabled)
        self.before = []

    def __enter__(self):
        self.before.append(uses_winograd())
        _mode.winograd = self.enabled

    def __exit__(self, *exc):
        _mode.winograd = self.before.pop()


def uses_winograd():
    """Whether convolutions of this thread may go Winograd's way."""
    return getattr(_mode, "winograd", True)
