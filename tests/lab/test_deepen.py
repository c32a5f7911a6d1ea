"""The experiment deepen: path lengths over a training, its verdict by the stated rule, JSON there and back, bad input."""

import copy
import itertools
import math

import numpy as np
import pytest
from short_trainings import batch, dataset, network

import minires as mr
from minires import functional as F
from minires import lab, training
from minires.errors import ConfigError, DataError
from minires.lab import fit
from minires.lab.experiments.paths import mean_length_by_energy
from minires.lab.result import norm
from minires.lab.setting import Setting

LOOKS = [0, 2, 5]
HOW = {"batch_size": 16, "draws": 2}


@pytest.fixture(scope="module")
def networks():
    first, second = network(), network()
    second.conv1.weight.data *= np.float32(0.5)
    second.layer1[0].bn2.weight.data[...] = -3
    return [first, second]


@pytest.fixture(scope="module")
def batches():
    return [batch(dataset(12, seed=s), 12) for s in (2, 3, 4)]


@pytest.fixture(scope="module")
def result(networks, batches):
    before = [{k: v.copy() for k, v in m.state_dict().items()} for m in networks]
    found = lab.deepen(networks, dataset(), batches, LOOKS, seed=7, **HOW)
    for model, state in zip(networks, before):
        assert all((model.state_dict()[k] == v).all() for k, v in state.items())
        assert all(p.grad is None for p in model.parameters())
        assert all(m.training for m in model.modules())
    return found


def trained(model, step, seed=7):
    """The network after some of the five steps, by a copy that is made ahead of the next."""
    model, copies = copy.deepcopy(model), []
    gradients = fit.whole_gradient(model)

    def copying(images, labels):
        copies.append(copy.deepcopy(model))
        return gradients(images, labels)

    fit.fit(model, dataset(), 5, 16, seed=seed, gradients=copying)
    return [*copies, model][step]


def test_lengths_by_shares(result, networks, batches):
    """Against the shares of all L + 1 channels, at every look of both trainings."""
    assert result.by_share.shape == (2, 3, 3)
    assert result.usual == 1.5
    for i, (look, step) in itertools.product((0, 1), enumerate(LOOKS)):
        model = trained(networks[i], step, 7 + i)
        for j, each in enumerate(batches):
            shares = lab.paths(model, each, draws=2).shares
            assert math.isclose(result.by_share[i, look, j], (np.arange(4) * shares).sum(), rel_tol=1e-3)
    assert abs(result.by_share[0, 0] - result.by_share[0, 1]).max() > 0.01  # the training shows


def test_looking_does_not_change_the_training(networks, batches):
    """The last look, after all five steps, against an ordinary training."""
    for looks in ([5], [0, 1, 2, 3, 4, 5]):
        found = lab.deepen(networks[:1], dataset(), batches[:2], looks, seed=7, **HOW)
        model = network()
        fit.fit(model, dataset(), 5, 16, seed=7)
        assert found.by_share[0, -1, 1] == lab.mean_path_length(model, batches[1])
        losses = [float(F.cross_entropy(model(mr.tensor(x)), y).item()) for x, y in batches[:2]]
        assert math.isclose(found.losses[0, -1], np.mean(losses), rel_tol=1e-5)


class EverySign:
    """Draws every combination of signs once, in place of a random generator."""

    def __init__(self, count):
        self.signs = itertools.product((-1.0, 1.0), repeat=count)

    def choice(self, values, count):
        return np.array(next(self.signs))


@pytest.mark.parametrize("at", ["input", "stem", "layer2.0"])
def test_lengths_by_energy(networks, batches, at):
    """Against the energies of all 2^L single paths: over all signs the identity is exact."""
    model = copy.deepcopy(networks[1]).double()
    images, labels = batches[0]
    graph = lab.record(model, images.astype(np.float64), labels, training=True)
    names, x = [a.name for a in graph.additions], graph.place(at)
    energies = np.zeros(4)
    for k in range(4):
        for chosen in itertools.combinations(names, k):
            [channels] = graph.backward([x], lab.OnePath(chosen))
            energies[k] += norm(channels[0]) ** 2 if channels else 0.0
    if at == "layer2.0":  # from there one residual function leads on
        single = [norm(graph.backward([x], lab.OnePath(chosen))[0][0]) ** 2 for chosen in ([], names[2:])]
        expected = single[1] / sum(single)
    else:
        expected = (np.arange(4) * energies).sum() / energies.sum()
    mean, error = mean_length_by_energy(graph, at, 8, EverySign(3))
    assert math.isclose(mean, expected, rel_tol=1e-10)
    assert error > 0


def test_the_signs_are_the_same_at_every_look(networks, batches):
    """A training that changes nothing has lengths that do not change."""
    found = lab.deepened({0: networks[0], 10: networks[0]}, batches, draws=2, seed=3)
    np.testing.assert_array_equal(found.by_energy[0, 0], found.by_energy[0, 1])
    assert len(set(found.by_energy[0, 0])) == 3
    other = lab.deepened({0: networks[0]}, batches, draws=2, seed=4)
    assert (other.by_energy[0, 0] != found.by_energy[0, 0]).all()
    np.testing.assert_array_equal(other.by_share[0, 0], found.by_share[0, 0])


def test_scales(result, networks):
    channels = [4, *(4, 4), *(8, 8), *(16, 16)]
    assert math.isclose(result.scale[0, 0], 1)
    assert math.isclose(result.scale[1, 0], (sum(channels) - 4 + 4 * 3) / sum(channels), rel_tol=1e-6)
    last = trained(networks[0], 5)
    found = [abs(p.numpy()) for name, p in last.named_parameters() if "bn" in name and name.endswith("weight")]
    assert math.isclose(result.scale[0, 2], np.concatenate(found).mean(), rel_tol=1e-4)


def test_where_shortcuts_cross():
    """Three paths, through 0, 1 and 2 residual functions."""
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((2, 3, 35, 35)).astype(np.float32), np.array([0, 1])) for _ in range(2)]
    found = lab.deepened({0: mr.models.crossing(num_classes=4)}, batches, "stem", draws=2)
    assert found.usual == 1.0
    without = lab.deepened({0: network(norm="none")}, [batch(dataset(), 4)] * 2, draws=2)
    assert np.isnan(without.scale).all()


def found_with(by_energy, looks=(0, 100)):
    by_energy = np.array(by_energy, float)
    rest = np.zeros(by_energy.shape[:2])
    return lab.Deepen({}, "input", 4.5, list(looks), by_energy, by_energy, by_energy, 2, rest, rest)


BELOW, ABOVE = [4.0, 4.1, 4.2], [4.9, 5.0, 5.1]


@pytest.mark.parametrize(
    ("by_energy", "word"),
    [
        ([[BELOW, ABOVE]], "seen"),
        ([[BELOW, [4.0, 4.12, 4.19]]], "unclear"),
        ([[[4.3, 4.5, 4.6], ABOVE]], "unclear"),  # deeper, but not from clearly below half
        ([[ABOVE, [5.9, 6.0, 6.1]]], "not seen"),  # from above half
        ([[BELOW, [3.0, 3.1, 3.3]]], "not seen"),
        ([[BELOW, [4.9, math.nan, 5.1]]], "unclear"),
        # three trainings: what differs between the batches of one does not count, what differs between them does
        ([[[3, 5.2], [4, 6.2]], [[3.1, 5.3], [4, 6.2]], [[3, 5.2], [4.1, 6.3]]], "seen"),
        ([[[4, 4], [4.5, 4.5]], [[4.1, 4.1], [3.5, 3.5]], [[3.9, 3.9], [5.5, 5.5]]], "unclear"),
    ],
)
def test_the_verdict(by_energy, word):
    assert found_with(by_energy).verdict.word == word


def test_one_look_shows_no_change():
    assert found_with([[BELOW]], [7]).verdict == ("unclear", "one look, at step 7, shows no change")


def test_a_divergence(networks, batches):
    with np.errstate(all="ignore"):
        found = lab.deepen(networks[:1], dataset(), batches, LOOKS, lr=1e30, **HOW)
    assert np.isfinite(found.by_share[0, 0]).all()
    assert np.isnan(found.by_share[0, 2]).all()
    assert found.verdict == ("unclear", "a training has diverged, or there was no gradient")
    broken = network()
    broken.conv1.weight.data[...] = np.nan
    with pytest.raises(DataError, match="the loss is nan"):
        lab.deepen([broken], dataset(), batches, LOOKS, **HOW)


def test_the_progress(networks, batches):
    seen = []
    lab.deepen(networks, dataset(), batches, [0, 3], progress=lambda *given: seen.append(given), **HOW)
    assert [(done, total) for done, total, _ in seen] == [(n, 6) for n in range(6)]


def test_a_trained_run(tmp_path, monkeypatch, batches):
    """The new network is the one that the run began with, and the other the one that it ended with."""
    monkeypatch.setattr(training.build.data, "load", lambda *given, **more: (dataset(), dataset()))
    recipe = training.Recipe("resnet8", {"width": 4}, epochs=2, batch_size=16, seed=5)
    with training.RunFolder.create(recipe, tmp_path / "run") as folder:
        trainer = training.build_trainer(recipe, [training.Recorder(folder, recipe)])
        first = {k: v.copy() for k, v in trainer.model.state_dict().items()}
        trainer.fit()
    found = Setting(run=str(tmp_path / "run")).first_and_last(np.float32)
    assert list(found) == [0, 8]
    for model, state in zip(found.values(), (first, trainer.model.state_dict())):
        assert all((model.state_dict()[k] == v).all() for k, v in state.items())
        assert model.training
    compared = lab.deepened(found, batches, draws=2)
    assert compared.looks == [0, 8]
    assert compared.by_share[0, 1, 0] == lab.mean_path_length(trainer.model.train(), batches[0])


def test_json_and_the_picture(result, tmp_path):
    result.by_energy[1, 2] = math.nan
    again = lab.Deepen.from_json(result.to_json())
    for name, value in vars(result).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    result.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    heads, rows = result.rows()
    assert [row[0] for row in rows] == ["0", "2", "5"]
    assert {len(row) for row in rows} == {len(heads)}
    assert rows[0][1] == f"{result.by_energy[:, 0].mean():.2f}"


def test_bad_input(networks, batches):
    for looks in ([], [-1, 2], [3, 3], [5, 2]):
        with pytest.raises(ConfigError, match="looks are whole numbers of steps from 0 up that ascend"):
            lab.deepen(networks, dataset(), batches, looks)
    with pytest.raises(ConfigError, match="there are no networks to look at"):
        lab.deepen([], dataset(), batches)
    with pytest.raises(ConfigError, match="batches must be two or more"):
        lab.deepen(networks, dataset(), batches[:1])
    with pytest.raises(ConfigError, match="draws must be a whole number from 2 up, not 1"):
        lab.deepened({0: networks[0]}, batches, draws=1)
    with pytest.raises(ConfigError, match="CifarResNet has no residual addition"):
        lab.deepen([network("plain8")], dataset(), batches)
    with pytest.raises(ConfigError, match="no place 'layer9'"):
        lab.deepen(networks, dataset(), batches, at="layer9")
    with pytest.raises(ConfigError, match="a batch has from 2 to 64 images"):
        lab.deepen(networks, dataset(), batches, [3], batch_size=100)
