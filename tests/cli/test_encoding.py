"""Output in ASCII or cp1252: no command fails for a character that the encoding lacks, and what is printed can be read."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import minires as package
from minires.cli import encoding, main

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def minires(*args, cwd=None, **environment):
    """`minires` in a process of its own, whose encoding is set at its start: (exit code, output, errors)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", "from minires.cli import main; main()", *map(str, args)]
    done = subprocess.run(command, cwd=cwd or ROOT, env=environment, capture_output=True)
    return done.returncode, done.stdout.decode("cp1252"), done.stderr.decode("cp1252")


def run(words, name):
    """`minires` in this process, with an encoding: (exit code, what it prints)."""
    out = io.TextIOWrapper(io.BytesIO(), name, write_through=True)
    with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code, out.buffer.getvalue().decode(name)


@pytest.mark.parametrize("name", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["eval", "--help"],
        ["gradcheck", "conv2d", "relu", "--backend", "reference"],
        ["data", "info"],
        ["data", "download", "--help"],
        ["train", "--schedule", "Σ→…×é"],
        ["eval", "nowhere/\udce9…"],
        ["gradcheck", "conv2d", "--plot", "─.docx"],
        ["gradcheck", "relu", "--json", "--backend", "reference"],
    ],
    ids=" ".join,
)
def test_no_command_fails_for_a_character(name, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, text = run(words, name)
    assert text
    assert code == (2 if "Σ→…×é" in words or "nowhere/\udce9…" in words or "─.docx" in words else 0)
    if "Σ→…×é" in words:
        assert ("sum ->...x?" in text) == (name == "ascii")
        assert ("sum ->…×é" in text) == (name == "cp1252")
    if "conv2d" in words and code == 0:
        assert "+ " in text
        assert "dL/dx" in text
        assert "?" not in text


def test_a_run_from_start_to_end(small_run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words in ([*small_run, "--out", "run"], ["eval", "run"], ["train", "--resume", "run"]):
        code, text = run(words, "ascii")
        assert code == 0
        assert ("-" * 20 in text) == (words[0] == "eval")  # the bars of the classes


@pytest.mark.parametrize(
    "environment",
    [pytest.param(e, marks=[pytest.mark.slow] * (name != "C")) for name, e in ENVIRONMENTS.items()],
    ids=ENVIRONMENTS,
)
def test_in_a_process(environment, tmp_path):
    code, out, err = minires("train", "--help", **environment)
    assert (code, err) == (0, "")
    assert "?" not in out
    code, out, err = minires("eval", "→", **environment)
    assert (code, out) == (2, "")
    assert err.startswith("error: there is no run ")


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_doctor(environment):
    code, out, err = minires("doctor", **environment)
    assert code == 0, err
    assert "+ " in out
    assert "?" not in out


def test_every_character_that_minires_prints_has_a_readable_form():
    """Those of all Python files that print: of the commands, and of the models, which describe themselves in help."""
    files = [path for path in Path(package.__file__).parent.glob("cli/*.py") if path.name != "encoding.py"]
    characters = {c for path in files for c in path.read_text("utf-8") if not c.isascii()}
    assert {"×", "…", "→", "━", "✗"} <= characters
    assert {c for c in characters if encoding._readable(c) == "?"} == set()
    for character in [*characters, *encoding.READABLE, *map(chr, range(0x2500, 0x2900))]:
        assert encoding._readable(character).isascii()


def test_streams_that_have_no_encoding(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    encoding.make_encodable()
