"""Busy processes: they compute when they are told to, and never outlive the benchmark, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import busy
from benchmarks.settings import Settings
from benchmarks.turns import ROOT, Peer, PeerError

# A benchmark that starts two of them, says which, and then waits, one busy and one at rest.
HOLDS = """
import time
from benchmarks.busy import COMMAND
from benchmarks.turns import Peer
peers = [Peer("busy", command=list(COMMAND)) for _ in range(2)]
for peer in peers:
    peer.start()
peers[0].ask(busy=True)
print(*(peer.process.pid for peer in peers), flush=True)
time.sleep(60)
"""


def lives(pid):
    """Whether a process runs or sleeps; one that has ended and waits to be asked for its exit code does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # ended since, or a system without /proc
        return not os.path.exists("/proc")


def wait_until_gone(pids):
    end = time.monotonic() + 10
    while any(map(lives, pids)):
        assert time.monotonic() < end, "a busy process outlived the benchmark"
        time.sleep(0.02)


@pytest.fixture
def asked():
    """What a benchmark asks of busy processes."""
    return []


@pytest.fixture
def started(monkeypatch, asked):
    """The busy processes that a benchmark starts."""
    found = []

    class Watched(Peer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            found.append(self.process)

        def send(self, **request):
            asked.append(request)
            super().send(**request)

    monkeypatch.setattr(busy, "Peer", Watched)
    return found


def used(run_or_rest, running, seconds):
    """Seconds of CPU time that all of them use in so many seconds."""
    before = run_or_rest(running)
    time.sleep(seconds)
    return [after - earlier for after, earlier in zip(run_or_rest(False), before)]


def test_they_compute_only_when_told_to():
    with busy.processes(1) as run_or_rest:
        assert max(used(run_or_rest, False, 0.3)) < 0.05
        assert min(used(run_or_rest, True, 1)) > 0.15  # on a machine with others on every core
        assert max(used(run_or_rest, False, 0.3)) < 0.05


def test_they_end_with_the_context(started):
    with busy.processes(2) as run_or_rest:
        run_or_rest(True)
        assert [process.poll() for process in started] == [None, None]
    assert [process.poll() for process in started] == [0, 0]


@pytest.mark.parametrize("error", [PeerError("why"), KeyboardInterrupt()])
def test_they_run_for_the_whole_part_and_end_with_an_error(error, started, asked):
    def part(settings):
        assert [process.poll() for process in started] == [None, None]
        assert asked == [{"busy": True}] * 2
        raise error

    settings = Settings(threads=1, busy=2)
    if isinstance(error, PeerError):
        record = command.run("train", part, settings)
        assert (record["busy"], record["failed"]) == (2, "why")
    else:
        with pytest.raises(KeyboardInterrupt):
            command.run("train", part, settings)
    assert [process.poll() for process in started] == [0, 0]
    assert asked == [{"busy": True}] * 2


def test_no_process_without_the_option(started):
    record = command.run("train", lambda settings: {"cases": []}, Settings(threads=1))
    assert "busy" not in record
    assert not started


def test_the_part_busy_starts_its_own(started):
    record = command.run("busy", lambda settings: {"cases": []}, Settings(threads=1, busy=2))
    assert "busy" not in record
    assert not started


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_they_notice_that_the_benchmark_is_gone(how):
    with subprocess.Popen([sys.executable, "-c", HOLDS], cwd=ROOT, stdout=subprocess.PIPE, text=True) as benchmark:
        pids = [int(pid) for pid in benchmark.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(lives, pids))
        benchmark.send_signal(how)
        benchmark.wait(10)
        wait_until_gone(pids)


def test_one_that_has_stopped_is_said_so(started):
    with busy.processes(1) as run_or_rest:
        started[0].kill()
        with pytest.raises(PeerError, match="a busy process was killed by signal 9"):
            run_or_rest(True)
