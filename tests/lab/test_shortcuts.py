"""The experiment shortcuts: gradients before training, trainings, its verdict by the stated rule, JSON, bad input."""

import copy
import math

import numpy as np
import pytest
from short_trainings import batch, dataset, network

import minires as mr
from minires import functional as F
from minires import lab
from minires.errors import ConfigError, DataError
from minires.lab import fit
from minires.lab.experiments.shortcuts import Unscaled, with_shortcuts
from minires.lab.setting import normalised

KINDS = (1, 0.5, "exclusive-gating", "shortcut-only-gating", "conv1x1", "dropout")
FACTORS = (0.0, 0.5, 1.0, -1.5)
HOW = {"steps": 6, "batch_size": 16, "seed": 5}


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def result(model):
    before, state = {k: v.copy() for k, v in model.state_dict().items()}, mr.random.get_rng_state()
    seen = []
    found = lab.shortcuts(
        model, dataset(), dataset(40, seed=1), KINDS, FACTORS, trainings=2, **HOW, progress=lambda *g: seen.append(g)
    )
    assert all((model.state_dict()[k] == v).all() for k, v in before.items())
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert mr.random.get_rng_state() == state
    assert [(done, total) for done, total, _ in seen] == [(n, 72) for n in range(72)]
    return found


def by_the_tape(model, images, labels):
    """(‖∂loss/∂x‖ of the first block, that by shortcuts alone with no factor) / ‖∂loss/∂y‖ of the last, by tape and masks."""
    blocks, inputs, outputs = [model.layer1[0], model.layer2[0], model.layer3[0]], [], []

    def keep(module, given, y):
        for x, kept in ((given[0], inputs), (y, outputs)):
            x.retain_grad()
            kept.append(x)

    handles = [block.register_forward_hook(keep) for block in blocks]
    with mr.fusion(False):
        F.cross_entropy(model(mr.tensor(images)), labels).backward()
    for handle in handles:
        handle.remove()
    g = outputs[-1].grad
    for x, y in zip(inputs[::-1], outputs[::-1]):
        g = g * (y.numpy() > 0)
        if x.shape != y.shape:  # the transpose of option A
            before, wide = (y.shape[1] - x.shape[1]) // 2, np.zeros(x.shape)
            wide[:, :, ::2, ::2] = g[:, before : before + x.shape[1]]
            g = wide
    size = np.linalg.norm(outputs[-1].grad)
    return np.linalg.norm(inputs[0].grad) / size, np.linalg.norm(g) / size


def test_the_gradient_by_factor(result, model):
    """By the shortcuts alone exactly λ^L times what it is without the factors, and the whole gradient by the tape."""
    images, labels = normalised(dataset(), np.arange(64), np.float64)
    assert result.shortcuts == 3
    assert result.error < 1e-12
    for i, factor in enumerate(FACTORS):
        changed = network(shortcut=factor).double()
        whole, unscaled = by_the_tape(changed, images, labels)
        assert math.isclose(result.whole[i], whole, rel_tol=1e-9)
        assert math.isclose(result.direct[i], abs(factor) ** 3 * unscaled, rel_tol=1e-9)
        if factor:
            assert math.isclose(result.unscaled[i], unscaled, rel_tol=1e-9)
    assert result.direct[0] == 0
    assert result.direct[2] == result.unscaled[2] > 0


def test_channel_0_scales_with_the_number_of_shortcuts(model):
    """At the same forward values the channel of length k scales with λ^(L−k), and channel 0 with λ^L."""
    images, labels = batch(dataset(), 8)
    graph = lab.record(network(shortcut=0.5).double(), images.astype(np.float64), labels)

    class WithoutFactors(lab.ByLength):
        def shortcut(self, addition, channels):
            return [None if g is None else g / 0.5 for g in channels]

    [channels] = graph.backward([graph.place("stem")], lab.ByLength())
    [without] = graph.backward([graph.place("stem")], WithoutFactors())
    assert len(channels) == 4
    for k, (g, h) in enumerate(zip(channels, without)):
        np.testing.assert_allclose(g, 0.5 ** (3 - k) * h, rtol=1e-12)
    [direct] = graph.backward([graph.place("stem")], Unscaled(0.5))
    np.testing.assert_allclose(direct[0], without[0], rtol=1e-12)


def test_the_gradient_by_kind(result, model):
    """The same numbers for the same networks, however they are asked for; and a shut gate is nearly the identity."""
    for kind, factor in ((0, 2), (1, 1)):
        assert result.kind_whole[kind] == result.whole[factor]
        assert result.kind_direct[kind] == result.direct[factor]
    images, labels = normalised(dataset(), np.arange(64), np.float64)
    for i, kind in enumerate(KINDS):
        changed = with_shortcuts(model, kind, 5).double()  # dropout draws where the new weights have left off
        whole, _ = by_the_tape(changed, images, labels)
        assert math.isclose(result.kind_whole[i], whole, rel_tol=1e-9)
    shut = lab.shortcuts(
        model, dataset(), dataset(), (1, "shortcut-only-gating"), (1,), steps=1, batch_size=16, gate_bias=-30
    )
    assert math.isclose(*shut.kind_whole, rel_tol=1e-6)
    assert math.isclose(*shut.kind_direct, rel_tol=1e-6)
    np.testing.assert_allclose(shut.losses[0], shut.losses[1], rtol=1e-5)


def test_the_trainings(result, model):
    """Each against a training of its own, in evaluation with statistics that are estimated afterwards."""
    assert result.kinds == ["identity", "0.5 · S", *KINDS[2:]]
    assert result.losses.shape == (6, 2, 6)
    assert result.test_images == 40
    for i, kind in ((0, 1), (1, 0.5), (2, "exclusive-gating")):
        for t in range(2):
            alone = copy.deepcopy(model)
            mr.manual_seed(5 + t)
            if kind != 1:
                mr.models.replace_shortcuts(alone, kind)
            losses = fit.fit(alone, dataset(), 6, 16, seed=5 + t)
            np.testing.assert_array_equal(result.losses[i, t], losses)
            fit.estimate_statistics(alone, dataset())
            assert result.train_loss[i, t] == fit.evaluated(alone, dataset())[0]
            assert (result.test_loss[i, t], result.accuracy[i, t]) == fit.evaluated(alone, dataset(40, seed=1))
    assert (abs(result.losses[:, 0] - result.losses[:, 1]).max(1) > 1e-3).all()


def found_with(accuracy, images=10000, kinds=("identity", "0.5 · S", "exclusive-gating", "conv1x1", "dropout")):
    accuracy, numbers = np.array(accuracy, float), np.ones(1)
    accuracy = accuracy[:, None] if accuracy.ndim == 1 else accuracy
    n = np.ones(len(kinds))
    losses = np.zeros((*accuracy.shape, 5))
    return lab.Shortcuts(
        {}, 3, numbers, numbers, numbers, numbers, 0.0, list(kinds), n, n, losses, *[accuracy] * 3, images
    )


@pytest.mark.parametrize(
    ("accuracy", "word"),
    [
        ([0.9, 0.8, 0.87, 0.85, 0.1], "seen"),
        ([0.9, 0.8, 0.896, 0.85, 0.1], "unclear"),  # two standard errors of a difference are 0.0085
        ([0.9, 0.8, 0.85, 0.92, 0.1], "not seen"),
        ([0.9, 0.899, 0.901, 0.9, 0.897], "not seen"),
        ([0.9, 0.885, 0.9, 0.9, 0.9], "unclear"),  # that one may be two points worse
        # in three trainings that differ more from one another than the test images say
        ([[0.9, 0.9, 0.9], [0.8] * 3, [0.95, 0.8, 0.8], [0.8] * 3, [0.8] * 3], "unclear"),
        ([[0.9, 0.91, 0.92], [0.8] * 3, [0.83, 0.84, 0.85], [0.8] * 3, [0.8] * 3], "seen"),
    ],
)
def test_the_verdict(accuracy, word):
    assert found_with(accuracy).verdict.word == word


def test_what_the_verdict_needs():
    some = found_with([0.9, 0.8], kinds=("identity", "0.5 · S")).verdict
    assert some == ("unclear", "exclusive-gating, conv1x1, dropout would have to be trained too")
    assert found_with([1.0] * 5, images=64).verdict.word == "unclear"  # so few images cannot say that all are alike
    difference, error = found_with([0.9, 0.8, 0.87, 0.85, 0.1]).lead("0.5 · S")
    assert math.isclose(difference, 0.1)
    assert math.isclose(error, math.sqrt(0.9 * 0.1 / 10000 + 0.8 * 0.2 / 10000), rel_tol=1e-3)


def test_json_and_the_picture(result, tmp_path):
    result.losses[5, 0, 3:] = math.nan  # a divergence
    again = lab.Shortcuts.from_json(result.to_json())
    for name, value in vars(result).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    result.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    heads, rows = result.rows()
    assert [row[0] for row in rows] == ["λ = 0", "λ = 0.5", "λ = 1", "λ = -1.5", *result.kinds]
    assert {len(row) for row in rows} == {len(heads)}
    assert rows[-1][-1] == "fails"


def test_bad_input(model):
    data = dataset()
    for other in ("plain8", "preresnet8"):
        with pytest.raises(ConfigError, match="are for residual networks of basic blocks"):
            lab.shortcuts(network(other), data, data)
    with pytest.raises(ConfigError, match=r"shortcut is a number, .* not 'gate'"):
        lab.shortcuts(model, data, data, ["gate"])
    with pytest.raises(ConfigError, match=r"shortcut is a number, .* not nan"):
        lab.shortcuts(model, data, data, factors=[math.nan])
    for given in ({"kinds": ()}, {"factors": ()}):
        with pytest.raises(ConfigError, match="there are no kinds, or no factors, to look at"):
            lab.shortcuts(model, data, data, **given)
    with pytest.raises(ConfigError, match="trainings must be a whole number from 1 to 100, not 0"):
        lab.shortcuts(model, data, data, trainings=0)
    with pytest.raises(ConfigError, match="steps must be a whole number from 1"):
        lab.shortcuts(model, data, data, (1,), (1,), steps=0)
    with np.errstate(all="ignore"), pytest.raises(DataError, match=r"not finite|the loss is"):
        lab.shortcuts(model, data, data, factors=[1e200])
