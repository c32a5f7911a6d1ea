"""Random changes of pickles and archives, the same in every run, and how they are loaded: in a process with little memory.

``python fuzz.py FOLDER pickles|python|binary COUNT`` loads COUNT of them and prints a line of JSON: how many gave data, how
many a DataError, the seconds of the slowest, and messages that blame the machine's memory.
"""

import gzip
import json
import pickle
import pickletools
import random
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from cifar_files import make_content, plain_files, write_archive, write_python
from hostile import BINARY, PYTHON, limit_memory, outcome

from minires import data
from minires.data.cifar import files
from minires.data.cifar.datasets import CIFAR10

BLOCK = tarfile.BLOCKSIZE
FIELDS = [
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 8),
    (345, 155),
    (483, 12),
]
OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


def flip(rng, content):
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng, content):
    return content[: rng.randrange(len(content))]


def remove(rng, content, unit=1):
    start, length = unit * rng.randrange(len(content) // unit), unit * rng.choice((1, 2, 7))
    return content[:start] + content[start + length :]


def repeat(rng, content, unit=1):
    start, length = unit * rng.randrange(len(content) // unit), unit * rng.choice((1, 3, 40))
    return content[: start + length] * rng.choice((1, 1, 5)) + content[start:]


# pickles


def whole_pickles():
    images, labels = make_content(CIFAR10, 0, 2)
    batch = {"data": images.reshape(2, 3072), "labels": labels[0], "filenames": ["a", "b"]}
    return [write_python(CIFAR10, images, labels), *(pickle.dumps(batch, protocol) for protocol in range(6))]


def instructions(content):
    """Where the instructions of a pickle begin."""
    return [position for _, _, position in pickletools.genops(content)]


def insert(rng, content):
    """Insert or replace instructions, between two of the file's, and sometimes a great many."""
    starts = instructions(content)
    place = rng.choice(starts)
    after = place if rng.random() < 0.6 else next((start for start in starts if start > place), place)
    other = rng.choice(starts)
    new = rng.choice(
        (
            rng.choice(OPCODES),
            rng.choice(OPCODES) + bytes(rng.choices(range(256), k=rng.randrange(9))),
            b"2\x86" * rng.randrange(70),  # shared twice, and again
            b"\x85" * rng.choice((1, 30, 30_000)),  # nested
            b"\x94" * rng.randrange(3000),
            b"h" + bytes([rng.randrange(16)]),  # something used again
            content[other : other + rng.choice((1, 5, 40))],
        )
    )
    return content[:place] + new + content[after:]


def pickles(rng):
    whole = whole_pickles()
    while True:
        content = rng.choice(whole)
        for change in rng.choices((flip, cut, remove, repeat, insert), (3, 1, 1, 1, 8), k=rng.choice((1, 1, 2))):
            with suppress(ValueError, IndexError):  # it has no instructions any more
                content = change(rng, content)
        yield content


# archives


def checksum(content, start):
    """``content`` with the right checksum in the header that begins at ``start``."""
    block = bytearray(content[start : start + BLOCK])
    if len(block) < BLOCK:
        return content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return content[:start] + bytes(block) + content[start + BLOCK :]


def number(rng):
    """What may stand in a field of a header."""
    octal = b"%011o\0" % rng.choice((0, 1, 511, 512, 513, 3072, 3073, 10**6, 2**33 - 1))
    return rng.choice(
        (octal, b"\x80" + bytes(7) + rng.randbytes(4), b"\xff" * 12, b"-0000000777\0", b"9" * 12, bytes(12))
    )


def field(rng, content):
    """Change a field of a header, with the right checksum, so that it is believed."""
    starts = [start for start in range(0, len(content), BLOCK) if content[start + 257 : start + 262] == b"ustar"]
    start = rng.choice(starts)
    place, size = rng.choice(FIELDS)
    if size == 1:
        new = rng.choice((b"0", b"\0", *(bytes([byte]) for byte in b"1234567ABDKLMNSVXgx")))
    else:
        new = rng.choice((number(rng), rng.randbytes(size), b"../" * 40, b"/" * size, bytes(size)))[:size]
    place += start
    return checksum(content[:place] + new + content[place + len(new) :], start)


def blocks(change):
    return lambda rng, content: change(rng, content, BLOCK)


def archives(rng, version, folder):
    path = write_archive(Path(folder, "whole.tar.gz"), version, plain_files(CIFAR10, version))
    whole = gzip.decompress(path.read_bytes())[: 1 << 16]
    extended = b"".join(
        tarfile.TarInfo._create_pax_generic_header(attributes, tarfile.XHDTYPE, "utf-8")
        for attributes in ({"path": f"x/{version.files[0]}", "mtime": "1.5"}, {"size": str(512)})
    )
    while True:
        content = extended[: rng.choice((0, 1024, len(extended)))] + whole
        for change in rng.choices(
            (flip, cut, blocks(remove), blocks(repeat), field), (2, 1, 2, 2, 6), k=rng.choice((1, 1, 3))
        ):
            with suppress(ValueError, IndexError):  # it has no block or no header any more
                content = change(rng, content)
        compressed = gzip.compress(content, 1, mtime=0)
        yield flip(rng, compressed) if rng.random() < 0.05 else compressed


def main(folder, which, count):
    rng = random.Random(20260)
    version = PYTHON if which in ("pickles", "python") else BINARY
    changed = pickles(rng) if which == "pickles" else archives(rng, version, folder)
    path = Path(folder, "changed.tar.gz")
    limit_memory()
    results = []
    for _ in range(int(count)):
        content = next(changed)
        path.write_bytes(content)

        def load(content=content):
            if which == "pickles":
                files.parse(CIFAR10, PYTHON, np.frombuffer(content, np.uint8), "some/file")
            else:
                data.load("cifar10", path)

        try:
            results.append(outcome(load))
        except BaseException:
            print(f"it is in {path}", file=sys.stderr)
            raise
    said = [said for said, _ in results]
    good = said.count("data")
    memory = [message for message in said if "memory" in message]
    print(json.dumps([good, len(said) - good, max(seconds for _, seconds in results), max(map(len, said)), memory]))


if __name__ == "__main__":
    main(*sys.argv[1:])
