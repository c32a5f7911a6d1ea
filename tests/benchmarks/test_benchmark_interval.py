"""The bootstrap interval of a ratio of medians, on synthetic times whose true ratio is known."""

import numpy as np
import pytest

from benchmarks import interval
from benchmarks.interval import LEAST_TURNS, ratio_interval


def turns(rng, turns=20, steps=4, scale=1.0, noise=0.02):
    """Seconds by turn: scale, a number or one a turn, with noise on every step."""
    return np.reshape(scale, (-1, 1)) * (1 + noise * rng.standard_normal((turns, steps)))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_equal_programs_contain_1(rng):
    least, greatest = ratio_interval(turns(rng), turns(rng))
    assert 0.97 < least < 1 < greatest < 1.03


@pytest.mark.parametrize("ratio", [0.9, 1.1])
def test_a_tenth_excludes_1_and_is_found(rng, ratio):
    least, greatest = ratio_interval(turns(rng, scale=ratio), turns(rng))
    assert ratio - 0.03 < least < ratio < greatest < ratio + 0.03


def test_a_common_drift_cancels(rng):
    """The machine slows down by half, for both programs alike. With turns that are not neighbours it shows."""
    drift = np.linspace(1, 1.5, 20)
    new, old = turns(rng, scale=drift, noise=0.005), turns(rng, scale=drift, noise=0.005)
    least, greatest = ratio_interval(new, old)
    assert 0.98 < least < 1 < greatest < 1.02
    least, greatest = ratio_interval(new, rng.permutation(old))
    assert greatest - least > 0.1


def test_a_gain_of_two_percent_shows_through_a_drift_of_half(rng):
    drift = np.linspace(1, 1.5, 20)
    least, greatest = ratio_interval(turns(rng, scale=0.98 * drift, noise=0.005), turns(rng, scale=drift, noise=0.005))
    assert least < 0.98 < greatest < 1


@pytest.mark.parametrize("count", [LEAST_TURNS, 20])
def test_equal_programs_are_rarely_called_unequal(rng, count, monkeypatch):
    """About one run in twenty. Each turn has a speed of its own here, so its steps are alike; only turns are independent."""
    monkeypatch.setattr(interval, "DRAWS", 500)
    excluded = 0
    for _ in range(500):
        new, old = (turns(rng, count, scale=1 + 0.02 * rng.standard_normal(count), noise=0.01) for _ in range(2))
        least, greatest = ratio_interval(new, old)
        excluded += not least <= 1 <= greatest
    assert 0.02 < excluded / 500 < 0.09  # 500 runs give the rate to ±0.01


def test_the_same_times_give_the_same_interval(rng):
    new, old = turns(rng).tolist(), turns(rng).tolist()
    assert ratio_interval(new, old) == ratio_interval(new, old)


def test_few_turns_give_none(rng):
    few = LEAST_TURNS - 1
    assert ratio_interval(turns(rng, few), turns(rng, few)) is None
