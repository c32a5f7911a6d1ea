"""One small network of every family in ONNX Runtime, with every way to export it."""

import json

import numpy as np
import pytest

import minires as mr
from minires import interop, models, nn
from minires.models import (
    BasicBlock,
    Bottleneck,
    CifarDenseNet,
    CifarPreResNet,
    CifarResNet,
    CrossingNet,
    PreActBottleneckV1,
    ResNet,
    ResNetV2,
    WhitenedResNet,
    WideResNet,
)

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NETWORKS = {  # and the side of their images
    "option A": (lambda: CifarResNet(8, width=4), 16),
    "option B": (lambda: CifarResNet(8, option="B", width=4, pool="max"), 16),
    "plain": (lambda: CifarResNet(14, option=None, width=4), 16),
    "no batch norm": (lambda: CifarResNet(8, width=4, norm="none"), 16),
    "auxiliary classifier": (lambda: CifarResNet(8, width=4, aux_weight=0.3), 16),
    "scaled shortcuts": (lambda: CifarResNet(8, width=4, shortcut=0.5), 16),
    "exclusive gating": (lambda: CifarResNet(8, width=4, shortcut="exclusive-gating"), 16),
    "shortcut-only gating": (lambda: CifarResNet(8, width=4, shortcut="shortcut-only-gating"), 16),
    "convolved shortcuts": (lambda: CifarResNet(8, width=4, shortcut="conv1x1"), 16),
    "dropout on shortcuts": (lambda: CifarResNet(8, width=4, shortcut="dropout"), 16),
    "pre-activation": (lambda: CifarPreResNet(8, width=4), 16),
    "pre-activation, bottlenecks": (lambda: CifarPreResNet(11, PreActBottleneckV1, option="B", width=4), 16),
    "basic blocks": (lambda: ResNet(BasicBlock, (1, 1, 1, 1), num_classes=10), 40),
    "bottlenecks": (lambda: ResNet(Bottleneck, (1, 1, 1, 1), num_classes=10), 40),
    "groups": (lambda: ResNet(Bottleneck, (1, 1, 1, 1), num_classes=10, groups=32, base_width=4), 40),
    "wide": (lambda: WideResNet(10, 2, dropout=0.3), 16),
    "version 2": (lambda: ResNetV2((1, 1, 1, 1), num_classes=10), 40),
    "dense": (lambda: CifarDenseNet(10, growth=4, dropout=0.2), 16),
    "whitened": (lambda: WhitenedResNet(width1=8, width2=12, width3=16), 32),
    "crossing": (lambda: CrossingNet(num_classes=10), 67),
}
LARGE = {"basic blocks", "bottlenecks", "groups", "version 2", "crossing"}


def randomised(model):
    """The network, with batch norms that do something."""
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for array in (module.running_mean, module.bias.data):
                array[...] = rng.normal(0, 0.3, array.shape)
            for array in (module.running_var, module.weight.data):
                array[...] = rng.uniform(0.5, 1.5, array.shape)
    return model.eval()


@pytest.fixture(scope="module")
def network():
    """A network that is exported in many ways."""
    mr.manual_seed(0)
    return randomised(CifarResNet(8, option="B", width=4))


def load(path):
    return onnx.load(path), onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def close(session, model, shape, prepare=lambda x: x, finish=lambda y: y):
    x = np.random.default_rng(1).random(shape, np.float32)
    (theirs,) = session.run(None, {"input": x})
    with mr.no_grad():
        ours = finish(model(mr.tensor(prepare(x)))).numpy()
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4 * max(np.abs(ours).max(), 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_family(name, tmp_path):
    build, side = NETWORKS[name]
    mr.manual_seed(1)
    model = randomised(build())
    for fold in (True,) if name in LARGE else (True, False):
        found = interop.export_onnx(model, tmp_path / "a.onnx", image_size=side, fold_batch_norm=fold)
        assert found.difference < 1e-4
        _, session = load(found.path)
        for batch in (1, 7):
            close(session, model, (batch, 3, side, side))


LARGE = "1001", "1202", "152", "152v2", "101_2", "101_32x8d", "101_64x4d"  # of these, two are enough
EVERY = [name for name in models.names() if not name.endswith(LARGE) or name in ("resnet1202", "preplain1001")]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_model(name, tmp_path):
    """With statistics as after training: with others the values in a network of 1,000 layers overflow.

    Networks with random weights that have no shortcuts, or a hundred layers, are chaotic even so: ONNX Runtime may be as far
    from float64 there as minires's own float32 is, times four.
    """
    mr.manual_seed(1)
    model = randomised(models.create(name))
    side = {"crossing": 67}.get(name, 64 if models.image_size(name) == 224 else 32)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with mr.no_grad():
        model.train()(mr.tensor(np.random.default_rng(3).random((8, 3, side, side), np.float32)))
    found = interop.export_onnx(model.eval(), tmp_path / "a.onnx", image_size=side)
    if found.difference >= 1e-4:
        assert "plain" in name or "101" in name
        x = np.random.default_rng(4).random((2, 3, side, side), np.float32)
        with mr.no_grad():
            ours, exact = model(mr.tensor(x)).numpy(), model.double()(mr.tensor(x.astype(np.float64))).numpy()
        (theirs,) = load(found.path)[1].run(None, {"input": x})
        assert np.abs(theirs - exact).max() <= 4 * np.abs(ours - exact).max()


@pytest.mark.parametrize("name", ["option A", "pre-activation", "whitened", "crossing"])
def test_images_of_any_size(name, tmp_path):
    build, side = NETWORKS[name]
    model = randomised(build())
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=side, dynamic_size=True)
    _, session = load(tmp_path / "a.onnx")
    for shape in ((1, 3, side, side), (7, 3, side + 16, side + 8)):
        close(session, model, shape)


def test_batch_norms_are_folded_into_the_convolutions(network, tmp_path):
    interop.export_onnx(network, tmp_path / "a.onnx", image_size=16)
    graph, _ = load(tmp_path / "a.onnx")
    kinds = [node.op_type for node in graph.graph.node]
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    assert (kinds.count("Conv"), kinds.count("BatchNormalization")) == (convolutions, 0)
    assert kinds.count("Add") == 3
    assert {"conv1.folded.weight", "conv1.folded.bias", "fc.weight", "fc.bias"} < {
        i.name for i in graph.graph.initializer
    }


@pytest.mark.parametrize("name", ["option A", "pre-activation", "whitened"])
def test_kept_batch_norms_have_the_names_of_the_state_dict(name, tmp_path):
    model = randomised(NETWORKS[name][0]())
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=NETWORKS[name][1], fold_batch_norm=False)
    graph, _ = load(tmp_path / "a.onnx")
    found = {i.name: onnx.numpy_helper.to_array(i) for i in graph.graph.initializer}
    expected = {n: a for n, a in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert set(expected) <= set(found)
    assert all(found[n].tobytes() == a.tobytes() and found[n].shape == a.shape for n, a in expected.items())


MEAN, STD = (0.1, 0.4, 0.7), (0.2, 0.5, 1.5)


def normalized(x):
    return (x - np.array(MEAN, "f4")[:, None, None]) / np.array(STD, "f4")[:, None, None]


def test_normalization_and_softmax_inside(network, tmp_path):
    options = {"mean": MEAN, "std": STD, "with_normalization": True, "softmax": True}
    interop.export_onnx(network, tmp_path / "a.onnx", image_size=16, **options)
    graph, session = load(tmp_path / "a.onnx")
    assert [o.name for o in session.get_outputs()] == ["probabilities"]
    for batch in (1, 7):
        close(session, network, (batch, 3, 16, 16), normalized, lambda y: y.softmax(-1))
    (p,) = session.run(None, {"input": np.zeros((2, 3, 16, 16), np.float32)})
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-6)
    assert "pixels in [0, 1]" in graph.graph.input[0].doc_string


def test_what_the_file_says_of_itself(network, tmp_path):
    names = ["Flugzeug", "été", *map(str, range(8))]
    interop.export_onnx(
        network, tmp_path / "a.onnx", image_size=16, mean=MEAN, std=STD, class_names=names, name="resnet8"
    )
    graph, session = load(tmp_path / "a.onnx")
    said = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(said[key]) for key in ("classes", "mean", "std", "image_size")} == {
        "classes": names,
        "mean": list(MEAN),
        "std": list(STD),
        "image_size": 16,
    }
    assert (said["model"], said["minires_version"]) == ("resnet8", mr.__version__)
    assert said["input"] == "RGB pixels in [0, 1], normalised"
    assert (graph.producer_name, graph.producer_version) == ("minires", mr.__version__)
    assert (graph.opset_import[0].version, graph.ir_version) == (21, 10)
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("input", ["batch", 3, 16, 16])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("logits", ["batch", 10])]
    close(session, network, (2, 3, 16, 16))  # the normalisation is not inside


def test_what_is_returned(network, tmp_path):
    found = interop.export_onnx(network, tmp_path / "a.onnx", image_size=(16, 24))
    assert found.path == tmp_path / "a.onnx"
    assert found.size == found.path.stat().st_size
    assert (found.opset, found.ir_version) == (21, 10)
    assert found.nodes == len(load(found.path)[0].graph.node)
    assert found.difference < 1e-5


def test_equal_networks_give_equal_bytes(network, tmp_path):
    for name in ("a", "b"):
        interop.export_onnx(network, tmp_path / name, image_size=16)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_backbone_has_an_output_for_each_map(tmp_path):
    model = randomised(CifarResNet(8, width=4, features_only=True))
    interop.export_onnx(model, tmp_path / "a.onnx", dynamic_size=True)
    _, session = load(tmp_path / "a.onnx")
    assert [o.name for o in session.get_outputs()] == [feature.name for feature in model.feature_info]
    x = np.random.default_rng(1).random((2, 3, 48, 40), np.float32)
    for theirs, ours in zip(session.run(None, {"input": x}), model(mr.tensor(x)), strict=True):
        np.testing.assert_allclose(theirs, ours.numpy(), rtol=0, atol=1e-4)


def test_a_height_is_not_called_batch(tmp_path):
    """The last map of images of 64 and of 96 pixels is 2 and 3 pixels high, as the batches are that are tried."""
    model = randomised(ResNet(BasicBlock, (1, 1, 1, 1), features_only=True))
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=64, dynamic_size=True)
    last = load(tmp_path / "a.onnx")[1].get_outputs()[-1]
    assert last.shape == ["batch", 512, "layer4_2", "layer4_3"]


def test_numbers_of_numpy(network, tmp_path):
    """As the mean and std of a data set are."""
    values = {"mean": np.array(MEAN, "f4"), "std": np.array(STD, "f4"), "image_size": np.int64(16)}
    interop.export_onnx(network, tmp_path / "a.onnx", **values)
    said = load(tmp_path / "a.onnx")[1].get_modelmeta().custom_metadata_map
    assert json.loads(said["mean"]) == [float(np.float32(value)) for value in MEAN]
    assert json.loads(said["image_size"]) == 16


def test_names_that_are_no_text(tmp_path):
    model, names = CifarResNet(8, width=4, num_classes=2), ["\udcff", "é"]  # a folder's name that is not UTF-8
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8, class_names=names)
    assert json.loads(load(tmp_path / "a.onnx")[1].get_modelmeta().custom_metadata_map["classes"]) == names


def test_dilated_backbone(tmp_path):
    model = randomised(ResNet(BasicBlock, (1, 1, 1, 1), features_only=True, output_stride=8))
    assert interop.export_onnx(model, tmp_path / "a.onnx", image_size=40).difference < 1e-4


def test_other_numbers_of_channels(tmp_path):
    model = randomised(CifarResNet(8, width=4, in_channels=1))
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=28)
    _, session = load(tmp_path / "a.onnx")
    close(session, model, (7, 1, 28, 28))


def test_images_that_are_too_small(tmp_path):
    with pytest.raises(mr.errors.ShapeError, match=r"conv2d: .*conv1"):
        interop.export_onnx(CrossingNet(), tmp_path / "a.onnx", image_size=8)


def test_nothing_half_written(network, tmp_path, monkeypatch):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"before")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        interop.export_onnx(network, path, image_size=16)
    assert ([p.name for p in tmp_path.iterdir()], path.read_bytes()) == (["a.onnx"], b"before")
