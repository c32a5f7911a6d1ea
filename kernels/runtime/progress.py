"""What a user sees while kernels are compiled. The command line hands over a display of its own (``reported_to``)."""

import sys
import time
from contextlib import contextmanager

WIDTH = 50  # columns of the line in a terminal
PLAIN_EVERY = 10.0  # seconds between two lines outside a terminal

_report = None  # the function of ``reported_to``
_printed = 0.0


@contextmanager
def reported_to(report):
    """Inside, call report(done, total) in place of printing. total: how many kernels there are to compile, or None."""
    global _report
    before, _report = _report, report
    try:
        yield
    finally:
        _report = before


def show(done, total=None):
    """Print how many kernels are compiled: a line that changes in a terminal, a line now and then elsewhere."""
    global _printed
    if _report is not None:
        _report(done, total)
        return
    text = (
        f"minires: {done} kernels compiled"
        if total is None
        else f"minires: {min(done, total)} of {total} kernels compiled"
    )
    if _is_terminal():
        print(f"\r{text:{WIDTH}}", end="", file=sys.stderr, flush=True)
    elif time.monotonic() - _printed >= PLAIN_EVERY:
        _printed = time.monotonic()
        print(text, file=sys.stderr, flush=True)


def begin():
    """The next line outside a terminal is due in PLAIN_EVERY seconds."""
    global _printed
    _printed = time.monotonic()


def end():
    """Erase the line in a terminal."""
    if _report is None and _is_terminal():
        print(f"\r{'':{WIDTH}}\r", end="", file=sys.stderr, flush=True)


def _is_terminal():
    # Not if something stands in for standard error, such as a library that draws below the output.
    return sys.stderr is not None and sys.stderr is sys.__stderr__ and sys.stderr.isatty()
