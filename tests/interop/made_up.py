"""Files of each format, written byte by byte, so that they can say what PyTorch never would."""

import io
import json
import pickle
import struct
import zipfile

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    """An instruction that pushes a whole number, long ones too."""
    return pickle.dumps(value, 2)[2:-1]


def numbers(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="0", numel=6, kind="torch\nFloatStorage", view=None):
    """Instructions for a storage; view: (start, length)."""
    tail = b"" if view is None else b"(" + text("view") + number(view[0]) + number(view[1]) + b"t"
    return (
        b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + number(numel) + tail + b"tQ"
    )


def tensor(shape=(2, 3), strides=(3, 1), offset=0, source=None):
    """Instructions for a tensor."""
    source = storage() if source is None else source
    arguments = source + number(offset) + numbers(*shape) + numbers(*strides) + b"\x89}"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def state(**entries):
    """A pickle of a dict of these instructions by name."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u."


def archive(content, storages=None, folder="archive", compression=zipfile.ZIP_STORED, more=()):
    """A zip file with this pickle, and storages as bytes by key. more: other members as (name, bytes)."""
    made = io.BytesIO()
    storages = {"0": bytes(24)} if storages is None else storages
    with zipfile.ZipFile(made, "w", compression) as file:
        members = [("data.pkl", content), *((f"data/{key}", data) for key, data in storages.items()), *more]
        for name, data in members:
            file.writestr(zipfile.ZipInfo(f"{folder}/{name}"), data, compression)
    return made.getvalue()


def legacy(content, storages=None, keys=None):
    """A file as before PyTorch 1.6. storages: (number of elements, bytes) by key. keys: instructions for their list."""
    storages = {"0": (6, bytes(24))} if storages is None else storages
    keys = pickle.dumps(list(storages), 2) if keys is None else keys
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
    arrays = b"".join(struct.pack("<q", numel) + data for numel, data in storages.values())
    return MAGIC + pickle.dumps(1001, 2) + system + content + keys + arrays


def safetensors(header, arrays=b"", length=None):
    """header: bytes, or a table."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + arrays


def entry(shape=(2, 3), first=0, last=24, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last]}


def varint(value):
    made = b""
    while value > 127:
        made, value = made + bytes([value & 127 | 128]), value >> 7
    return made + bytes([value])


def field(number, value):
    """A field of a protobuf message: a whole number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def constant(name, shape, content, dtype=1, more=b""):
    """The field of an initialiser in a graph of ONNX."""
    dims = b"".join(field(1, n) for n in shape)
    return field(5, dims + field(2, dtype) + field(8, name.encode()) + field(9, content) + more)


def onnx(*constants):
    """A ModelProto with these initialisers."""
    return field(1, 8) + field(7, b"".join(constants))
