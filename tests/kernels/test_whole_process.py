"""Properties of a whole process: one compilation per kernel; the same bits for any number of threads; layers and targets."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from everything import CONVOLUTIONS, calls

from minires import kernels
from minires.errors import ConfigError
from minires.kernels.runtime import cores

HERE = Path(__file__).parent


@cache
def everything(*args, **environment):
    """The output of everything.py with these environment variables."""
    command = [sys.executable, str(HERE / "everything.py"), *args]
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(command, env=os.environ | {"PYTHONPATH": path} | environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def pytest_under(*args, **environment):
    """Run part of the suite in another process, with these environment variables."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    found = subprocess.run(
        command, cwd=HERE.parents[1], env=os.environ | environment, capture_output=True, text=True, timeout=1500
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert " passed" in found.stdout


def test_the_script_runs_every_kernel():
    """The script that the other tests run leaves out no kernel."""
    import numpy as np

    assert {name for name, _ in calls(np.float32)} == set(kernels.FUNCTIONS)
    assert {groups > 1 for *_, groups in CONVOLUTIONS} == {True, False}


def test_foreign_arrays_compile_nothing_new_and_change_no_bit():
    found = json.loads(everything("signatures"))
    # at least one for each function, but input gradients run the forward pass's
    assert found["compiled"] >= len(kernels.FUNCTIONS) - 1
    assert found["more"] == {}


@pytest.mark.parametrize("threads", ["2", "8"])
def test_the_same_bits_on_any_number_of_threads(threads):
    assert everything("bits", NUMBA_NUM_THREADS=threads) == everything("bits", NUMBA_NUM_THREADS="1")


def test_the_same_bits_with_set_num_threads():
    assert everything("bits", "3", NUMBA_NUM_THREADS="8") == everything("bits", NUMBA_NUM_THREADS="1")


def test_two_python_threads_at_once():
    assert json.loads(everything("together"))["wrong"] == []


def test_the_thread_count_is_checked():
    before = kernels.get_num_threads()
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(ConfigError, match="whole number"):
            kernels.set_num_threads(bad)
    with pytest.raises(ConfigError, match="10000 threads asked for, but kernels run on 256 at most"):
        kernels.set_num_threads(10_000)
    assert kernels.get_num_threads() == before
    assert 1 <= cores.physical_cores() <= (os.cpu_count() or 1)


KERNEL_TESTS = [
    "test_convolution.py",
    "test_pooling.py",
    "test_normalization.py",
    "test_elementwise.py",
    "test_bounds.py",
]
TARGETS = {"avx2": "haswell", "plain": "generic"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_the_kernel_tests_on_another_target(kind):
    """The second variable is empty on purpose: a list of features would turn AVX-512 on again."""
    target = {"NUMBA_CPU_NAME": TARGETS[kind], "NUMBA_CPU_FEATURES": ""}
    code = "import sys; from minires.kernels.runtime.target import KIND; sys.exit(KIND != sys.argv[1])"
    command = [sys.executable, "-c", code, kind]
    assert subprocess.run(command, cwd=HERE.parents[1], env=os.environ | target).returncode == 0
    pytest_under(*[str(HERE / name) for name in KERNEL_TESTS], **target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_the_same_bits_on_any_number_of_threads_of_another_target(kind):
    target = {"NUMBA_CPU_NAME": TARGETS[kind], "NUMBA_CPU_FEATURES": ""}
    assert everything("bits", NUMBA_NUM_THREADS="8", **target) == everything("bits", NUMBA_NUM_THREADS="1", **target)


SMOKE = """
import numpy as np
from minires.kernels.compiled import backend as fast
from minires.kernels import reference
from minires.kernels.runtime import target
assert target.KIND == {kind!r}, target.KIND
rng = np.random.default_rng(0)
for columns in (5, 40):  # narrow tiles and wide ones, with remainders
    a, b = rng.standard_normal((50, 33)).astype(np.float32), rng.standard_normal((33, columns)).astype(np.float32)
    np.testing.assert_allclose(fast.matmul(a, b), reference.matmul(a, b), rtol=1e-4, atol=1e-4)
"""


@pytest.mark.parametrize("kind", ["avx2", pytest.param("plain", marks=pytest.mark.slow)])
def test_the_register_tile_on_another_target(kind):
    """Never skipped: the tile under every product, compiled for AVX2 and for a CPU without fused multiply-add."""
    path = {"PYTHONPATH": str(HERE.parents[1]), "NUMBA_CPU_NAME": TARGETS[kind], "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, "-c", SMOKE.format(kind=kind)]
    found = subprocess.run(command, env=os.environ | path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
