"""The verdict of landscape: curvatures of surfaces that are known, the rule and its bounds."""

import math

import numpy as np
import pytest

from minires import lab


def result_with(loss, classes=10, names=("resnet", "plain"), span=1.0):
    """A result with these losses, functions of x and y, on a plane of 11×11 points."""
    x = np.linspace(-span, span, 11)
    values = np.array([np.broadcast_to(f(x[None], x[:, None]), (11, 11)) for f in loss], float)
    return lab.Landscape({}, list(names[: len(loss)]), classes, x, values, np.zeros_like(values))


def test_curvatures_and_shares_against_a_loop():
    found = result_with(
        [lambda x, y: x**4 - y**3 + 2 * x * y + 5, lambda x, y: np.cos(7 * x + 0.2) * np.sin(5 * y + 0.1) + 2], span=2.0
    )
    h, n = 0.4, 0
    assert found.curvatures.shape == (2, 9, 9, 2)
    for k in (0, 1):
        near, everywhere = [], []
        for i in range(1, 10):
            for j in range(1, 10):
                f = found.loss[k]
                xx = (f[i, j + 1] - 2 * f[i, j] + f[i, j - 1]) / h**2
                yy = (f[i + 1, j] - 2 * f[i, j] + f[i - 1, j]) / h**2
                xy = (f[i + 1, j + 1] - f[i + 1, j - 1] - f[i - 1, j + 1] + f[i - 1, j - 1]) / (4 * h**2)
                values = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
                np.testing.assert_allclose(found.curvatures[k, i - 1, j - 1], values, atol=1e-9)
                negative = values[0] < 0 and abs(values[0]) > 0.1 * abs(values[1])
                assert found.non_convex[k, i - 1, j - 1] == negative
                n += negative
                everywhere.append(negative)
                if found.steps[i] ** 2 + found.steps[j] ** 2 <= 1:
                    near.append(negative)
        assert math.isclose(found.shares(1.0)[k], np.mean(near))
        assert math.isclose(found.shares(9.0)[k], np.mean(everywhere))
        assert np.mean(near) != np.mean(everywhere)
    assert 0 < n < 2 * 81


def test_rounding_has_no_curvature():
    noise = np.random.default_rng(0).uniform(-1, 1, (11, 11)) * 2e-7
    assert not result_with([lambda x, y: 2.3 + noise]).non_convex.any()
    assert result_with([lambda x, y: 2.3 + 1000 * noise]).non_convex.any()


def bowl(x, y):
    return x**2 + y**2 + 0.1


def waves(x, y):
    return 0.1 + 0.05 * np.cos(9 * x) + 0.02 * np.sin(11 * y)


def ridge(x, y):
    """A bowl with negative curvature where x < −0.3: at a fifth of the points within 0.5."""
    return np.where(x < -0.3, 0.4 + x - 3 * x**2 + y**2, bowl(x, y)) + 0.5


@pytest.mark.parametrize(
    ("residual", "plain", "word"),
    [
        (bowl, waves, "seen"),
        (bowl, ridge, "seen"),
        (waves, waves, "not seen"),
        (waves, bowl, "not seen"),
        (waves, ridge, "not seen"),
        (ridge, ridge, "not seen"),
        (bowl, bowl, "unclear"),  # nothing that could have been prevented
    ],
)
def test_the_verdict_follows_its_rule(residual, plain, word):
    assert result_with([residual, plain]).verdict.word == word


@pytest.mark.parametrize(
    ("shares", "word"),
    [
        ((0.10, 0.21), "seen"),
        ((0.0, 0.09), "unclear"),
        ((0.3, 0.5), "unclear"),
        ((0.3, 0.3), "not seen"),
        ((0.05, 0.04), "unclear"),
    ],
)
def test_the_bounds_of_the_rule(shares, word, monkeypatch):
    monkeypatch.setattr(lab.Landscape, "shares", lambda self, radius: list(shares) if radius == 0.5 else None)
    found = result_with([bowl, bowl])
    assert found.verdict.word == word


def test_what_leaves_it_unclear():
    assert result_with([bowl]).verdict.word == "unclear"
    nothing = result_with([bowl, lambda x, y: waves(x, y) + 2.0])
    assert nothing.verdict.word == "unclear"
    assert "plain has learnt nothing: its loss is 2.150, by chance 2.303" in nothing.verdict.because
    far = result_with([bowl, waves])
    far.loss[1, 0] = math.nan  # 11 of 121
    assert far.verdict.word == "seen"
    far.loss[1, 1, :3] = math.nan
    assert far.verdict.word == "unclear"
    assert "not finite at 12% of the points" in far.verdict.because
