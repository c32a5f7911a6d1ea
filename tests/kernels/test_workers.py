"""The threads that kernels run on: every share is done once, and nobody waits for a thread that is not running."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from launches import _count, _fail, launch, recorded

import minires as mr
from minires.kernels.runtime import recording, threads, workers


@pytest.fixture
def pool():
    pool = workers.Workers(threads.MOST_THREADS)
    yield pool
    pool.end()


def python(script, *args):
    """What a process of its own prints."""
    found = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_share_is_done_once(pool, count):
    for shares in (1, 2, 3, 7, 64, 1000):
        for _ in range(30):
            done, by = launch(pool, count, shares)
            assert (done == 1).all()
            assert by.min() >= 0
            assert by.max() < count


def test_the_number_of_threads_may_change_between_launches(pool):
    rng = np.random.default_rng(0)
    for count, shares in rng.integers(1, 9, (2000, 2)):
        done, by = launch(pool, int(count), int(shares), 20)
        assert (done == 1).all()
        assert by.max() < count


def test_neighbouring_shares_stay_together(pool):
    """Each thread does most of its own range, one share after another: in the best of some launches, since others interfere."""
    switches = [int((np.diff(launch(pool, 2, 64, 50_000)[1]) != 0).sum()) for _ in range(20)]
    assert min(switches) <= 8


def test_nobody_waits_for_a_thread_that_does_not_run(pool, monkeypatch):
    """Threads that never reach their loop, as if the system gave them no core: the launching thread does everything."""
    held = threading.Event()
    monkeypatch.setattr(workers, "_work", lambda *args: held.wait())
    done, by = launch(pool, 4, 100)
    assert (done == 1).all()
    assert (by == 0).all()
    held.set()


def test_threads_park_when_there_is_nothing_to_do(pool):
    launch(pool, 3, 30)
    until = time.monotonic() + 10
    parked = pool.control[(workers.PARKED + workers.EACH) // 8 :: workers.EACH // 8][:2]
    while parked.tolist() != [1, 1] and time.monotonic() < until:
        time.sleep(0.05)
    assert parked.tolist() == [1, 1]
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1
    for _ in range(20):  # and come back
        done, _ = launch(pool, 3, 30)
        assert (done == 1).all()
        time.sleep(0.002)


def test_a_share_that_fails_is_reported_and_the_others_are_done(pool):
    done = np.zeros(16, np.int64)
    assert _fail(-pool.ready(3), 16, 0, done) == 1
    assert (done == 1).all()
    assert (launch(pool, 3, 16)[0] == 1).all()


def test_without_further_threads_kernels_run_on_one(pool, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done, by = launch(pool, 4, 40)
    assert (done == 1).all()
    assert (by == 0).all()


def test_after_the_end_kernels_run_on_one_thread(pool):
    launch(pool, 3, 9)
    pool.end()
    done, by = launch(pool, 3, 9)
    assert (done == 1).all()
    assert (by == 0).all()


def test_python_threads_launch_at_once():
    """Eight Python threads, each with its own arrays, while the number of threads changes."""
    x = np.random.default_rng(0).standard_normal((8, 16, 16, 16)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
    same = ((1, 1), (1, 1), (1, 1), 1)
    right, wrong, before = mr.kernels.conv2d(x, w, *same), [], threads.get_num_threads()

    def work():
        for _ in range(30):
            if not np.array_equal(mr.kernels.conv2d(x, w, *same), right):
                wrong.append(1)

    running = [threading.Thread(target=work) for _ in range(8)]
    try:
        for thread in running:
            thread.start()
        for count in (1, 2, 3, 2, 4, 1) * 3:
            mr.set_num_threads(count)
            time.sleep(0.01)
    finally:
        for thread in running:
            thread.join()
        mr.set_num_threads(before)
    assert not wrong


def test_no_more_threads_than_shares(pool):
    """A kernel of few shares leaves the other threads alone, although they are ready."""
    for shares in (1, 2, 3, 5):
        for _ in range(50):
            _, by = launch(pool, 8, shares, 2000)
            assert by.max() < shares


def test_a_worker_that_parks_within_a_stretch_is_woken(pool):
    """One that has waited through a long share of another's; without it the rest would run on one thread."""
    arrays = [(np.zeros(2, np.int64), np.zeros(2, np.int64)) for _ in range(4)]
    entries, _kept = recorded(pool, [(2, done, by, 200_000) for done, by in arrays])
    pool.control[workers.SPINS // 8] = 0  # parks at once
    early = 0
    for times in range(1, 21):
        at = 0
        while at < 4:
            went = workers.replay(pool.ready(2), entries, at, 4)
            early += at < went < 4
            at = went
        assert all((done == times).all() for done, _ in arrays)
    assert early > 0


def test_small_kernels_of_different_shares_in_a_row(pool):
    """A thread that has seen the last kernel's spent range must not take a share of the next one's by it."""
    counts = [2, 8, 3, 16, 2, 32, 5, 2, 64, 2, 7, 2, 4, 2, 6, 20]
    tallies = np.zeros((len(counts), 65), np.int64)
    entries, _kept = recorded(pool, [(count, tally, tally[64:], 0) for tally, count in zip(tallies, counts)])
    ends, times = time.monotonic() + 1.5, 0
    while time.monotonic() < ends:
        for _ in range(50):
            at = 0
            while at < len(counts):
                at = workers.replay(pool.ready(2), entries, at, len(counts))
            times += 1
        for tally, count in zip(tallies, counts):
            assert (tally[:count] == times).all()
            assert not tally[count:64].any()


def test_a_recorded_launch_runs_on_as_many_threads_as_it_did(monkeypatch):
    monkeypatch.setattr(threads, "get_num_threads", lambda: 4)
    monkeypatch.setattr(threads, "_workers", workers.Workers(threads.MOST_THREADS))
    monkeypatch.setattr(threads._workers.load, "look", lambda own: None)
    arrays = [(np.zeros(16, np.int64), np.zeros(16, np.int64)) for _ in range(3)]
    recorded = recording.Recording()
    with recording.record(recorded):
        for (done, by), amount in zip(arrays, (4e5, 1e8, 1e3)):
            threads.launch(_count, done, by, 2000, work=amount)  # at 0.05 ns each: 20 µs, 5 ms, nothing
    recorded.finish()
    assert [(count, shares) for _, count, shares, *_ in recorded.tape.launches] == [(2, 2), (4, 16), (1, 1)]
    for _ in range(50):
        recorded.replay()
        assert [int(by.max()) < count for (_, by), count in zip(arrays, (2, 4, 1))] == [True] * 3
    assert [done[done > 0].tolist() for done, _ in arrays] == [[51] * 2, [51] * 16, [51]]
    threads._workers.end()


@pytest.mark.parametrize("job", [2**31 - 3, 2**32 - 3, 2**63 - 3])
def test_the_kernels_number_wraps_around(pool, job):
    launch(pool, 3, 30)
    time.sleep(0.05)
    pool.control[workers.JOB // 8] = job
    for _ in range(10):
        done, by = launch(pool, 3, 30, 1000)
        assert (done == 1).all()
        assert by.max() < 3


def test_an_interrupted_start_hands_out_no_number_twice(pool, monkeypatch):
    """Two threads of one number would use the same scratch arrays."""
    start, started = threading.Thread.start, []

    def interrupted_once(self):
        started.append(self.name)
        start(self)
        if len(started) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        pool.ready(3)
    for _ in range(20):
        assert (launch(pool, 4, 64, 2000)[0] == 1).all()
    assert started == ["minires-1", "minires-2", "minires-3"]


def test_a_launch_interrupted_after_it_woke_the_threads(pool):
    for _ in range(20):
        pool.ready(3)  # and no kernel
        time.sleep(0.002)
    assert (launch(pool, 3, 30)[0] == 1).all()


def test_a_lock_that_is_released_once_too_often(pool):
    launch(pool, 4, 30)
    rng = np.random.default_rng(0)
    for n in rng.integers(0, 3, 300).tolist():
        pool._release(n)
        if n == 0:
            time.sleep(0.001)
        assert (launch(pool, 4, 30)[0] == 1).all()


@pytest.mark.skipif(workers.cores.current_cpu is None, reason="there are no such calls here")
def test_threads_stay_off_the_launching_threads_core(pool, monkeypatch):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    allowed, here = os.sched_getaffinity(0), [min(os.sched_getaffinity(0))]
    monkeypatch.setattr(workers.cores, "current_cpu", lambda: here[0])
    monkeypatch.setattr(pool.load, "look", lambda own: None)

    def may_run_on(count):
        assert (launch(pool, count, 30)[0] == 1).all()
        return {frozenset(os.sched_getaffinity(thread.native_id)) for thread, _ in pool.threads}

    assert may_run_on(2) == {frozenset(allowed - set(here))}
    here[0] = max(allowed)
    assert may_run_on(2) == {frozenset(allowed - set(here))}
    assert may_run_on(len(allowed) + 1) == {frozenset(allowed)}  # there would be too few for them
    assert may_run_on(2) == {frozenset(allowed - set(here))}
    assert os.sched_getaffinity(0) == allowed


def test_workers_offer_their_cores_while_others_want_them(pool, monkeypatch):
    monkeypatch.setattr(pool.load, "look", lambda own: None)
    for others in (0, 1, 0):
        pool.load.others = others
        assert (launch(pool, 3, 60, 1000)[0] == 1).all()
        assert bool(pool.control[workers.YIELD // 8]) == bool(others)


def test_a_share_of_overcommitted_cores(pool, monkeypatch):
    monkeypatch.setattr(pool.load, "look", lambda own: None)
    pool.load.others, pool.load.fair_share = 2, 1
    done, by = launch(pool, 4, 40, 2000)
    assert (done == 1).all()
    assert (by == 0).all()


SMALL_KERNELS = """
import hashlib, sys, numpy as np, minires as mr
from minires.kernels.runtime import threads, work
work.LEAST = 1  # every kernel on all threads
mr.set_num_threads(int(sys.argv[1]))
rng = np.random.default_rng(0)
x = rng.standard_normal((5, 9, 9, 16)).astype(np.float32)
w = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
same = (1, 1), (1, 1), (1, 1), 1
digest = hashlib.sha256()
for _ in range(700):
    y = mr.kernels.conv2d(x, w, *same)
    digest.update(y.tobytes() + mr.kernels.relu(y).tobytes())
    digest.update(mr.kernels.conv2d_weight_grad(x, y, w.shape, *same).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_thousands_of_small_kernels_beside_a_busy_process():
    """Threads lose their cores at random points; no bit changes."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        digests = {python(SMALL_KERNELS, str(count)) for count in (1, 2, 8, 200)}
    finally:
        busy.kill()
        busy.wait()
    assert len(digests) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
def test_interrupts_at_random_moments_change_no_bit():
    script = """
import os, random, signal, threading, time, numpy as np, minires as mr
mr.set_num_threads(3)
x = np.random.default_rng(0).standard_normal((16, 32, 32, 16)).astype(np.float32)
w = np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
conv = lambda: mr.kernels.conv2d(x, w, (1, 1), (1, 1), (1, 1), 1)
right, caught = conv(), 0
interrupter = threading.Thread(
    target=lambda: [(time.sleep(random.random() * 0.02), os.kill(os.getpid(), signal.SIGINT)) for _ in range(100)]
)
handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
def raising(*args):
    global caught
    caught += 1
    raise KeyboardInterrupt
interrupter.start()
signal.signal(signal.SIGINT, raising)
while interrupter.is_alive():
    try:
        while interrupter.is_alive():
            assert np.array_equal(conv(), right)
    except KeyboardInterrupt:
        pass
signal.signal(signal.SIGINT, signal.SIG_IGN)
assert np.array_equal(conv(), right)
print(caught > 5)  # those that come during one kernel are one
"""
    assert python(script) == "True"


@pytest.mark.parametrize("idle", [0, 0.2])
def test_a_process_ends_at_once(idle):
    """With threads that spin, and with threads that are parked."""
    script = f"""
import time, numpy as np, minires as mr
mr.set_num_threads(3)
x = np.zeros((8, 32, 32, 16), np.float32)
for _ in range(20):
    mr.kernels.relu(x)
time.sleep({idle})
print(time.time())
"""
    assert time.time() - float(python(script)) < 10


@pytest.mark.slow
def test_a_hundred_processes_end_while_threads_are_in_kernels():
    """Daemon threads of the user's are still launching kernels when the interpreter ends."""
    script = """
import random, sys, threading, time, numpy as np, minires as mr
mr.set_num_threads(3)
x = np.ones((64, 32, 32, 16), np.float32)
def work():
    while True:
        mr.kernels.relu(x)
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05 + random.random() * 0.02)
print(time.time())
"""
    for _ in range(100):
        assert time.time() - float(python(script)) < 3
