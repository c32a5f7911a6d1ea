"""Networks as backbones: maps, channels, strides, names, dilation; against torchvision, timm and the classifiers' stages."""

import numpy as np
import pytest
import torch_peers

import minires as mr
from minires import functional as F
from minires import models
from minires.errors import ConfigError

FAMILIES = {
    "resnet20": [(16, 1), (32, 2), (64, 4)],
    "plain8": [(16, 1), (32, 2), (64, 4)],
    "preresnet20": [(16, 1), (32, 2), (64, 4)],
    "preresnet164": [(64, 1), (128, 2), (256, 4)],
    "wrn16_4": [(64, 1), (128, 2), (256, 4)],
    "resnext29_8x64d": [(256, 1), (512, 2), (1024, 4)],
    "densenet_bc100_12": [(216, 1), (300, 2), (342, 4)],
    "resnet18": [(64, 4), (128, 8), (256, 16), (512, 32)],
    "resnet50": [(256, 4), (512, 8), (1024, 16), (2048, 32)],
    "resnext50_32x4d": [(256, 4), (512, 8), (1024, 16), (2048, 32)],
    "resnet50v2": [(256, 4), (512, 8), (1024, 16), (2048, 32)],
}


def images(size, n=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 3, size, size)).astype(np.float32)


def network(name, **options):
    mr.manual_seed(0)
    return models.create(name, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_those_of_the_classifier(name):
    backbone, whole = network(name, features_only=True).eval(), network(name).eval()
    expected = [(f.channels, f.stride) for f in backbone.feature_info]
    assert expected == FAMILIES[name]
    own, state = backbone.state_dict(), whole.state_dict()
    assert all(a.shape == state[key].shape for key, a in own.items())
    assert {key.rpartition(".")[0] for key in state.keys() - own.keys()} == {models.classifier(whole)[0]}
    assert [key for key in state if key in own] == list(own)
    backbone.load_state_dict({key: state[key] for key in own})
    heard, side = [], 32 if backbone.image_size == 32 else 64
    for feature in backbone.feature_info:
        module = dict(whole.named_modules())[feature.name]
        module.register_forward_hook(lambda module, given, y: heard.append(y.numpy().copy()))
    head = whole.pool if name.startswith("dense") else whole.head if hasattr(whole, "head") else whole.avgpool
    last = []
    head.register_forward_pre_hook(lambda module, given: last.append(given[0].numpy().copy()))
    x = mr.tensor(images(side))
    with mr.no_grad():
        maps = backbone(x)
        whole(x)
    assert [m.shape for m in maps] == [
        (2, f.channels, side // f.stride, side // f.stride) for f in backbone.feature_info
    ]
    for m, expected in zip(maps, [*heard[:-1], *last]):  # the last as the classifier reads it
        np.testing.assert_allclose(m.numpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "preresnet20", "densenet_bc100_12"])
def test_gradients_reach_the_first_convolution(name):
    model = network(name, features_only=True)
    maps = model(mr.tensor(images(64 if name == "resnet18" else 8)))
    sum((m * m).mean() for m in maps).backward()
    assert all(p.grad is not None and np.isfinite(p.grad).all() for p in model.parameters())
    with mr.fusion(False):
        first = next(model.parameters()).grad.copy()
        model.zero_grad()
        sum((m * m).mean() for m in model(mr.tensor(images(64 if name == "resnet18" else 8)))).backward()
    np.testing.assert_allclose(next(model.parameters()).grad, first, rtol=1e-2, atol=1e-3 * np.abs(first).max())


@pytest.mark.parametrize(
    ("block", "output_stride"),
    [("BasicBlock", 8), pytest.param("BasicBlock", 16, marks=pytest.mark.slow), ("Bottleneck", 16)],
)
def test_dilation_is_timms(block, output_stride):
    resnet = torch_peers.timm().models.resnet
    theirs = resnet.ResNet(getattr(resnet, block), (1, 1, 2, 2), num_classes=10, output_stride=output_stride)
    options = {"num_classes": 10, "output_stride": output_stride}
    ours = models.ResNet(getattr(models, block), (1, 1, 2, 2), **options)
    both(ours, theirs.double().eval(), lambda x: theirs(x))
    backbone = models.ResNet(getattr(models, block), (1, 1, 2, 2), **options, features_only=True)
    assert [f.stride for f in backbone.feature_info] == [min(s, output_stride) for s in (4, 8, 16, 32)]

    def maps(x):
        x, found = theirs.maxpool(theirs.act1(theirs.bn1(theirs.conv1(x)))), []
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            found.append(x := layer(x))
        return found

    both(backbone, theirs, maps)


@pytest.mark.parametrize("dilate", [pytest.param((False, False, True), marks=pytest.mark.slow), (False, True, True)])
def test_dilation_is_torchvisions(dilate):
    resnet = torch_peers.torchvision().models.resnet
    theirs = resnet.ResNet(
        resnet.Bottleneck, [1, 1, 2, 2], num_classes=10, replace_stride_with_dilation=list(dilate)
    ).double()
    stride = 32 >> sum(dilate)
    ours = models.ResNet(models.Bottleneck, (1, 1, 2, 2), num_classes=10, output_stride=stride)
    both(ours, theirs.eval(), theirs)


@pytest.mark.parametrize("output_stride", [8, pytest.param(16, marks=pytest.mark.slow), 32])
def test_pre_activation_maps_are_timms(output_stride):
    timm = torch_peers.timm()
    layers = {"conv_layer": timm.layers.create_conv2d, "norm_layer": timm.layers.BatchNormAct2d}
    theirs = timm.models.resnetv2.ResNetV2([1, 1, 2, 2], num_classes=10, output_stride=output_stride, **layers).double()
    ours = models.ResNetV2((1, 1, 2, 2), features_only=True, output_stride=output_stride)

    def maps(x):
        x, found = theirs.stem(x), []
        for stage in theirs.stages:
            found.append(x := stage(x))
        return [*found[:-1], theirs.norm(x)]

    both(ours, theirs.eval(), maps)


def both(ours, theirs, function):
    """The same outputs for the same weights, in evaluation mode, in double precision."""
    import torch

    rng, ours = np.random.default_rng(0), ours.double().eval()
    state = theirs.state_dict()
    for key, tensor in state.items():
        if tensor.ndim == 1:
            low = 0.5 if key.endswith(("weight", "var")) else -0.5
            tensor.copy_(torch.tensor(rng.uniform(low, low + 1, tensor.shape)))
    ours.load_state_dict({key: state[key].numpy() for key in ours.state_dict()})
    x = rng.standard_normal((1, 3, 33, 33))
    with mr.no_grad(), torch.no_grad():
        found, expected = ours(mr.tensor(x)), function(torch.tensor(x))
    pairs = list(zip(found, expected, strict=True)) if isinstance(found, list) else [(found, expected)]
    for a, b in pairs:
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize("output_stride", [1, 2])
@pytest.mark.parametrize("name", ["resnet8", "preresnet164", "wrn16_4", "resnet20"])
def test_networks_for_small_images_are_dilated_too(name, output_stride):
    model = network(name, features_only=True, output_stride=output_stride).eval()
    with mr.no_grad():
        maps = model(mr.tensor(images(8, 1)))
    assert [m.shape[2] for m in maps] == [8, 8 // min(2, output_stride), 8 // output_stride]
    convolutions = [m for m in model.modules() if isinstance(m, mr.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert convolutions[-1].dilation == convolutions[-1].padding == (4 // output_stride,) * 2


@pytest.mark.parametrize("max_pool", [True, False])
@pytest.mark.parametrize("small_images", [True, False])
def test_strides_with_and_without_the_pool_of_the_stem(small_images, max_pool):
    model = models.resnet18(features_only=True, small_images=small_images, max_pool=max_pool).eval()
    with mr.no_grad():
        maps = model(mr.tensor(images(32, 1)))
    first = (1 if small_images else 2) * (2 if max_pool else 1)
    assert [feature.stride for feature in model.feature_info] == [first, 2 * first, 4 * first, 8 * first]
    assert [32 // m.shape[2] for m in maps] == [first, 2 * first, 4 * first, 8 * first]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: models.resnet18(output_stride=7), "output_stride is 32, 16 or 8 here, not 7"),
        (lambda: models.resnet50v2(output_stride=4), "output_stride is 32, 16 or 8 here, not 4"),
        (lambda: models.resnet50(output_stride=16.0), "output_stride is 32, 16 or 8 here, not 16.0"),
        (lambda: models.resnet20(output_stride=8), "output_stride is 4, 2 or 1 here, not 8"),
        (lambda: models.resnet20(output_stride=True), "output_stride is 4, 2 or 1 here, not True"),
        (lambda: models.resnet20(features_only="yes"), "features_only is true or false, not 'yes'"),
        (lambda: models.resnet18(features_only=True, aux_weight=0.3), "aux_weight is of one: leave one of them out"),
        (lambda: models.classifier(models.resnet18(features_only=True)), "no classifier: features_only leaves it out"),
        (lambda: models.create("crossing", features_only=True), "crossing has no option 'features_only'"),
    ],
)
def test_options_that_cannot_be(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


@pytest.mark.parametrize("name", ["resnet20", "preresnet8", "densenet_bc100_12"])
def test_recorded_predictions(name):
    model = network(name, features_only=True).eval()
    predict = mr.RecordedPrediction(model)
    for seed in range(5):
        x = images(16, 2, seed)
        with mr.no_grad():
            expected = [m.numpy() for m in model(mr.tensor(x))]
        for found, m in zip(predict(x), expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), m)
    assert predict.state == "checked"


@pytest.mark.parametrize("name", ["resnet18", "resnet50v2", "densenet_bc100_12"])
def test_weights_of_a_classifier_are_loaded(name, tmp_path):
    whole, backbone = network(name, num_classes=3), models.create(name, features_only=True)
    mr.interop.save_torch(whole, tmp_path / "a.pth")
    report = mr.interop.load_weights(backbone, tmp_path / "a.pth")
    assert report.ok
    assert len(report.ignored) == 2
    state = whole.state_dict()
    assert all(np.array_equal(array, state[key]) for key, array in backbone.state_dict().items())


def test_a_backbone_is_no_classifier():
    with pytest.raises(mr.errors.DtypeError, match="cross_entropy: takes Tensors, got list"):
        F.cross_entropy(network("resnet8", features_only=True)(mr.tensor(images(8))), np.array([0, 1]))
