"""Numbers that no weights can be are refused by the array's name, and nothing is loaded."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import minires as mr
from minires import interop
from minires.errors import WeightsError


def state(model=None):
    model = model or mr.models.resnet8()
    return {name: np.array(array, order="C") for name, array in model.state_dict().items()}


def refused(arrays, path, said, model=None):
    """Load arrays that cannot be loaded; returns the message. The model stays as it was."""
    model = model or mr.models.resnet8()
    before = state(model)
    save_file(arrays, path)
    with pytest.raises(WeightsError, match=said) as caught:
        interop.load_weights(model, path)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    return str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_not_finite(value, tmp_path, page):
    arrays = state()
    arrays["layer1.0.conv1.weight"][3, 1, 0, 0] = value
    message = refused(arrays, tmp_path / "a.safetensors", "layer1.0.conv1.weight' has (NaN|Inf) among its numbers")
    if np.isnan(value):
        page(message)


def test_a_variance_below_0(tmp_path, page):
    arrays = state()
    arrays["layer3.0.bn2.running_var"][5] = -0.5
    page(refused(arrays, tmp_path / "a.safetensors", "is a variance"))


def test_whole_numbers(tmp_path, page):
    arrays = state()
    arrays["fc.weight"] = arrays["fc.weight"].astype(np.int64)
    page(refused(arrays, tmp_path / "a.safetensors", "must be real numbers"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fc.bias", np.zeros(10, bool), "'fc.bias' is of bool"),
        ("fc.bias", np.full(10, 1e300), "'fc.bias' has numbers that are too large for float32"),
        ("bn1.num_batches_tracked", np.array(-3), "'bn1.num_batches_tracked' is a count, and has -3"),
        ("bn1.num_batches_tracked", np.array(2**63, np.uint64), "is a count, and has 9223372036854775808"),
        ("bn1.num_batches_tracked", np.array(np.inf), "is a count, and has inf"),
        ("bn1.num_batches_tracked", np.array(np.nan), "is a count, and has nan"),
        ("bn1.num_batches_tracked", np.array(True), "'bn1.num_batches_tracked' is of bool"),
        ("fc.weight", np.zeros((10, 64, 2, 1), np.float32), r"fc.weight is \(10, 64, 2, 1\) in the file"),
    ],
)
def test_other_numbers(name, value, said, tmp_path):
    refused({**state(), name: value}, tmp_path / "a.safetensors", said)


def test_float64_is_rounded_and_float32_widened(tmp_path):
    arrays = {name: a.astype(np.float64) if a.dtype.kind == "f" else a for name, a in state().items()}
    arrays["fc.weight"] += 1e-12
    arrays["bn1.num_batches_tracked"] = np.array([4], np.int32)
    save_file(arrays, tmp_path / "a.safetensors")
    model = mr.models.resnet8()
    interop.load_weights(model, tmp_path / "a.safetensors")
    assert model.fc.weight.dtype == np.float32
    np.testing.assert_array_equal(model.fc.weight.numpy(), arrays["fc.weight"].astype(np.float32))
    assert model.bn1.num_batches_tracked == 4
    double = mr.models.resnet8().double()
    interop.load_weights(double, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(double.fc.weight.numpy(), arrays["fc.weight"])


def test_what_is_in_the_model_stays_in_its_memory_order(tmp_path):
    model = mr.models.resnet8()
    save_file(state(), tmp_path / "a.safetensors")
    interop.load_weights(model, tmp_path / "a.safetensors")
    assert model.conv1.weight.data.transpose(2, 3, 1, 0).flags.c_contiguous


def test_counts_of_averaged_weights(tmp_path):
    """Code that averages state dicts makes floats of all their arrays."""
    model, arrays = mr.models.resnet8(), state()
    arrays["bn1.num_batches_tracked"] = np.array(3910.5, np.float32)
    save_file(arrays, tmp_path / "a.safetensors")
    interop.load_weights(model, tmp_path / "a.safetensors")
    assert model.state_dict()["bn1.num_batches_tracked"] == 3910
