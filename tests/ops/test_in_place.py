"""Changes in place: fused operations give what unfused ones give, whatever array a user changes and whenever."""

import numpy as np
import pytest
from random_programs import draw, run

import minires as mr


def differences(seed):
    """The program of a seed fused and unfused: the largest relative difference of anything a user can see."""
    program = draw(seed)
    with mr.fusion(False):
        expected = run(program, seed)
    found = run(program, seed)
    assert len(found) == len(expected)
    worst = 0.0
    for a, b in zip(found, expected):
        assert a.shape == b.shape
        assert np.isfinite(b).all()
        worst = max(worst, float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0))))
    return worst


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed):
    assert differences(seed) < 1e-9


@pytest.mark.slow
def test_two_thousand_random_programs():
    wrong = {seed: worst for seed in range(100, 2100) if (worst := differences(seed)) >= 1e-9}
    assert not wrong
