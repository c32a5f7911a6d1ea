"""The experiment flow: gradient norms against ordinary backpropagation and against theory, and training by hand."""

import math

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.errors import ConfigError, DataError
from minires.lab.catalogue import run
from minires.lab.setting import Setting


def batches(count=2, images=4, side=8, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((images, 3, side, side)).astype(dtype), rng.integers(0, 10, images)) for _ in range(count)
    ]


def gradients(model, images, labels):
    """{name: gradient of a parameter}, of ordinary backpropagation."""
    model.zero_grad()
    F.cross_entropy(model(mr.tensor(images)), labels).backward()
    return {name: p.grad.copy() for name, p in model.named_parameters()}


def norms_of_convolutions(found):
    return [np.linalg.norm(g) for name, g in found.items() if g.ndim == 4]


def test_norms_and_the_steps_between_them():
    """v ← μv + ∂L/∂w + λw and w ← w − lr·v, written out, on each batch in turn; looked at is the gradient of the next one."""
    mr.manual_seed(0)
    model = mr.models.preresnet8(width=4, num_classes=10).double()
    given = batches(3)
    result = lab.flow({"it": model}, given, steps=(0, 2), lr=0.05, momentum=0.8, weight_decay=0.01)
    velocity = {name: 0.0 for name, _ in model.named_parameters()}
    for n, batch in enumerate(given):
        found = gradients(model, *batch)
        if n in (0, 2):
            np.testing.assert_allclose(result.weights["it"][n // 2], norms_of_convolutions(found), rtol=1e-9)
        for name, parameter in model.named_parameters():
            velocity[name] = 0.8 * velocity[name] + found[name] + 0.01 * parameter.data
            parameter.data = parameter.data - 0.05 * velocity[name]
    assert (result.additions, result.norms) == ([3], [7])


def test_the_signal_at_a_block():
    """The gradient at the output of a block is that of a leaf from which the rest of the network is computed."""
    mr.manual_seed(0)
    model = mr.models.plain8(width=4, num_classes=10).double()
    [(images, labels)] = batches(1)
    result = lab.flow({"it": model}, [(images, labels)], steps=[0])
    x = F.relu(model.bn1(model.conv1(mr.tensor(images))))
    for i, layer in enumerate((model.layer1, model.layer2, model.layer3)):
        x = mr.tensor(layer(x).data, requires_grad=True)
        rest = x
        for later in (model.layer1, model.layer2, model.layer3)[i + 1 :]:
            rest = later(rest)
        loss = F.cross_entropy(model.fc(F.flatten(model.avgpool(rest), 1)), labels)
        loss.backward()
        assert math.isclose(result.signal["it"][0, i], np.linalg.norm(x.grad), rel_tol=1e-9)
        assert math.isclose(result.losses["it"][0], loss.item(), rel_tol=1e-9)
    signal = result.signal["it"][0]
    assert math.isclose(result.ratio("it")[0], signal[0] / signal[2])
    places = lab.flow({"it": model}, [(images, labels)], steps=[0], places=["layer1.0.conv1", "layer2.0", "layer3.0"])
    np.testing.assert_allclose(places.signal["it"][0, 1:], signal[1:], rtol=1e-12)
    assert places.signal["it"][0, 0] != signal[0]


class Wide(nn.Module):
    """Fully-connected layers of width 256, each with batch norm and ReLU, as 1×1 convolutions of one pixel."""

    def __init__(self, layers, norm):
        for i in range(layers):
            self.add_module(f"conv{i}", nn.Conv2d(256, 256, 1, bias=False))
            self.add_module(f"norm{i}", nn.BatchNorm2d(256) if norm else nn.Identity())
            nn.init.kaiming_normal_(getattr(self, f"conv{i}").weight, nonlinearity="relu")
        self.layers = layers

    def forward(self, x):
        for i in range(self.layers):
            x = F.relu(getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x)))
        return F.flatten(x, 1)


@pytest.mark.parametrize(("norm", "growth"), [(True, math.sqrt(math.pi / (math.pi - 1))), (False, 1.0)])
def test_what_batch_norm_does_at_initialisation(norm, growth):
    """Yang et al. 2019: √(π/(π−1)) a layer. Without it He's initialisation keeps the norm."""
    mr.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((256, 256, 1, 1))
    places = [f"norm{i}" for i in range(2, 12)]
    given = [(x, np.random.default_rng(1).integers(0, 256, 256))]
    result = lab.flow({"wide": Wide(14, norm).double()}, given, steps=[0], places=places)
    assert abs(result.ratio("wide")[0] ** (1 / 9) - growth) < 0.04


def test_the_fourteen_networks():
    found = lab.flow_networks(8, seed=3, width=4)
    assert len(found) == 14
    he, xavier = found["plain, BN, He"], found["plain, BN, Xavier"]
    for name, a in he.named_parameters():
        b = dict(xavier.named_parameters())[name]
        scale = math.sqrt(a.shape[0] / sum(a.shape[:2])) if a.ndim == 4 else 1.0
        np.testing.assert_allclose(b.data, scale * a.data, rtol=1e-6)
    wide = lab.flow_networks(8, width=64)["v2, no BN, Xavier"].stages[2].blocks[0]
    for conv, i, o in ((wide.conv1, 128, 256), (wide.conv2, 256, 256)):
        assert abs(conv.weight.data.std() / math.sqrt(2 / (9 * (i + o))) - 1) < 0.01
    result = lab.flow(found, batches(1, dtype=np.float32), steps=[0])
    assert result.networks == list(found)
    for name, additions, norms in zip(result.networks, result.additions, result.norms):
        assert (additions == 0) == name.startswith("plain")
        assert (norms == 0) == ("no BN" in name)
    # with batch norm the weights' scale cancels, but for ε
    np.testing.assert_allclose(result.signal["plain, BN, He"], result.signal["plain, BN, Xavier"], rtol=0.02)
    assert result.ratio("plain, no BN, He")[0] > 2 * result.ratio("plain, no BN, Xavier")[0]
    # what comes before the γ or the convolution that is 0 gets no gradient, and the convolution itself gets one
    for kind in ("v1", "v2"):
        zero = result.weights[f"{kind}, BN, He, zero F"][0]
        assert zero[0] > 0
        assert (zero[1::2] == 0).all()
        assert ((zero[2::2] > 0) == (kind == "v2")).all()
        assert (result.weights[f"{kind}, BN, He"] > 0).all()


def test_networks_stay_as_they_are():
    model = mr.models.resnet8(width=4, num_classes=10).double().eval()
    gradients(model, *batches(1)[0])
    before = [a.copy() for p in model.parameters() for a in (p.data, p.grad)] + [b.copy() for b in model.buffers()]
    lab.flow({"it": model}, batches(3), steps=(0, 2))
    with pytest.raises(ConfigError):
        lab.flow({"it": model}, batches(3), steps=(0, 2), places=["layer9"])
    after = [a for p in model.parameters() for a in (p.data, p.grad)] + list(model.buffers())
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(m.training for m in model.modules())


def test_a_network_that_diverges():
    mr.manual_seed(0)
    calm, wild = (mr.models.resnet8(width=4, num_classes=10, norm="none").double() for _ in range(2))
    for p in wild.parameters():
        p.data *= 1e60
    result = lab.flow({"calm": calm, "wild": wild}, batches(2), steps=(0, 1), lr=1e-3)
    assert np.isfinite(result.signal["calm"]).all()
    assert result.signal["wild"].shape == result.signal["calm"].shape == (2, 3)
    assert np.isnan(result.signal["wild"]).all()
    assert result.rows()[1][1][1:3] == ["diverged", "diverged"]
    later = lab.flow({"calm": calm}, batches(3), steps=(0, 2), lr=1e30)
    assert np.isnan(later.losses["calm"]).tolist() == [False, True]
    with pytest.raises(DataError, match="the gradients of all networks are not finite from the start"):
        lab.flow({"wild": wild}, batches(1), steps=[0])


def result_with(with_norm, without):
    """Two plain networks with these r at steps 0, 1 and 10."""
    signal = {name: np.array([[r, 1.0] for r in rs]) for name, rs in (("a", with_norm), ("b", without))}
    losses = {name: signal[name][:, 0] for name in signal}
    return lab.Flow({}, ["a", "b"], [0, 0], [5, 0], [0, 1, 10], signal, {}, losses)


@pytest.mark.parametrize(
    ("with_norm", "without", "word"),
    [
        ([1000, 300, 2], [0.001, 0.001, 0.5], "seen"),
        ([1000, 300, 2], [0.5, math.nan, math.nan], "seen"),
        ([1000, 300, 2], [0.5, 200, 1], "seen"),
        ([90, 3, 2], [0.001, 0.001, 0.5], "unclear"),  # it does not explode at first
        ([1000, 400, 2], [0.001, 0.001, 0.5], "unclear"),  # nor is it much calmer after a step
        ([1000, 0.002, 2], [0.001, 0.001, 0.5], "unclear"),
        ([1000, 300, 150], [0.001, 0.001, 0.5], "not seen"),
        ([1000, 300, 0.005], [0.001, 0.001, 0.5], "not seen"),
        ([1000, 300, math.nan], [0.001, 0.001, 0.5], "not seen"),
        ([1000, 300, 2], [0.1, 1, 10], "not seen"),  # nothing vanishes without batch norm
    ],
)
def test_the_verdict_follows_its_rule(with_norm, without, word):
    assert result_with(with_norm, without).verdict.word == word


def test_a_verdict_takes_a_step_of_training():
    """Before the first one the gradients of networks with batch norm have to explode, so that nothing is refuted."""
    result = result_with([1000, 300, 2], [0.001, 0.001, 0.5])
    result.steps = [0]
    result.signal = {name: rows[:1] for name, rows in result.signal.items()}
    assert result.verdict.word == "unclear"
    assert "no step of training" in result.verdict.because


def test_a_verdict_takes_plain_networks_of_both_kinds():
    result = result_with([1000, 300, 2], [0.001, 0.001, 0.5])
    result.additions = [3, 0]
    assert result.verdict == ("unclear", "this takes plain networks both with and without batch norm")


def test_the_command_and_json():
    setting = Setting(model="resnet8", width=4, image_size=8, batch_size=4, quick=True)
    calls = []
    result = run("flow", setting, lambda done, total, what: calls.append((done, total)), lr=0.05)
    assert result.steps == [0, 1, 3]
    assert result.settings["lr"] == 0.05
    assert calls[-1][1] == 14 * 4
    again = lab.Flow.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    np.testing.assert_array_equal(again.signal["v1, no BN, He"], result.signal["v1, no BN, He"])
    assert run("flow", setting, steps=2).steps == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"compares networks for CIFAR of one depth, .*: crossing is not one of them"):
        run("flow", setting.with_(model="crossing", width=None))
    with pytest.raises(ConfigError, match="steps must be a whole number from 0 up, not -1"):
        run("flow", setting, steps=-1)
    with pytest.raises(ConfigError, match="unknown model 'resnet57'"):
        run("flow", setting.with_(model="resnet57"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": (0, 2)}, "to look after 2 steps takes 3 batches, not 2"),
        ({"steps": (1, 1)}, r"steps are whole numbers from 0 up that ascend, not \[1, 1\]"),
        ({"steps": (-1, 1)}, "steps are whole numbers from 0 up"),
        ({"steps": ()}, "steps are whole numbers from 0 up"),
        ({"steps": [0], "places": ["layer9"]}, "no place 'layer9'"),
        ({"steps": [0], "places": ["layer1.0"]}, "has 1 blocks or places: gradients are compared at two or more"),
        ({"steps": [0], "networks": {}}, "there are no networks"),
    ],
)
def test_bad_input(options, message):
    networks = options.pop("networks", {"it": mr.models.resnet8(width=4, num_classes=10).double()})
    with pytest.raises(ConfigError, match=message):
        lab.flow(networks, batches(2), **options)


def test_weights_that_are_not_finite():
    model = mr.models.resnet8(width=4, num_classes=10).double()
    model.fc.weight.data[0, 0] = math.nan
    with pytest.raises(DataError, match="the loss is nan"):
        lab.flow({"it": model}, batches(1), steps=[0])
