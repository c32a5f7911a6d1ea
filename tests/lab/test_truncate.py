"""The experiments truncate and cut: their numbers, verdicts by the stated rules, JSON there and back, bad input."""

import math

import numpy as np
import pytest
from short_trainings import batch, dataset, network, truncated_by_detach

import minires as mr
from minires import functional as F
from minires import lab
from minires.errors import ConfigError
from minires.lab import fit

HOW = {"steps": 25, "batch_size": 16}


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def truncated(model):
    before = {k: v.copy() for k, v in model.state_dict().items()}
    seen = []
    result = lab.truncate(
        model, dataset(), dataset(40, seed=1), [1, 0], **HOW, progress=lambda *given: seen.append(given)
    )
    assert all((model.state_dict()[k] == v).all() for k, v in before.items())
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert [done for done, _, _ in seen] == list(range(75))
    assert {total for _, total, _ in seen} == {75}
    return result


def test_truncate(model, truncated):
    assert truncated.longest == [0, 1, 3]
    assert truncated.losses.shape == (3, 25)
    np.testing.assert_allclose(truncated.losses[:, 0], truncated.losses[0, 0], rtol=1e-5)
    assert truncated.losses[2, -1] < 0.5 * truncated.losses[2, 0]
    # the last is the ordinary training
    alone = network()
    losses = fit.fit(alone, dataset(), 25, 16)
    np.testing.assert_array_equal(truncated.losses[2], losses)
    fit.estimate_statistics(alone, dataset())
    assert truncated.accuracy[2] == fit.evaluated(alone, dataset(40, seed=1))[1]
    assert truncated.test_images == 40


def test_the_first_gradients(model, truncated):
    """Against the tape, where all residual functions are detached."""
    images, labels = batch(dataset(), 64)
    short = truncated_by_detach(model, images, labels, ())
    whole = truncated_by_detach(model, images, labels, (0, 1, 2))
    norm = math.sqrt(sum((g.astype(float) ** 2).sum() for g in whole.values()))
    mine = math.sqrt(sum((g.astype(float) ** 2).sum() for g in short.values() if g is not None))
    inner = sum((g.astype(float) * whole[name]).sum() for name, g in short.items() if g is not None)
    assert math.isclose(truncated.size[0], mine / norm, rel_tol=1e-4)
    assert math.isclose(truncated.cosine[0], inner / (mine * norm), rel_tol=1e-4)
    assert truncated.size[0] < 0.99
    np.testing.assert_allclose([truncated.size[2], truncated.cosine[2]], 1, rtol=1e-6)


def truncated_with(accuracy, longest=(0, 1, 3, 9), images=1000):
    n, zeros = len(longest), np.zeros(len(longest))
    return lab.Truncate({}, list(longest), np.zeros((n, 5)), zeros, zeros, np.array(accuracy), images, zeros, zeros)


@pytest.mark.parametrize(
    ("accuracy", "word"),
    [
        ([0.2, 0.3, 0.58, 0.6], "seen"),  # 0.95 of what is added, with K = 3
        ([0.2, 0.6, 0.38, 0.6], "not seen"),  # K = 1 does not count
        ([0.2, 0.3, 0.42, 0.6], "unclear"),
        ([0.2, 0.3, 0.58, 0.25], "unclear"),  # the whole gradient adds 0.05, three standard errors are 0.056
        ([0.2, 0.3, 0.7, 0.2], "unclear"),
    ],
)
def test_the_verdict_of_truncate(accuracy, word):
    assert truncated_with(accuracy).verdict.word == word


def test_truncate_needs_both_ends():
    assert truncated_with([0.2, 0.6], (0, 9)).verdict.word == "unclear"
    assert truncated_with([0.6, 0.6], (1, 9)).verdict.word == "unclear"
    assert truncated_with([0.2, 0.6, 0.6], (0, 4, 9)).verdict.word == "unclear"
    assert np.isnan(truncated_with([0.6, 0.6], (1, 9)).recovered).all()
    np.testing.assert_allclose(truncated_with([0.2, 0.3, 0.4, 0.6]).recovered, [0, 0.25, 0.5, 1])


@pytest.fixture(scope="module")
def cuts(model):
    before = {k: v.copy() for k, v in model.state_dict().items()}
    result = lab.cut(model, dataset(), dataset(40, seed=1), **HOW)
    assert all((model.state_dict()[k] == v).all() for k, v in before.items())
    return result


def test_cut(cuts, truncated):
    assert cuts.cuts == ["nothing", "shortcuts", "residual functions"]
    np.testing.assert_array_equal(cuts.losses[0], truncated.losses[2])
    np.testing.assert_allclose(cuts.losses[2], truncated.losses[0], rtol=1e-5)  # K = 0
    assert not np.allclose(cuts.losses[1], cuts.losses[0], rtol=1e-2)
    assert cuts.chance == 0.25
    assert cuts.blocks == ["layer1.0", "layer2.0", "layer3.0"]


def test_the_profile_against_detach(cuts, model):
    """The gradients of the blocks' inputs by the tape, with one side of every addition detached."""
    images, labels = batch(dataset(), 64)
    before = F.conv_bn_add_relu
    for row, side in zip(cuts.profile, (None, "shortcut", "branch")):
        inputs = []

        def joined(x, conv, bn, shortcut, factor, side=side):
            branch = bn(conv(x))
            return F.add_relu(
                branch.detach() if side == "branch" else branch, shortcut.detach() if side == "shortcut" else shortcut
            )

        def keep(module, given, inputs=inputs):
            given[0].retain_grad()
            inputs.append(given[0])

        blocks = (model.layer1[0], model.layer2[0], model.layer3[0])
        handles = [b.register_forward_pre_hook(keep) for b in blocks]
        F.conv_bn_add_relu = joined
        try:
            with mr.fusion(False):
                F.cross_entropy(model(mr.tensor(images)), labels).backward()
        finally:
            F.conv_bn_add_relu = before
            for handle in handles:
                handle.remove()
        model.zero_grad()
        np.testing.assert_allclose(row, [np.linalg.norm(x.grad) for x in inputs], rtol=1e-4)


def cuts_with(accuracy, images=1000):
    zeros = np.zeros(3)
    losses, profile = np.zeros((3, 5)), np.zeros((3, 1))
    return lab.Cuts({}, ["a", "b", "c"], losses, zeros, zeros, np.array(accuracy), images, 0.1, ["block"], profile)


@pytest.mark.parametrize(
    ("accuracy", "word"),
    [
        ([0.6, 0.3, 0.6], "seen"),
        ([0.6, 0.56, 0.1], "not seen"),
        ([0.6, 0.4, 0.1], "unclear"),
        ([0.13, 0.1, 0.1], "unclear"),  # three standard errors are 0.032
        ([0.1, 0.1, 0.1], "unclear"),
    ],
)
def test_the_verdict_of_cut(accuracy, word):
    assert cuts_with(accuracy).verdict.word == word


def test_json_and_pictures(cuts, truncated, tmp_path):
    truncated.losses[0, 20:] = math.nan  # a divergence
    for result in (cuts, truncated):
        again = type(result).from_json(result.to_json())
        for name, value in vars(result).items():
            np.testing.assert_array_equal(getattr(again, name), value)
        assert again.to_json() == result.to_json()
        result.plot(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 5000
        heads, rows = result.rows()
        assert len(rows) == 3
        assert {len(row) for row in rows} == {len(heads)}


def test_bad_input(model):
    data = dataset()
    plain = network("plain8")
    for experiment in (lab.truncate, lab.cut):
        with pytest.raises(ConfigError, match="CifarResNet has no residual addition"):
            experiment(plain, data, data)
        with pytest.raises(ConfigError, match="steps must be a whole number from 1"):
            experiment(model, data, data, steps=0)
        with pytest.raises(ConfigError, match="a batch has from 2 to 64 images"):
            experiment(model, data, data, batch_size=100)
    for longest in ([-1], [], [1] * 101):
        with pytest.raises(ConfigError, match="longest is up to 100 path lengths from 0 up"):
            lab.truncate(model, data, data, longest)
