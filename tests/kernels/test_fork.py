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
    "What work() returns, a string or several, in a forked process."
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        with open(reading) as file:
            answer = file.read()
        os.waitpid(pid, 0)
        return answer.split()
    os.close(reading)
    try:
        answer = work()
        os.write(writing, (answer if isinstance(answer, str) else " ".join(map(str, answer))).encode())
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


def test_children_run_kernels_on_threads_of_their_own():
    right, *others = run("""
print(digest(), 2)

def work():
    return digest(), len(threading.enumerate())

print(*in_a_child(work))
print(*in_a_child(lambda: in_a_child(work)))
print(digest(), len(threading.enumerate()))
""")
    assert others == [right] * 3


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
print(*[in_a_child(digest) == [right] for _ in range(20)])
busy = False
for thread in threads:
    thread.join()
""")
    assert lines == [" ".join(["True"] * 20)]
