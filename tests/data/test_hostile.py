"""Files that were made to exhaust memory or time are refused within limits on both; so are random changes of good ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limits on a process")
HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]


def results(script, *arguments, quiet=True):
    """The lines of JSON that a script of this folder prints. quiet: and nothing on standard error."""
    command = [sys.executable, "-W", "error", HERE / script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stderr if quiet else "") == (0, ""), ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (
            "pickles",
            {
                "deep": "more instructions than",
                "deep, in a big file": "nested more than 20 deep",
                "deep key": "more instructions than",
                "deep key, in a big file": "a key (tuple)",
                "shared": "nested more than 20 deep",
                "shared key": "a key (tuple)",
                "shared name": "asks for a name that is not text",
                "shared label": "nested more than 20 deep",
                "shared label that is not deep": "label 0 of 'labels' is of type tuple",
                "shared dtype": "describes an array in other words",
                "shared encoding": "describes an array in other words",
                "much memo": "more instructions than",
                "much memo, in a big file": "holds a dtype by itself",
                "many lists": "more instructions than",
                "one text for many arrays": "its arrays have more bytes than the file",
                "one shape for many arrays": "without a proper dtype and shape",
                "a huge number as a label": "label 0 of 'labels' is of type int",
                "a long name": "aaa …, which a file of arrays does not need",
            },
        ),
        (
            "archives",
            {
                "pax header": "its headers have more than 1,048,576 bytes",
                "many pax headers": "its headers have more than 1,048,576 bytes",
                "long name": "its headers have more than 1,048,576 bytes",
                "sparse": "data_batch_1.bin is sparse",
                "sparse, in a pax header": "data_batch_1.bin is sparse",
                "a member of zeros": "unpacks to more than 100 times its size",
                "zeros after the end": "unpacks to more than 100 times its size",
                "another member of zeros": "unpacks to more than 100 times its size",
                "a size of 2 to the power of 88": "unpacks to more than 100 times its size",
                "a size below 0": "a size or a checksum that is no number",
                "an octal size below 0": "a size or a checksum that is no number",
                "a size of letters": "a size or a checksum that is no number",
                "many members": "more than 10,000 members",
            },
        ),
    ],
    ids=["pickles", "archives"],
)
def test_hostile_files(which, expected, tmp_path, page):
    found = {name: (said, seconds) for name, said, seconds in results("hostile.py", tmp_path, which)}
    assert found.keys() == expected.keys()
    for name, (said, seconds) in found.items():
        assert expected[name] in said, name
        assert len(said) < 700, name
        assert seconds < 4, name
    page(found["deep" if which == "pickles" else "sparse"][0])


@pytest.mark.slow
@pytest.mark.parametrize("which", ["pickles", "python", "binary"])
def test_random_changes(which, tmp_path):
    [(good, refused, slowest, longest, blame_memory)] = results("fuzz.py", tmp_path, which, 2000)
    assert good + refused == 2000
    assert min(good, refused) > 100
    assert slowest < 2
    assert longest < 5000
    assert blame_memory == []
