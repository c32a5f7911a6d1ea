"""Files of weights that are damaged, hostile or of another kind: each is refused with one clear error."""

import os
import pickle
import struct
import zipfile

import made_up
import pytest
import torch_peers
from made_up import archive, entry, legacy, number, safetensors, state, storage, tensor, text

import minires as mr
from minires.errors import WeightsError
from minires.interop import read_weights

LAYOUTS = ("zip", "legacy")
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
STATE = state(w=tensor())


@pytest.fixture
def torch():
    return torch_peers.torch()


def write(torch, value, path, layout, protocol=2):
    torch.save(value, path, _use_new_zipfile_serialization=layout == "zip", pickle_protocol=protocol)


class Runs:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"(posix|nt)\.system"),
        (eval, r"builtin__\.eval|builtins\.eval"),
        (getattr, r"getattr"),
        (open, r"io\.open"),
    ],
)
def test_code_is_not_run(torch, function, name, protocol, layout, tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    for value in (
        Runs(function, "echo > ran"),
        {"state_dict": {"w": torch.ones(2)}, "args": Runs(function, "echo > ran")},
    ):
        write(torch, value, tmp_path / "a.pth", layout, protocol)
        with pytest.raises(
            WeightsError, match=rf"(STACK_)?GLOBAL asks for .*({name}), which would have to be"
        ) as caught:
            read_weights("a.pth")
        page(str(caught.value))
    assert os.listdir() == ["a.pth"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_network(torch, layout, tmp_path, page):
    write(torch, torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), tmp_path / "a.pth", layout)
    with pytest.raises(WeightsError, match=r"asks for torch\.nn\.modules\.container\.Sequential") as caught:
        read_weights(tmp_path / "a.pth")
    page(str(caught.value))


SAFETENSORS = {
    "header too long": (safetensors({}, length=10**15), "its header has 1,000,000,000,000,000 bytes, and the file 10"),
    "not JSON": (safetensors(b"{]"), "its header is not JSON"),
    "nested": (safetensors(b'{"a":' * 100_000), "its header is nested too deep"),
    "twice": (safetensors(b'{"a":1,"a":1}'), "a name is there twice"),
    "digits": (safetensors(b'{"a":' + b"9" * 5000 + b"}"), "its header is not JSON"),
    "no entry": (safetensors({"a": 3}), "describes 'a' as 3"),
    "more in it": (safetensors({"a": entry() | {"x": 1}}, bytes(24)), "describes 'a' as"),
    "negative": (safetensors({"a": entry((-1, -6))}, bytes(24)), "describes 'a' as"),
    "a float": (safetensors({"a": entry((2.0, 3))}, bytes(24)), "describes 'a' as"),
    "true": (safetensors({"a": entry((True, 6))}, bytes(24)), "describes 'a' as"),
    "huge": (safetensors({"a": entry((2**50, 2**50))}, bytes(24)), "describes 'a' as"),
    "huge and empty": (safetensors({"a": entry((2**59, 2**59, 0), 0, 0)}), "describes 'a' as"),
    "less huge and empty": (safetensors({"a": entry((2**59, 2, 0), 0, 0, "F64")}), "describes 'a' as"),
    "many axes": (safetensors({"a": entry((1,) * 40 + (6,))}, bytes(24)), "describes 'a' as"),
    "larger than said": (safetensors({"a": entry((2, 4))}, bytes(24)), "takes 32 bytes"),
    "overlap": (
        safetensors({"a": entry(), "b": entry((2,), 20, 28)}, bytes(28)),
        "'b' lies at bytes 20 to 28; the array bef",
    ),
    "gap": (safetensors({"a": entry(first=4, last=28)}, bytes(28)), "'a' lies at bytes 4 to 28"),
    "backwards": (safetensors({"a": entry((0,), 4, 4)}, bytes(4)), "'a' lies at bytes 4 to 4"),
    "cut": (safetensors({"a": entry()}, bytes(23)), "its arrays have 24 bytes, and the file has 23 after the header"),
    "more": (safetensors({"a": entry()}, bytes(25)), "its arrays have 24 bytes, and the file has 25 after the header"),
    "complex": (safetensors({"a": entry((3,), dtype="C64")}, bytes(24)), "'a' is of dtype 'C64'"),
    "8 bits": (safetensors({"a": entry((24,), dtype="F8_E4M3")}, bytes(24)), "'a' is of dtype 'F8_E4M3'"),
    "no dtype": (safetensors({"a": entry(dtype="X" * 10**5)}, bytes(24)), "'a' is of dtype 'XXX"),
    "long header": (safetensors(b'{"' + b"x" * 2_000_000 + b'":{}}'), "more than names and shapes of weights need"),
}
PICKLES = {  # what is in both formats of PyTorch
    "beyond": (state(w=tensor((2, 4), (4, 1))), "shape (2, 4) reaches to element 7 of storage 0, which has 6"),
    "offset": (state(w=tensor(offset=1)), "reaches to element 6 of storage 0"),
    "huge offset": (state(w=tensor(offset=2**59)), "reaches to element"),
    "negative offset": (state(w=tensor(offset=-1)), "without a proper storage and offset"),
    "negative stride": (state(w=tensor(strides=(-3, 1), offset=3)), "without a proper shape and strides"),
    "negative shape": (state(w=tensor((-2, 3))), "without a proper shape and strides"),
    "a flag": (state(w=tensor((2, 3)).replace(number(0) + b"(", b"\x88(", 1)), "without a proper storage and offset"),
    "expanded": (state(w=tensor((10**12,), (0,))), "has elements of its storage more than once"),
    "expanded a little": (state(w=tensor((2, 3), (0, 1))), "has elements of its storage more than once"),
    "overlapping": (state(w=tensor((2, 3), (1, 1))), "has elements of its storage more than once"),
    "huge": (state(w=tensor((2**39, 2**39), (1, 1))), "without a proper shape and strides"),
    "huge and empty": (state(w=tensor((0, 2**39, 2**39), (1, 1, 1))), "without a proper shape and strides"),
    "less huge and empty": (
        state(w=tensor((0, 2**39, 2**21), (1, 1, 1))),
        "without a proper shape and strides",
    ),
    "many axes": (state(w=tensor((1,) * 33, (1,) * 33)), "without a proper shape and strides"),
    "fewer strides": (state(w=tensor((2, 3), (1,))), "without a proper shape and strides"),
    "no storage": (state(w=tensor(source=number(3))), "without a proper storage and offset"),
    "other storage": (state(w=tensor(source=storage(kind="torch\nSize"))), "a storage that is torch.Size"),
    "numel": (state(w=tensor((6,), (1,), source=storage(numel=-6))), "a storage without a proper length"),
    "numel of a flag": (state(w=storage().replace(number(6) + b"tQ", b"\x88tQ")), "a storage without a proper length"),
    "key": (state(w=storage(key="x" * 101)), "a storage without a proper key"),
    "two lengths": (state(w=tensor(), v=tensor(source=storage(numel=7))), "storage 0 has two lengths or dtypes"),
    "view": (state(w=tensor(source=storage(view=(4, 3)))), "the view of storage 0 reaches beyond it"),
    "module": (b"\x80\x02(" + text("module") + b"NNNNtQ.", "BINPERSID names something that is no storage"),
    "PERSID": (b"\x80\x02Pid\n.", "the instruction PERSID"),
    "INST": (b"\x80\x02(ios\nsystem\n.", "INST asks for os.system"),
    "OBJ": (b"\x80\x02(ctorch\nSize\no.", "the instruction OBJ"),
    "EXT1": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "NEWOBJ": (b"\x80\x02ctorch\nSize\n)\x81.", "NEWOBJ makes an object of torch.Size"),
    "NEWOBJ_EX": (b"\x80\x04ctorch\nSize\n)}\x92.", "the instruction NEWOBJ_EX"),
    "BUILD": (b"\x80\x02]}b.", "sets the state of a list"),
    "quantised": (b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.", "it holds a quantised tensor"),
    "sparse": (b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n.", "it holds a sparse tensor"),
    "subclass": (
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\nctorch\nSize\n)NtR.",
        "a tensor of another class, torch.Size",
    ),
    "parameter of a list": (
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(]\x88}tR.",
        "a parameter of something that is no",
    ),
    "few arguments": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "is no complete pickle"),
    "a list": (b"\x80\x02].", "it holds no dict of tensors by name, but a list"),
    "a tensor": (b"\x80\x02" + tensor() + b".", "it holds no dict of tensors by name, but a tensor"),
    "an empty dict": (b"\x80\x02}.", "but an empty dict"),
    "other things": (b"\x80\x02}(" + text("epoch") + b"K\x03u.", "but a dict with ['epoch']"),
    "empty": (b"", "is no complete pickle"),
    "cut": (STATE[:-30], "is no complete pickle"),
    "a name of a long key": (b"\x80\x02}(" + text("x" * 1001) + tensor() + b"u.", "a dict with a key (str)"),
}
COMPLEX = state(w=tensor((3,), (1,), source=storage(kind="torch\nComplexFloatStorage", numel=3)))
ZIPS = {
    "complex": (archive(COMPLEX), "'w': it is of dtype complex64"),
    "shorter storage": (archive(STATE, {"0": bytes(20)}), "archive/data/0 has 20 bytes, and its tensors say 24"),
    "longer storage": (archive(STATE, {"0": bytes(28)}), "archive/data/0 has 28 bytes, and its tensors say 24"),
    "no storage": (archive(STATE, {}), "it lacks archive/data/0"),
    "another folder": (
        archive(state(w=tensor(source=storage(key="../data.pkl")))),
        "it lacks archive/data/../data.pkl",
    ),
    "compressed": (archive(STATE, compression=zipfile.ZIP_DEFLATED), "data.pkl in it is compressed"),
    "a long name": (archive(STATE, compression=zipfile.ZIP_DEFLATED, folder="x" * 60_000), "xxx … in it is compressed"),
    "no pickle": (archive(b"", folder="a/b"), "a zip archive without a data.pkl"),
    "two pickles": (
        archive(STATE, more=[("x/data.pkl", b"")]).replace(b"archive/x/", b"archivexx/"),
        "a zip archive with several data.pkl",
    ),
    "byte order": (archive(STATE, more=[("byteorder", b"middle")]), "its byte order is b'middle'"),
    "a program": (archive(STATE, more=[("code/a.py", b"")]), "a TorchScript program"),
    "no zip": (b"PK\x03\x04" + bytes(100), "no complete zip archive"),
}
LEGACY = {
    "complex": (legacy(COMPLEX, {"0": (3, bytes(24))}), "'w': it is of dtype complex64"),
    "fewer elements": (
        legacy(STATE, {"0": (5, bytes(24))}),
        "has 5 elements, and its tensors say 6",
    ),
    "more elements": (legacy(STATE, {"0": (7, bytes(28))}), "has 7 elements, and its tensors say 6"),
    "negative": (legacy(STATE, {"0": (-6, bytes(24))}), "elements, and its tensors say 6"),
    "huge": (
        legacy(state(w=tensor(source=storage(numel=2**50))), {"0": (2**50, bytes(24))}),
        "takes 4,503,599,627,370,496 bytes, and 24 of the file are left",
    ),
    "cut": (legacy(STATE, {"0": (6, bytes(23))}), "takes 24 bytes, and 23 of the file are left"),
    "more": (legacy(STATE, {"0": (6, bytes(25))}), "goes on for 1 bytes after the last storage"),
    "no storage": (legacy(STATE, {}), "it lacks storage 0"),
    "unknown storage": (legacy(STATE, {"1": (6, bytes(24))}), "has '1', which is unknown"),
    "a storage twice": (legacy(STATE, keys=pickle.dumps(["0", "0"], 2)), "has '0', which is there twice"),
    "no list": (legacy(STATE, keys=pickle.dumps("0", 2)), "it has no list of storages"),
    "a list of lists": (legacy(STATE, keys=pickle.dumps([["0"]], 2)), "it has no list of storages"),
    "another version": (made_up.MAGIC + pickle.dumps(1002, 2), "does not begin as PyTorch's files did"),
    "cut in the beginning": (made_up.MAGIC, "the protocol version is no complete pickle"),
}
OTHERS = {
    "empty": (b"", "it is empty"),
    "a page": (b"\n<!DOCTYPE html>", "it is a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
    "gzip": (b"\x1f\x8b\x08", "it is compressed with gzip"),
    "tar": (bytes(257) + b"ustar\x0000", "a tar archive, as PyTorch wrote them before version 0.1.10"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "NumPy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
    "a pickle": (pickle.dumps({"a": 1}), "it is a pickle, but not as torch.save writes it"),
    "text": (b"hello", "it is neither safetensors nor a file that torch.save wrote"),
}
REFUSED = {
    **{f"safetensors: {name}": case for name, case in SAFETENSORS.items()},
    **{f"zip: {name}": (archive(content), said) for name, (content, said) in PICKLES.items()},
    **{
        f"legacy: {name}": (legacy(content, None if b"Storage" in content else {}), said)
        for name, (content, said) in PICKLES.items()
    },
    **{f"zip: {name}": case for name, case in ZIPS.items()},
    **{f"legacy: {name}": case for name, case in LEGACY.items()},
    **OTHERS,
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    content, said = REFUSED[name]
    path = tmp_path / "some.file"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path} cannot be loaded: ")
    assert len(str(caught.value)) < 700
    assert isinstance(caught.value, mr.errors.DataError)


def test_members_that_overlap_or_lie(tmp_path):
    path = tmp_path / "a.pth"
    good = archive(STATE, {"0": bytes(24), "1": bytes(24)})
    first = good.index(b"PK\x01\x02")  # the list of members: the pickle's, then the storages'
    second = good.index(b"PK\x01\x02", first + 1)
    third = good.index(b"PK\x01\x02", second + 1)

    def changed(*places):
        content = bytearray(good)
        for place, value in places:
            struct.pack_into("<I", content, place, value)
        return bytes(content)

    def size(at, value):
        return (at + 20, value), (at + 24, value)  # compressed and not

    cases = {
        changed((third + 42, 1)): "is not where its list of contents says",
        changed((third + 42, 10**9)): "no complete zip archive",
        changed((third + 20, 10**6)): "is compressed",
        changed(*size(third, 10**6)): "is not where its list of contents says",
        changed(*size(second, 40)): "archive/data/0 and archive/data/1 in it overlap",
        changed((third + 42, struct.unpack_from("<I", good, second + 42)[0])): "in it overlap",
        changed((second + 16, 12345)): "the checksum of archive/data/0 is not right",
        changed((first + 16, 12345)): "the checksum of archive/data.pkl is not right",
        changed((first + 8, 1)): "data.pkl in it is encrypted",
        good.replace(b"data/1", b"data/0"): "it has archive/data/0 twice",
    }
    for content, said in cases.items():
        path.write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            read_weights(path)
        assert said in str(caught.value)
    path.write_bytes(changed((third + 16, 12345)))  # of a storage that is not used
    assert list(read_weights(path)) == ["w"]


def test_files_that_are_none(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no file .*none\.pth"):
        read_weights(tmp_path / "none.pth")
    for name in ("resnet20-12fca82f.th", "weights.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(
        WeightsError, match=r"there is no file .*resnet20\.th \(did you mean resnet20-12fca82f\.th\?\)$"
    ):
        read_weights(tmp_path / "resnet20.th")
    with pytest.raises(WeightsError, match=r"is a folder: give the file of weights in it \(resnet20-12fca82f\.th\)$"):
        read_weights(tmp_path)


def test_paths_that_cannot_be_looked_at(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read: File name too long"):
        read_weights(tmp_path / ("x" * 5000))
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    with pytest.raises(WeightsError, match=r"there is no file .*loop\.pth"):
        read_weights(tmp_path / "loop.pth")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "a.pth")
        with pytest.raises(WeightsError, match=r"a\.pth is no regular file"):
            read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("layout", ["safetensors", *LAYOUTS])
def test_cut_at_every_byte(layout, tmp_path, page):
    good = {"safetensors": safetensors({"w": entry()}, bytes(24)), "zip": archive(STATE), "legacy": legacy(STATE)}[
        layout
    ]
    path = tmp_path / "a.pth"
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(WeightsError) as caught:
            read_weights(path)
    page(str(caught.value))
    path.write_bytes(good)
    assert list(read_weights(path)) == ["w"]
