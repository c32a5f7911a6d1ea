"""The weights in an ONNX file: its initialisers, where they have the names of a state dict. The graph is not looked at.

A protobuf message is a sequence of fields: a varint of number and wire type, and a varint, 4 or 8 bytes, or a length and so
many bytes. Those that matter here: ModelProto.graph (7), GraphProto.initializer (5), and of a TensorProto dims (1),
data_type (2), float_data (4), name (8), raw_data (9), double_data (10), data_location (14).
https://protobuf.dev/programming-guides/encoding/, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import math
from collections.abc import Iterator

from numpy.typing import NDArray

from ...errors import WeightsError, brief
from ..dtypes import KINDS, damaged, flat_array, is_possible, widened

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
DTYPES = {  # TensorProto.DataType
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
RAW, FIELDS = 9, {"float32": 4, "float64": 10}  # where numbers are: of any type, or of this one
MORE_FIELDS, BYTES_A_FIELD = 500_000, 32
MOST_AXES = 32
PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")  # what names in a state dict end in


def is_onnx(data: bytes) -> bool:
    """Whether a file begins as ModelProto does: with ir_version (1), a small number."""
    return len(data) > 1 and data[0] == 1 << 3 | VARINT and 1 <= data[1] < 64


def read_onnx(data: bytes) -> tuple[dict[str, NDArray], list[str]]:
    """The arrays, read-only views of ``data`` (float16 and bfloat16 widened), and the names of other constants.

    Raises WeightsError where they are not those of a state dict, such as weights that batch norms are folded into.
    """
    arrays: dict[str, NDArray] = {}
    others: list[str] = []
    reader = _Reader(MORE_FIELDS + len(data) // BYTES_A_FIELD)
    for number, graph in reader.fields(memoryview(data)):
        if number != 7 or not isinstance(graph, memoryview):
            continue
        for inner, message in reader.fields(graph):
            if inner == 5 and isinstance(message, memoryview):
                name, array = _tensor(reader, message)
                if name in arrays:
                    raise damaged(f"it has {brief(name)} twice")
                if name.rpartition(".")[2] in PARTS and array is not None:
                    arrays[name] = array
                else:
                    others.append(name)
    if any(".folded." in name for name in arrays) or not any(name.endswith(".running_var") for name in arrays):
        raise WeightsError(
            "it is an ONNX file without batch norms of its own, or whose constants have not the names of a state dict: "
            "export it with batch norms kept (fold_batch_norm=False), or take the weights that it was made of"
        )
    return arrays, others


class _Reader:
    """Reads messages, of so many fields in all at most."""

    def __init__(self, fields: int) -> None:
        self.left = fields

    def fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """(number, value) of each field of a message."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise WeightsError("it has more fields than an ONNX file of this size needs")
            tag, at = _varint(data, at)
            wire = tag & 7
            if wire == VARINT:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            if wire == BYTES:
                size, at = _varint(data, at)
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                raise damaged(f"it is no ONNX file (a field of wire type {wire})")
            if at + size > len(data):
                raise damaged(f"a field of {size:,} bytes reaches beyond the {len(data):,} of its message")
            yield tag >> 3, data[at : at + size]
            at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise damaged("it ends within a number")
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise damaged("it is no ONNX file (a number of more than ten bytes)")


def _tensor(reader: _Reader, message: memoryview) -> tuple[str, NDArray | None]:
    """(name, array) of a TensorProto; None for one whose numbers are stored in another way than weights' are."""
    dims: list[int] = []
    dtype, name, elsewhere = "", "", False
    contents: dict[int, memoryview] = {}  # by field
    for number, value in reader.fields(message):
        if number == 1 and isinstance(value, int):
            dims.append(value)
        elif number == 1 and isinstance(value, memoryview):  # packed
            at = 0
            while at < len(value) and len(dims) <= MOST_AXES:
                dim, at = _varint(value, at)
                dims.append(dim)
        elif number == 2 and isinstance(value, int):
            dtype = DTYPES.get(value, "")
        elif number == 8 and isinstance(value, memoryview):
            name = bytes(value[:1000]).decode("utf-8", "replace")
        elif number in (RAW, *FIELDS.values()) and isinstance(value, memoryview):
            contents[number] = value
        elif number == 14:
            elsewhere = value == 1
        if len(dims) > MOST_AXES:
            raise damaged(f"{brief(name) if name else 'a constant'} has more than {MOST_AXES} axes")
    if elsewhere:
        raise WeightsError(f"{brief(name)} is in another file: export the network with its weights inside")
    content = contents.get(RAW, contents.get(FIELDS.get(dtype, RAW)))
    if content is None or not dtype:
        return name, None
    shape = tuple(dims)
    size = math.prod(shape) * KINDS[dtype].size
    if not is_possible(shape) or len(content) != size:
        raise damaged(f"{brief(name)} of shape {shape} and {dtype} takes {size:,} bytes, and has {len(content):,}")
    return name, widened(flat_array(content, dtype).reshape(shape), dtype)
