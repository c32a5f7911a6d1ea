"""PyTorch's file format before 1.6: five pickles one after the other, and the numbers of the storages after them.

magic number    protocol version    what the system was like    the object    the storages' keys
for each key: its number of elements in 8 bytes, and the elements, the lowest byte first
"""

import io
from typing import Any

from ..dtypes import KINDS, damaged
from .torch_pickle import Storage, TorchMachine, load

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MAGIC_ENDS = 32  # bytes from the beginning at most


def is_legacy(data: bytes) -> bool:
    """Whether a file begins with the pickle of the magic number."""
    return data[:1] == b"\x80" and MAGIC.to_bytes(10, "little") + b"." in data[:MAGIC_ENDS]


class TorchLegacy:
    """A file's content. tree: the object that was saved, with TorchTensors. Raises WeightsError."""

    byteorder = "<"

    def __init__(self, data: bytes, instructions: int) -> None:
        self.contents: dict[str, memoryview] = {}
        file = io.BytesIO(data)

        def read(where: str) -> tuple[Any, TorchMachine]:
            nonlocal instructions
            machine = TorchMachine(instructions, len(data))
            value = load(machine, file, where)
            instructions = machine.instructions
            return value, machine

        if read("the magic number")[0] != MAGIC or read("the protocol version")[0] != PROTOCOL:
            raise damaged("it does not begin as PyTorch's files did before version 1.6")
        read("the description of the system")
        self.tree, machine = read("the pickle")
        keys, _ = read("the list of storages")
        self._find_storages(memoryview(data), file.tell(), keys, machine.storages)

    def _find_storages(self, data: memoryview, at: int, keys: Any, storages: dict[str, Storage]) -> None:
        if type(keys) is not list or any(type(key) is not str for key in keys):
            raise damaged("it has no list of storages")
        for key in keys:
            if key not in storages or key in self.contents:
                raise damaged(
                    f"its list of storages has {key[:100]!r}, which is {'there twice' if key in storages else 'unknown'}"
                )
            storage = storages[key]
            found, size = int.from_bytes(data[at : at + 8], "little"), storage.whole * KINDS[storage.dtype].size
            if found != storage.whole:
                raise damaged(
                    f"storage {key} at byte {at:,} has {found:,} elements, and its tensors say {storage.whole:,}"
                )
            if at + 8 + size > len(data):
                left = max(len(data) - at - 8, 0)
                raise damaged(f"storage {key} at byte {at:,} takes {size:,} bytes, and {left:,} of the file are left")
            self.contents[key] = data[at + 8 : at + 8 + size]
            at += 8 + size
        if at != len(data):
            raise damaged(f"it goes on for {len(data) - at:,} bytes after the last storage")

    def storage(self, storage: Storage) -> memoryview:
        """The bytes of a storage."""
        if storage.key not in self.contents:
            raise damaged(f"it lacks storage {storage.key}, the numbers of a tensor")
        return self.contents[storage.key]
