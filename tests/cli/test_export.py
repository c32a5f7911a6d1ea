"""`minires export`: from a run, and from weights, to every format; what is refused, and that nothing is half written."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import minires as mr
from minires import interop, training
from minires.training.source import network_of_run


@pytest.fixture(scope="module")
def trained(cifar, tmp_path_factory):
    """The folder of a run of `minires train`."""
    from minires.cli import main

    folder = tmp_path_factory.mktemp("run") / "run"
    options = [
        "--dataset",
        "cifar10",
        "--data-dir",
        str(cifar),
        "--model",
        "resnet8",
        "--epochs",
        "1",
        "--threads",
        "1",
    ]
    with pytest.raises(SystemExit):
        main(["train", *options, "--batch-size", "16", "--out", str(folder)])
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, `run`."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def words(text):
    return " ".join(text.split())


def session(path):
    return pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])


def pixels(batch):
    return np.random.default_rng(batch).random((batch, 3, 32, 32), np.float32)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_weights(minires, run, suffix, torch, tmp_path):
    code, out, err = minires("export", "run", f"weights{suffix}")
    assert (code, err) == (0, "")
    assert "resnet8, 75,290 parameters, after epoch 1" in out
    assert f"weights{suffix}, 0.3 MB, 44 arrays" in words(out)
    load = out.partition("model.load_state_dict(")[2].rpartition(")")[0]
    pytest.importorskip("safetensors.torch")
    found = eval(load, {"torch": torch, "safetensors": sys.modules["safetensors"]})
    model = network_of_run(run).model
    assert {name: t.numpy().tobytes() for name, t in found.items()} == {
        name: array.tobytes() for name, array in model.state_dict().items()
    }


def test_onnx(minires, run, tmp_path):
    pytest.importorskip("onnx")
    code, out, err = minires("export", "run", "model.onnx")
    assert (code, err) == (0, "")
    assert "model.onnx, 0.3 MB, opset 21, 24 operators" in words(out)
    assert "input (batch, 3, 32, 32): pixels from 0 to 1, less 0." in words(out)
    assert "output logits (batch, 10)" in words(out)
    assert "against ONNX Runtime on 1 and on 7 random images: differences up to" in words(out)
    network = network_of_run(run)
    said = session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == list(network.classes)
    assert json.loads(said["mean"]) == pytest.approx(network.normalization.mean)
    assert said["model"] == "resnet8"
    for batch in (1, 7):
        x = pixels(batch)
        (found,) = session(tmp_path / "model.onnx").run(None, {"input": x})
        with mr.no_grad():
            np.testing.assert_allclose(found, network.model(mr.tensor(x)).numpy(), rtol=0, atol=1e-4)


def test_pixels_to_probabilities(minires, run, tmp_path):
    pytest.importorskip("onnx")
    options = "--with-normalization", "--softmax", "--dynamic-size", "--keep-batch-norm", "--opset", "18"
    code, out, _ = minires("export", "run", "model.onnx", *options)
    assert code == 0
    assert "input (batch, 3, height, width): pixels from 0 to 1 output probabilities (batch, 10)" in words(out)
    assert "opset 18" in out
    network, x = network_of_run(run), pixels(5)
    mean, std = (
        np.array(v, np.float32)[:, None, None] for v in (network.normalization.mean, network.normalization.std)
    )
    (found,) = session(tmp_path / "model.onnx").run(None, {"input": x})
    with mr.no_grad():
        expected = network.model(mr.tensor((x - mean) / std)).softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_from_weights(minires, tmp_path):
    pytest.importorskip("onnx")
    interop.save_torch(mr.models.resnet8(num_classes=3), tmp_path / "w.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\ncow\n")
    source = "--model", "resnet8", "--weights", "w.pth"
    code, out, err = minires("export", *source, "a.onnx", "--classes", "names.txt", "--normalize", "cifar10")
    assert (code, err) == (0, "")
    assert "with the weights of w.pth" in out
    assert "less 0.4914, 0.4822, 0.4465, divided by 0.247, 0.2435, 0.2616" in words(out)
    said = session(tmp_path / "a.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == ["cat", "dog", "cow"]
    code, out, _ = minires("export", *source, "b.onnx")
    assert "pixels from 0 to 1, normalised as in training" in words(out)
    assert not {"classes", "mean"} & set(session(tmp_path / "b.onnx").get_modelmeta().custom_metadata_map)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_the_auxiliary_classifier_is_left_out(minires, name, tmp_path):
    """It is for training alone, and PyTorch's networks have none: strict=True would refuse it."""
    model = mr.models.resnet8(aux_weight=0.3)
    interop.save_torch(model, tmp_path / "w.pth")
    for weights in ("w.pth", name):  # the second one lacks it
        source = "--model", "resnet8", "--weights", weights, "--model-option", "aux_weight=0.3"
        code, out, _ = minires("export", *source, f"new-{name}")
        assert code == 0
        assert out.startswith(f"resnet8, 75,290 parameters, with the weights of {weights}\n")
        Path(f"new-{name}").replace(name)
    assert set(interop.read_weights(name)) == set(mr.models.resnet8().state_dict())


def test_a_new_head_is_said_to_be_new(minires, tmp_path):
    interop.save_torch(mr.models.resnet8(), tmp_path / "w.pth")
    out = minires("export", "--model", "resnet8", "--weights", "w.pth", "--num-classes", "7", "a.pth")[1]
    assert "with the weights of w.pth; not trained: fc.weight, fc.bias" in words(out)


def test_imagenet_names_its_classes(minires, tmp_path):
    pytest.importorskip("onnx")
    interop.save_safetensors(mr.models.resnet8(num_classes=1000), tmp_path / "w.safetensors")
    assert minires("export", "--model", "resnet8", "--weights", "w.safetensors", "a.onnx")[0] == 0
    said = session(tmp_path / "a.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"])[281] == "tabby"


def test_a_round_trip_of_commands(minires, run, tmp_path):
    """run → .pth → .safetensors → .pth: the same bytes."""
    source = "--model", "resnet8", "--weights"
    assert minires("export", "run", "a.pth")[0] == 0
    assert minires("export", *source, "a.pth", "b.safetensors")[0] == 0
    assert minires("export", *source, "b.safetensors", "c.pth")[0] == 0
    assert sorted(interop.read_weights("a.pth")) == sorted(interop.read_weights("c.pth"))
    model, expected = mr.models.resnet8(), training.Checkpoint.load(run / "last.safetensors").model
    interop.load_weights(model, "c.pth")
    assert all(np.array_equal(array, expected[name]) for name, array in model.state_dict().items())


def test_a_round_trip_through_onnx(minires, run, tmp_path):
    pytest.importorskip("onnx")
    assert minires("export", "run", "a.onnx", "--keep-batch-norm")[0] == 0
    assert minires("export", "--model", "resnet8", "--weights", "a.onnx", "b.safetensors")[0] == 0
    found, model = interop.read_weights("b.safetensors"), network_of_run(run).model
    for name, array in model.state_dict().items():
        assert name.endswith("num_batches_tracked") or found[name].tobytes() == array.tobytes(), name


# --- what is refused


def refused(minires, *args):
    before = {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}
    code, out, err = minires("export", *args)
    assert (code, out) == (2, "")
    after = {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}
    assert before == after
    return err.removeprefix("error: ").rstrip("\n")


def test_a_checkpoint_is_never_written_over(minires, run, page):
    page(refused(minires, "run", "run/last.safetensors", "--force"))
    assert "is where a run has a checkpoint" in refused(minires, "run", "run/best.safetensors")  # which is not there


def test_the_input_is_never_written_over(minires, tmp_path, page):
    interop.save_torch(mr.models.resnet8(), tmp_path / "w.pth")
    (tmp_path / "same.pth").symlink_to("w.pth")
    page(refused(minires, "--model", "resnet8", "--weights", "w.pth", "same.pth", "--force"))


def test_a_file_that_is_there(minires, run, tmp_path, page):
    (tmp_path / "model.pth").write_bytes(b"dear")
    page(refused(minires, "run", "model.pth"))
    assert minires("export", "run", "model.pth", "--force")[0] == 0
    assert (tmp_path / "model.pth").read_bytes()[:2] == b"PK"


def test_normalization_that_is_not_known(minires, tmp_path, page):
    pytest.importorskip("onnx")
    interop.save_torch(mr.models.resnet8(), tmp_path / "w.pth")
    page(refused(minires, "--model", "resnet8", "--weights", "w.pth", "a.onnx", "--with-normalization"))


def test_a_full_disk(minires, run, monkeypatch, page):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    page(refused(minires, "run", "model.pth"))


def test_without_onnx(minires, run, monkeypatch, page):
    monkeypatch.setitem(sys.modules, "onnx", None)
    page(refused(minires, "run", "model.onnx"))


def test_images_that_are_too_small(minires, tmp_path, page):
    pytest.importorskip("onnx")
    interop.save_torch(mr.models.whitened_resnet11(width1=4, width2=4, width3=4), tmp_path / "w.pth")
    options = [f"--model-option=width{i}=4" for i in (1, 2, 3)]
    page(
        refused(minires, "--model", "whitened_resnet11", *options, "--weights", "w.pth", "a.onnx", "--image-size", "4")
    )
