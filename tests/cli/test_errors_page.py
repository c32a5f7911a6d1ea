"""Every row of docs/errors.md holds."""

import ast
import base64
import re
import shlex
import subprocess
import sys
from pathlib import Path

import errors_page
import numpy as np
import pytest

import minires as mr
from minires import errors, nn
from minires import functional as F
from minires.cli import main

# A pixel, as a PNG
IMAGE = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
FILES = {
    "a.jpg": b"x",
    "bad.toml": b"epochs = = 3",
    "file": b"",
    "latin1.toml": b"# \xe4",
    "old/config.toml": b"epochs = 3",
    "other.toml": b"epoch = 3",
    "page.safetensors": b"<html></html",
    "zero.toml": b"epochs = 0",
    **{f"photos/{name}/{i}.png": IMAGE for name in ("cat", "dog") for i in (1, 2)},
    **{f"{name}/cat/{i}.png": IMAGE for name in ("alone", "empty") for i in (1, 2)},
    "empty/dog/notes.txt": b"no image",
    **{f"broken/{name}/{i}.png": b"x" for name in ("cat", "dog") for i in (1, 2)},
    **{f"parts/{name}/1.png": IMAGE for name in ("train/cat", "train/dog", "val/cat", "val/dgo")},
    "half/train/cat/1.png": IMAGE,
}
COMMANDS, CALLS = errors_page.commands(), errors_page.calls()


def ids(row):
    return errors_page.runnable(row)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """FILES, in the folder that commands run in, and no data set among the downloads."""
    monkeypatch.setenv("MINIRES_CACHE_DIR", str(tmp_path.with_name(f"{tmp_path.name}-cache")))
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def arguments(row, cifar, small_run):
    """The row's command; ``minires train`` is the small run, unless it says itself what to train."""
    words = shlex.split(errors_page.runnable(row).replace("DATA", str(cifar)).replace(";", "';'"))[1:]
    if words[0] == "train" and not {"--resume", "--recipe", "--dataset"} & set(words):
        words[:1] = small_run
    return words


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("row", COMMANDS, ids=ids)
def test_command(minires, folder, arguments, row):
    before = contents(folder)
    code, out, err = minires(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: {row.pattern}", err), f"the page says\n{row.says}\nand minires\n{err}"
    assert contents(folder) == before


@pytest.mark.parametrize("row", [row for row in COMMANDS if "See `minires" not in row.says][::6], ids=ids)
def test_debug_shows_the_traceback(folder, arguments, row, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(errors.MiniresError) as caught:
        main([*arguments, "--debug"])
    assert re.fullmatch(row.pattern, str(caught.value))


@pytest.mark.parametrize("row", CALLS, ids=ids)
def test_call(row):
    def t(*shape):
        return mr.tensor(np.ones(shape, np.float32))

    error = getattr(errors, row.ends.strip("`"))
    assert issubclass(error, errors.MiniresError)
    with pytest.raises(error) as caught:
        eval(errors_page.runnable(row), {"mr": mr, "nn": nn, "F": F, "np": np, "t": t})
    assert type(caught.value) is error
    assert re.fullmatch(row.pattern, str(caught.value)), str(caught.value)


def test_the_page_is_whole():
    rows = errors_page.rows()
    assert len(rows) >= 120
    assert len(set(rows)) == len(rows)
    assert all(errors_page.runnable(row) and row.says and row.ends == "exit code 2" for row in COMMANDS)
    assert all(errors_page.runnable(row) and row.says for row in CALLS)
    lines = [line for line in errors_page.PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    heads = sum(line.startswith(("| what is done |", "| --- |")) for line in lines)
    assert len(lines) - heads == len(rows)


def test_the_other_tests_are_there():
    names = sorted({row.test for row in errors_page.others()})
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "slow or not slow",
    ]
    found = subprocess.run([*command, *names], cwd=errors_page.ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]


def test_the_other_tests_compare_what_is_said_with_the_page():
    for row in errors_page.others():
        if row.says is None:
            continue
        path, *names = row.test.partition("[")[0].split("::")
        scope = ast.parse(Path(errors_page.ROOT, path).read_text("utf-8"))
        for name in names:
            (scope,) = (node for node in scope.body if getattr(node, "name", None) == name)
        called = {node.func.id for node in ast.walk(scope) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
        assert "page" in called, f"{row.test} does not call page(…)"


def test_a_message_that_has_changed_is_noticed():
    row = next(row for row in errors_page.others() if row.says and "md5" in row.says)
    said = row.says.replace("…", "any text")
    errors_page.compare(row.test, said)
    with pytest.raises(AssertionError, match=r"errors.md says"):
        errors_page.compare(row.test, said.replace("md5", "MD5"))
    with pytest.raises(AssertionError, match=r"errors.md has no row"):
        errors_page.compare("tests/cli/test_cli.py::test_version", said)
