"""The threads that kernels run on: every share is done once, and nobody waits for a thread that is not running."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import minires as mr
from minires.kernels.runtime import threads, workers
from minires.kernels.runtime.jit import njit
from minires.kernels.runtime.parallel import on_threads


@njit()
def _count(share, shares, thread, done, by, spin):
    """done[share] += 1, by[share] = the thread, after some work."""
    if share < 0:
        return on_threads(share, shares)
    x = 1.0
    for _ in range(spin):
        x = x * 1.0000001 + 1e-9
    done[share] += 1
    by[share] = thread + (x < 0)
    return 0


@njit()
def _fail(share, shares, thread, done):
    if share < 0:
        return on_threads(share, shares)
    done[share] += 1
    if share == 3:
        raise MemoryError("no scratch")
    return 0


@pytest.fixture
def pool():
    pool = workers.Workers(threads.MOST_THREADS)
    yield pool
    pool.end()


def launch(pool, count, shares, spin=100):
    """The shares done and by whom, of one launch on ``count`` threads."""
    done, by = np.zeros(shares, np.int64), np.full(shares, -1)
    assert _count(-pool.ready(count), shares, 0, done, by, spin) == 0
    return done, by


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
    """Alone on its cores, a thread does most of its own range, one share after another."""
    _, by = launch(pool, 2, 64, 200_000)
    if len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else False:
        assert (np.diff(by) != 0).sum() <= 8


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
    time.sleep(0.3)
    parked = pool.control[(workers.PARKED + workers.EACH) // 8 :: workers.EACH // 8][:2]
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
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert time.time() - float(found.stdout) < 2
