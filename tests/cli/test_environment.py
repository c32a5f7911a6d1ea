"""What the machine around may lack: a writable cache folder, a threading layer."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minires.errors import ConfigError
from minires.kernels.runtime import environment
from minires.kernels.runtime import jit as cache

ROOT = Path(__file__).parents[2]


def minires(*args, **environment):
    """`minires` in a process of its own, since what is tested is read at import: (exit code, output, errors)."""
    done = subprocess.run(
        [sys.executable, "-c", "from minires.cli import main; main()", *args],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_cache_folder_that_cannot_be_written_to(tmp_path, page):
    if cache.FOLDERS.folder is None:
        pytest.skip("no cache folder is writable here at all")
    (tmp_path / "file").touch()
    instead = tmp_path / "instead"
    instead.mkdir()
    (instead / "minires").symlink_to(cache.FOLDERS.folder.parent)  # where relu may be compiled already
    folders = {"MINIRES_CACHE_DIR": tmp_path / "file/cache", "NUMBA_CACHE_DIR": instead}
    assert minires("--version", **folders)[::2] == (0, "")  # needs no kernel
    code, out, err = minires("gradcheck", "relu", **folders)
    assert code == 0
    assert "Nothing is wrong" in out
    said, *more = err.splitlines()
    page(said)
    assert said.startswith("warning: ")
    assert all(re.match("minires: (compiling its|[0-9]+) kernels", line) for line in more)  # where the cache is cold
    assert str(cache.FOLDERS.folder) in said  # without the link


@pytest.mark.parametrize("name", ["NUMBA_NUM_THREADS", pytest.param("NUMBA_DISABLE_JIT", marks=pytest.mark.slow)])
def test_a_setting_of_numbas_with_which_nothing_can_run(page, name):
    value = {"NUMBA_NUM_THREADS": "0", "NUMBA_DISABLE_JIT": "1"}[name]
    for command in (["gradcheck", "relu"], ["warmup"]):
        code, _, err = minires(*command, **{name: value})
        assert code == 2
        page(err)
    assert minires("gradcheck", "relu", "--backend", "reference", **{name: value})[0] == 0


@pytest.mark.parametrize("value", ["-3", "x", "1.5", ""])
def test_numbers_of_threads_that_are_none(monkeypatch, value):
    monkeypatch.setenv("NUMBA_NUM_THREADS", value)
    with pytest.raises(ConfigError, match=f"not '{value}'"):
        environment.check()


@pytest.mark.skipif(os.name == "nt", reason="POSIX's inheritance of ignored signals")
def test_a_ctrl_c_that_the_shell_has_switched_off_stays_off(tmp_path):
    """`minires train &` in a script: the shell ignores SIGINT for it, and so it is ignored; SIGTERM still ends the run."""
    script = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "minires", *sys.argv[1:]])
"""
    command = [sys.executable, "-c", script, "train", "--epochs", "50", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline()  # the run has begun
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM" in out
