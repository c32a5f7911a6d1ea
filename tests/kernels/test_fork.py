"""Processes that are forked from one that has run kernels, and while another thread runs them."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

PREPARE = """
import hashlib, os, sys, threading, warnings
import numpy as np
import minires as mr
from minires import kernels

x = np.random.default_rng(0).standard_normal((32, 16, 16, 16)).astype(np.float32)
w = np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
SAME = ((1, 1), (1, 1), (1, 1), 1)


def digest():
    y = kernels.conv2d(x, w, *SAME)
    return hashlib.sha256(y.tobytes() + kernels.conv2d_weight_grad(x, y, w.shape, *SAME).tobytes()).hexdigest()


def in_a_child(work):
    "What work() returns in a forked process, and the warnings there."
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        with open(reading) as file:
            answer = file.read()
        os.waitpid(pid, 0)
        return answer
    os.close(reading)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answer = work()
        os.write(writing, f"{answer} {[str(w.message) for w in caught if 'fork' in str(w.message)]}".encode())
    finally:
        os._exit(0)

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of every fork with threads
"""


def run(script, timeout=120):
    """The lines that the script prints after PREPARE, in a process of its own with two threads."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    result = subprocess.run(
        [sys.executable, "-c", PREPARE + script], capture_output=True, text=True, timeout=timeout, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_child_runs_on_one_thread_with_the_same_bits_and_says_so():
    right, child, grandchild, parent, threads = run("""
right = digest()
print(right)
print(in_a_child(digest))
print(in_a_child(lambda: in_a_child(digest)).replace(" []", ""))
print(digest())
print(kernels.get_num_threads())
""")
    for answer in (child, grandchild):
        bits, _, warned = answer.partition(" ")
        assert bits == right
        assert warned.count("this process was forked from one in which minires had started threads") == 1
    assert (parent, threads) == (right, "2")


def test_a_child_refuses_several_threads_and_forks_before_use_cost_nothing():
    before, refused = run("""
print(in_a_child(lambda: (digest(), kernels.get_num_threads())[1]))
digest()

def two_threads():
    try:
        mr.set_num_threads(2)
    except mr.errors.ConfigError as error:
        return error

print(in_a_child(two_threads))
""")
    assert before == "2 []"
    assert refused.startswith("2 threads asked for, but this process was forked")


def test_forks_while_another_thread_is_in_a_kernel():
    """Twenty forks at random moments: no child waits for a lock that nobody will release."""
    lines = run("""
right, busy = digest(), True


def work():
    while busy:
        digest()


threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
print(*[in_a_child(digest).split()[0] == right for _ in range(20)])
busy = False
for thread in threads:
    thread.join()
""")
    assert lines == [" ".join(["True"] * 20)]
