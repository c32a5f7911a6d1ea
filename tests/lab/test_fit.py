"""Short trainings for the experiments: the update against its formula, truncated gradients against detach(), statistics."""

import math

import numpy as np
import pytest
from short_trainings import batch, dataset, network, truncated_by_detach

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.errors import ConfigError, DataError
from minires.lab import fit
from minires.lab.setting import Setting


def test_short_paths_against_detach():
    """K = 0: all residual functions detached. K = 1, for a weight inside a block: all those above it detached."""
    model, data = network(), dataset()
    images, labels = batch(data)

    def by(longest):
        model.zero_grad()
        loss = fit.gradient_by(model, lab.ByLength(longest=longest))(images, labels)
        assert math.isclose(loss, F.cross_entropy(model(mr.tensor(images)), labels).item(), rel_tol=1e-5)
        found = {name: None if p.grad is None else p.grad.copy() for name, p in model.named_parameters()}
        model.zero_grad()
        return found

    none, one = by(0), by(1)
    expected = truncated_by_detach(model, images, labels, ())
    assert {name for name, g in none.items() if g is None} == {name for name in expected if "layer" in name}
    for name in ("conv1.weight", "bn1.bias", "fc.weight"):
        np.testing.assert_allclose(none[name], expected[name], rtol=1e-4, atol=1e-6)
    for i, block in enumerate(("layer1.0", "layer2.0", "layer3.0")):
        expected = truncated_by_detach(model, images, labels, (i,))
        for weight in ("conv1.weight", "bn1.weight", "conv2.weight", "bn2.bias"):
            name = f"{block}.{weight}"
            assert np.abs(expected[name]).max() > 1e-4
            np.testing.assert_allclose(one[name], expected[name], rtol=1e-3, atol=1e-6)


def test_all_channels_train_as_the_tape_does():
    data, losses = dataset(), []
    for rule in (None, lab.Rule(), lab.ByLength()):
        model = network()
        gradients = None if rule is None else fit.gradient_by(model, rule)
        losses.append(fit.fit(model, data, 6, 16, gradients=gradients))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-3)
    assert losses[0][-1] < losses[0][0]


def test_the_first_update():
    """v = g + λw, w ← w − lr/25·(g + λw + μv), and no λ for vectors."""
    model, data = network(), dataset()
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    images, labels = next(iter(mr.data.Loader(data, 16, seed=3)))
    F.cross_entropy(model(mr.tensor(images)), labels).backward()
    grads = {name: p.grad.copy() for name, p in model.named_parameters()}
    model.zero_grad()
    fit.fit(model, data, 100, 16, lr=0.5, seed=3, gradients=stopping(fit.whole_gradient(model), 1))
    for name, p in model.named_parameters():
        g = grads[name] + (5e-4 * before[name] if p.ndim > 1 else 0)
        np.testing.assert_allclose(p.data, before[name] - 0.5 / 25 * 1.9 * g, rtol=1e-4, atol=1e-6, err_msg=name)


def stopping(gradients, after):
    """Gradients whose loss is NaN after so many steps."""
    steps = []

    def wrapped(images, labels):
        steps.append(1)
        return gradients(images, labels) if len(steps) <= after else math.nan

    return wrapped


def test_a_divergence_ends_the_training():
    model = network()
    losses = fit.fit(model, dataset(), 8, 16, gradients=stopping(fit.whole_gradient(model), 3))
    assert np.isfinite(losses[:3]).all()
    assert np.isnan(losses[3:]).all()
    model = network(norm="none")
    losses = fit.fit(model, dataset(), 8, 16, lr=1e20, gradients=fit.gradient_by(model, lab.Rule()))
    assert math.isfinite(losses[0])
    assert math.isnan(losses[-1])
    assert all(np.isfinite(p.data).all() for p in model.parameters())


def test_a_wrong_network_is_an_error():
    model = network()
    model.fc.weight.data = model.fc.weight.data * np.float32(np.nan)
    with pytest.raises(DataError, match="the loss is nan"):
        fit.fit(model, dataset(), 8, 16, gradients=fit.gradient_by(model, lab.Rule()))


def test_estimated_statistics():
    model, data = network().eval(), dataset(40)
    model.bn1.running_mean[...] = 7
    fit.estimate_statistics(model, data, 16)
    with mr.no_grad():
        outputs = [model.conv1(mr.tensor(x)).numpy() for x, _ in mr.data.Loader(data, 16, shuffle=False)]
    means = [y.mean((0, 2, 3)) for y in outputs]
    variances = [y.var((0, 2, 3), ddof=1) for y in outputs]
    np.testing.assert_allclose(model.bn1.running_mean, np.mean(means, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.bn1.running_var, np.mean(variances, axis=0), rtol=1e-4)
    assert not any(m.training for m in model.modules())
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_evaluation():
    model, data = network().eval(), dataset(30)
    images, labels = batch(data, 30)
    with mr.no_grad():
        logits = model(mr.tensor(images)).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss, accuracy = fit.evaluated(model, data, 16)
    assert math.isclose(loss, -log_p[np.arange(30), labels].mean(), rel_tol=1e-4)
    assert accuracy == (logits.argmax(1) == labels).mean()


def test_twins_and_sizes():
    assert fit.twin("resnet20") == "plain20"
    assert fit.twin("preresnet56") == "preplain56"
    for name in ("plain20", "crossing", "resnet50"):
        with pytest.raises(ConfigError, match=f"{name} has no plain twin"):
            fit.twin(name)
    assert Setting().sized(4, 16).width == 4
    assert Setting(width=8, image_size=32).sized(4, 16) == Setting(width=8, image_size=32)
    assert Setting(model="resnet18").sized(4, 16).width is None
    assert Setting(run="run").sized(4, 16) == Setting(run="run")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1"),
        ({"batch_size": 1}, "a batch has from 2 to 64 images here, all that there are, not 1"),
        ({"batch_size": 65}, "a batch has from 2 to 64 images here, all that there are, not 65"),
    ],
)
def test_trainings_that_cannot_be(given, message):
    with pytest.raises(ConfigError, match=message):
        fit.fit(network(), dataset(), **{"steps": 2, "batch_size": 16, **given})
