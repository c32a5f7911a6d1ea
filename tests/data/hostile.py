"""Pickles and archives that ask for far more than they hold, and how they are loaded: in a process with little memory.

``python hostile.py FOLDER pickles|archives`` loads each of them, and prints a line of JSON with the outcome and the seconds.
"""

import gzip
import json
import pickle
import resource
import struct
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from cifar_files import make_files, write_archive

from minires import data
from minires.data.cifar import files
from minires.data.cifar.datasets import CIFAR10
from minires.errors import DataError

BINARY, PYTHON = CIFAR10.versions
MEMORY = 400 << 20  # bytes beyond what the process has when it begins
NAME = f"{BINARY.folder}/data_batch_1.bin"


def limit_memory():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def outcome(load, refusal=DataError):
    """(what became of it, processor seconds). Any exception but ``refusal`` ends the process."""
    began = time.process_time()
    try:
        load()
        said = "data"
    except refusal as error:
        said = str(error)
    return said, time.process_time() - began


# pickles


def nested(levels):
    """Tuples of one element, one in the other."""
    return b"N" + b"\x85" * levels


def shared(levels):
    """Tuples of twice the next: in all 2 to the power of levels."""
    return b"N" + b"2\x86" * levels


def batch(labels):
    """A batch with these instructions for its labels."""
    whole = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": None}, 2)
    assert whole.endswith(b"Nu.")
    return whole[:-3] + labels + b"u."


def array(text, shape=b"K\x05\x85"):
    return b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01" + shape + b"g1\n\x89" + text + b"tb"


DTYPE = b"cnumpy\ndtype\nU\x02u1\x85R(K\x03U\x01|NNNtbp1\n"
LONG = b"T" + struct.pack("<i", 5_000_000) + bytes(5_000_000)
PADDING = LONG + b"0"  # which makes a file big, and so its limits


def pickles():
    yield "deep", nested(2_000_000) + b"."
    yield "deep, in a big file", PADDING * 10 + nested(200_000) + b"."
    yield "deep key", b"}" + nested(2_000_000) + b"Ns."
    yield "deep key, in a big file", PADDING * 10 + b"}" + nested(200_000) + b"Ns."
    yield "shared", shared(60) + b"."
    yield "shared key", b"}" + shared(60) + b"Ns."
    yield "shared name", shared(60) + b"2\x93."
    yield "shared label", batch(b"(" + shared(60) + b"l")
    yield "shared label that is not deep", batch(b"(" + shared(16) + b"l")
    yield "shared dtype", b"cnumpy\ndtype\n" + shared(60) + b"\x85R."
    yield "shared encoding", b"c_codecs\nencode\n" + shared(60) + b"2\x86R."
    yield "much memo", b"N" + b"\x94" * 1_300_000 + DTYPE + (array(b"U\x05abcde") + b"0") * 20_000 + b"."
    yield (
        "much memo, in a big file",
        PADDING * 6 + b"N" + b"\x94" * 200_000 + DTYPE + 9000 * (array(b"U\x05abcde") + b"0") + b".",
    )
    yield "many lists", b"]" * 5_000_000 + b"."
    yield "one text for many arrays", DTYPE + LONG + b"p2\n" + array(b"g2\n", b"J\x40\x4b\x4c\x00\x85") * 5000 + b"."
    yield (
        "one shape for many arrays",
        DTYPE + b"(" + b"K\x01" * 20_000 + b"tp2\n" + (array(b"U\x01a", b"g2\n") + b"0") * 1000 + b".",
    )
    yield "a huge number as a label", batch(b"(\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000 + b"l")
    yield "a long name", b"c" + b"a" * 1_000_000 + b"\nb\n."


# archives


def header(name=NAME, size=0, kind=tarfile.REGTYPE, **fields):
    """A header block. fields: bytes in the place of what stands at ``at_OFFSET``."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for at, content in fields.items():
        place = int(at.removeprefix("at_"))
        block[place : place + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def zeros(megabytes):
    """So many megabytes of zeros, compressed: gzip members that follow one another are one stream."""
    return gzip.compress(bytes(1 << 20), mtime=0) * megabytes


def archives():
    def plain(block):
        return gzip.compress(block + bytes(1024))

    yield "pax header", gzip.compress(header(kind=b"x", size=2000 << 20)) + zeros(2000)
    yield "many pax headers", gzip.compress((header(kind=b"x", size=510) + b"6 a=b\n" * 85 + b"\0\0") * 5000)
    yield "long name", gzip.compress(header(kind=b"L", size=2000 << 20)) + zeros(2000)
    yield "sparse", plain(header(kind=b"S", at_483=b"%011o\0" % (3073 * 1_000_000)))
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(3073 * 10**6)}
    attributes = tarfile.TarInfo._create_pax_generic_header(sparse, tarfile.XHDTYPE, "utf-8")
    yield "sparse, in a pax header", plain(attributes + header(size=512) + b"0\n".ljust(512, b"\0"))
    yield "a member of zeros", gzip.compress(header(size=3073 << 20)) + zeros(3073)
    yield "zeros after the end", gzip.compress(bytes(1024)) + zeros(4000)
    yield "another member of zeros", gzip.compress(header("other", size=4000 << 20)) + zeros(4000)
    yield "a size of 2 to the power of 88", plain(header(at_124=b"\x80" + b"\xff" * 11))
    yield "a size below 0", plain(header(at_124=b"\xff" * 12))
    yield "an octal size below 0", plain(header(at_124=b"-0000001000\0"))
    yield "a size of letters", plain(header(at_124=b"0x000000200\0"))
    yield "many members", gzip.compress(b"".join(header(f"{i}") for i in range(20_000)))


def main(folder, which):
    path = Path(folder, "cifar-10-python.tar.gz")
    cases = dict({"pickles": pickles, "archives": archives}[which]())
    write_archive(path, BINARY, make_files(CIFAR10, BINARY))
    data.load("cifar10", path)  # so that all is imported
    limit_memory()
    for name, content in cases.items():
        if which == "pickles":
            load = partial(files.parse, CIFAR10, PYTHON, np.frombuffer(content, np.uint8), "some/file")
        else:
            path.write_bytes(content)
            load = partial(data.load, "cifar10", path)
        said, seconds = outcome(load)
        print(json.dumps([name, said, seconds]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
