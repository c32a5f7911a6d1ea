"""The backward pass in channels: sums against the tape, lengths against the enumeration of all paths, signs, counts."""

import itertools
import math

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.errors import ConfigError, DataError, DtypeError, GraphError, ShapeError
from minires.models import CifarPreResNet, PreActBottleneck, PreActBottleneckV1

NETWORKS = {
    "resnet20": lambda: mr.models.resnet20(),
    "preresnet20": lambda: mr.models.preresnet20(),
    "resnet8, option B": lambda: mr.models.resnet8(option="B"),
    "preresnet8, option B": lambda: mr.models.preresnet8(option="B"),
    "bottlenecks": lambda: mr.models.ResNet(mr.models.Bottleneck, [1, 1, 1, 1], num_classes=10),
    "pre-activation bottlenecks": lambda: CifarPreResNet(11, PreActBottleneck, option="B"),
    "pre-activation bottlenecks, v1": lambda: CifarPreResNet(11, PreActBottleneckV1, option="B"),
    "crossing": lambda: mr.models.crossing(num_classes=10),
}


def batch(images=3, side=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((images, 3, side, side)), rng.integers(0, 10, images)


def network(name, training):
    """A network of NETWORKS in float64 whose batch norms have statistics and weights that are no 0 or 1; images and labels."""
    mr.manual_seed(1)
    side = 35 if name == "crossing" else 16 if name == "bottlenecks" else 8
    model, (images, labels) = NETWORKS[name]().double(), batch(side=side)
    rng = np.random.default_rng(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = rng.uniform(0.5, 1.5, module.weight.shape)
            module.bias.data = rng.uniform(-0.3, 0.3, module.bias.shape)
    with mr.no_grad():
        model(mr.tensor(images))  # sets the running statistics
    return model.train(training), images, labels


def gradient(model, images, labels):
    """∂L/∂images by the tape."""
    x = mr.tensor(images, requires_grad=True)
    F.cross_entropy(model(x), labels).backward()
    return x.grad


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_channels_sum_to_the_gradient(name, training):
    model, images, labels = network(name, training)
    before = {k: v.copy() for k, v in model.state_dict().items()}
    graph = lab.record(model, images, labels)
    assert all((model.state_dict()[k] == v).all() for k, v in before.items())
    assert all(p.grad is None for p in model.parameters())
    [channels] = graph.backward([graph.input], lab.ByLength())
    scale = sum(np.linalg.norm(g) for g in channels)
    assert len(channels) == len(graph.count_paths(graph.input)) == len(graph.additions) + 1
    with mr.fusion(False):
        expected = gradient(model, images, labels)
    assert np.linalg.norm(sum(channels) - expected) <= 1e-10 * scale
    [[plain]] = graph.backward([graph.input])
    assert np.linalg.norm(plain - expected) <= 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("resnet20", "preresnet20", "crossing")])
def test_lengths_against_the_enumeration_of_all_subsets(name):
    """Path by path: through the residual functions of a subset, past all others."""
    enumerate_all(*network(name, True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "preresnet20"])
def test_lengths_against_the_enumeration_of_512_subsets(name):
    enumerate_all(*network(name, True))


def enumerate_all(model, images, labels):
    graph = lab.record(model, images, labels)
    names = [a.name for a in graph.additions]
    [channels] = graph.backward([graph.input], lab.ByLength())
    totals, squares = [0.0] * (len(names) + 1), np.zeros(len(names) + 1)
    for chosen in itertools.product([False, True], repeat=len(names)):
        through = [name for name, yes in zip(names, chosen) if yes]
        found = [g for g in graph.backward([graph.input], lab.OnePath(through))[0] if g is not None]
        for g in found:
            totals[len(through)] = totals[len(through)] + g
            squares[len(through)] += (g**2).sum()
    scale = sum(np.linalg.norm(g) for g in channels)
    for k, g in enumerate(channels):
        assert np.linalg.norm(g - totals[k]) <= 1e-10 * scale

    # E‖Σ ± g_p‖² over all 2^L signs is exactly Σ ‖g_p‖²
    if len(names) <= 4:
        energy = np.zeros(len(names) + 1)
        for signs in itertools.product([-1.0, 1.0], repeat=len(names)):
            rule = lab.ByLength(signs=dict(zip(names, signs)))
            energy += [0 if g is None else (g**2).sum() for g in graph.backward([graph.input], rule)[0]]
        np.testing.assert_allclose(energy / 2 ** len(names), squares, rtol=1e-9)


def test_the_mean_length_from_two_channels():
    model, images, labels = network("resnet20", True)
    graph = lab.record(model, images, labels)
    [channels] = graph.backward([graph.input], lab.ByLength())
    [[g, weighted]] = graph.backward([graph.input], lab.MeanLength())
    np.testing.assert_allclose(
        weighted, sum(k * c for k, c in enumerate(channels)), rtol=0, atol=1e-10 * np.abs(g).max() * 9
    )
    expected = sum(k * (c * g).sum() for k, c in enumerate(channels)) / (g * g).sum()
    assert math.isclose(lab.mean_path_length(model, (images, labels)), expected, rel_tol=1e-9)


def test_numbers_of_paths():
    for name, expected in [
        ("resnet8, option B", [1, 3, 3, 1]),
        ("resnet20", [math.comb(9, k) for k in range(10)]),
        ("preresnet20", [math.comb(9, k) for k in range(10)]),
        ("crossing", [1, 1, 1]),
    ]:
        model, images, labels = network(name, False)
        graph = lab.record(model, images, labels)
        assert graph.count_paths(graph.input) == expected, name


def test_the_crossing_paths_are_three():
    """conv1 then shortcut_a … v5's branch, and so on: each of the three by the tape, with the others cut by detach()."""
    model, images, labels = network("crossing", False)
    graph = lab.record(model, images, labels)
    [channels] = graph.backward([graph.input], lab.ByLength())

    def by_hand(a_branch, a_shortcut, b_branch, b_shortcut):
        """The gradient with only some of the additions' sides let through."""
        from minires.models.crossing_net import window_centres

        def only(x, through):
            return x if through else x.detach()

        x = mr.tensor(images, requires_grad=True)
        with mr.fusion(False):
            v1 = F.conv_bn_relu(x, model.conv1, model.bn1)
            v2 = model.maxpool(v1)
            v3 = F.add_relu(
                only(model.bn2(model.conv2(v2)), a_branch), only(model.shortcut_a(window_centres(v1)), a_shortcut)
            )
            v4 = model.maxpool(v3)
            v5 = F.add_relu(
                only(model.bn3(model.conv3(v4)), b_branch), only(model.shortcut_b(window_centres(v2)), b_shortcut)
            )
            F.cross_entropy(model.fc(F.flatten(model.avgpool(v5), 1)), labels).backward()
        return x.grad

    expected = [
        by_hand(False, False, False, True),
        by_hand(False, True, True, False),
        by_hand(True, False, True, False),
    ]
    for channel, path in zip(channels, expected, strict=True):
        np.testing.assert_allclose(channel, path, rtol=0, atol=1e-12 * np.abs(path).max())


class Own(nn.Module):
    """A user's network: x + f(x), marked or not."""

    def __init__(self, add):
        self.add = add
        self.stem, self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.add(self.conv(x), x)
        x = self.add(self.conv(x), x)  # the same layer again
        return self.fc(F.flatten(F.global_avg_pool2d(x), 1))


def test_a_network_of_ones_own():
    images, labels = batch()
    graph = lab.record(Own(F.residual_add).double(), images, labels)
    assert graph.count_paths(graph.input) == [1, 2, 1]
    assert [a.name for a in graph.additions] == ["the network", "the network (2)"]
    assert graph.place("conv").shape == (3, 4, 8, 8)
    assert graph.place("stem").shape == (3, 4, 8, 8)
    [channels] = graph.backward([graph.place("stem")], lab.ByLength())
    assert len(channels) == 3


def test_an_unmarked_addition_is_never_guessed():
    images, labels = batch()
    model = Own(lambda a, b: a + b).double()
    assert lab.record(model, images, labels).additions == []
    for experiment in (lab.paths, lab.split, lab.mean_path_length):
        with pytest.raises(ConfigError, match=r"Own has no residual addition .* F\.residual_add"):
            experiment(model, (images, labels))
    with pytest.raises(ConfigError, match="CifarResNet has no residual addition"):
        lab.paths(mr.models.plain8().double(), (images, labels))


def test_truncation_leaves_the_forward_pass_alone():
    model, images, labels = network("resnet8, option B", True)
    graph = lab.record(model, images, labels)
    weights = list(model.parameters())
    whole = graph.backward(weights)
    truncated = graph.backward(weights, lab.ByLength(longest=3))
    for a, b in zip(whole, truncated):
        np.testing.assert_allclose(sum(g for g in b if g is not None), a[0], rtol=1e-9, atol=1e-12)
    [channels] = graph.backward([graph.input], lab.ByLength())
    [short] = graph.backward([graph.input], lab.ByLength(longest=1))
    assert len(short) == 2
    np.testing.assert_allclose(short[1], channels[1], rtol=1e-12)


@pytest.mark.parametrize("side", ["branch", "shortcut"])
def test_a_cut_side(side):
    """Against the tape with detach() on that side."""
    model, images, labels = network("resnet8, option B", False)
    before = F.conv_bn_add_relu

    def cut(x, conv, bn, shortcut, factor):
        branch = bn(conv(x))
        return F.add_relu(
            branch.detach() if side == "branch" else branch, shortcut.detach() if side == "shortcut" else shortcut
        )

    graph = lab.record(model, images, labels)
    [[found]] = graph.backward([graph.input], lab.Cut(side))
    F.conv_bn_add_relu = cut
    try:
        with mr.fusion(False):
            expected = gradient(model, images, labels)
    finally:
        F.conv_bn_add_relu = before
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_bad_input():
    images, labels = batch()
    model = mr.models.resnet8()
    with pytest.raises(DtypeError, match="the images are float64 and the model's weights float32"):
        lab.record(model, images, labels)
    model.double()
    with pytest.raises(ConfigError, match="labels are missing"):
        lab.record(model, images)
    graph = lab.record(model, images, labels)
    with pytest.raises(ConfigError, match="no place 'layer9' in this network"):
        graph.place("layer9")
    model.conv1.weight.data = model.conv1.weight.data + 1
    with pytest.raises(GraphError, match="was changed after the forward pass"):
        graph.backward([graph.input])
    model.fc.weight.data = model.fc.weight.data * np.nan
    with pytest.raises(DataError, match="the loss is nan"):
        lab.record(model, images, labels)


def test_the_sides_of_a_residual_addition_have_one_shape():
    for other in (mr.tensor(np.ones((1, 3))), np.ones(3), 1.0):
        with pytest.raises(ShapeError, match=r"residual_add: the branch has shape \(2, 3\) and the shortcut"):
            F.residual_add(mr.tensor(np.ones((2, 3))), other)


def test_backward_hooks_are_refused():
    images, labels = batch()
    model = mr.models.resnet8().double()
    handle = model.layer1[0].register_full_backward_hook(lambda module, dx, dy: None)
    with pytest.raises(ConfigError, match="the model has backward hooks"):
        lab.record(model, images, labels)
    handle.remove()
    lab.record(model, images, labels)
    assert not any(m.is_hooked for m in model.modules())
