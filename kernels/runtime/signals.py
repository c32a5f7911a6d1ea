"""Holds signals back while LLVM works.

LLVM calls Python functions from which no exception gets out. Python runs a signal's handler as soon as any Python code runs,
which after seconds of compiling is such a function: a KeyboardInterrupt raised there would be printed and forgotten.
"""

import signal
import threading
from contextlib import contextmanager
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no hang-up
_handlers: dict[int, Any] = {}  # those that are held back, by the signals' numbers
_caught: list[int] = []  # signals that have arrived meanwhile


@contextmanager
def held_back():
    """Inside, signals wait for the end of the block or for ``deliver()``, in the main thread, which alone runs handlers."""
    if _handlers or threading.current_thread() is not threading.main_thread():
        yield
        return
    _hold()
    try:
        yield
    finally:
        _release()


def deliver():
    """Run the handlers of signals that are held back, at a place where they may raise."""
    if _caught and threading.current_thread() is threading.main_thread():
        try:
            _release()
        finally:
            _hold()  # a handler may have changed the handlers


def _hold():
    for name in _NAMES:
        number = getattr(signal, name, None)
        handler = number and signal.getsignal(number)
        if callable(handler):
            _handlers[number] = handler
            signal.signal(number, lambda number, _: _caught.append(number))


def _release():
    for number, handler in _handlers.items():
        signal.signal(number, handler)
    _handlers.clear()
    while _caught:
        number = _caught.pop(0)
        handler = signal.getsignal(number)
        if callable(handler):
            handler(number, None)
        else:  # the handler of an earlier signal has put the system's back
            signal.raise_signal(number)
