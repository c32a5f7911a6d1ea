"""What is not exported: networks for their values or size, settings that cannot be; and what is missing without a package."""

import sys

import numpy as np
import pytest

from minires import interop, nn
from minires.errors import ConfigError, DtypeError, ExportError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_float64_is_refused(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1)).double()
    with pytest.raises(DtypeError, match=r"0.weight is of float64, .* export model.float\(\)"):
        interop.export_onnx(model, tmp_path / "a.onnx", image_size=8)


def test_weights_that_are_not_finite(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model[0].bias.data[0] = np.nan
    with pytest.raises(ExportError, match=r"0\.bias has values that are NaN or infinite"):
        interop.export_onnx(model, tmp_path / "a.onnx", image_size=8)


def test_outputs_that_are_not_finite(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model[0].weight.data[...] = 3e38
    with np.errstate(over="ignore"), pytest.raises(ExportError, match="outputs for random images are NaN or infinite"):
        interop.export_onnx(model, tmp_path / "a.onnx", image_size=8)


def test_softmax_is_of_a_classifier(tmp_path):
    """Over the last axis of scores (N, classes, H, W) it would be a softmax over columns."""
    with pytest.raises(ConfigError, match="softmax goes with a classifier, and Sequential returns a tensor of 4 axes"):
        interop.export_onnx(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "a.onnx", image_size=8, softmax=True)
    assert not list(tmp_path.iterdir())


class Function(nn.Module):
    def __init__(self, function):
        self.function = function

    def forward(self, x):
        return self.function(x)


OTHERWISE = {  # for the 1 and the 7 images of the comparison than for the 2 and the 3 of the trace
    r"ONNX Runtime's outputs are of shape \(7, 3, 5, 8\), and minires' of \(7, 3, 6, 8\): nothing was written": (
        lambda x: x[:, :, : 6 if x.shape[0] == 7 else 5]
    ),
    r"ONNX Runtime's outputs are of shape \(0, 3, 8, 8\)": lambda x: x[1:2] if x.shape[0] > 1 else x,
    r"ONNX Runtime \S+ cannot run the graph for 1 image: ": lambda x: x[1] if x.shape[0] > 1 else x[0],
}


@pytest.mark.parametrize("message", OTHERWISE)
def test_other_operations_for_other_numbers_of_images(message, tmp_path, capfd):
    with pytest.raises(ExportError, match=message):
        interop.export_onnx(Function(OTHERWISE[message]), tmp_path / "a.onnx", image_size=8, in_channels=3)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


def test_more_than_two_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr("minires.interop.onnx_export.export.MOST", (1 << 20) + 100)
    with pytest.raises(ExportError, match=r"the weights are \d+ bytes, and an ONNX file holds 2 GB at most"):
        interop.export_onnx(nn.Sequential(nn.Conv2d(3, 40, 1)), tmp_path / "a.onnx", image_size=8)


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r'pip install "minires\[onnx\]"'):
        interop.export_onnx(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "a.onnx", image_size=8)


def test_without_onnxruntime_nothing_is_compared(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert interop.export_onnx(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "a.onnx", image_size=8).difference is None


SETTINGS = {
    "image_size is a number of pixels from 1 up": {"image_size": 0},
    "image_size is a number of pixels": {"image_size": (8, 8, 8)},
    "image_size is at most 2048, not 5000: for larger images leave the size free": {"image_size": (8, 5000)},
    "does not say for which images it is: give image_size": {"image_size": None},
    "the normalisation is of 1 channels, and the network's images have 3": {"mean": [0.5], "std": [0.5]},
    "mean and std go together": {"mean": [0.5, 0.5, 0.5]},
    "needs the mean and the std": {"with_normalization": True},
    "image_size is a number of pixels from 1 up, .* not 8.0": {"image_size": 8.0},
    r"there are 2 names of classes, and the network's output is \(batch, 4\)": {"class_names": ["a", "b"]},
    "opset is one of 18, 19, 20, 21, not 17": {"opset": 17},
}


@pytest.mark.parametrize("message", SETTINGS)
def test_settings_that_cannot_be(message, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ConfigError, match=message):
        interop.export_onnx(model, tmp_path / "a.onnx", **{"image_size": 8, **SETTINGS[message]})
    assert not list(tmp_path.iterdir())
