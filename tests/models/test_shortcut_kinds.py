"""Kinds of shortcuts: what their blocks compute, against the formulas, and what replacing them leaves alone."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab, models, nn
from minires.errors import ConfigError
from minires.models import replace_shortcuts
from minires.models.shortcuts import Gate, Scaled

KINDS = [0.5, -2, "exclusive-gating", "shortcut-only-gating", "conv1x1", "dropout"]


def build(kind=1.0, **options):
    mr.manual_seed(3)
    return models.resnet8(width=4, num_classes=4, shortcut=kind, **options).double()


def images(channels=3, n=3):
    return np.random.default_rng(0).standard_normal((n, channels, 8, 8))


def padded(x, block):
    """Option A by slices: the identity, or every second pixel between channels of zeros."""
    outside = block.conv2.out_channels
    if outside == x.shape[1]:
        return x
    y = np.zeros((len(x), outside, 4, 4))
    before = (outside - x.shape[1]) // 2
    y[:, before : before + x.shape[1]] = x[:, :, ::2, ::2]
    return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["layer1", "layer2"])
def test_blocks(kind, layer):
    """Fused and not, against the formulas of the paper in NumPy, with gates that are not nearly shut."""
    model = build(kind).eval()
    for module in model.modules():
        if isinstance(module, Gate):
            module.conv.bias.data[...] = 0.3
    block = getattr(model, layer)[0]
    x = images(block.conv1.in_channels)
    plain = models.BasicBlock(block.conv1.in_channels, block.conv2.out_channels, block.conv1.stride[0]).double().eval()
    plain.downsample = None
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if k in plain.state_dict()})
    with mr.no_grad():
        y = F.conv_bn_relu(mr.tensor(x), plain.conv1, plain.bn1)
        residual = plain.bn2(plain.conv2(y)).numpy()
    shortcut, factor = padded(x, block), 1.0
    if isinstance(kind, str) and "gating" in kind:
        conv, stride = block.downsample.gate.conv, block.conv1.stride[0]
        z = np.einsum("oi,nihw->nohw", conv.weight.numpy()[:, :, 0, 0], x[:, :, ::stride, ::stride]) + 0.3
        opened = 1 / (1 + np.exp(-z))
        shortcut = (1 - opened) * shortcut
        factor = opened if kind == "exclusive-gating" else 1.0
    elif kind == "conv1x1":
        shortcut = block.downsample(mr.tensor(x)).numpy()
        stride, weight = block.conv1.stride[0], block.downsample[0].weight.numpy()[:, :, 0, 0]
        by_hand = np.einsum("oi,nihw->nohw", weight, x[:, :, ::stride, ::stride]) / np.sqrt(1 + 1e-5)
        np.testing.assert_allclose(shortcut, by_hand, atol=1e-10)
    elif kind != "dropout":  # in evaluation mode the identity
        shortcut = kind * shortcut
    expected = np.maximum(factor * residual + shortcut, 0)
    for fused in (True, False):
        with mr.fusion(fused), mr.no_grad():
            np.testing.assert_allclose(block(mr.tensor(x)).numpy(), expected, atol=1e-10)


def test_dropout_in_training():
    block = build("dropout").layer1[0]
    y = block.downsample(mr.tensor(np.ones((2, 4, 8, 8)))).numpy()
    assert set(np.unique(y)) == {0.0, 2.0}
    assert 0.3 < (y == 0).mean() < 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_the_rest_is_left_alone(kind):
    before, model = build().state_dict(), build(kind)
    after = model.state_dict()
    assert set(before) <= set(after)
    assert all((after[name] == value).all() for name, value in before.items())
    added = {name: value for name, value in after.items() if name not in before}
    assert bool(added) == (kind in ("exclusive-gating", "shortcut-only-gating", "conv1x1"))
    if "gating" in str(kind):
        biases = [value for name, value in added.items() if name.endswith("bias")]
        assert all((value == -6).all() for value in biases)
        weights = np.concatenate(
            [v.ravel() for name, v in added.items() if name.endswith("downsample.gate.conv.weight")]
        )
        assert len(np.unique(weights)) == 4 * 4 + 4 * 8 + 8 * 16
    other = build(kind)
    other.load_state_dict({name: value * 2 for name, value in after.items()})
    assert all((other.state_dict()[name] == 2 * value).all() for name, value in after.items())


def test_precision_mode_and_biases():
    model = build().eval()
    replace_shortcuts(model, "exclusive-gating", -1.5)
    assert all(p.dtype == np.float64 for p in model.parameters())
    assert not any(m.training for m in model.modules())
    gates = [m for m in model.modules() if isinstance(m, Gate)]
    assert len(gates) == 6
    assert all((gate.conv.bias.numpy() == -1.5).all() for gate in gates)
    assert model.layer1[0].gate.conv is model.layer1[0].downsample.gate.conv
    unnormed = build("conv1x1", norm="none")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in unnormed.modules())
    assert not any(isinstance(m, Scaled) for m in build(1).modules())


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        (0.5, [1, 3, 3, 1]),
        ("conv1x1", [1, 3, 3, 1]),
        ("dropout", [1, 3, 3, 1]),
        ("shortcut-only-gating", [8, 12, 6, 1]),  # (1 + 2)³: a product with a gate of x has two paths to x
        ("exclusive-gating", [8, 24, 24, 8]),  # (2 + 2)³
    ],
)
def test_the_additions_are_known(kind, counts):
    """The two sides of every block part at its input, the gates' gradients included, and their sum is backpropagation's."""
    model, batch = build(kind), (images(), np.array([0, 1, 2]))
    inputs = []
    handles = [
        block.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
        for block in (model.layer1[0], model.layer2[0], model.layer3[0])
    ]
    graph = lab.record(model, *batch)
    for handle in handles:
        handle.remove()
    assert [graph.fork(a) is x for a, x in zip(graph.additions, inputs)] == [True] * 3
    result = lab.split(model, batch)
    assert result.error.max() < 1e-10
    assert (result.identity > 0).all()
    paths = lab.paths(model, batch, draws=2)
    assert paths.counts == counts
    assert paths.error < 1e-10


def test_gradients_of_gates():
    """A directional derivative of the loss by central differences."""
    model, labels = build("exclusive-gating").eval(), np.array([0, 1, 2])
    for module in model.modules():
        if isinstance(module, Gate):
            module.conv.bias.data[...] = -0.5
    x, rng = mr.tensor(images()), np.random.default_rng(1)
    F.cross_entropy(model(x), labels).backward()
    steps = [rng.standard_normal(p.shape) for p in model.parameters()]
    expected = sum((p.grad * d).sum() for p, d in zip(model.parameters(), steps))

    def moved(size):
        for p, d in zip(model.parameters(), steps):
            p.data = p.data + size * d
        with mr.no_grad():
            return F.cross_entropy(model(x), labels).item()

    difference = (moved(1e-7) - moved(-2e-7)) / 2e-7
    assert np.isclose(difference, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gating", "Dropout", float("nan"), float("inf"), True, None, [0.5]])
def test_kinds_that_there_are_none_of(kind):
    with pytest.raises(
        ConfigError, match=r"shortcut is a number, such as 0\.5, or one of exclusive-gating, shortcut-only"
    ):
        models.resnet8(shortcut=kind)


def test_networks_without_such_shortcuts():
    for model in (models.plain8(), models.preresnet8(), models.crossing(), build("exclusive-gating")):
        with pytest.raises(
            ConfigError, match="other shortcuts than the identity are for residual networks of basic blocks"
        ):
            replace_shortcuts(model, 0.5)
    with pytest.raises(ConfigError, match="basic blocks"):
        models.plain8(shortcut="dropout")
    with pytest.raises(ConfigError, match="preresnet8 has no option 'shortcut'"):
        models.create("preresnet8", shortcut=0.5)
