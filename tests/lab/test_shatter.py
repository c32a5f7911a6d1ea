"""The experiment shatter: gradients against finite differences, correlations against theory, the verdict by its rule."""

import itertools
import json
import math

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab
from minires.errors import ConfigError
from minires.lab.experiments.shatter import autocorrelation, correlation, input_gradients


def naive(x, kind, depth, units, norm, bias, seed, statistics=None):
    """(Σ y, statistics of batch norm) of the same network in NumPy, its weights drawn in the same order."""
    rng, kept = np.random.default_rng(seed), []
    v = x if x.shape[1] == units else x @ rng.standard_normal((units, x.shape[1])).T
    for layer in range(depth):
        w = rng.standard_normal((units, units)) * math.sqrt((1 if kind == "looks-linear" else 2) / units)
        z = v
        if norm:
            mean, variance = (v.mean(0), v.var(0)) if statistics is None else statistics[layer]
            kept.append((mean, variance))
            z = (v - mean) / np.sqrt(variance + 1e-5)
        if bias and layer == 0:
            z = z + rng.standard_normal(units)
        if kind == "looks-linear":
            y = np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], 1) @ np.concatenate([w, -w], 1).T
        else:
            y = np.maximum(z, 0) @ w.T
        v = v + y if kind == "residual" else y
    return float((v @ rng.standard_normal(units)).sum()), kept


@pytest.mark.parametrize("kind", ["plain", "residual", "looks-linear"])
@pytest.mark.parametrize(("inputs", "norm", "bias"), [(1, True, True), (1, False, False), (6, True, False)])
def test_gradients_against_finite_differences(kind, inputs, norm, bias):
    """With the statistics of batch norm held fixed, which is what the docstring promises."""
    x = np.random.default_rng(1).standard_normal((5, inputs))
    found = input_gradients(x, kind, 3, 6, norm, bias, np.random.default_rng(2))
    _, statistics = naive(x, kind, 3, 6, norm, bias, 2)
    for i, j in itertools.product(range(5), range(inputs)):
        step = np.zeros_like(x)
        step[i, j] = 1e-6
        above, below = (naive(x + s, kind, 3, 6, norm, bias, 2, statistics)[0] for s in (step, -step))
        assert math.isclose(found[i, j], (above - below) / 2e-6, rel_tol=1e-6, abs_tol=1e-7)


def test_autocorrelation_and_correlation_by_loops():
    rng = np.random.default_rng(0)
    signal = np.cumsum(rng.standard_normal(40)) + 3
    centred = [s - sum(signal) / 40 for s in signal]
    square = sum(d * d for d in centred)
    expected = [sum(centred[i] * centred[i + k] for i in range(40 - k)) / square for k in range(6)]
    np.testing.assert_allclose(autocorrelation(signal, 5), expected, rtol=1e-12)
    assert list(autocorrelation(np.full(9, 0.1), 3)) == [1, 1, 1, 1]
    assert np.isnan(autocorrelation(np.zeros(9), 3)).all()

    g = rng.standard_normal((5, 3)) + 1
    pairs = [g[i] @ g[j] for i, j in itertools.permutations(range(5), 2)]
    assert math.isclose(correlation(g), np.mean(pairs) / np.mean([a @ a for a in g]), rel_tol=1e-12)
    assert math.isnan(correlation(np.zeros((5, 3))))


@pytest.fixture(scope="module")
def found():
    steps = []
    result = lab.shatter((1, 8, 16), 8, 100, 128, (1, 2, 3, 4, 6, 12), progress=lambda *step: steps.append(step))
    assert [done for done, _, _ in steps] == list(range(8))
    return result


def arc_cosine(layers, residual):
    """The correlation of gradients in wide networks without batch norm: "Kernel Methods for Deep Learning", Cho & Saul 2009.

    Activations of two inputs at the angle θ are active together with probability (π − θ)/2π, and a layer of ReLUs maps
    cos θ to (sin θ + (π − θ) cos θ)/π.
    """
    cosine, product, found = 0.0, 1.0, []
    for _ in range(layers):
        angle = math.acos(cosine)
        active, mapped = 1 - angle / math.pi, (math.sin(angle) + (math.pi - angle) * cosine) / math.pi
        product *= (1 + active) / 2 if residual else active
        cosine = (cosine + mapped) / 2 if residual else mapped
        found.append(product)
    return np.array(found)


def test_correlations_of_gaussian_inputs(found):
    depth = np.array(found.layers)
    measured, error = found.correlations, found.errors
    plain = measured["plain"]
    assert (abs(plain - 0.5**depth) < 4 * error["plain"])[:5].all()
    assert (error["plain"] < 0.01).all()
    bare = "residual without batch norm"
    wide = arc_cosine(12, True)[depth - 1]
    assert (abs(measured[bare] - wide) < 4 * error[bare] + 0.01).all()
    assert abs(measured[bare][0] - 0.75) < 0.02
    assert (measured[bare][2:] > found.predictions[bare][2:] + 2 * error[bare][2:]).all()  # a lower bound
    ratio = measured["residual"] / found.predictions["residual"]
    assert ((ratio > 0.65) & (ratio < 1)).all()
    np.testing.assert_allclose(measured["looks-linear"], 1, rtol=1e-9)
    np.testing.assert_allclose(found.predictions["plain"][:3], [0.5, 0.25, 0.125])
    np.testing.assert_allclose(found.predictions[bare][:2], [0.75, 0.5625])
    np.testing.assert_allclose(found.predictions["residual"][3], 0.5)


def test_half_per_layer_needs_batch_norm():
    """Without it the activations of different inputs align, and share ever more active units."""
    values = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((64, 100))
        values.append([correlation(input_gradients(x, "plain", n, 100, False, False, rng)) for n in (1, 2, 4)])
    mean, error = np.mean(values, 0), np.std(values, 0, ddof=1) / math.sqrt(8)
    expected = arc_cosine(4, False)[[0, 1, 3]]
    assert (abs(mean - expected) < 4 * error + 0.01).all()
    assert mean[2] > 2 * 0.5**4


def test_why_the_statistics_are_held_fixed():
    """Through batch norm itself the gradients of a batch sum to zero in every unit: uncorrelated after one layer."""
    rng = np.random.default_rng(0)
    x = mr.tensor(rng.standard_normal((64, 50)), requires_grad=True)
    v = mr.tensor(rng.standard_normal((50, 50)))
    y = F.batch_norm(F.linear(x, v).reshape(64, 50, 1, 1), None, None, training=True)
    F.linear(F.relu(y).reshape(64, 50), mr.tensor(rng.standard_normal((1, 50)))).sum().backward()
    assert abs(correlation(x.grad) + 1 / 63) < 1e-6
    assert correlation(input_gradients(x.data, "plain", 1, 50, True, False, rng)) > 0.4


def test_the_grid(found):
    assert found.level("plain, 1")[0] > 0.5
    assert abs(found.level("plain, 16")[0]) < 0.1
    assert 0.1 < found.level("residual, 16")[0] < found.level("residual, 8")[0] < found.level("plain, 1")[0]
    assert found.verdict.word == "seen"
    assert set(found.levels) == set(found.curves) == set(found.examples)
    assert all(curve[0] == 1 and len(curve) == 65 for curve in found.curves.values())
    np.testing.assert_allclose(found.levels["residual, 8"].mean(), found.curves["residual, 8"][1:11].mean())
    assert found.level("looks-linear, 16") == (1, 0)
    np.testing.assert_allclose(found.examples["looks-linear, 16"], found.examples["looks-linear, 16"][0])


def test_nothing_shatters_without_batch_norm_and_bias(found):
    """The network is positively homogeneous: one gradient for x < 0 and one for x > 0, at any depth."""
    gradient = found.examples["plain without batch norm, 16"]
    assert len(np.unique((gradient / np.abs(gradient).max()).round(9))) == 2
    step = np.sign(found.grid)
    assert math.isclose(found.neighbours, np.corrcoef(step[:-1], step[1:])[0, 1], rel_tol=1e-9)
    np.testing.assert_allclose(found.curves["plain without batch norm, 16"], autocorrelation(step), rtol=1e-9)


def result_with(**levels):
    names = {"plain_1": "plain, 1", "plain_9": "plain, 9", "residual_9": "residual, 9"}
    values = {names[k]: v + np.array([-0.01, 0.01]) for k, v in levels.items()}  # a standard error of 0.01
    return lab.Shatter({}, [1, 9], np.zeros(2), {}, {}, values, 0.0, [], {}, {})


@pytest.mark.parametrize(
    ("shallow", "residual", "plain", "word"),
    [
        (0.9, 0.5, 0.1, "seen"),
        (0.9, 0.1, 0.5, "not seen"),
        (0.5, 0.9, 0.1, "not seen"),
        (0.9, 0.11, 0.1, "unclear"),
        (0.52, 0.5, 0.1, "unclear"),
        (0.9, math.nan, 0.1, "unclear"),
        (0.9, 0.129, 0.1, "seen"),  # 2·√2·0.01 = 0.0283
        (0.9, 0.128, 0.1, "unclear"),
    ],
)
def test_the_verdict_follows_its_rule(shallow, residual, plain, word):
    verdict = result_with(plain_1=shallow, residual_9=residual, plain_9=plain).verdict
    assert verdict.word == word
    assert f"plain, 1 {shallow:.2f} ± 0.01" in verdict.because


def test_json_pictures_and_seeds(found, tmp_path):
    again = lab.Shatter.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert json.loads(found.to_json())["verdict"] == "seen"
    again.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    heads, rows = found.rows()
    assert {len(row) for row in rows} == {len(heads)}
    small = {"depths": (1, 2), "networks": 2, "units": 4, "points": 128, "layers": (1,)}
    first, same, other = (lab.shatter(**small, seed=seed) for seed in (3, 3, 4))
    assert first.to_json() == same.to_json()
    assert (first.correlations["plain"] != other.correlations["plain"]).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depths": (1,)}, r"depths must be two whole numbers or more from 1 up, increasing, not \[1\]"),
        ({"depths": (0, 1)}, "depths must be two"),
        ({"depths": (5, 5)}, "depths must be two"),
        ({"layers": ()}, "layers must be whole numbers from 1 up"),
        ({"layers": (0, 1)}, "layers must be whole numbers from 1 up"),
        ({"networks": 1}, "networks must be a whole number from 2 up, not 1"),
        ({"units": 1}, "units must be a whole number from 2 up, not 1"),
        ({"points": 100}, "points must be a whole number from 128 up, not 100"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(ConfigError, match=message):
        lab.shatter(**given)
