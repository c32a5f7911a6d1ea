"""The networks of torchvision and timm: names and shapes of all, logits and every gradient of those with few blocks."""

import numpy as np
import pytest
import torch_peers

import minires as mr
from minires import functional as F
from minires import nn
from minires.models import BasicBlock, Bottleneck, CifarDenseNet, PreActBottleneck, ResNet, ResNetV2

torch = torch_peers.torch()
tF = torch.nn.functional

TORCHVISION = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
)
TIMM = {**{name: name for name in TORCHVISION}, **{f"resnet{d}v2": f"resnetv2_{d}" for d in (50, 101, 152)}}


@pytest.fixture(autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def undrawn(monkeypatch):
    """Networks are made without drawing their weights, so that large ones take neither time nor memory."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "zeros_"):
        monkeypatch.setattr(nn.init, name, lambda *_, **__: None)


def shapes(theirs):
    return {key: tuple(t.shape) for key, t in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}


def ours(name):
    state = mr.models.create(name).state_dict()
    return {key: a.shape for key, a in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_state_is_torchvisions(name, undrawn):
    models = torch_peers.torchvision().models
    with torch.device("meta"):
        theirs = getattr(models, name)()
    assert ours(name) == shapes(theirs)
    assert list(ours(name)) == list(shapes(theirs))


@pytest.mark.parametrize("name", TIMM)
def test_the_state_is_timms(name, undrawn):
    timm = torch_peers.timm()
    with torch.device("meta"):
        theirs = shapes(timm.create_model(TIMM[name]))
    if name.endswith("v2"):  # its classifier is a 1×1 convolution
        theirs["head.fc.weight"] = theirs["head.fc.weight"][:2]
    assert ours(name) == theirs


def same(ours, theirs, size=33, batch=2, rtol=1e-8):
    """Logits, gradients and running statistics after one step, in double precision, and logits in evaluation mode."""
    rng = np.random.default_rng(0)
    ours, theirs = ours.double(), theirs.double()
    state = theirs.state_dict()
    for key, tensor in state.items():  # batch norms that do something
        if tensor.ndim == 1:
            low = 0.5 if key.endswith(("weight", "var")) else -0.5
            tensor.copy_(torch.tensor(rng.uniform(low, low + 1, tensor.shape)))
    ours.load_state_dict({key: t.numpy().reshape(ours.state_dict()[key].shape) for key, t in state.items()})
    x, labels = rng.standard_normal((batch, 3, size, size)), np.arange(batch)
    for _ in range(2):  # one step of SGD between
        a, b = mr.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        logits, expected = ours(a), theirs(b)
        for p in ours.parameters():
            p.grad = None
        theirs.zero_grad()
        F.cross_entropy(logits, labels).backward()
        tF.cross_entropy(expected, torch.tensor(labels)).backward()
        close("logits", logits.numpy(), expected, rtol)
        close("the images' gradient", a.grad, b.grad, rtol)
        gradients = dict(theirs.named_parameters())
        for key, p in ours.named_parameters():
            close(key, p.grad, gradients[key].grad.reshape(p.shape), rtol)
        mr.optim.SGD(ours.parameters(), lr=0.01).step()
        torch.optim.SGD(theirs.parameters(), lr=0.01).step()
    for key, array in ours.state_dict().items():
        close(key, array, theirs.state_dict()[key].reshape(array.shape), rtol)
    with mr.no_grad(), torch.no_grad():
        close("in evaluation mode", ours.eval()(mr.tensor(x)).numpy(), theirs.eval()(torch.tensor(x)), rtol)


def close(name, ours, theirs, rtol):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * max(np.abs(theirs).max(), 1e-3), err_msg=name)


SMALL = {
    "resnet18": (BasicBlock, {}, {}),
    "resnet50": (Bottleneck, {}, {}),
    "wide_resnet50_2": (Bottleneck, {"base_width": 128}, {"width_per_group": 128}),
    "resnext50_32x4d": (Bottleneck, {"groups": 32, "base_width": 4}, {"groups": 32, "width_per_group": 4}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.startswith("wide") else ()) for name in SMALL]
)
def test_it_is_torchvisions_network(name):
    resnet = torch_peers.torchvision().models.resnet
    block, own, other = SMALL[name]
    theirs = resnet.ResNet(getattr(resnet, block.__name__), [2, 1, 1, 1], num_classes=10, **other)
    same(ResNet(block, (2, 1, 1, 1), num_classes=10, **own), theirs)


def test_it_is_timms_preactivation_network():
    timm = torch_peers.timm()
    layers = {"conv_layer": timm.layers.create_conv2d, "norm_layer": timm.layers.BatchNormAct2d}
    theirs = timm.models.resnetv2.ResNetV2([2, 1, 1, 1], num_classes=10, **layers)
    mine = ResNetV2((2, 1, 1, 1), num_classes=10)
    assert isinstance(mine.stages[0].blocks[0], PreActBottleneck)
    same(mine, theirs)


def test_it_is_torchvisions_densenet():
    """With the stem for small images in place of that for ImageNet."""
    densenet = torch_peers.torchvision().models.densenet
    theirs = densenet.DenseNet(growth_rate=12, block_config=(2, 2, 2), num_init_features=24, bn_size=4, num_classes=10)
    theirs.features.conv0 = torch.nn.Conv2d(3, 24, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        delattr(theirs.features, name)
    mine = CifarDenseNet(16)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    same(mine, theirs, size=16)
