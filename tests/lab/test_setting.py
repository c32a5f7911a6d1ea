"""The network and the images of an experiment, and the options of models that the lab needs."""

import numpy as np
import pytest

import minires as mr
from minires import models, nn
from minires.data import Dataset
from minires.errors import ConfigError
from minires.lab.catalogue import EXPERIMENTS, run
from minires.lab.setting import Setting, averaged


def test_a_setting_is_repeatable():
    setting = Setting(model="resnet8", width=4, image_size=16, batch_size=6, seed=3)
    (images, labels), (again, same) = setting.batch(), setting.batch()
    assert images.shape == (6, 3, 16, 16)
    assert images.dtype == np.float64
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same)
    first, second = setting.network(), setting.network()
    assert first.conv1.weight.shape == (4, 3, 3, 3)
    assert all((a.data == b.data).all() for a, b in zip(first.parameters(), second.parameters()))
    assert abs(images.mean()) < 0.5
    assert 0.5 < images.std() < 2
    assert setting.to_dict() == {
        "model": "resnet8",
        "width": 4,
        "image_size": 16,
        "dataset": "shapes",
        "batch_size": 6,
        "seed": 3,
    }
    said = Setting(model_options={"option": "B"}, data_dir="/home/me/cifar", out="here").to_dict()
    assert said == {
        "model": "resnet20",
        "model_options": {"option": "B"},
        "dataset": "shapes",
        "batch_size": 32,
        "seed": 0,
    }


def test_pixels_are_averaged():
    rng = np.random.default_rng(0)
    data = Dataset(rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8), np.arange(3), ("a", "b", "c"), "noise")
    small = averaged(data, 4)
    assert small.images.shape == (3, 4, 4, 3)
    expected = data.images[1, 2:4, 6:8, 0].mean()
    assert abs(small.images[1, 1, 3, 0] - expected) <= 0.5
    assert averaged(data, 8) is averaged(data, None) is data
    with pytest.raises(ConfigError, match="image_size 3: images of 8×8 pixels can be averaged to a divisor of 8"):
        averaged(data, 3)


def test_an_experiment_has_a_size_where_nobody_says_one(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "split", EXPERIMENTS["split"]._replace(size=(4, 16), quick_size=(2, 8)))
    small = Setting(model="resnet8", batch_size=2)
    for setting, width, side in ((small, 4, 16), (small.with_(quick=True), 2, 8), (small.with_(width=3), 3, 16)):
        settings = run("split", setting).settings
        assert (settings["width"], settings["image_size"]) == (width, side)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 1}, "batch_size must be a whole number from 2 to 4096, not 1"),
        ({"batch_size": 5000}, "batch_size must be"),
        ({"seed": -1}, "seed must be a whole number from 0"),
    ],
)
def test_settings_that_cannot_be(given, message):
    with pytest.raises(ConfigError, match=message):
        Setting(**given)


def test_networks_that_cannot_be():
    with pytest.raises(ConfigError, match="unknown model 'resnet9'"):
        Setting(model="resnet9").network()
    with pytest.raises(ConfigError, match="resnet18 has no width: --width is for the CIFAR networks"):
        Setting(model="resnet18", width=8).network()
    with pytest.raises(ConfigError, match="there is no run"):
        Setting(run="/no/such/run").network()


# --- the models' options


SHALLOW = ["resnet20", "plain20", "preresnet20", "preplain20"]


@pytest.mark.parametrize(
    ("name", "norm"), [("preresnet164", "batch"), *((name, norm) for name in SHALLOW for norm in ("batch", "none"))]
)
def test_width_and_norm(name, norm):
    model = models.create(name, width=6, norm=norm, num_classes=10)
    wide = models.create(name, num_classes=10)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert convs[0].weight.shape[0] == 6
    assert len(convs) == sum(isinstance(m, nn.Conv2d) for m in wide.modules())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(norms) == (norm == "batch")
    assert all((c.bias is None) == (norm == "batch") for c in convs)
    x = mr.tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32), requires_grad=True)
    y = model(x)
    assert y.shape == (2, 10)
    y.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_widths_that_cannot_be():
    for width in (0, -1, 4097, 2.5, True, "16"):
        with pytest.raises(ConfigError, match="width is the channels of the first stage"):
            models.resnet8(width=width)
    with pytest.raises(ConfigError, match=r"norm is 'batch' .* or 'none' .*, not 'layer'"):
        models.preresnet8(norm="layer")


@pytest.mark.parametrize("name", ["resnet20", "preresnet20", "preresnet164"])
def test_blocks_that_begin_as_the_identity(name):
    """With γ = 0 at the end of every residual function, the network equals one of its shortcuts alone."""
    model = models.create(name, width=4, num_classes=10, zero_init_residual=True, option="A")
    x = mr.tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32))
    model.eval()
    with mr.no_grad():
        if name == "resnet20":
            y = model.bn1(model.conv1(x)).relu()
            for layer in (model.layer1, model.layer2, model.layer3):
                y = layer[0].downsample(y).relu()
            expected = model.fc(model.avgpool(y).flatten(1))
        else:
            y = model.stem(x)
            for stage in model.stages:
                block = stage.blocks[0]
                if not isinstance(block.downsample, nn.Identity):
                    y = block.norm1(y).relu()
                y = block.downsample(y)
            expected = model.head(model.norm(y).relu())
        np.testing.assert_allclose(model(x).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"option": None}, {"norm": "none"}])
def test_the_identity_needs_shortcuts_and_batch_norm(options):
    with pytest.raises(ConfigError, match="zero_init_residual is for residual networks with batch norm"):
        models.CifarResNet(8, zero_init_residual=True, **options)
