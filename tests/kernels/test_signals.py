"""Signals that arrive while LLVM works are not lost, and progress is shown."""

import ctypes
import io
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minires.kernels.runtime import progress, signals

ROOT = Path(__file__).parents[2]


@pytest.fixture
def callback():
    """A C function that calls Python code, in which a Ctrl-C arrives, as LLVM does."""
    return ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))


def test_a_ctrl_c_in_a_callback_is_kept(callback):
    after = []

    def work():
        with signals.held_back():
            callback()
            after.append("the block ends first")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert after
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_is_delivered_between_two_kernels(callback):
    after = []

    def work():
        with signals.held_back():
            with signals.held_back():  # the inner one neither holds nor delivers anything
                callback()
            after.append("inner block")
            signals.deliver()
            after.append("deliver() raises")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert after == ["inner block"]
    assert not signals._handlers
    assert not signals._caught


def test_a_handler_that_does_not_raise_is_called_once(monkeypatch):
    called = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    try:
        with signals.held_back():
            signal.raise_signal(signal.SIGTERM)
            assert called == []
            signals.deliver()
            signals.deliver()
        assert called == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_changes_handlers_has_its_way():
    """The first signal of `minires train` asks for an orderly end, and sets the handlers for the second."""
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, before))
    try:
        with signals.held_back():
            signal.raise_signal(signal.SIGTERM)
            signals.deliver()
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_signal_after_a_handler_that_puts_the_systems_back():
    """The second one of `minires train` ends it as the system would: that is no function to be called."""
    script = """
import signal
from minires.kernels.runtime import signals
signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))
with signals.held_back():
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
"""
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (-signal.SIGTERM, "")


def test_other_threads_hold_nothing():
    held = []

    def run():
        with signals.held_back():
            held.append(dict(signals._handlers))
            signals.deliver()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert held == [{}]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_terminal_is_one_line_that_goes(monkeypatch):
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(sys, "__stderr__", out)
    progress.show(3, 74)
    progress.show(80, 74)
    progress.end()
    _, third, fourth, blank, end = out.getvalue().split("\r")
    assert blank.strip() == ""
    assert third.rstrip() == "minires: 3 of 74 kernels compiled"
    assert fourth.rstrip() == "minires: 74 of 74 kernels compiled"  # never more
    assert end == ""
    assert "\n" not in out.getvalue()


def test_progress_elsewhere_is_a_line_now_and_then(monkeypatch):
    out = io.StringIO()
    now = [100.0]
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    progress.begin()
    for done in range(30):
        now[0] += 1
        progress.show(done)
    progress.end()
    assert out.getvalue() == "".join(f"minires: {done} kernels compiled\n" for done in (9, 19, 29))


def test_progress_is_handed_over(capsys):
    seen = []
    with progress.reported_to(lambda done, total: seen.append((done, total))):
        progress.show(1, 2)
        progress.end()
    assert seen == [(1, 2)]
    assert capsys.readouterr().err == ""
    assert progress._report is None
