"""Read the weights in a file of any format that is known, which its first bytes tell."""

from pathlib import Path
from typing import NamedTuple

from numpy.typing import NDArray

from ..errors import WeightsError, nearest
from ..files import expand_user
from .checkpoint_layout import has_sum, is_model, is_unchanged
from .dtypes import damaged
from .readers.onnx_weights import is_onnx, read_onnx
from .readers.safetensors_file import read_safetensors
from .readers.torch_legacy import TorchLegacy, is_legacy
from .readers.torch_zip import TorchZip
from .state_dict import arrays, find

# An instruction of a pickle makes up to a hundred bytes, and takes a microsecond or two. A state dict has some 40 of them for
# a tensor, and ResNet-1202's 7,000 tensors one in 300 bytes; what stands beside it, such as lists of losses, has more.
MORE_WORK, BYTES_AN_INSTRUCTION = 500_000, 32
FOREIGN = {  # first bytes → what it is, and what to do
    b"\x89HDF\r\n": "it is an HDF5 file, of Keras perhaps: save the weights as safetensors there",
    b"\x93NUMPY": "it is a NumPy array: weights are a dict of arrays by name",
    b"\x1f\x8b": "it is compressed with gzip: unpack it first",
    b"BZh": "it is compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "it is compressed with xz: unpack it first",
    b"version https://git-lfs": "it is a pointer of Git LFS to the file: `git lfs pull` fetches the file itself",
    b"<": "it is a web page: download the file itself, not the page about it",
    b"\x80": "it is a pickle, but not as torch.save writes it: write torch.save(model.state_dict(), 'weights.pth')",
}


class Weights(NamedTuple):
    """arrays: by name as in the file. place: keys on the way to them in what was saved, or "". notes: what else is there."""

    arrays: dict[str, NDArray]
    place: str
    notes: list[str]


def read_weights(path: Path | str) -> dict[str, NDArray]:
    """The weights in a file, by their names there: safetensors, what torch.save writes (since 1.6, or before), or ONNX.

    A minires checkpoint has its model's weights; in a dict with more the state dict is found; an ONNX file must have its batch
    norms, and the names of a state dict. float16 and bfloat16 become float32, other numbers stay what they are. Arrays are
    read-only and may share memory. Nothing in a file is run, and reading takes a few times its size of memory at most. Raises
    WeightsError, a DataError, for a file that is missing, damaged, of another format, or holds other objects than tensors and
    plain containers.
    """
    return read(path).arrays


def read(path: Path | str) -> Weights:
    """``read_weights`` with what is to be reported."""
    path = expand_user(path)
    try:
        if path.is_dir():
            raise WeightsError(f"{path} is a folder: give the file of weights in it{_listed(path)}")
        if not path.is_file():
            what = (
                f"{path} is no regular file"
                if path.exists()
                else f"there is no file {path}{_listed(path.parent, path.name)}"
            )
            raise WeightsError(what)
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise WeightsError(f"{path} has {path.stat().st_size:,} bytes, and there is no memory for them") from None
    try:
        return _parse(data)
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be loaded: {error.args[0]}") from None


SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".onnx")


def _listed(folder: Path, name: str = "") -> str:
    """The files of weights in a folder, or those with names like this one, in parentheses."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    except OSError:
        return ""
    few = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
    return nearest(name, names) if name else f" ({few})" if names else ""


def _parse(data: bytes) -> Weights:
    if not data:
        raise WeightsError("it is empty")
    if data[8:9] == b"{":
        stored = read_safetensors(data)
        if has_sum(data) and not is_unchanged(data):
            raise damaged("it is a checkpoint of minires, and its checksum is not right")
        return Weights({name: array for name, array in stored.items() if is_model(name)}, "", [])
    if is_onnx(data):
        constants, others = read_onnx(data)
        return Weights(constants, "", [f"constants that are no weights: {len(others)}"] if others else [])
    instructions = MORE_WORK + len(data) // BYTES_AN_INSTRUCTION
    file: TorchZip | TorchLegacy
    if data.startswith(b"PK"):
        file = TorchZip(data, instructions)
    elif is_legacy(data):
        file = TorchLegacy(data, instructions)
    else:
        raise WeightsError(_foreign(data))
    found = find(file.tree)
    notes = [f"also there: {', '.join(found.others)}"] if found.others else []
    return Weights(arrays(found.tensors, file.storage, file.byteorder, len(data)), found.place, notes)


def _foreign(data: bytes) -> str:
    """What a file is that is neither safetensors nor of PyTorch, in words, and what to do."""
    if data[257:262] == b"ustar":
        return "it is a tar archive, as PyTorch wrote them before version 0.1.10: load and save it with a newer PyTorch"
    for begin, words in FOREIGN.items():
        if data.lstrip().startswith(begin) if begin == b"<" else data.startswith(begin):
            return words
    return (
        "it is neither safetensors nor a file that torch.save wrote (.pth, .pt): save the weights in one of these formats "
        "where they are"
    )
