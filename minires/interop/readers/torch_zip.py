"""PyTorch's file format since 1.6: a zip archive with a pickle, and a member with the numbers of each storage.

    NAME/data.pkl    NAME/byteorder    NAME/version    NAME/data/0    NAME/data/1    …

Members are stored as they are, never compressed: a compressed one, which may become a thousand times its size, is refused.
"""

import io
import struct
import zipfile
import zlib
from itertools import pairwise
from typing import Any, NamedTuple

from ...data.pickles.machine import short
from ...errors import WeightsError
from ..dtypes import KINDS, damaged
from .torch_pickle import Storage, TorchMachine, load

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field: PKWARE's APPNOTE, 4.3.7
MOST_MEMBERS = 50_000  # their list takes 20 times its bytes in memory; ResNet-1202 with SGD's state has 15,000
BROKEN_ZIP = (zipfile.BadZipFile, struct.error, ValueError, OverflowError, NotImplementedError, EOFError)


class _Member(NamedTuple):
    start: int
    size: int
    crc: int


class TorchZip:
    """An archive's content. tree: the object that was saved, with TorchTensors. Raises WeightsError."""

    def __init__(self, data: bytes, instructions: int) -> None:
        self.data = memoryview(data)
        self.members = _members(data)
        self.contents: dict[str, memoryview] = {}  # of members that have been checked
        pickles = [name for name in self.members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise WeightsError(
                f"it is a zip archive {'with several data.pkl' if pickles else 'without a data.pkl'}, which is not how "
                "PyTorch writes weights: unpack it, or save them with torch.save(model.state_dict(), …)"
            )
        self.folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith((f"{self.folder}code/", f"{self.folder}constants.pkl")) for name in self.members):
            raise WeightsError(
                "it is a TorchScript program, whose code would have to be run: save torch.jit.load(…).state_dict() "
                "with torch.save"
            )
        order = f"{self.folder}byteorder"
        byteorder = bytes(self._content(order)[:20]) if order in self.members else b"little"
        if byteorder not in (b"little", b"big"):
            raise damaged(f"its byte order is {byteorder!r}")
        self.byteorder = "<" if byteorder == b"little" else ">"
        machine = TorchMachine(instructions, len(data))
        self.tree: Any = load(machine, io.BytesIO(self._content(pickles[0])), short(pickles[0]))

    def storage(self, storage: Storage) -> memoryview:
        """The bytes of a storage."""
        name = f"{self.folder}data/{storage.key}"
        if name not in self.members:
            raise damaged(f"it lacks {short(name)}, the numbers of a tensor")
        found, said = self.members[name].size, storage.whole * KINDS[storage.dtype].size
        if found != said:
            raise damaged(f"{short(name)} has {found:,} bytes, and its tensors say {said:,}")
        return self._content(name)

    def _content(self, name: str) -> memoryview:
        """A member's bytes, if their checksum is right. PyTorch writes 0 where it was told not to compute one."""
        if name not in self.contents:
            start, size, crc = self.members[name]
            content = self.data[start : start + size]
            if crc and zlib.crc32(content) != crc:
                raise damaged(f"the checksum of {short(name)} is not right")
            self.contents[name] = content
        return self.contents[name]


def _members(data: bytes) -> dict[str, _Member]:
    """Where the members lie, each of them within the file and apart from the others."""
    if data.count(b"PK\x01\x02") > MOST_MEMBERS:
        raise WeightsError(
            f"it is a zip archive of more than {MOST_MEMBERS:,} members, which no network has tensors for"
        )
    members: dict[str, _Member] = {}
    places = []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                name = info.filename
                shown = short(name)
                if name in members:
                    raise damaged(f"it has {shown} twice")
                if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                    raise WeightsError(
                        f"{shown} in it is compressed, which PyTorch never does: unpack it and save it anew"
                    )
                if info.flag_bits & 1:
                    raise WeightsError(f"{shown} in it is encrypted: decrypt it and save it anew")
                signature, name_length, extra_length = LOCAL_HEADER.unpack_from(data, info.header_offset)
                start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
                if signature != b"PK\x03\x04" or info.header_offset < 0 or start + info.file_size > len(data):
                    raise damaged(f"{shown} is not where its list of contents says")
                members[name] = _Member(start, info.file_size, info.CRC)
                places.append((info.header_offset, start + info.file_size, name))
    except WeightsError:  # which is a ValueError
        raise
    except BROKEN_ZIP as error:
        raise damaged(f"it is no complete zip archive ({error})") from None
    places.sort()
    for (_, end, name), (begin, _, other) in pairwise(places):
        if begin < end:
            raise damaged(f"{short(name)} and {short(other)} in it overlap")
    return members
