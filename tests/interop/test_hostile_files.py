"""Files of weights that ask for far more than they hold are refused within limits on time and memory; so are random changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limits on a process")
HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
MORE_INSTRUCTIONS = "it has more instructions than a file of arrays of this size needs"
NO_TENSORS = "it holds no dict of tensors by name"
PICKLES = {
    "deep": MORE_INSTRUCTIONS,
    "deep, in a big file": NO_TENSORS,
    "deep beside weights": "does not fit CifarResNet: 0 names matched",
    "shared": NO_TENSORS,
    "shared key": "a dict with a key (tuple)",
    "shared beside weights": "does not fit CifarResNet: 0 names matched",
    "shared name": "asks for a name that is not text",
    "shared shape": "without a proper shape and strides",
    "shared storage": "names something that is no storage",
    "shared storage type": "names a storage that is a tuple",
    "shared class": "a tensor of another class, a tuple",
    "shared arguments": "it calls something that is not a function",
    "shared dicts": NO_TENSORS,
    "many lists": MORE_INSTRUCTIONS,
    "many dicts": MORE_INSTRUCTIONS,
    "many marks": MORE_INSTRUCTIONS,
    "many texts": MORE_INSTRUCTIONS,
    "much memo": MORE_INSTRUCTIONS,
    "a far memo": NO_TENSORS,
    "one list for many dicts": MORE_INSTRUCTIONS,
    "one list for many sets": MORE_INSTRUCTIONS,
    "one text for many arrays": "its arrays have more bytes than the file",
    "one text for many devices": "it describes an array in other words",
    "a huge number": NO_TENSORS,
    "a huge shape": "without a proper shape and strides",
    "a huge length": "a storage without a proper length",
    "a long name": "aaa …, which would have to be imported",
    "views beyond the file": "it has 5,001 arrays, and CifarResNet 44",
}
OTHERS = {
    "views": "its 10,000 tensors have more than 2 times the bytes of the file",
    "bomb": "data.pkl in it is compressed",
    "many members": "more than 50,000 members",
    "a list of keys": MORE_INSTRUCTIONS,
    "deep keys": "it has no list of storages",
    "deep header": "its header is nested too deep",
    "wide header": "its header describes 'a' as [[], [], ",
    "header of 20 MB": "more than names and shapes of weights need",
    "many names": "it has 20,001 arrays, and CifarResNet 44",
    "long names": "does not fit CifarResNet: 0 names matched",
    "many fields": "more fields than an ONNX file of this size needs",
    "many constants": "more fields than an ONNX file of this size needs",
    "many axes": "a constant has more than 32 axes",
    "huge": "its arrays have 9,007,199,254,740,992 bytes, and the file has 0",
}
EXPECTED = {
    **{f"zip: {name}": said for name, said in PICKLES.items()},
    **{f"legacy: {name}": PICKLES[name] for name in ("deep", "shared shape", "views beyond the file")},
    **OTHERS,
}


def results(script, *arguments):
    """The lines of JSON that a script of this folder prints."""
    command = [sys.executable, "-W", "error", HERE / script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=480)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_hostile_files(tmp_path, page):
    found = {name: values for name, *values in results("hostile_weights.py", tmp_path)}
    assert found.keys() == EXPECTED.keys()
    for name, (said, seconds, more_memory, size) in found.items():
        assert EXPECTED[name] in said, name
        assert len(said) < 1000, name
        assert seconds < 8, name  # processor time; two at most on an idle machine
        assert more_memory < 64 + 4 * size, name  # megabytes
    page(found["zip: many lists"][0])


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors", "onnx"])
def test_random_changes(layout, tmp_path):
    """Each is loaded whole or refused whole, by a WeightsError: anything else ends the process."""
    [(loaded, refused, slowest, most_memory, longest)] = results("fuzz_weights.py", tmp_path, layout, 2500)
    assert loaded + refused == 2500
    assert min(loaded, refused) > 50
    assert slowest < 4
    assert most_memory < 64
    assert longest < 1000
