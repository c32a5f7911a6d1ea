"""The loops that measure the machine compute what their FLOP and byte counts say."""

import numpy as np
import pytest

from benchmarks import cases, roofline


@pytest.mark.parametrize("steps", [1, 2, 37])
def test_every_chain_makes_every_step(steps):
    """Chains t ← t·x + y on all lanes, from i·y: a chain or a step fewer gives another sum."""
    x, y = 0.75, 0.5
    t = np.arange(roofline.CHAINS) * y
    for _ in range(steps):
        t = t * x + y
    found = roofline.chains(np.float32(x), np.float32(y), steps)
    assert found == pytest.approx(t.sum() * roofline.LANES, rel=1e-5)


def test_every_thread_runs_the_chains():
    sums = np.zeros(2, np.float32)
    roofline.chains_on_threads(np.float32(0.5), np.float32(1), 3, sums)
    assert sums[0] == sums[1] == roofline.chains(np.float32(0.5), np.float32(1), 3)


def test_the_loop_is_vectors_in_registers():
    """A call of fmaf, or accumulators on the stack, would measure something else."""
    roofline.chains(np.float32(1), np.float32(1), 1)
    (assembly,) = roofline.chains.inspect_asm().values()
    instructions = [line.split()[0] for line in assembly.splitlines() if line.startswith("\t") and line.strip()]
    expected = ("vfmadd", "fmla") if roofline.target.HAS_FMA else ("mulps", "vmulps", "fmul")
    assert sum(name.startswith(expected) for name in instructions) >= roofline.CHAINS
    assert "fmaf" not in assembly


def test_triad():
    b, c = np.arange(7, dtype=np.float32), np.ones(7, np.float32)
    a = np.empty_like(b)
    roofline.triad_on_threads(a, b, c, 2)
    np.testing.assert_array_equal(a, b + 3)


def test_limits_are_positive_and_of_this_world():
    limits = roofline.Limits(1, steps=20_000, megabytes=1)
    assert 0.01 < limits.gflops(2) < 1e4
    assert 0.01 < limits.bandwidth(2) < 1e4


def test_flops_and_bytes_of_a_convolution():
    conv = cases.Conv(batch=2, size=8, inputs=3, outputs=5, kernel=3, stride=2, stem=True)
    assert conv.out_size == 4
    assert conv.flops == 2 * 2 * 4 * 4 * 5 * 3 * 9
    assert conv.bytes == 4 * (2 * 8 * 8 * 3 + 2 * 4 * 4 * 5 + 9 * 3 * 5)
    assert conv.uses == ("forward", "weight gradient")
    assert cases.Conv(1, 8, 4, 8, kernel=1, stride=2).bytes == 4 * (4 * 4 * 4 + 4 * 4 * 8 + 4 * 8)  # a quarter of x
