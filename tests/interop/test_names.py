"""Names in other codes, written down from them, and minires's for the same weights."""

import pytest

import minires as mr
from minires.interop.names import translate, unwrapped

CODES = {
    "Hugging Face transformers": (
        "resnet18",
        {
            "resnet.embedder.embedder.convolution.weight": "conv1.weight",
            "resnet.embedder.embedder.normalization.running_mean": "bn1.running_mean",
            "resnet.encoder.stages.0.layers.1.layer.1.convolution.weight": "layer1.1.conv2.weight",
            "resnet.encoder.stages.3.layers.0.layer.0.normalization.bias": "layer4.0.bn1.bias",
            "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight": "layer2.0.downsample.0.weight",
            "resnet.encoder.stages.1.layers.0.shortcut.normalization.weight": "layer2.0.downsample.1.weight",
            "classifier.1.weight": "fc.weight",
            "classifier.1.bias": "fc.bias",
        },
    ),
    "akamaster/pytorch_resnet_cifar10, for a time": (
        "resnet8",
        {
            "module.compressible_conv1.weight": "conv1.weight",
            "module.bn1.weight": "bn1.weight",
            "module.layer1.0.compressible_conv1.weight": "layer1.0.conv1.weight",
            "module.compressible_linear.weight": "fc.weight",
        },
    ),
    "mmpretrain": (
        "resnet18",
        {
            "backbone.conv1.weight": "conv1.weight",
            "backbone.layer2.0.downsample.1.bias": "layer2.0.downsample.1.bias",
            "head.fc.weight": "fc.weight",
            "head.fc.bias": "fc.bias",
        },
    ),
    "torch.compile of DataParallel": (
        "resnet18",
        {"_orig_mod.module.layer1.0.bn1.weight": "layer1.0.bn1.weight", "_orig_mod.module.fc.bias": "fc.bias"},
    ),
    "another wrapper": ("resnet18", {"my_net.layer1.0.bn1.weight": "layer1.0.bn1.weight", "my_net.fc.bias": "fc.bias"}),
    "timm": (
        "resnet50v2",
        {
            "stem.conv.weight": "stem.conv.weight",
            "stages.0.blocks.0.downsample.conv.weight": "stages.0.blocks.0.downsample.conv.weight",
            "norm.bias": "norm.bias",
            "head.fc.weight": "head.fc.weight",
        },
    ),
}


@pytest.mark.parametrize("code", CODES)
def test_names(code):
    model, names = CODES[code]
    network = mr.models.create(model)
    own = network.state_dict()
    assert set(names.values()) <= own.keys()
    found = translate(list(names), own, mr.models.classifier(network)[0])
    assert found == names


def test_no_two_names_become_one():
    own = mr.models.resnet8().state_dict()
    names = ["module.conv1.weight", "conv1.weight", "net.conv1.weight", "linear.weight", "fc.weight"]
    found = translate(names, own, "fc")
    assert len(set(found.values())) == len(names)
    assert found["conv1.weight"] == "conv1.weight"
    assert found["fc.weight"] == "fc.weight"


def test_wrappers_end():
    deep = "a." * 500 + "weight"
    assert unwrapped([deep], [])[deep].count(".") > 400
    assert unwrapped([], []) == {}
    assert unwrapped(["module", "module.a"], ["a"]) == {"module": "module", "module.a": "a"}
