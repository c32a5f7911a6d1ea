"""The weights in ONNX files: those that PyTorch and minires write with batch norms kept, and what is said of others."""

import struct

import numpy as np
import pytest
import torch_peers
from made_up import constant, field, onnx

import minires as mr
from minires import interop
from minires.errors import WeightsError
from minires.interop import read_weights

VAR = constant("bn.running_var", (2,), bytes(8))


def test_what_minires_writes(tmp_path):
    pytest.importorskip("onnx")
    model = mr.models.resnet8()
    interop.export_onnx(model, tmp_path / "a.onnx", fold_batch_norm=False)
    found, report = interop.create_model("resnet8", tmp_path / "a.onnx")
    assert report.ok
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(found.state_dict()[name], array)


def test_what_minires_writes_with_batch_norms_folded(tmp_path, page):
    pytest.importorskip("onnx")
    interop.export_onnx(mr.models.resnet8(), tmp_path / "a.onnx")
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "a.onnx")
    page(str(caught.value))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_pytorch_writes(tmp_path):
    torch = torch_peers.torch()
    pytest.importorskip("onnx")
    from torch_networks import CifarResNet, logits, trained

    network = trained(CifarResNet("kuangliu", depth=8, num_classes=5))
    torch.onnx.export(
        network,
        torch.zeros(1, 3, 32, 32),
        tmp_path / "a.onnx",
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    model, report = interop.create_model("resnet8", tmp_path / "a.onnx")
    assert report.ok
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with mr.no_grad():
        np.testing.assert_allclose(model(mr.tensor(images)).numpy(), logits(network, images), atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "content", "expected"),
    [
        (1, struct.pack("<2f", 1.5, -2), np.float32([1.5, -2])),
        (11, struct.pack("<2d", 1.5, -2), np.float64([1.5, -2])),
        (10, struct.pack("<2e", 1.5, -2), np.float32([1.5, -2])),
        (16, struct.pack("<2H", 0x3FC0, 0xC000), np.float32([1.5, -2])),
        (7, struct.pack("<2q", 1, -2), np.int64([1, -2])),
    ],
)
def test_number_types(dtype, content, expected, tmp_path):
    (tmp_path / "a.onnx").write_bytes(onnx(constant("fc.weight", (2,), content, dtype), VAR))
    found = read_weights(tmp_path / "a.onnx")["fc.weight"]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_floats_of_their_own_and_other_constants(tmp_path):
    dims = field(1, bytes([1, 2]))  # packed
    floats = field(5, dims + field(2, 1) + field(8, b"fc.bias") + field(4, struct.pack("<2f", 3, 4)))
    strings = field(5, field(2, 8) + field(8, b"a.weight"))
    # as float_data: numbers of 4 bytes, which two halves are not
    halves = field(5, dims + field(2, 10) + field(8, b"a.bias") + field(4, struct.pack("<f", 3)))
    (tmp_path / "a.onnx").write_bytes(onnx(floats, strings, halves, constant("normalization.mean", (), bytes(4)), VAR))
    found = read_weights(tmp_path / "a.onnx")
    assert list(found) == ["fc.bias", "bn.running_var"]
    np.testing.assert_array_equal(found["fc.bias"], [[3, 4]])


REFUSED = {
    "another size": (
        onnx(constant("w.weight", (2, 3), bytes(20))),
        "'w.weight' of shape (2, 3) and float32 takes 24 bytes",
    ),
    "huge": (onnx(constant("w.weight", (2**62, 2**62), bytes(24))), "takes 85,070,"),
    "huge and empty": (onnx(constant("w.weight", (2**62, 2**62, 0), b"")), "takes 0 bytes, and has 0"),
    "many axes": (onnx(constant("w.weight", (1,) * 40, bytes(4))), "more than 32 axes"),
    "many axes, packed": (
        onnx(field(5, field(1, bytes([1]) * 40) + field(8, b"w"))),
        "a constant has more than 32 axes",
    ),
    "twice": (onnx(VAR, VAR), "it has 'bn.running_var' twice"),
    "elsewhere": (onnx(constant("w.weight", (1,), b"", more=field(14, 1))), "'w.weight' is in another file"),
    "no batch norm": (onnx(constant("w.weight", (1,), bytes(4))), "an ONNX file without batch norms of its own"),
    "cut": (onnx(VAR)[:-1], "reaches beyond"),
    "cut in a number": (onnx(VAR)[:3], "it ends within a number"),
    "a long number": (field(1, 8) + b"\xff" * 20, "a number of more than ten bytes"),
    "wire type": (field(1, 8) + b"\x0b", "a field of wire type 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    content, said = REFUSED[name]
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "a.onnx")
    assert said in str(caught.value)
