"""Grad-CAM: against PyTorch, finite differences and the class activation map; what it refuses; the model is left alone."""

import numpy as np
import pytest
import torch_peers

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.errors import ConfigError, DataError, DtypeError, ShapeError
from minires.lab.inside.cam import enlarged

RNG = np.random.default_rng(0)
SIZES = {"crossing": 96, "resnet18": 96, "resnet50v2": 64}
FAMILIES = ["resnet8", "plain8", "preresnet8", "whitened_resnet11", "wrn16_4", "densenet_bc100_12", *SIZES]


def images(count=2, side=32, channels=3):
    return np.random.default_rng(1).standard_normal((count, channels, side, side)).astype(np.float32)


def network(name="resnet8", **options):
    """A network in evaluation mode whose batch norms have statistics of their own."""
    mr.manual_seed(3)
    model, rng = mr.models.create(name, num_classes=10, **options), np.random.default_rng(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean[:] = rng.normal(0, 0.3, module.running_mean.shape)
            module.running_var[:] = rng.uniform(0.5, 2, module.running_var.shape)
    return model.eval()


def torch_cam(torch, model, layer, x, targets):
    """By the formula, with a hook: (heat, alpha, L)."""
    kept = []
    handle = dict(model.named_modules())[layer].register_forward_hook(lambda module, inputs, y: kept.append(y))
    scores = model(torch.from_numpy(x))
    handle.remove()
    (gradient,) = torch.autograd.grad(sum(scores[i, c] for i, c in enumerate(targets)), kept[0])
    alpha = gradient.mean(dim=(2, 3))
    L = torch.relu((alpha[:, :, None, None] * kept[0]).sum(dim=1))
    heat = torch.nn.functional.interpolate(L[:, None], x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    heat = heat / heat.amax(dim=(1, 2), keepdim=True)
    return [found.detach().numpy() for found in (heat, alpha, L)], scores.detach().numpy()


@pytest.fixture(scope="module")
def twins(torch):
    """A ResNet-18 and torchvision's, with the same weights."""
    ours = network("resnet18")
    theirs = torch_peers.torchvision().models.resnet18(num_classes=10).eval()
    state = {name: torch.from_numpy(np.array(array)) for name, array in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=False)
    return ours, theirs


@pytest.mark.parametrize("layer", ["layer4", "layer3", "layer2.1.conv1"])
def test_against_torchvision(torch, twins, layer):
    (ours, theirs), x, targets = twins, images(2, side=80), [7, 2]
    (heat, alpha, L), scores = torch_cam(torch, theirs, layer, x, targets)
    found = lab.grad_cam(ours, x, targets, None if layer == "layer4" else layer)
    assert found.layer == layer
    np.testing.assert_array_equal(found.target, targets)
    np.testing.assert_allclose(found.heat, heat, atol=1e-4)
    np.testing.assert_allclose(found.alpha, alpha, atol=1e-4 * np.abs(alpha).max())
    np.testing.assert_allclose(found.map, L, atol=1e-4 * L.max())
    probability = torch.softmax(torch.from_numpy(scores), dim=1).numpy()[[0, 1], targets]
    np.testing.assert_allclose(found.probability, probability, atol=1e-5)


@pytest.mark.parametrize(("name", "layer"), [("resnet8", "layer2"), ("preresnet8", "stages.1"), ("crossing", "conv2")])
def test_alpha_against_finite_differences(name, layer):
    """The score's slope when one channel of the map is raised everywhere is Z·αₖ."""
    model, step = network(name).double(), 1e-6
    x, target = images(1, SIZES.get(name, 32)).astype(np.float64), 4
    found = lab.grad_cam(model, x, target, layer)
    module = dict(model.named_modules())[layer]

    def score(channel, by):
        def raised(module, inputs, y):
            moved = np.zeros(y.shape)
            moved[:, channel] = by
            return y + mr.tensor(moved)

        with module.register_forward_hook(raised), mr.no_grad():
            return model(mr.tensor(x)).numpy()[0, target]

    Z = found.map[0].size
    for channel in (0, 3, found.alpha.shape[1] - 1):
        slope = (score(channel, step) - score(channel, -step)) / (2 * step) / Z
        assert slope == pytest.approx(found.alpha[0, channel], rel=1e-4, abs=1e-9 * np.abs(found.alpha).max() + 1e-10)


@pytest.mark.parametrize("name", ["resnet8", "preresnet8"])
def test_behind_mean_pooling_it_is_the_class_activation_map(name):
    """Zhou et al. 2016: the classifier's weights in place of αₖ; Grad-CAM's are those, divided by Z."""
    model, x = network(name), images(3)
    found = lab.grad_cam(model, x)
    w = (model.fc if name == "resnet8" else model.head[2]).weight.data[found.target]  # (N, K)
    np.testing.assert_allclose(found.alpha * found.map[0].size, w, rtol=1e-4, atol=1e-6)
    with mr.no_grad():
        np.testing.assert_array_equal(found.target, model(mr.tensor(x)).numpy().argmax(axis=1))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name):
    model, x = network(name), images(2, SIZES.get(name, 32))
    both = lab.grad_cam(model, x, 3)
    assert both.heat.shape == (2, *x.shape[2:])
    assert both.heat.dtype == np.float32
    assert both.heat.min() >= 0
    assert set(both.heat.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
    single = lab.grad_cam(model, mr.tensor(x[1]), np.int64(3))
    assert single.heat.shape == x.shape[2:]
    assert (int(single.target), single.alpha.ndim, single.map.ndim, single.probability.ndim) == (3, 1, 2, 0)
    np.testing.assert_allclose(single.heat, both.heat[1], atol=1e-3)


def test_the_layer_that_is_taken():
    assert lab.grad_cam(network("resnet8"), images()).layer == "layer3"
    assert lab.grad_cam(network("preresnet8"), images()).layer == "the last feature map"
    found = lab.grad_cam(network("resnet18"), images(1, 32))  # whose last feature map is a single pixel
    assert found.map.shape == (1, 2, 2)
    assert found.layer == "layer3"


def test_several_classes_after_one_forward_pass():
    model, x = network(), images(1)
    scores = lab.inside.Scores(model, x[0])
    for target in (2, 5, 2):
        np.testing.assert_array_equal(scores.cam(target).heat, lab.grad_cam(model, x[0], target).heat)


class Flat(nn.Module):
    """A network without global pooling."""

    def __init__(self):
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 6 * 6, 3)

    def forward(self, x):
        return self.fc(F.flatten(F.relu(self.conv(x)), 1))


def test_a_network_of_the_users_own():
    model, x = Flat(), images(2, 8, channels=1)
    found = lab.grad_cam(model, x, [0, 2])
    with mr.no_grad():
        A = F.relu(model.conv(mr.tensor(x))).numpy()
    alpha = model.fc.weight.data[[0, 2]].reshape(2, 4, 36).mean(axis=2)
    np.testing.assert_allclose(found.map, np.maximum(np.einsum("nk,nkhw->nhw", alpha, A), 0), atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4, 32, 32), (7, 5, 20, 31), (1, 3, 9, 9), (8, 8, 8, 8), (9, 9, 5, 4)])
def test_enlarging_is_pytorchs(torch, shape):
    h, w, height, width = shape
    maps = RNG.random((2, h, w))
    theirs = torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], (height, width), mode="bilinear")[:, 0]
    np.testing.assert_allclose(enlarged(maps, height, width), theirs.numpy(), atol=1e-12)


def everything(model):
    """What must not change: state, modes, flags, gradients and hooks."""
    state = {name: (id(array), array.tobytes()) for name, array in model.state_dict().items()}
    grads = {
        n: (p.requires_grad, id(p.grad), p.grad.tobytes()) for n, p in model.named_parameters() if p.grad is not None
    }
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    modes = {n: (m.training, m.is_hooked) for n, m in model.named_modules()}
    return state, grads, flags, modes


@pytest.mark.parametrize("name", ["resnet8", "preresnet8", "whitened_resnet11"])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(name, training):
    model, x = network(name).train(), images(4)
    F.cross_entropy(model(mr.tensor(x)), np.arange(4)).backward()
    model.train(training)
    next(model.parameters()).requires_grad = False
    next(iter(model.children())).train(not training)
    before, random = everything(model), str(mr.random.get_rng_state())
    lab.grad_cam(model, x)
    lab.feature_maps(model, x)
    with pytest.raises(ConfigError):
        lab.grad_cam(model, x, 99)
    with pytest.raises(ShapeError):
        lab.grad_cam(model, x[:, :2])
    assert everything(model) == before
    assert str(mr.random.get_rng_state()) == random


def test_it_does_not_depend_on_switches_and_modes():
    model, x = network(), images(2)
    usual = lab.grad_cam(model, x, [1, 2])
    found = []
    with mr.no_grad():
        found.append(lab.grad_cam(model.train(), x, [1, 2]))
    with mr.fusion(False):
        found.append(lab.grad_cam(model.requires_grad_(False), x, [1, 2]))
    for each in found:
        np.testing.assert_array_equal(each.heat, usual.heat)
    with mr.backend("reference"):
        np.testing.assert_allclose(lab.grad_cam(model, x, [1, 2]).heat, usual.heat, atol=1e-3)


def test_it_looks_at_the_object():
    """A network learns which of two textures a patch has; its heat is where the patch is."""
    rng, side = np.random.default_rng(0), 16

    def draw(count):
        x = rng.normal(0, 0.3, (count, 1, side, side)).astype(np.float32)
        labels, inside = rng.integers(0, 2, count), np.zeros((count, side, side), bool)
        stripes = np.where(np.arange(6) % 2, 2.0, -2.0)
        for i, (row, column) in enumerate(rng.integers(0, side - 6, (count, 2))):
            x[i, 0, row : row + 6, column : column + 6] += stripes if labels[i] else stripes[:, None]
            inside[i, row : row + 6, column : column + 6] = True
        return x, labels, inside

    mr.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
    )
    optimizer = mr.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(40):
        x, labels, _ = draw(32)
        loss = F.cross_entropy(model(mr.tensor(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, labels, inside = draw(32)
    found = lab.grad_cam(model, x, labels)
    assert (found.probability > 0.5).mean() > 0.9
    share = (found.heat * inside).sum() / found.heat.sum()
    assert share > 3 * inside.mean(), share


class Backbone(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return [self.conv(x)]


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ConfigError, "there is no layer 'layre3' in this network .did you mean layer3, ", {"layer": "layre3"}),
        (ConfigError, "there is no layer '' in this network: a layer is a module's name, such as", {"layer": ""}),
        (ConfigError, "layer 'fc' returns a tensor of shape .1, 10., and no feature map", {"layer": "fc"}),
        (ConfigError, "layer 'avgpool' returns a single pixel, which has no parts", {"layer": "avgpool"}),
        (ConfigError, "layer 'aux' takes no part in the network's forward pass in evaluation", {"layer": "aux"}),
        (ConfigError, "there is no class 10: the network's classes are 0 to 9", {"target": 10}),
        (ConfigError, "there is no class -1: the network's classes are 0 to 9", {"target": [-1]}),
        (ConfigError, "target is a class number, or one for each of 1 images, not 'cat'", {"target": "cat"}),
        (ConfigError, r"target is a class number, or one for each of 1 images, not \[1, 2\]", {"target": [1, 2]}),
        (ConfigError, "target is a class number, or one for each of 1 images, not 1.0", {"target": 1.0}),
        (DtypeError, "the image is an array of uint8", {"image": np.zeros((3, 8, 8), np.uint8)}),
        (DtypeError, "the image is an array of <U1", {"image": "x"}),
        (ShapeError, r"an image is .C, H, W.* not of shape \(8, 8\)", {"image": np.zeros((8, 8))}),
        (ShapeError, r"not of shape \(0, 3, 8, 8\)", {"image": np.zeros((0, 3, 8, 8))}),
        (ShapeError, r"channels.*\(in conv1\)", {"image": np.zeros((1, 8, 8))}),
        (DataError, "the image has values that are NaN or infinite", {"image": np.full((3, 8, 8), np.nan)}),
        (ConfigError, "makes no feature map of more than one pixel", {"image": np.zeros((3, 1, 1))}),
    ],
)
def test_bad_input(error, message, arguments):
    model = network(aux_weight=0.3)
    with pytest.raises(error, match=message):
        lab.grad_cam(model, **{"image": images(1), **arguments})


def test_networks_without_a_score():
    with pytest.raises(ConfigError, match="Backbone returns a list: Grad-CAM asks for a classifier"):
        lab.grad_cam(Backbone(), images(1))
    assert list(lab.feature_maps(Backbone(), images(1))) == ["conv"]
    with pytest.raises(ConfigError, match=r"Conv2d returns a tensor of shape \(1, 4, 30, 30\)"):
        lab.grad_cam(nn.Conv2d(3, 4, 3), images(1))
    model = network()
    model.fc.weight.data[:] = np.nan
    with pytest.raises(DataError, match="the network's scores of this image are not finite"):
        lab.grad_cam(model, images(1))


def test_a_class_that_nothing_speaks_for():
    model = network()
    model.fc.weight.data[3] = -1
    found = lab.grad_cam(model, images(1), 3)
    assert not found.heat.any()
    assert (found.alpha <= 0).all()
