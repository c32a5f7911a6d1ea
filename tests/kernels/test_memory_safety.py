"""Faults that would be noticed only by chance: reads of freed memory, memory shared with a fork, inaccurate long sums."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.kernels import empty

HERE = Path(__file__).parent


@pytest.mark.skipif(sys.platform != "linux", reason="the tunables are those of the GNU C library")
def test_no_kernel_reads_freed_memory():
    """Results are the same if freed blocks are overwritten at once. (Numba frees an array after its last use.)"""
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    printed = []
    for tunables in ("", "glibc.malloc.tcache_count=0:glibc.malloc.perturb=165"):
        command = [sys.executable, str(HERE / "everything.py"), "bits"]
        env = os.environ | {"PYTHONPATH": path, "GLIBC_TUNABLES": tunables}
        found = subprocess.run(command, env=env, capture_output=True, text=True)
        assert found.returncode == 0, (found.returncode, found.stderr)
        printed.append(found.stdout)
    assert printed[0] == printed[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:os.fork")  # from JAX, if the benchmarks' tests have imported it
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads running, which is what users do
def test_a_forked_process_has_its_own_memory():
    array = empty((1000, 1000), np.float32)
    array[:] = 1
    child = os.fork()
    if not child:
        array[:] = 7
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (array == 1).all()


def test_a_sum_of_a_million_terms_is_accurate():
    """NumPy adds float32 values one by one along leading axes, which is 0.8 % off for 64 images of 112×112."""
    x = mr.tensor(np.full((64, 2, 112, 112), 0.1, np.float32), requires_grad=True)
    w, b = mr.tensor(np.zeros((3, 2, 1, 1), np.float32)), mr.tensor(np.zeros(3, np.float32), requires_grad=True)
    y = F.conv2d(x, w, b)
    y.backward(np.full(y.shape, 0.1, np.float32))
    exact = 64 * 112 * 112 * float(np.float32(0.1))
    np.testing.assert_allclose(b.grad, exact, rtol=1e-6)
    np.testing.assert_allclose(x.sum((0, 2, 3)).numpy(), exact, rtol=1e-6)
    np.testing.assert_allclose(x.mean((0, 2, 3)).numpy(), 0.1, rtol=1e-6)
