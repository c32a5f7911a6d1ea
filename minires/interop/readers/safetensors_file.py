"""safetensors: the length of a header in 8 bytes, the header as JSON, and the arrays one after the other.

    {"conv1.weight": {"dtype": "F32", "shape": [16, 3, 3, 3], "data_offsets": [0, 1728]}, …, "__metadata__": {…}}

The format: https://github.com/huggingface/safetensors#format. All of the header is checked before an array is made.
"""

import json
import math
from typing import Any

from numpy.typing import NDArray

from ...errors import WeightsError, brief
from ..dtypes import KINDS, damaged, flat_array, is_possible, widened

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
MORE_HEADER, BYTES_A_HEADER_BYTE = 1 << 20, 16  # a header of ResNet-1202's 7,000 arrays has 1 byte in 80 of the file


def read_safetensors(data: bytes) -> dict[str, NDArray]:
    """The arrays, read-only views of ``data``; float16 and bfloat16 are widened. Raises WeightsError."""
    length = int.from_bytes(data[:8], "little")
    begin = 8 + length
    if begin > len(data):
        raise damaged(f"its header has {length:,} bytes, and the file {len(data):,}")
    if length > MORE_HEADER + len(data) // BYTES_A_HEADER_BYTE:
        raise WeightsError(
            f"its header has {length:,} bytes of {len(data):,}, more than names and shapes of weights need"
        )
    entries = _entries(_parse(data[8:begin]))
    position = 0
    for name, (dtype, shape, first, last) in sorted(entries.items(), key=lambda entry: entry[1][2:]):
        size = math.prod(shape) * KINDS[dtype].size
        if first != position or last - first != size:
            raise damaged(
                f"{brief(name)} lies at bytes {first:,} to {last:,}; the array before it ends at {position:,}, and shape "
                f"{shape} of {dtype} takes {size:,} bytes"
            )
        position = last
    if position != len(data) - begin:
        raise damaged(f"its arrays have {position:,} bytes, and the file has {len(data) - begin:,} after the header")
    content = memoryview(data)[begin:]
    return {
        name: widened(flat_array(content[first:last], dtype).reshape(shape), dtype)
        for name, (dtype, shape, first, last) in entries.items()
    }


def _parse(header: bytes) -> dict[str, Any]:
    """The header's table."""
    try:
        table = json.loads(header, object_pairs_hook=_table)
    except RecursionError:
        raise damaged("its header is nested too deep") from None
    except ValueError as error:
        raise damaged(f"its header is not JSON ({error})") from None
    if type(table) is not dict:
        raise damaged("its header is not a table")
    return table


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name is there twice")
    return table


def _entries(table: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """{name: (dtype, shape, first byte, last byte)}, each checked by itself."""
    entries = {}
    for name, entry in table.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(code), "shape": list(shape), "data_offsets": [first, last]} if len(entry) == 3:
                pass
            case _:
                raise damaged(f"its header describes {brief(name)} as {brief(entry)}")
        if code not in DTYPES:
            raise WeightsError(
                f"{brief(name)} is of dtype {brief(code)}, which no weights here have: convert it to float32 and save it again"
            )
        if not all(type(n) is int and 0 <= n < 2**60 for n in [*shape, first, last]) or not is_possible(tuple(shape)):
            raise damaged(f"its header describes {brief(name)} as {brief(entry)}")
        entries[name] = DTYPES[code], tuple(shape), first, last
    return entries
