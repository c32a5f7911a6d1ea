"""The experiment construct: identity layers against their formula, the training by hand, its verdict, JSON, bad input."""

import math

import numpy as np
import pytest
from short_trainings import batch, dataset, network

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.errors import ConfigError
from minires.lab import fit
from minires.lab.catalogue import run
from minires.lab.experiments.construct import set_identity
from minires.lab.setting import Setting


@pytest.fixture(scope="module")
def shallow():
    """A plain network of 8 layers that has been trained a little."""
    model, data = network("plain8"), dataset()
    fit.fit(model, data, 30, 16)
    fit.estimate_statistics(model, data)
    return model.eval()


def state(model):
    return {k: v.copy() for k, v in model.state_dict().items()}


def logits(model, x, training=False):
    model.train(training)
    with mr.no_grad():
        return model(mr.tensor(x)).numpy().copy()


def test_a_layer_is_the_identity_of_its_input():
    """In evaluation mode for any input; in training mode of one whose mean and variance are those of the statistics."""
    rng = np.random.default_rng(0)
    conv, norm = nn.Conv2d(3, 3, 3, padding=1, bias=False).double(), nn.BatchNorm2d(3).double()
    x = rng.uniform(0, 5, (4, 3, 6, 6)) * np.array([1, 20, 0])[:, None, None] + np.array([0, 3, 0.7])[:, None, None]
    set_identity(conv, norm, x.mean((0, 2, 3)), x.var((0, 2, 3)))
    other = rng.standard_normal(x.shape)
    norm.eval()
    np.testing.assert_allclose(norm(conv(mr.tensor(other))).numpy(), other, rtol=1e-9, atol=1e-9)
    norm.train()
    np.testing.assert_allclose(norm(conv(mr.tensor(x))).numpy(), x, rtol=1e-9, atol=1e-9)
    set_identity(conv, norm, np.zeros(3), np.full(3, 1 - norm.eps))  # γ = 1, β = 0
    np.testing.assert_array_equal(norm.weight.data, 1)
    np.testing.assert_allclose(norm.eval()(conv(mr.tensor(other))).numpy(), other, rtol=1e-9, atol=1e-9)
    normalised = norm.train()(conv(mr.tensor(x))).numpy()
    np.testing.assert_allclose(normalised.mean((0, 2, 3)), 0, atol=1e-9)


def test_the_constructed_network_is_exact(shallow):
    images, _ = batch(dataset(seed=9))
    before = state(shallow)
    deep = network("plain32")
    untrained = state(deep)
    built = lab.with_identity_layers(shallow, deep, dataset())
    for model, was in ((shallow, before), (deep, untrained)):
        assert all((model.state_dict()[k] == v).all() for k, v in was.items())
    assert len([m for m in built.modules() if isinstance(m, nn.Conv2d)]) == 31
    expected = logits(shallow, images)
    found = logits(built, images)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    exact = lab.with_identity_layers(shallow.double(), network("plain32").double(), dataset())
    shallow.float()
    twin = network("plain8").double()
    twin.load_state_dict(before)
    assert np.abs(logits(exact, images.astype(float)) - logits(twin.eval(), images.astype(float))).max() < 1e-10


def test_statistics_are_those_of_the_layers_input(shallow):
    """Of the stage's output by channel, in training mode: mean and unbiased variance of each batch, averaged."""
    data = dataset(40)
    built = lab.with_identity_layers(shallow, network("plain14"), data)
    twin = network("plain8")
    twin.load_state_dict(shallow.state_dict())
    with mr.no_grad():
        x = twin.train().layer1(F.relu(twin.bn1(twin.conv1(mr.tensor(batch(data, 40)[0]))))).numpy()
    norm = built.layer1[1].bn1
    np.testing.assert_allclose(norm.running_mean, x.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.running_var, x.var((0, 2, 3), ddof=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.weight.data, np.sqrt(norm.running_var + 1e-5), rtol=1e-6)
    np.testing.assert_array_equal(norm.bias.data, norm.running_mean)


def test_the_experiment_against_a_training_by_hand(shallow):
    data, deep, auxiliary = dataset(), network("plain14"), network("plain14", aux_weight=0.3)
    models = (shallow, deep, auxiliary)
    before = [state(m) for m in models]
    modes = [[m.training for m in model.modules()] for model in models]
    progress = []
    how = {"steps": 6, "batch_size": 16, "lr": 0.02, "seed": 2}
    found = lab.construct(*models[:2], data, auxiliary, (30, 40, 50), **how, progress=lambda *p: progress.append(p))
    for model, was, mode in zip(models, before, modes):
        assert all((model.state_dict()[k] == v).all() for k, v in was.items())
        assert [m.training for m in model.modules()] == mode
    assert found.networks == ["shallow", "constructed", "deep", "deep, auxiliary"]
    assert found.trained == [30, 30, 40, 50]
    assert progress[0] == (0, 24, "training the shallow network")
    assert 0 < found.difference < 1e-4
    images, labels = next(iter(mr.data.Loader(data, 16, seed=2, drop_last=True)))
    one = lab.with_identity_layers(shallow, deep, data)
    expected = F.cross_entropy(mr.tensor(logits(one, images, training=True)), labels).item()
    assert math.isclose(found.first[1], expected, rel_tol=1e-5)
    one = lab.with_identity_layers(shallow, deep, data)  # whose running statistics have not moved
    assert math.isclose(found.before[1], fit.evaluated(one, data)[0], rel_tol=1e-5)
    assert math.isclose(found.before[0], fit.evaluated(shallow, data)[0], rel_tol=1e-6)
    assert math.isclose(found.before[0], found.before[1], rel_tol=1e-3)
    losses = fit.fit(one, data, 6, 16, 0.02, 2)
    np.testing.assert_allclose(found.losses[1], losses, rtol=1e-4)
    fit.estimate_statistics(one, data)
    loss, accuracy = fit.evaluated(one, data)
    assert math.isclose(found.after[1], loss, rel_tol=1e-3)
    assert found.error[1] == 1 - accuracy
    assert found.losses[2, 0] == found.first[2]  # the deep network's first step is on the same batch
    # and the auxiliary loss moves weights
    assert not math.isclose(found.losses[3, 1], found.losses[2, 1], rel_tol=1e-6)


def test_gamma_of_one_destroys_the_identity(shallow):
    """The first batch in training mode: nearly the shallow network's loss, or that of an untrained one."""
    data, deep = dataset(), network("plain32")
    found = lab.construct(shallow, deep, data, steps=1, batch_size=16)
    assert found.first[0] < 0.7
    assert abs(found.first[1] - found.first[0]) < 0.05
    assert found.naive > found.first[0] + 0.3
    images, labels = next(iter(mr.data.Loader(data, 16, seed=0, drop_last=True)))
    naive = lab.with_identity_layers(shallow, deep, data)
    for name, module in naive.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name.split(".")[1:2] not in ([], ["0"]):
            module.weight.data, module.bias.data = np.ones_like(module.weight.data), np.zeros_like(module.bias.data)
    expected = F.cross_entropy(mr.tensor(logits(naive, images, training=True)), labels).item()
    assert math.isclose(found.naive, expected, rel_tol=1e-3)


def result_with(difference, built, deep, trained=(10, 10, 10)):
    after = np.array([0.5, built, deep])
    names = ["shallow", "constructed", "deep"]
    return lab.Construct(
        {"model": "plain20"},
        names,
        list(trained),
        difference,
        after + 0.1,
        after,
        after / 2,
        np.full((3, 40), 0.5),
        after,
        2.5,
    )


@pytest.mark.parametrize(
    ("difference", "built", "deep", "trained", "word"),
    [
        (1e-6, 0.10, 0.20, (10, 10, 10), "seen"),
        (1e-6, 0.10, 0.20, (10, 10, 20), "seen"),
        (1e-6, 0.188, 0.20, (10, 10, 10), "seen"),
        (1e-6, 0.192, 0.20, (10, 10, 10), "unclear"),
        (1e-6, 0.21, 0.20, (10, 10, 10), "not seen"),
        (2e-4, 0.10, 0.20, (10, 10, 10), "not seen"),
        (math.nan, 0.10, 0.20, (10, 10, 10), "not seen"),
        (1e-6, 0.10, 0.20, (10, 10, 9), "unclear"),
    ],
)
def test_the_verdict_follows_its_rule(difference, built, deep, trained, word):
    assert result_with(difference, built, deep, trained).verdict.word == word


def test_json_and_pictures(tmp_path):
    result = result_with(1e-6, 0.1, 0.2)
    again = lab.Construct.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    np.testing.assert_array_equal(again.after, result.after)
    again.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    heads, rows = again.rows()
    assert {len(row) for row in rows} == {len(heads)}
    assert rows[2][0] == "constructed, γ = 1, β = 0"
    assert rows[2][3] == "2.5000"


def test_the_command_trains_all_networks():
    found = run("construct", Setting(model="plain8", width=2, image_size=8, batch_size=8, quick=True), steps=3)
    assert found.networks == ["shallow", "constructed", "deep", "deep, auxiliary"]
    assert found.trained == [3, 3, 3, 3]
    assert found.losses.shape == (4, 3)
    assert np.isfinite(found.after).all()


def test_bad_input(shallow):
    for name, options in (("resnet14", {}), ("preplain14", {}), ("plain14", {"norm": "none"})):
        for pair in ((shallow, network(name, **options)), (network(name, **options), network("plain32"))):
            with pytest.raises(ConfigError, match="construct takes plain networks with batch norm"):
                lab.construct(*pair, dataset())
    for deep in (network("plain8"), shallow):
        with pytest.raises(ConfigError, match="the deep network has 1 blocks in a stage, and the shallow one 1"):
            lab.construct(shallow, deep, dataset())
    mr.manual_seed(0)
    for options in ({"width": 5}, {"num_classes": 5}, {"pool": "max"}, {"in_channels": 1}):
        other = mr.models.plain14(**{"width": 4, "num_classes": 4, **options})
        with pytest.raises(ConfigError, match="not of the shallow one's width, image channels, classes and pooling"):
            lab.construct(shallow, other, dataset())
    with pytest.raises(ConfigError, match="steps must be a whole number from 1"):
        lab.construct(shallow, network("plain14"), dataset(), steps=0)
    with pytest.raises(ConfigError, match="a batch has from 2"):
        lab.construct(shallow, network("plain14"), dataset(), batch_size=1)
    with pytest.raises(ConfigError, match="plain110 has no deeper network"):
        run("construct", Setting(model="plain110"))
