"""Files of weights that ask for far more than they hold, and how they are loaded: in a process with little memory.

``python hostile_weights.py FOLDER`` loads each of them, and prints a line of JSON with the outcome, the processor seconds, and
the megabytes that it took more than before at most, and those of the file.
"""

import io
import json
import resource
import struct
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

from made_up import archive, field, legacy, onnx, safetensors, state, storage, tensor, text

import minires as mr
from minires.errors import WeightsError

MEMORY = 250 << 20  # bytes beyond what the process has when it begins


def limit_memory():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def most_memory():
    """The most that the process had since this was last called, and what it has, in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return [int(status[name].split()[0]) / 1024 for name in ("VmHWM", "VmRSS")]


def nested(levels):
    """Tuples of one element, one in the other."""
    return b"N" + b"\x85" * levels


def shared(levels):
    """Tuples of twice the next: in all 2 to the power of levels."""
    return b"N" + b"2\x86" * levels


def pickles():
    big = b"T" + struct.pack("<i", 10_000_000) + bytes(10_000_000) + b"0"  # which makes a file big, and so its limits
    yield "deep", nested(1_000_000) + b"."
    yield "deep, in a big file", big + nested(400_000) + b"."
    yield "deep beside weights", b"}(" + text("w") + tensor() + text("v") + nested(200_000) + b"u."
    yield "shared", shared(60) + b"."
    yield "shared key", b"}" + shared(60) + b"Ns."
    yield "shared beside weights", b"}(" + text("w") + tensor() + text("v") + shared(60) + b"u."
    yield "shared name", shared(60) + b"2\x93."
    yield "shared shape", b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + b"K\x00" + shared(60) + b"2\x89}tR."
    yield "shared storage", shared(60) + b"Q."
    yield "shared storage type", b"(" + text("storage") + shared(60) + b"NNNtQ."
    yield "shared class", b"ctorch._tensor\n_rebuild_from_type_v2\n(" + shared(60) + b"2" + b")NtR."
    yield "shared arguments", shared(60) + b"2R."
    dicts = b"".join(b"q\x00}(" + text("a") + b"h\x00" + text("b") + b"h\x00u" for _ in range(60))
    yield "shared dicts", b"}" + dicts + b"."
    yield "many lists", b"]" * 1_000_000 + b"."
    yield "many dicts", b"}" * 1_000_000 + b"."
    yield "many marks", b"(" * 1_000_000 + b"."
    yield "many texts", b"\x8c\x02ab" * 1_000_000 + b"."
    yield "much memo", b"N" + b"\x94" * 1_000_000 + b"."
    yield "a far memo", b"Nr\xff\xff\xff\xff" + b"0N" * 10 + b"."
    pairs = b"(" + b"(K\x01Nl" * 100_000 + b"l\x85q\x00"
    yield "one list for many dicts", pairs + b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00R0" * 100_000 + b"."
    sets = b"(" + b"K\x01" * 100_000 + b"l\x85q\x00"
    yield "one list for many sets", sets + b"cbuiltins\nset\nq\x01" + b"h\x01h\x00R0" * 100_000 + b"."
    long = b"T" + struct.pack("<i", 5_000_000) + bytes(5_000_000) + b"\x85q\x00"
    yield "one text for many arrays", long + b"cbuiltins\nbytearray\nq\x01" + b"h\x01h\x00R0" * 100_000 + b"."
    yield "one text for many devices", long + b"ctorch\ndevice\nq\x01" + b"h\x01h\x00R0" * 100_000 + b"."
    yield "a huge number", b"}(" + text("w") + b"\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000 + b"u."
    yield "a huge shape", state(w=tensor((10**400, 3), (3, 1)))
    yield "a huge length", state(w=tensor(source=storage(numel=10**400)))
    yield "a long name", b"c" + b"a" * 1_000_000 + b"\nb\n."
    whole = tensor((6,), (1,)) + b"q\x05"
    views = b"".join(text(str(i)) + tensor((5,), (1,), i % 2) for i in range(5000))
    yield "views beyond the file", b"}(" + text("w") + whole + views + b"u."


def many_views():
    """Ten thousand tensors that are each nearly the whole of a storage of 20 MB."""
    numel = 5_000_000
    source = storage(numel=numel) + b"q\x00"
    views = b"".join(
        text(f"w{i}") + tensor((numel - i,), (1,), i, source if i == 0 else b"h\x00") for i in range(10_000)
    )
    return archive(b"}(" + views + b"u.", {"0": bytes(4 * numel)})


def bomb():
    """A compressed member that unpacks to a thousand times its size."""
    return archive(
        state(w=tensor(source=storage(numel=15 << 20))), {"0": bytes(60 << 20)}, compression=zipfile.ZIP_DEFLATED
    )


def many_members():
    """A list of a million members, all of them the same."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a/data.pkl", b"")
    content = made.getvalue()
    first, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entries = content[first:end] * 60_000
    return (
        content[:first] + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 60_000, 60_000, len(entries), first, 0)
    )


def names(count, size):
    """A safetensors file of so many arrays of no numbers, with long names, and some data to make it big."""
    header = {f"{i}." + "a." * size: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(count)}
    header["w"] = {"dtype": "F32", "shape": [5_000_000], "data_offsets": [0, 20_000_000]}
    return safetensors(header, bytes(20_000_000))


def files():
    for name, content in pickles():
        yield f"zip: {name}", archive(content)
        if name in ("deep", "shared shape", "views beyond the file"):
            yield f"legacy: {name}", legacy(content, None if b"Storage" in content else {})
    yield "views", many_views()
    yield "bomb", bomb()
    yield "many members", many_members()
    yield "a list of keys", legacy(state(w=tensor()), keys=b"](" + text("0") * 1_000_000 + b"e.")
    yield "deep keys", legacy(state(w=tensor()), keys=b"](" + shared(60) + b"e.")
    yield "deep header", safetensors(b'{"a":' * 200_000)
    yield "wide header", safetensors(b'{"a":[' + b"[]," * 300_000 + b"[]]}")
    yield "header of 20 MB", safetensors(b'{"a":[' + b"[]," * 7_000_000 + b"[]]}")
    yield "many names", names(20_000, 5)
    yield "long names", names(1000, 500)
    yield "many fields", field(1, 8) + b"\x10\x00" * 700_000
    yield "many constants", onnx(b"\x2a\x00" * 700_000)
    yield "many axes", onnx(field(5, field(1, b"\xff\x7f" * 5_000_000)))
    yield "huge", safetensors({"a": {"dtype": "F64", "shape": [2**40, 2**10], "data_offsets": [0, 2**53]}})


def main(folder):
    path = Path(folder, "some.file")
    model = mr.models.resnet8()
    for content in (archive(b"."), safetensors(b"{")):  # so that all is imported
        path.write_bytes(content)
        with suppress(WeightsError):
            mr.interop.load_weights(model, path)
    limit_memory()
    for name, content in files():
        path.write_bytes(content)
        del content
        _, before = most_memory()
        began = time.process_time()
        try:
            mr.interop.load_weights(model, path)
            said = "loaded"
        except WeightsError as error:
            said = str(error)
        seconds = time.process_time() - began
        print(json.dumps([name, said, seconds, most_memory()[0] - before, path.stat().st_size / 2**20]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
