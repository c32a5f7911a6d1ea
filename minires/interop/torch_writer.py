"""Write ``.pth`` files as ``torch.save`` does, without PyTorch: a zip archive of one pickle and the tensors' bytes.

The archive has no compression. ``NAME/data.pkl`` is a pickle of protocol 2: an OrderedDict of calls
``torch._utils._rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks)`` in which each storage is a persistent
id, ``("storage", torch.FloatStorage, key, "cpu", elements)``. Its bytes are the file ``NAME/data/KEY``, little-endian, which
begins at a multiple of 64 bytes so that ``torch.load(mmap=True)`` can map it. (torch/serialization.py, ``_save``.)
"""

import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..errors import DtypeError

STORAGES = {  # the class in torch that names the dtype of a storage
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
ALIGNMENT = 64  # bytes
LOCAL_HEADER = 30  # bytes of a file's header in a zip archive, before its name
PADDING = b"FB"  # PyTorch's id of the extra field that fills a header up


def write_torch(file: IO[bytes], state: Mapping[str, NDArray], name: str = "archive") -> None:
    """Write a ``state_dict`` to a seekable file. Equal states give equal bytes.

    name: the folder in the archive, where torch.save puts the file's name. Raises DtypeError for a dtype that PyTorch has not.
    """
    arrays = {key: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for key, array in state.items()}
    with zipfile.ZipFile(file, "w") as archive:
        _add(archive, f"{name}/data.pkl", pickle_of(arrays))
        _add(archive, f"{name}/byteorder", b"little")
        for number, array in enumerate(arrays.values()):
            _add(archive, f"{name}/data/{number}", array.reshape(-1).view(np.uint8).data)
        _add(archive, f"{name}/version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    """Add a file whose content begins at a multiple of ALIGNMENT."""
    info = zipfile.ZipInfo(name)  # dated 1980, whatever the clock says
    start = archive.fp.tell() + LOCAL_HEADER + len(name.encode()) + 4  # type: ignore[union-attr]  # it is open
    fill = -start % ALIGNMENT
    info.extra = PADDING + struct.pack("<H", fill) + b"Z" * fill
    archive.writestr(info, content)


def pickle_of(state: Mapping[str, NDArray]) -> bytes:
    """The pickle of an OrderedDict of tensors whose storages are 0, 1, 2 …, in the order of ``state``."""
    items = [_text(key) + _tensor(key, str(number), array) for number, (key, array) in enumerate(state.items())]
    return b"".join([b"\x80\x02", EMPTY_DICT, b"(", *items, b"u."])  # PROTO 2, the dict, MARK, items, SETITEMS, STOP


# --- opcodes of protocol 2: each of these leaves one object on the stack


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data  # LONG1


def _tuple(items: Iterable[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"


EMPTY_DICT = _global("collections", "OrderedDict") + b")R"


def _tensor(key: str, storage: str, array: NDArray) -> bytes:
    kind = STORAGES.get(array.dtype.name)
    if kind is None:
        raise DtypeError(f"{key} is of {array.dtype}, which PyTorch does not have: convert it first")
    parts = [_text("storage"), _global("torch", kind), _text(storage), _text("cpu"), _integer(array.size)]
    strides = [stride // array.itemsize for stride in array.strides]  # of an array in C order
    arguments = [
        _tuple(parts) + b"Q",  # BINPERSID
        _integer(0),
        _tuple(map(_integer, array.shape)),
        _tuple(map(_integer, strides)),
        b"\x89",  # NEWFALSE: requires_grad
        EMPTY_DICT,
    ]
    return _global("torch._utils", "_rebuild_tensor_v2") + _tuple(arguments) + b"R"
