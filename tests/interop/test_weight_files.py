"""What is read of files of weights that are right."""

import argparse
import collections
import pickle

import numpy as np
import pytest
import torch_peers
from made_up import archive, legacy, state, storage, tensor

import minires as mr
from minires.errors import WeightsError
from minires.interop import read_weights
from minires.interop.files import read

LAYOUTS = ("zip", "legacy")
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture
def torch():
    return torch_peers.torch()


def write(torch, value, path, layout="zip", protocol=2):
    torch.save(value, path, _use_new_zipfile_serialization=layout == "zip", pickle_protocol=protocol)
    return path


def as_array(tensor):
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor).numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_of_all_kinds(torch, layout, protocol, tmp_path):
    base = torch.arange(24.0)
    state = collections.OrderedDict(
        parameter=torch.nn.Parameter(torch.randn(2, 3)),
        half=torch.randn(5).half(),
        bfloat16=torch.randn(5, 7).bfloat16(),
        double=torch.randn(3).double(),
        whole=torch.tensor(7),
        byte=torch.arange(3, dtype=torch.uint8),
        flags=torch.tensor([True, False]),
        transposed=torch.randn(4, 5).t(),
        channels_last=torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        view=base[3:21:2],
        same_storage=base.view(4, 6)[1:, ::2],
        empty=torch.zeros(0, 3),
        half_view=torch.randn(6, 6).half()[2:, 1],
        scalar=torch.tensor(0.5),
    )
    state["tied"] = state["parameter"]
    state["with_attribute"] = torch.nn.Parameter(torch.randn(2))
    state["with_attribute"].decay = True
    found = read_weights(write(torch, state, tmp_path / "a.pth", layout, protocol))
    assert list(found) == list(state)
    for name, tensor_ in state.items():
        expected = as_array(tensor_)
        assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape), name
        np.testing.assert_array_equal(found[name], expected, name)
        assert found[name].dtype.isnative
    assert found["tied"] is found["parameter"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_stands_beside_the_weights(torch, layout, protocol, tmp_path):
    args = argparse.Namespace(lr=0.1, device=torch.device("cuda:0"), seen={1, 2}, best=float("inf"))
    rng = np.random.RandomState(0).get_state()
    saved = {
        "epoch": 3,
        "args": args,
        "best": np.float64(91.5),
        "flag": np.bool_(True),
        "counts": collections.Counter("abc"),
        "lists": collections.defaultdict(list, a=[1]),
        "size": torch.zeros(2, 3).size(),
        "dtype": torch.float32,
        "rng": (rng, torch.get_rng_state()),
        "bytes": (b"abc", bytearray(b"abc"), frozenset([1])),
        "history": [(i, 0.5) for i in range(1000)],
        "model": {"w": torch.ones(2)},
    }
    found = read_weights(write(torch, saved, tmp_path / "a.pth", layout, protocol))
    assert list(found) == ["w"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_dict_with_metadata(torch, layout, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    assert network.state_dict()._metadata
    assert list(read_weights(write(torch, network.state_dict(), tmp_path / "a.pth", layout))) == list(
        network.state_dict()
    )


def test_what_python_2_wrote(tmp_path):
    """Protocol 2, texts as bytes, and an OrderedDict as pairs."""
    pairs = b"ccollections\nOrderedDict\n((l(U\x08conv1.wt" + tensor() + b"lat R".replace(b" ", b"")
    content = b"\x80\x02}(U\x0astate_dict" + pairs + b"u."
    path = tmp_path / "a.pth"
    path.write_bytes(archive(content, {"0": np.arange(6, dtype="<f4").tobytes()}))
    np.testing.assert_array_equal(read_weights(path)["conv1.wt"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_numpy_for_weights(torch, layout, tmp_path):
    arrays = {"w": np.arange(6, dtype=">f2").reshape(2, 3), "v": np.asfortranarray(np.eye(3))}
    found = read_weights(write(torch, {"state_dict": arrays}, tmp_path / "a.pth", layout))
    assert (found["w"].dtype, found["v"].dtype) == (np.float32, np.float64)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_of_the_other_byte_order(tmp_path):
    path = tmp_path / "a.pth"
    storages = {"0": np.arange(6, dtype=">f4").tobytes()}
    path.write_bytes(archive(state(w=tensor()), storages, more=[("byteorder", b"big")]))
    found = read_weights(path)["w"]
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])


def test_without_checksums(torch, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = write(torch, {"w": torch.ones(2)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(read_weights(path)["w"], [1, 1])


def test_a_view_of_a_legacy_storage(tmp_path):
    path = tmp_path / "a.pth"
    part = tensor((2,), (1,), 1, storage(view=(2, 3)))
    path.write_bytes(legacy(state(w=part), {"0": (6, np.arange(6, dtype="<f4").tobytes())}))
    np.testing.assert_array_equal(read_weights(path)["w"], [3, 4])


def test_parameters_of_pytorch_before_0_4(torch, tmp_path):
    """The class is called, and its state set: (requires_grad, volatile, hooks)."""
    flags = b"(\x88\x89ccollections\nOrderedDict\n)Rt"
    parameter = b"ctorch.nn.parameter\nParameter\n" + tensor() + b"\x85R" + flags + b"b"
    path = tmp_path / "a.pth"
    storages = {"0": np.arange(6, dtype="<f4").tobytes()}
    path.write_bytes(archive(state(w=parameter), storages, more=[("version", b"3\n")]))  # which torch reads, too
    found = read_weights(path)["w"]
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found, torch.load(path, weights_only=True)["w"].detach())
    other_numbers = b"ctorch.nn.parameter\nParameter\n" + tensor() + b"\x85R(" + tensor() + b"NN\x88\x89tb"
    path.write_bytes(legacy(state(w=other_numbers)))
    with pytest.raises(WeightsError, match="sets the state of a TorchTensor"):
        read_weights(path)


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        ({"w": 1}, ""),
        ({"state_dict": {"w": 1}, "best_acc": 0.5}, "state_dict"),
        ({"model": {"w": 1}, "model_ema": {"w": 2, "n": 2}}, "model"),
        ({"state_dict_ema": {"w": 2}, "state_dict": {"w": 1}}, "state_dict"),
        ({"ema": {"w": 1}}, "ema"),
        ({"optimizer": {"state": {"a": 2, "b": 2, "c": 2}}, "net": {"w": 1}}, "net"),
        ({"model": {"state_dict": {"w": 1}, "arch": None}}, "model.state_dict"),
        ({"loss": 0.5, "generator": {"a": 2}, "weights": {"w": 1, "v": 2}}, "weights"),
        ({"anything": {"w": 1}}, "anything"),
        ({"ema": {"state_dict": {"w": 2}}, "model": {"state_dict": {"w": 1}}}, "model.state_dict"),
        ({"averages": {0: 2, 1: 2, 2: 2}, "net": {"w": 1}}, "net"),
    ],
)
def test_the_likeliest_state_dict(torch, tree, place, tmp_path):
    def tensors(value):
        if isinstance(value, dict):
            return {key: tensors(part) for key, part in value.items()}
        return value if value is None else torch.full((2,) if type(value) is int else (), float(value))

    found = read(write(torch, tensors(tree), tmp_path / "a.pth"))
    assert found.place == place
    assert found.notes == (["also there: state_dict_ema"] if "state_dict_ema" in tree else found.notes)
    np.testing.assert_array_equal(found.arrays["w"], [1, 1])


def test_a_checkpoint_of_minires(tmp_path):
    from minires.training import Checkpoint

    model = mr.models.resnet8()
    optimizer = {"state": {0: {"momentum_buffer": np.zeros(3, np.float32)}}, "param_groups": []}
    path = tmp_path / "last.safetensors"
    Checkpoint(model.state_dict(), optimizer, {"epoch": 1}).save(path)
    assert read_weights(path).keys() == model.state_dict().keys()
    content = path.read_bytes()
    for place in (12, 60, 300, len(content) - 9):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(WeightsError):
            read_weights(path)
