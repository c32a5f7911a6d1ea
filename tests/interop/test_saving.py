"""Weights for PyTorch: it reads what we write, to the bit, into models of its own."""

import io
import pickletools
import struct
import zipfile

import numpy as np
import pytest
import torch_peers
from safetensors.numpy import load_file

import minires as mr
from minires import interop, nn
from minires.errors import DtypeError
from minires.interop.torch_writer import pickle_of, write_torch

SAVE = {".pth": interop.save_torch, ".safetensors": interop.save_safetensors}


def trained(model):
    """The model, with statistics that are no longer 0 and 1."""
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean[...] = rng.standard_normal(module.num_features)
            module.running_var[...] = rng.uniform(0.5, 2, module.num_features)
            module.num_batches_tracked[...] = 7
    return model


def read(path):
    """The tensors of a file, as PyTorch reads them."""
    torch = torch_peers.torch()
    if path.suffix == ".pth":
        return torch.load(path, weights_only=True)
    from safetensors.torch import load_file

    return load_file(path)


def same_bits(tensors, model):
    expected = model.state_dict()
    assert set(tensors) == set(expected)
    for name, array in expected.items():
        found = tensors[name].numpy()
        assert found.dtype == array.dtype, name
        assert found.tobytes() == array.tobytes(), name
    return True


@pytest.mark.parametrize(("name", "suffix"), [("resnet18", ".safetensors"), ("resnet18", ".pth"), ("resnet50", ".pth")])
def test_torchvision_loads_it_strictly(name, suffix, tmp_path):
    torchvision = torch_peers.torchvision()
    model, path = trained(mr.models.create(name, num_classes=10)), tmp_path / f"weights{suffix}"
    SAVE[suffix](model, path)
    theirs = getattr(torchvision.models, name)(num_classes=10)
    theirs.load_state_dict(read(path), strict=True)
    assert same_bits(theirs.state_dict(), model)


@pytest.mark.slow
def test_torchvision_loads_every_network_of_its_names(tmp_path):
    torchvision = torch_peers.torchvision()
    shared = [name for name in mr.models.names() if hasattr(torchvision.models, name)]
    assert len(shared) >= 10
    for name in shared:
        model = trained(mr.models.create(name))
        interop.save_torch(model, tmp_path / "weights.pth")
        theirs = getattr(torchvision.models, name)()
        theirs.load_state_dict(read(tmp_path / "weights.pth"), strict=True)
        assert same_bits(theirs.state_dict(), model)


def test_timm_loads_a_pre_activation_network_strictly(tmp_path):
    timm = torch_peers.timm()
    model, path = trained(mr.models.resnet50v2(num_classes=10)), tmp_path / "weights.safetensors"
    interop.save_safetensors(model, path)
    theirs = timm.create_model("resnetv2_50", num_classes=10)
    theirs.load_state_dict(read(path), strict=True)
    found = {name: t.flatten(1) if name == "head.fc.weight" else t for name, t in theirs.state_dict().items()}
    assert same_bits(found, model)  # timm's classifier is a 1×1 convolution


@pytest.mark.parametrize("suffix", SAVE)
def test_names_dtypes_and_bits(suffix, tmp_path):
    torch_peers.torch()
    model, path = trained(mr.models.preresnet8(option="B", width=4)), tmp_path / f"weights{suffix}"
    SAVE[suffix](model, path)
    tensors = read(path)
    assert same_bits(tensors, model)
    assert str(tensors["norm.num_batches_tracked"].dtype) == "torch.int64"
    assert tensors["norm.num_batches_tracked"].shape == ()


def test_a_round_trip_through_torchvision(tmp_path):
    """minires → safetensors → torchvision → .pth, in both of PyTorch's formats → minires: the same bits."""
    torch, torchvision = torch_peers.torch(), torch_peers.torchvision()
    model = trained(mr.models.resnet18(num_classes=10))
    interop.save_safetensors(model, tmp_path / "a.safetensors")
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.load_state_dict(read(tmp_path / "a.safetensors"), strict=True)
    for new in (True, False):
        torch.save(theirs.state_dict(), tmp_path / "b.pth", _use_new_zipfile_serialization=new)
        back = mr.models.resnet18(num_classes=10)
        assert interop.load_weights(back, tmp_path / "b.pth").ok
        assert {n: a.tobytes() for n, a in back.state_dict().items()} == {
            n: a.tobytes() for n, a in model.state_dict().items()
        }


@pytest.mark.parametrize("suffix", SAVE)
@pytest.mark.parametrize(
    "build",
    [lambda: mr.models.preresnet8(option="B", width=4), lambda: mr.models.ResNetV2((1, 1, 1, 1), num_classes=3)],
)
def test_minires_reads_it_back(suffix, build, tmp_path):
    """timm's 1×1 convolution in the place of the classifier, too."""
    model, path = trained(build()), tmp_path / f"weights{suffix}"
    SAVE[suffix](model, path)
    back = build()
    interop.load_weights(back, path)
    assert all(np.array_equal(a, model.state_dict()[n]) for n, a in back.state_dict().items())


def test_a_pth_file_can_be_mapped(tmp_path):
    torch = torch_peers.torch()
    model, path = trained(mr.models.resnet8()), tmp_path / "resnet8.pth"
    interop.save_torch(model, path)
    tensors = torch.load(path, weights_only=True, mmap=True)
    assert same_bits(tensors, model)
    assert all(t.data_ptr() % 64 == 0 for t in tensors.values())


def test_the_archive_is_as_torch_writes_it():
    """Stored and aligned, with one storage for each tensor, and the same instructions as in torch's own pickle."""
    torch = torch_peers.torch()
    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(5), "empty": np.zeros((0, 2))}
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_torch(ours, state)
    torch.save({name: torch.tensor(array) for name, array in state.items()}, theirs)
    with zipfile.ZipFile(ours) as mine, zipfile.ZipFile(theirs) as other:
        for info in mine.infolist():
            name, extra = struct.unpack_from("<HH", ours.getvalue(), info.header_offset + 26)
            assert (info.header_offset + 30 + name + extra) % 64 == 0
            assert info.compress_type == zipfile.ZIP_STORED
            if not info.filename.endswith(".pkl"):
                assert mine.read(info) == other.read(info.filename)
        assert mine.testzip() is None
        assert instructions(mine) == instructions(other)


def instructions(archive):
    """What the pickle of an archive names, in order: classes, functions, texts."""
    code = pickletools.genops(archive.read("archive/data.pkl"))
    memo, found = {}, []
    for opcode, argument, _ in code:
        if opcode.name == "BINPUT":
            memo[argument] = found[-1] if found else None
        elif opcode.name in ("GLOBAL", "BINUNICODE"):
            found.append(argument)
    return {text for text in found if text != "collections OrderedDict"}


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "?", ">f4"])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 3), (2, 3, 4, 5)])
def test_any_dtype_and_shape(dtype, shape, tmp_path):
    torch = torch_peers.torch()
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    with open(tmp_path / "a.pth", "wb") as file:
        write_torch(file, {"größe": array, "strided": array[..., ::-1] if shape else array, "f": array.copy(order="F")})
    for name, tensor in torch.load(tmp_path / "a.pth", weights_only=True).items():
        assert np.array_equal(tensor.numpy(), array[..., ::-1] if name == "strided" and shape else array)
        assert tensor.dtype == torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).dtype


def test_a_dtype_that_torch_has_not():
    with pytest.raises(DtypeError, match="steps is of complex64, which PyTorch does not have"):
        pickle_of({"steps": np.zeros(2, np.complex64)})


def test_a_size_beyond_32_bits():
    """The strides and sizes of a tensor of 16 GB, of which no byte is there."""
    array = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1 << 32, 1), (0, 0))
    numbers = [
        argument for opcode, argument, _ in pickletools.genops(pickle_of({"a": array})) if opcode.name == "LONG1"
    ]
    assert numbers == [1 << 32, 1 << 32]


@pytest.mark.parametrize("suffix", SAVE)
def test_equal_weights_give_equal_bytes(suffix, tmp_path):
    for name in ("a", "b"):
        mr.manual_seed(3)
        SAVE[suffix](mr.models.resnet8(), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SAVE)
def test_memory_order_does_not_matter(suffix, tmp_path):
    """Convolutions are stored (KH, KW, I, O), and files are in C order."""
    model, path = mr.models.resnet8(), tmp_path / f"a{suffix}"
    assert not model.conv1.weight.data.flags.c_contiguous
    SAVE[suffix](model, path)
    if suffix == ".safetensors":
        assert np.array_equal(load_file(path)["conv1.weight"], model.conv1.weight.data)
    else:
        with zipfile.ZipFile(path) as archive:
            assert archive.read("archive/data/0") == model.conv1.weight.data.tobytes()


@pytest.mark.parametrize("suffix", SAVE)
def test_nothing_half_written(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        SAVE[suffix](mr.models.resnet8(), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"before"
