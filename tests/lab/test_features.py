"""Feature maps and filters, against hooks and weights; the pictures of them."""

import numpy as np
import pytest

import minires as mr
from minires import lab, nn
from minires.errors import ConfigError
from minires.figures import save_figure
from minires.lab.inside import draw, features


def images(count=2, side=32):
    return np.random.default_rng(1).standard_normal((count, 3, side, side)).astype(np.float32)


@pytest.mark.parametrize("name", ["resnet8", "preresnet8", "whitened_resnet11"])
def test_maps_are_what_modules_return(name):
    model, x, seen = mr.models.create(name, num_classes=10).eval(), images(), {}
    names = features.stages(model)
    for layer in names:
        module = dict(model.named_modules())[layer]
        module.register_forward_hook(lambda module, inputs, y, layer=layer: seen.update({layer: (inputs[0], y)}))
    with mr.no_grad(), mr.fusion(False):
        model(mr.tensor(x))
    hooked = dict(seen)
    found = lab.feature_maps(model, x)
    assert next(iter(found)) == "stem"
    np.testing.assert_array_equal(found.pop("stem"), hooked[names[0]][0].numpy())
    assert set(found) <= set(names)
    for layer, maps in found.items():
        np.testing.assert_array_equal(maps, hooked[layer][1].numpy())
    single = lab.feature_maps(model, x[0], names[0])
    assert list(single) == [names[0]]
    np.testing.assert_allclose(single[names[0]], found[names[0]][0], rtol=1e-4, atol=1e-4)


def test_stages():
    assert features.stages(mr.models.resnet8()) == ["layer1", "layer2", "layer3"]
    assert features.stages(mr.models.preresnet20()) == ["stages.0", "stages.1", "stages.2"]
    assert features.stages(mr.models.whitened_resnet11()) == ["stage1", "stage2", "stage3"]
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    assert features.stages(network) == []
    found = lab.feature_maps(network, images())
    assert {name: maps.shape for name, maps in found.items()} == {"0": (2, 4, 30, 30), "2": (2, 5, 28, 28)}


def test_layers_in_the_order_of_the_forward_pass():
    found = lab.feature_maps(mr.models.resnet8(), images(), ["layer3", "conv1", "layer2.0.bn1"])
    assert list(found) == ["conv1", "layer2.0.bn1", "layer3"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("layer4", "there is no layer 'layer4' in this network .did you mean layer"),
        (["layer1", "fc"], r"layer 'fc' returns a tensor of shape \(2, 10\), and no feature map"),
        (["avgpool"], "layer 'avgpool' returns a single pixel"),
        (["aux"], "layer 'aux' takes no part"),
    ],
)
def test_bad_layers(layers, message):
    with pytest.raises(ConfigError, match=message):
        lab.feature_maps(mr.models.resnet8(aux_weight=0.3), images(), layers)


def test_images_that_are_too_small():
    with pytest.raises(ConfigError, match="no feature map of more than one pixel"):
        lab.feature_maps(mr.models.resnet8(), np.zeros((3, 1, 1)))


def test_filters():
    model = mr.models.resnet18()
    found = lab.first_filters(model)
    np.testing.assert_array_equal(found, model.conv1.weight.data)
    found[:] = 0
    assert model.conv1.weight.data.any()
    assert features.first_convolution(mr.models.preresnet8())[0] == "stem.conv"
    with pytest.raises(ConfigError, match="Linear has no convolution, whose filters could be shown"):
        lab.first_filters(nn.Linear(2, 2))


@pytest.mark.parametrize(("channels", "tiles"), [(3, 5), (1, 5), (4, 20)])
def test_tiles(channels, tiles):
    filters = np.random.default_rng(0).standard_normal((5, channels, 3, 3)).astype(np.float32)
    filters[2] = 0
    found = draw.filter_tiles(filters)
    assert found.shape == (tiles, 3, 3, 3)
    assert np.abs(found - 0.5).max() == 0.5
    zero = found[2 * (tiles // 5)]
    assert (zero == 0.5).all()
    if channels == 3:
        np.testing.assert_allclose(found[1], 0.5 + filters[1].transpose(1, 2, 0) / np.abs(filters).max() / 2, atol=1e-6)
    assert (draw.filter_tiles(np.zeros((1, 3, 2, 2))) == 0.5).all()


def test_strongest_channels_first():
    maps = np.stack([np.full((4, 4), v) for v in (1.0, -3.0, 0.0, 2.0)])
    assert draw.strongest(maps).tolist() == [1, 3, 0, 2]


def test_overlay():
    photograph = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    heat = np.zeros((8, 8))
    heat[2, 3] = 1
    found = draw.overlay(photograph, heat)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found[0] == found[0, :, :1] * [1, 1, 1]).mean() > 0.3  # grey where it is cold
    assert np.ptp(found[2, 3]) > 0.1


def test_pictures(tmp_path):
    rng, model = np.random.default_rng(0), mr.models.resnet8()
    photograph, x = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8), images(1)[0]
    name, heat = "貓 a $name$ \x1b[2J \udc80 that is longer than there is place for it.png", rng.random((32, 32))
    rows = [draw.Explained(name, photograph, [("cat 3 %", heat)]), draw.Explained("b", photograph, [])]
    pictures = {
        "cam.png": draw.draw_cams(rows, "T", "a note of $1"),
        "features.pdf": draw.draw_features(photograph, lab.feature_maps(model, x), "T", columns=3, note="N"),
        "filters.svg": draw.draw_filters(lab.first_filters(model), name, name),
    }
    for name, figure in pictures.items():
        save_figure(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 2000


def test_a_name_in_a_picture():
    assert draw.shortened("a" * 30 + ".png", 10) == "aaaaa….png"
    assert draw.shortened("a$b$\x1b") == r"a\$b\$\x1b"
