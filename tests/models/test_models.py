"""Parameter counts, names, options, initialisation; what a model computes is compared with PyTorch in test_torch_parity."""

import functools
import inspect

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.errors import ConfigError, ShapeError
from minires.models import blocks
from minires.models.crossing_net import window_centres

CIFAR = {  # depth -> parameters; the same for v1, for v2 with basic blocks, and without shortcuts
    8: 75_290,
    14: 172_506,
    20: 269_722,
    32: 464_154,
    44: 658_586,
    56: 853_018,
    110: 1_727_962,
    1202: 19_421_274,
}
PARAMETERS = {
    f"{family}{depth}": n for family in ("resnet", "plain", "preresnet", "preplain") for depth, n in CIFAR.items()
}
PARAMETERS |= {
    "preresnet164": 1_703_258,
    "preresnet1001": 10_327_706,
    "preplain164": 1_661_274,
    "preplain1001": 10_285_722,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50v2": 25_549_352,
    "resnet101v2": 44_541_480,
    "resnet152v2": 60_185_128,
    "plain18": 11_515_688,
    "plain34": 21_623_848,
    "wide_resnet50_2": 68_883_240,  # torchvision, as the ResNeXt of ImageNet
    "wide_resnet101_2": 126_886_696,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "resnext29_8x64d": 34_426_698,  # 34.4 M in Xie et al. 2017, table 7
    "wrn16_4": 2_748_890,  # 2.7 M in Zagoruyko & Komodakis 2016, table 4
    "wrn28_10": 36_479_194,  # 36.5 M
    "densenet_bc100_12": 769_162,  # Huang et al. 2017, table 2: 0.8 M
    "crossing": 1_981_896,
    "whitened_resnet11": 2_490_016,
}


def count(model):
    return sum(p.size for p in model.parameters())


def images(size=8, n=2, channels=3):
    return mr.tensor(np.random.default_rng(0).standard_normal((n, channels, size, size)).astype(np.float32))


@pytest.fixture
def undrawn(monkeypatch):
    """Networks are made without drawing their weights, so that large ones take neither time nor memory."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "zeros_"):
        monkeypatch.setattr(nn.init, name, lambda *_, **__: None)


@pytest.mark.parametrize("name", mr.models.names())
def test_every_model_has_exactly_its_parameters(name, undrawn):
    model = mr.models.create(name)
    assert count(model) == PARAMETERS[name]
    path, layer = mr.models.classifier(model)
    assert layer is functools.reduce(getattr, path.split("."), model)
    pre_activation = name.startswith(("pre", "wrn")) or name.endswith("v2")
    assert path == ("head.fc" if pre_activation else "classifier" if name.startswith("dense") else "fc")
    assert model.image_size == {"crossing": 227}.get(name, 224 if layer.out_features == 1000 else 32)


def test_no_model_is_forgotten():
    assert sorted(mr.models.names()) == sorted(PARAMETERS)
    assert set(mr.models.names()) <= set(dir(mr.models))


def test_options_change_the_counts_as_they_should():
    assert count(mr.models.resnet20(option="B")) == 272_474
    assert count(mr.models.resnet20(num_classes=100)) == 269_722 + 65 * 90
    assert count(mr.models.resnet20(in_channels=1)) == 269_722 - 2 * 9 * 16
    assert count(mr.models.resnet18(num_classes=10, in_channels=4)) == 11_689_512 - 513 * 990 + 49 * 64
    assert count(mr.models.resnet50(v1=True)) == count(mr.models.resnet50())
    # the paper's ImageNet option A: projections, their convolutions and norms, are gone
    assert (
        count(mr.models.resnet18()) - count(mr.models.resnet18(option="A"))
        == 64 * 128 + 128 * 256 + 256 * 512 + 2 * 896
    )


def test_stride_is_on_the_3x3_and_in_v1_on_the_1x1():
    new, old = mr.models.resnet50().layer2[0], mr.models.resnet50(v1=True).layer2[0]
    assert (new.conv1.stride, new.conv2.stride) == ((1, 1), (2, 2))
    assert (old.conv1.stride, old.conv2.stride) == ((2, 2), (1, 1))


def test_names_of_the_state_are_torchvisions_and_timms():
    keys = list(mr.models.resnet18().state_dict())
    assert keys[:7] == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
        "layer1.0.conv1.weight",
    ]
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.num_batches_tracked", "fc.bias"} <= set(keys)
    assert keys[-2:] == ["fc.weight", "fc.bias"]
    assert len(keys) == 122
    keys = mr.models.resnet50v2().state_dict()
    expected = {"stem.conv.weight", "stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.downsample.conv.weight"}
    assert expected | {"stages.3.blocks.2.conv3.weight", "norm.running_var", "head.fc.weight"} <= set(keys)
    assert "stem.norm.weight" not in keys


def test_a_plain_twin_is_the_same_network_without_shortcuts():
    plain, residual = mr.models.plain20(), mr.models.resnet20()
    shapes = [{key: a.shape for key, a in model.state_dict().items()} for model in (plain, residual)]
    assert shapes[0] == shapes[1]
    plain.load_state_dict(residual.state_dict())
    assert not np.allclose(plain(images()).numpy(), residual(images()).numpy())
    for block, last in ((blocks.BasicBlock, "bn2"), (blocks.Bottleneck, "bn3")):
        block = block(4, 4, option=None)
        getattr(block, last).weight.data[...] = 0  # F(x) = 0: nothing gets through without a shortcut
        assert not block(images(channels=4)).numpy().any()


def test_preactivation_shares_its_first_activation_where_the_shape_changes():
    x = images(channels=4)
    same, changes = blocks.PreActBasicBlock(4, 4), blocks.PreActBasicBlock(4, 8, stride=2, option="A")
    for block in (same, changes):
        block.conv2.weight.data[...] = 0
    assert np.array_equal(same(x).numpy(), x.numpy())  # a clear way for the signal, negative values too
    y = changes(x).numpy()
    assert (y >= 0).all()
    assert not y[:, :2].any()
    assert not y[:, 6:].any()
    assert y[:, 2:6].any()


def test_option_a_pads_odd_differences_and_takes_every_other_pixel():
    y = blocks.ZeroPad(2, 5, 2)(images(size=5, channels=2)).numpy()
    assert y.shape == (2, 5, 3, 3)
    np.testing.assert_array_equal(y[:, 1:3], images(size=5, channels=2).numpy()[:, :, ::2, ::2])
    assert not y[:, :1].any()
    assert not y[:, 3:].any()


@pytest.mark.parametrize("name", ["resnet8", "preresnet8", "preplain8", "resnet18", "crossing"])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_any_input_size_channels_and_classes(name, pool):
    model = mr.models.create(name, num_classes=7, in_channels=2, pool=pool).eval()
    for size in (35, 40) if name == "crossing" else (32, 37):
        assert model(images(size, channels=2)).shape == (2, 7)


def test_crossing_has_the_feature_maps_it_is_drawn_with():
    model = mr.models.crossing().eval()
    x = mr.tensor(np.zeros((1, 3, 227, 227), np.float32))
    with mr.no_grad():
        maps = model.feature_maps(x)
    assert [v.shape[1:] for v in maps] == [(96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13), (384, 13, 13)]
    for size in (55, 27):
        x = images(size).numpy()
        np.testing.assert_array_equal(window_centres(x), x[:, :, 1::2, 1::2])


@pytest.mark.parametrize("name", ["resnet1202", "preresnet1001"])
def test_depth_is_no_recursion_problem(name):
    model = mr.models.create(name)
    F.cross_entropy(model(images()), np.array([1, 2])).backward()
    assert all(np.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet8", "preresnet8"])
def test_the_readable_kernels_train_the_same_model(name):
    x, results = images(size=16), []
    for backend in ("numba", "reference"):
        mr.manual_seed(0)
        model = mr.models.create(name)
        with mr.backend(backend):
            F.cross_entropy(model(x), np.array([3, 4])).backward()
        results.append([p.grad for p in model.parameters()] + list(model.buffers()))
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())


def test_initialisation_is_hes_and_comes_from_the_seed():
    mr.manual_seed(3)
    a = mr.models.resnet18().state_dict()
    mr.manual_seed(3)
    b, c = mr.models.resnet18().state_dict(), mr.models.resnet18().state_dict()
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert not np.array_equal(a["conv1.weight"], c["conv1.weight"])
    w = a["layer3.1.conv2.weight"]
    assert w.std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)
    assert abs(w.mean()) < 1e-4
    assert not a["fc.bias"].any()


def test_a_shape_error_names_the_modules_path():
    model = mr.models.resnet20()
    model.layer2[0].conv1 = nn.Conv2d(7, 32, 3, padding=1)
    with pytest.raises(ShapeError, match=r"\(in layer2\.0\.conv1\)$"):
        model(images())
    with pytest.raises(ShapeError, match=r"\(in conv1\)$"):
        mr.models.resnet20()(images(channels=4))
    model = mr.models.preresnet8()
    model.stages[1][0][0].norm2 = nn.BatchNorm2d(5)
    with pytest.raises(ShapeError, match=r"\(in stages\.1\.blocks\.0\.norm2\)$"):
        model(images())


def test_wrong_names_and_options_are_refused_with_a_way_out():
    with pytest.raises(ConfigError, match=r"unknown model 'resent20'.*did you mean.*resnet20"):
        mr.models.create("resent20")
    with pytest.raises(ConfigError, match=r"no option 'num_clases' \(did you mean num_classes"):
        mr.models.create("resnet20", num_clases=3)
    with pytest.raises(ConfigError, match="plain20 has no option 'option'"):
        mr.models.create("plain20", option="A")
    with pytest.raises(ConfigError, match=r"option is 'A'.* not 'D'"):
        mr.models.resnet20(option="D")
    with pytest.raises(ConfigError, match=r"pool is 'avg' or 'max'.* not 'mean'"):
        mr.models.resnet20(pool="mean")
    with pytest.raises(ConfigError, match=r"depth 21 cannot be.* 6n \+ 2, such as 20 or 26"):
        mr.models.CifarResNet(21)
    with pytest.raises(AttributeError, match="resnet21"):
        mr.models.resnet21  # noqa: B018


def test_constructors_describe_themselves():
    parameters = inspect.signature(mr.models.preresnet164).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert defaults == {
        "option": "B",
        "num_classes": 10,
        "in_channels": 3,
        "pool": "avg",
        "width": 16,
        "norm": "batch",
        "zero_init_residual": False,
        "aux_weight": 0.0,
        "stochastic_depth": 0.0,
        "features_only": False,
        "output_stride": 4,
    }
    assert "dropout" in inspect.signature(mr.models.wrn16_4).parameters
    assert mr.models.resnet20.__name__ == "resnet20"
    assert "ResNet-20" in mr.models.resnet20.__doc__


def test_the_classifier_of_a_network():
    assert mr.models.classifier(mr.models.preresnet8(aux_weight=0.3))[0] == "head.fc"
    with pytest.raises(ConfigError, match="this Conv2d has no classifier: there is no linear layer in it"):
        mr.models.classifier(nn.Conv2d(1, 1, 1))


def test_dropout_between_the_convolutions():
    model, x = mr.models.wrn16_4(dropout=0.5), images(size=8)
    blocks_of = [m for m in model.modules() if isinstance(m, blocks.PreActBasicBlock)]
    assert [block.dropout.p for block in blocks_of] == [0.5] * 6
    y = model(x).numpy()
    assert not np.array_equal(y, model(x).numpy())
    plain = mr.models.wrn16_4()
    plain.load_state_dict(model.state_dict())
    with mr.no_grad():
        np.testing.assert_allclose(model.eval()(x).numpy(), plain.eval()(x).numpy(), rtol=1e-5, atol=1e-6)
    predict = mr.RecordedPrediction(model)
    for _ in range(4):
        predict(x.numpy())
    assert predict.state == "checked"


@pytest.mark.parametrize("name", ["resnet18", "resnet50v2"])
def test_large_blocks_begin_as_the_identity(name):
    model = mr.models.create(name, zero_init_residual=True)
    block = model.layer1[1] if name == "resnet18" else model.stages[0].blocks[1]
    x = mr.tensor(np.abs(images(channels=64 if name == "resnet18" else 256).numpy()))
    np.testing.assert_array_equal(block(x).numpy(), x.numpy())


@pytest.mark.parametrize("name", ["preresnet8", "preresnet164", "wrn16_4"])
def test_pre_activation_blocks_that_begin_as_the_identity_learn(name):
    """γ = 0 before a ReLU would never change: its gradient is 0, and so are those of all that comes before it."""
    options = {"width": 4} if name != "wrn16_4" else {}
    if name == "preresnet164":
        model = mr.models.CifarPreResNet(11, blocks.PreActBottleneck, option="B", width=4, zero_init_residual=True)
    else:
        model = mr.models.create(name, zero_init_residual=True, **options)
    found = [m for m in model.modules() if isinstance(m, blocks.PreActBlock)]
    lasts = [getattr(block, block.last_conv).weight for block in found]
    assert not any(w.data.any() for w in lasts)
    assert all((getattr(block, block.last_norm).weight.data == 1).all() for block in found)
    firsts = [block.conv1.weight.data.copy() for block in found]
    optimizer = mr.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model.zero_grad()
        F.cross_entropy(model(images(n=4)), np.array([1, 2, 3, 4])).backward()
        optimizer.step()
    assert all(np.abs(w.data).max() > 0 for w in lasts)
    assert all(not np.array_equal(block.conv1.weight.data, before) for block, before in zip(found, firsts))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mr.models.ResNet(blocks.BasicBlock, (1, 1, 1, 1), groups=2), "groups = 2 .*a BasicBlock has none"),
        (lambda: mr.models.resnet50(groups=0), "groups is a whole number from 1 to 4096, not 0"),
        (lambda: mr.models.resnet50(base_width=0.5), "base_width is a whole number from 1 to 4096, not 0.5"),
        (lambda: mr.models.CifarResNet(11, block=blocks.Bottleneck, width=8, base_width=4), "leaves no channel"),
        (lambda: mr.models.WideResNet(16, 0), "widen is how many times as wide .*from 1 to 64, not 0"),
        (lambda: mr.models.WideResNet(17, 2), r"depth 17 cannot be.*6n \+ 4, such as 16 or 22"),
        (lambda: mr.models.wrn16_4(dropout=1.5), "dropout is a probability from 0 up and below 1, not 1.5"),
        (lambda: mr.models.CifarPreResNet(11, blocks.PreActBottleneck, dropout=0.1), "a PreActBottleneck has none"),
        (lambda: mr.models.CifarDenseNet(41), r"depth 41 cannot be.*6n \+ 4, such as 40 or 46"),
        (lambda: mr.models.CifarDenseNet(40, growth=0), "growth is the channels .*from 1 to 4096, not 0"),
        (lambda: mr.models.densenet_bc100_12(compression=2), "compression is the part .*from 0.1 to 1, not 2"),
        (lambda: mr.models.create("resnet20", groups=2), "resnet20 has no option 'groups'"),
        (lambda: mr.models.resnet18(small_images="no"), "small_images is true or false, not 'no'"),
        (lambda: mr.models.resnet18(max_pool="no"), "max_pool is true or false, not 'no'"),
        (lambda: mr.models.resnet18(small_images=None), "small_images is true or false, not None"),
        (lambda: mr.models.create("resnet20", zero_init_residual=0.0), "zero_init_residual is true or false, not 0.0"),
    ],
)
def test_numbers_that_no_network_has(call, said):
    with pytest.raises(ConfigError, match=said):
        call()
