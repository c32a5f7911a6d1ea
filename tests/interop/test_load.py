"""Weights of PyTorch's networks in minires's: the same logits, under each code's names and in each format."""

import numpy as np
import pytest
import torch_peers

import minires as mr
from minires import interop
from minires.errors import ConfigError, WeightsError

torch = torch_peers.torch()

from torch_networks import (  # noqa: E402  # needs torch
    CODES,
    KUANGLIU,
    CifarResNet,
    CifarResNeXt,
    DenseNet,
    SmallImageResNet,
    WideResNet,
    logits,
    trained,
)

FORMATS = ("safetensors", "zip", "legacy")


@pytest.fixture(autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save(state, path, layout="zip", **options):
    """Write a state dict, or a dict with one inside, by PyTorch's own or the safetensors library."""
    if layout == "safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=layout == "zip", **options)
    return path


def images(size=32, count=2, channels=3):
    return np.random.default_rng(0).normal(size=(count, channels, size, size)).astype(np.float32)


def own_logits(model, x):
    assert not model.training
    with mr.no_grad():
        return model(mr.tensor(x)).numpy()


@pytest.mark.parametrize(("name", "layout"), [("resnet50", "zip"), *(("resnet18", layout) for layout in FORMATS)])
def test_torchvision(name, layout, tmp_path):
    network = trained(getattr(torch_peers.torchvision().models, name)(num_classes=13))
    model, report = interop.create_model(name, save(network.state_dict(), tmp_path / "weights", layout))
    x = images(64)
    np.testing.assert_allclose(own_logits(model, x), logits(network, x), atol=1e-4)
    assert report.ok
    assert [theirs for theirs, ours in report.matched if theirs != ours] == []
    assert len(report.matched) == len(model.state_dict())


def test_timm(tmp_path):
    network = trained(torch_peers.timm().create_model("resnetv2_50", num_classes=5, in_chans=1))
    assert network.state_dict()["head.fc.weight"].shape == (5, 2048, 1, 1)
    model, _ = interop.create_model("resnet50v2", save(network.state_dict(), tmp_path / "weights"))
    x = images(64, channels=1)
    np.testing.assert_allclose(own_logits(model, x), logits(network, x), atol=1e-4)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("code", CODES)
def test_cifar(code, layout, tmp_path):
    network = trained(CifarResNet(code))
    path = save(torch.nn.DataParallel(network).state_dict(), tmp_path / "weights", layout)
    model, report = interop.create_model("resnet20", path)
    x = images()
    np.testing.assert_allclose(own_logits(model, x), logits(network, x), atol=1e-4)
    assert report.ok
    last = CODES[code][1]
    assert (f"module.{last}.bias", "fc.bias") in report.matched


OTHERS = {
    "WideResNet": (WideResNet, lambda: mr.models.WideResNet(10, 2), ("block1.layer.0.convShortcut.weight", "fc.bias")),
    "CifarResNeXt": (
        CifarResNeXt,
        lambda: mr.models.CifarResNet(11, "B", width=64, block=mr.models.Bottleneck, groups=2, base_width=16),
        ("stage_1.stage_1_bottleneck_0.shortcut.shortcut_bn.running_var", "classifier.bias"),
    ),
    "DenseNet": (
        DenseNet,
        lambda: mr.models.CifarDenseNet(16),
        ("block1.layer.0.bn1.weight", "trans2.conv1.weight", "bn1.bias", "fc.weight"),
    ),
    "flat DenseNet": (
        lambda: DenseNet(flat=True),
        lambda: mr.models.CifarDenseNet(16),
        ("dense3.1.conv2.weight", "trans1.bn1.bias", "bn.bias", "fc.weight"),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_for_cifar(name, tmp_path):
    theirs, ours, names = OTHERS[name]
    network, model = trained(theirs()), ours()
    report = interop.load_weights(model, save(network.state_dict(), tmp_path / "weights"))
    np.testing.assert_allclose(own_logits(model.eval(), images()), logits(network, images()), atol=1e-4)
    assert set(names) <= dict(report.matched).keys()


@pytest.mark.parametrize("code", ["weiaicunzai", "kuangliu"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_networks_of_imagenet_with_the_stem_for_small_images(name, code, tmp_path):
    network = trained(SmallImageResNet((2, 2, 2, 2) if name == "resnet18" else (3, 4, 6, 3), name == "resnet50", 7, 1))
    state = network.state_dict()
    if code == "kuangliu":
        for theirs, new in KUANGLIU:
            state = {key.replace(theirs, new): tensor for key, tensor in state.items()}
    model, report = interop.create_model(name, save({"net": state}, tmp_path / "weights"))
    x = images(channels=1)
    np.testing.assert_allclose(own_logits(model, x), logits(network, x), atol=1e-4)
    assert report.ok
    assert model.image_size == 32
    assert mr.models.image_size(name) == 224


@pytest.mark.parametrize("pooled", [True, False])
def test_the_pool_after_a_stem_for_small_images(pooled, tmp_path):
    """No array tells it: huyvnphan/PyTorch_CIFAR10 has the pool, and those who take it out of torchvision's have not."""
    network = torch_peers.torchvision().models.resnet18(num_classes=10)
    network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    if not pooled:
        network.maxpool = torch.nn.Identity()
    path = save(trained(network).state_dict(), tmp_path / "weights")
    model, report = interop.create_model("resnet18", path, model_options={"max_pool": True} if pooled else {})
    np.testing.assert_allclose(own_logits(model, images()), logits(network, images()), atol=1e-4)
    assert ("max_pool=true has one" in str(report)) != pooled


def test_the_stem_for_small_images_in_a_network_without_it(tmp_path, page):
    path = tmp_path / "weights.safetensors"
    interop.save_safetensors(mr.models.resnet18(small_images=True, num_classes=10), path)
    with pytest.raises(WeightsError) as caught:
        interop.load_weights(mr.models.resnet18(num_classes=10), path)
    page(str(caught.value))
    backbone = mr.models.resnet18(features_only=True, small_images=True)
    assert [feature.stride for feature in backbone.feature_info] == [1, 2, 4, 8]


def test_a_densenet_of_gpleiss(tmp_path):
    model = mr.models.CifarDenseNet(16)
    state = {n.replace("norm5", "norm_final"): torch.from_numpy(a.copy()) for n, a in model.state_dict().items()}
    assert interop.load_weights(model, save(state, tmp_path / "a")).ok
    state = {n.replace("norm1", "norm.1").replace("conv2", "conv.2"): tensor for n, tensor in state.items()}
    assert interop.load_weights(model, save(state, tmp_path / "b")).ok


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_a_state_dict_among_other_things(layout, tmp_path):
    network = trained(CifarResNet("akamaster", depth=8))
    state = torch.nn.DataParallel(network).state_dict()
    state = {name: tensor for name, tensor in state.items() if "num_batches" not in name}  # as before PyTorch 0.4.1
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = {"epoch": 199, "state_dict": state, "best_prec1": torch.tensor(91.7), "optimizer": optimizer.state_dict()}
    model, report = interop.create_model("resnet8", save(saved, tmp_path / "model.th", layout))
    x = images()
    np.testing.assert_allclose(own_logits(model, x), logits(network, x), atol=1e-4)
    assert report.place == "state_dict"
    assert report.ok


def test_what_is_in_the_file_decides_on_classes_and_channels(tmp_path):
    network = trained(CifarResNet("chenyaofo", depth=8, num_classes=100, in_channels=1))
    path = save(network.state_dict(), tmp_path / "weights")
    model, _ = interop.create_model("resnet8", path)
    np.testing.assert_allclose(own_logits(model, images(channels=1)), logits(network, images(channels=1)), atol=1e-4)
    model, report = interop.create_model("resnet8", path, num_classes=100)
    assert report.kept == []
    model, report = interop.create_model("resnet8", path, num_classes=7)
    assert own_logits(model, images(channels=1)).shape == (2, 7)
    assert report.kept == ["fc.weight", "fc.bias"]
    assert report.ok
    np.testing.assert_array_equal(model.state_dict()["conv1.weight"], network.conv1.weight.detach().numpy())


def test_what_is_asked_for_is_not_inferred(tmp_path):
    path = save(CifarResNet("akamaster", depth=8).state_dict(), tmp_path / "weights")
    with pytest.raises(
        WeightsError, match=r"does not fit resnet8: 44 names matched; 10 missing: layer2.0.downsample.0"
    ):
        interop.create_model("resnet8", path, model_options={"option": "B"})
    with pytest.raises(
        WeightsError, match=r"conv1.weight is \(16, 3, 3, 3\) in the file and \(16, 1, 3, 3\) in the model"
    ):
        interop.create_model("resnet8", path, model_options={"in_channels": 1})
    with pytest.raises(ConfigError, match="unknown model 'resnet9'"):
        interop.create_model("resnet9", path)


def test_another_network(tmp_path, page):
    path = save(CifarResNet("kuangliu", depth=14).state_dict(), tmp_path / "weights")
    model = mr.models.resnet8(option="B")
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        interop.load_weights(model, path)
    page(str(caught.value))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("prefix", ["ema.", "model_ema.module."])
def test_a_second_copy(prefix, tmp_path, page):
    """As some code keeps averaged weights: which of them are meant is not to be guessed."""
    state = CifarResNet("akamaster", depth=8).state_dict()
    path = save(state | {prefix + name: tensor for name, tensor in state.items()}, tmp_path / "weights")
    with pytest.raises(WeightsError) as caught:
        interop.load_weights(mr.models.resnet8(), path)
    page(str(caught.value))


def test_other_classes(tmp_path, page):
    path = save(CifarResNet("akamaster", depth=8, num_classes=3).state_dict(), tmp_path / "weights")
    with pytest.raises(WeightsError) as caught:
        interop.load_weights(mr.models.resnet8(), path)
    page(str(caught.value))


def test_a_report_as_a_table(tmp_path):
    network = CifarResNet("akamaster", depth=8, num_classes=3)
    path = save({"net": network.state_dict(), "acc": 93.5}, tmp_path / "ckpt.pth")
    report = interop.load_weights(mr.models.resnet8(), path, replace_head=True)
    assert str(report) == f"{path}, net: 42 names matched, fc.weight and fc.bias as initialised"
    rows = report.rows()
    assert [row.what for row in rows[:4]] == ["kept", "kept", "ignored", "ignored"]
    assert [(row.in_file, row.in_model) for row in rows[:4]][2] == ("linear.weight", "")
    assert len(report.table().splitlines()) == 1 + len(rows)


def test_long_names_in_a_table(tmp_path):
    """A line is as wide as the longest name: a name of a megabyte would make a table of megabytes a line."""
    model = mr.models.resnet8()
    state = {name: torch.from_numpy(array.copy()) for name, array in model.state_dict().items()}
    path = save(state | {"aux." + "x" * 100_000: torch.zeros(1)}, tmp_path / "a", "safetensors")
    table = interop.load_weights(model, path).table()
    assert max(map(len, table.splitlines())) < 250


def test_a_head_that_is_not_there(tmp_path, page):
    state = CifarResNet("akamaster", depth=8).state_dict()
    backbone = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("linear")}
    path = save(backbone | {"head.0.weight": torch.zeros(8, 64)}, tmp_path / "weights")
    with pytest.raises(WeightsError, match=r"2 missing: fc.weight, fc.bias; 1 unexpected: head.0.weight") as caught:
        interop.load_weights(mr.models.resnet8(), path)
    page(str(caught.value))
    report = interop.load_weights(mr.models.resnet8(), path, replace_head=True)
    assert (report.kept, report.ignored) == (["fc.weight", "fc.bias"], ["head.0.weight"])


WRITTEN = {
    "resnet8": lambda: mr.models.resnet8(num_classes=7),
    "preresnet8": lambda: mr.models.preresnet8(num_classes=7),
    "ResNetV2": lambda: mr.models.ResNetV2((1, 1, 1, 1), num_classes=7),  # in timm its head is a 1×1 convolution
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_minires_writes(name, tmp_path):
    """To the same bits, by way of PyTorch too."""
    model, found = WRITTEN[name](), WRITTEN[name]()
    rng = np.random.default_rng(0)
    for array in model.state_dict().values():
        array[...] = rng.uniform(0.1, 1, array.shape) if array.dtype.kind == "f" else 3
    interop.save_torch(model, tmp_path / "a.pth")
    interop.save_safetensors(model, tmp_path / "a.safetensors")
    save(torch.load(tmp_path / "a.pth", weights_only=True), tmp_path / "b.pth", "legacy")
    for path in ("a.pth", "a.safetensors", "b.pth"):
        for array in found.state_dict().values():
            array[...] = 0
        assert interop.load_weights(found, tmp_path / path).ok
        for key, array in model.state_dict().items():
            assert found.state_dict()[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", ["half", "bfloat16", "double"])
def test_other_precisions(dtype, layout, tmp_path):
    network = getattr(trained(CifarResNet("akamaster", depth=8)), dtype)()
    model, _ = interop.create_model("resnet8", save(network.state_dict(), tmp_path / "weights", layout))
    assert model.fc.weight.dtype == np.float32
    np.testing.assert_allclose(own_logits(model, images()), logits(network.float(), images()), atol=1e-4)
