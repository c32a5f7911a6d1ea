"""Random changes of files of weights, by Hypothesis, and how they are loaded: in a process with little memory.

``python fuzz_weights.py FOLDER zip|legacy|safetensors|onnx COUNT`` loads COUNT of them and prints a line of JSON: how many were
loaded, how many refused, the processor seconds of the slowest, the megabytes of memory that were used at most, and the length
of the longest message. A model that was loaded in part, or holds numbers that are not finite, ends the process.
"""

import json
import struct
import sys
import time
from pathlib import Path

import numpy as np
from hostile_weights import limit_memory, most_memory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import archive, constant, legacy, onnx, safetensors, state, storage, tensor, text

import minires as mr
from minires import nn
from minires.errors import WeightsError

INSTRUCTIONS = [
    bytes([code])
    for code in b"()]}0123NKMJXU\x8a\x8bcQRbdhjlqrtuase.\x80\x81\x85\x86\x87\x88\x89\x8c\x8f\x90\x91\x93\x94"
]
NUMBERS = [struct.pack(f, n) for f in ("<I", "<Q") for n in (0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**32 - 1)]
NUMBERS += [struct.pack("<Q", n) for n in (2**33, 2**62, 2**63, 2**64 - 1)]
TEXTS = [
    b"torch FloatStorage\n",
    b"LongStorage",
    b"os\nsystem\n",
    b"BF16",
    b"F64",
    b"-1",
    b"99999999999",
    b"null",
    b"[]",
    b"{}",
]


class Network(nn.Module):
    """What the files are for: few arrays, so that most changes are of something that matters."""

    def __init__(self):
        self.fc = nn.Linear(3, 2)
        self.bn = nn.BatchNorm2d(2)


def good(layout):
    """A file that fits Network: its pickle or header, and a function that makes the file of one."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(0.1, 1, a.shape).astype(a.dtype) for name, a in Network().state_dict().items()}
    arrays["bn.num_batches_tracked"] = np.array(3)
    if layout == "safetensors":
        header, position, content = {}, 0, b""
        for name, array in arrays.items():
            dtype = "I64" if array.dtype.kind == "i" else "F32"
            header[name] = {
                "dtype": dtype,
                "shape": [*array.shape],
                "data_offsets": [position, position + array.nbytes],
            }
            position, content = position + array.nbytes, content + array.tobytes()
        return json.dumps(header).encode(), lambda changed: safetensors(changed, content)
    if layout == "onnx":
        dtypes = {"i": 7, "f": 1}
        constants = [constant(name, a.shape, a.tobytes(), dtypes[a.dtype.kind]) for name, a in arrays.items()]
        return b"".join(constants), onnx
    entries = {}
    for i, (name, array) in enumerate(arrays.items()):
        kind = "LongStorage" if array.dtype.kind == "i" else "FloatStorage"
        strides = tuple(stride // array.itemsize for stride in array.strides)
        entries[name] = tensor(array.shape, strides, 0, storage(str(i), array.size, f"torch\n{kind}"))
    content = b"\x80\x02}(" + text("epoch") + b"K\x05" + text("state_dict") + state(**entries)[2:-1] + b"u."
    if layout == "zip":
        storages = {str(i): array.tobytes() for i, array in enumerate(arrays.values())}
        return content, lambda changed: archive(changed, storages)
    numbers = {str(i): (array.size, array.tobytes()) for i, array in enumerate(arrays.values())}
    return content, lambda changed: legacy(changed, numbers)


@st.composite
def changed(draw, content):
    """The content with one to four changes."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(
            st.sampled_from(["flip", "byte", "cut", "remove", "repeat", "instruction", "number", "text", "swap"])
        )
        before, after = content[:place], content[place:]
        length = draw(st.integers(1, 40))
        if kind == "flip":
            content = before + bytes([byte ^ (1 << draw(st.integers(0, 7))) for byte in after[:1]]) + after[1:]
        elif kind == "byte":
            content = before + bytes([draw(st.integers(0, 255))]) + after[1:]
        elif kind == "cut":
            content = before if draw(st.integers(0, 4)) == 0 else content
        elif kind == "remove":
            content = before + after[length:]
        elif kind == "repeat":
            content = before + after[:length] * draw(st.integers(2, 50)) + after[length:]
        elif kind == "swap":
            content = before + after[length : 2 * length] + after[:length] + after[2 * length :]
        else:
            new = draw(st.sampled_from({"instruction": INSTRUCTIONS, "number": NUMBERS, "text": TEXTS}[kind]))
            content = before + new + after[draw(st.sampled_from([0, len(new)])) :]
    return content


def main(folder, layout, count):
    path = Path(folder, "some.file")
    model, (inner, whole) = Network(), good(layout)
    path.write_bytes(whole(inner))
    report = mr.interop.load_weights(model, path)
    assert len(report.matched) == 7
    limit_memory()
    loaded, refused, slowest, longest = 0, 0, 0.0, 0
    most_memory()
    _, before = most_memory()

    @settings(
        max_examples=int(count), database=None, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
    # in every second file the pickle or header is changed before checksums and lengths are computed
    @given(st.one_of(changed(whole(inner)), changed(inner).map(whole)))
    def try_one(damaged):
        nonlocal loaded, refused, slowest, longest
        if loaded + refused == int(count):
            return
        path.write_bytes(damaged)
        arrays = model.state_dict()
        for array in arrays.values():
            array[...] = 7
        began = time.process_time()
        try:
            mr.interop.load_weights(model, path)
            loaded += 1
            assert all(np.isfinite(array).all() for array in arrays.values())
            left = [name for name, array in arrays.items() if (array == 7).all()]
            assert left in ([], ["bn.num_batches_tracked"]), "loaded in part"  # which a file may lack
        except WeightsError as error:
            refused += 1
            longest = max(longest, len(str(error)))
            assert all((array == 7).all() for array in arrays.values()), "loaded in part"
        slowest = max(slowest, time.process_time() - began)

    try_one()
    print(json.dumps([loaded, refused, slowest, most_memory()[0] - before, longest]))


if __name__ == "__main__":
    main(*sys.argv[1:])
