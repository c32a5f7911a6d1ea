"""How a minires checkpoint, which is a safetensors file, differs from others: parts of its names, and a checksum.

Its metadata, JSON in one entry ``minires``, begins with the SHA-256 sum of the whole file, computed with 64 zeros in place of
the sum. A byte that has changed anywhere, in the header, the arrays or the sum itself, is thus detected.
"""

import hashlib

PARTS = ("optimizer", "batch", "average")  # prefixes of the names of arrays that are not the model's, before a "/"
BEFORE_SUM = b'{"__metadata__":{"minires":"{\\"checksum\\": \\"'  # the beginning of the header, which starts at byte 8
SUM = slice(8 + len(BEFORE_SUM), 8 + len(BEFORE_SUM) + 64)


def is_model(name: str) -> bool:
    """Whether an array of this name in a checkpoint is the model's."""
    return name.partition("/")[0] not in PARTS


def has_sum(data: bytes) -> bool:
    """Whether the header says that it has a sum, even if the name of its entry is damaged."""
    return BEFORE_SUM[-16:] in data[8 : 8 + int.from_bytes(data[:8], "little")]


def may_be_checkpoint(header: bytes) -> bool:
    """Whether a safetensors file may be one of these, by its header and the 8 bytes before it."""
    return has_sum(header) or b'"minires"' in header


def is_unchanged(data: bytes) -> bool:
    """Whether a file that has a sum has the right one."""
    return data.startswith(BEFORE_SUM, 8) and data[SUM] == checksum(data)


def checksum(data: bytes | bytearray) -> bytes:
    """The SHA-256 sum of a file's bytes, in hexadecimal, with zeros in place of the sum."""
    digest = hashlib.sha256(memoryview(data)[: SUM.start])
    digest.update(b"0" * 64)
    digest.update(memoryview(data)[SUM.stop :])
    return digest.hexdigest().encode()
