"""`minires cache` and `python -m minires`; Ctrl-C while the kernels are compiled."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minires.kernels.runtime import jit, kernel_files, precompile
from minires.kernels.runtime.cache_folder import Folders

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}  # no empty part, which would stand for the current folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A complete cache with two kernels, beside one of another version and what is no cache."""
    base = tmp_path / "base"
    folder = base / "kernels-avx2-0123456789ab"
    other = base / "kernels-avx512-ba9876543210"
    for path in (folder, other):
        path.mkdir(parents=True)
        kernel_files.write(path / "loss.f-1.0123.kernel", b"f" * 1000)
        kernel_files.write(path / "loss.g-2.0123.kernel", b"g" * 1000)
    (base / "data").mkdir()
    (base / "kernels-of-mine").mkdir()
    (base / "kernels-avx2-aaaaaaaaaaaa").symlink_to(base / "data")
    (base / "data" / "precious").touch()
    (other / "link").symlink_to(base / "data")
    monkeypatch.setattr(jit, "FOLDERS", Folders(folder))
    precompile.note_complete()
    return folder


def rows(out):
    return [tuple(part.strip() for part in line.strip().split("  ", 1)) for line in out.splitlines()]


class TestInfo:
    def test_all_is_well(self, minires, folder):
        code, out, err = minires("cache", "info")
        found = dict(rows(out))
        assert (code, err) == (0, "")
        assert found["folder"] == str(folder)
        assert found["kernels"] == "2, 0.0 MB"
        assert found["complete"] == "yes"
        assert "Numba" in found["versions"]
        assert found["others"].startswith("1 folder of other versions")

    def test_what_is_missing_or_damaged_is_named(self, minires, folder):
        (folder / "loss.f-1.0123.kernel").write_bytes(b"")
        code, out, _ = minires("cache", "info")
        assert code == 1
        assert f"{folder}/loss.f-1.0123.kernel is damaged" in out
        assert dict(rows(out))["complete"].startswith("no: minires warmup")
        (folder / "loss.f-1.0123.kernel").unlink()
        code, out, _ = minires("cache", "info")
        assert code == 0
        assert dict(rows(out))["complete"].startswith("no: minires warmup")

    def test_folders_that_are_not_used(self, minires, folder, monkeypatch):
        refused = Folders(None, folder, ["/x (/x can be written to by everybody)"], ["/y (Permission denied)"])
        monkeypatch.setattr(jit, "FOLDERS", refused)
        code, out, _ = minires("cache", "info")
        found = dict(rows(out))
        assert code == 1
        assert found["folder"].startswith("none: kernels are compiled again in every process")
        assert (found["read-only"], found["not trusted"], found["not writable"]) == (
            str(folder),
            *refused.untrusted,
            *refused.unwritable,
        )


class TestClear:
    def left(self, folder):
        return sorted(path.name for path in folder.parent.iterdir())

    KEPT = ["data", "kernels-avx2-aaaaaaaaaaaa", "kernels-of-mine"]

    def test_only_folders_of_kernels_are_deleted(self, minires, folder):
        code, out, err = minires("cache", "clear", "--yes")
        assert (code, err) == (0, "")
        assert out.endswith("deleted 2 folders with compiled kernels, 0.0 MB\n")
        assert self.left(folder) == self.KEPT
        assert (folder.parent / "data" / "precious").exists()
        assert minires("cache", "clear") == (0, "there are no compiled kernels to delete\n", "")

    def test_asks(self, minires, folder, page, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        code, _, err = minires("cache", "clear")
        assert code == 2
        page(err)
        assert len(self.left(folder)) == 5

    @pytest.mark.parametrize("answer", ["n\n", "y\n"])
    def test_an_answer(self, minires, folder, monkeypatch, answer):
        stdin = io.StringIO(answer)
        stdin.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", stdin)
        code, out, _ = minires("cache", "clear")
        assert code == 0
        assert ("nothing is deleted" in out) == (answer == "n\n")
        assert len(self.left(folder)) == (5 if answer == "n\n" else 3)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
    def test_folders_of_other_users_are_kept(self, minires, folder):
        os.chown(folder, 65534, 65534)
        assert minires("cache", "clear", "--yes")[0] == 0
        assert folder.name in self.left(folder)


def test_without_a_command_there_is_help(minires):
    code, out, _ = minires("cache")
    assert code == 0
    assert "clear" in out


def test_python_m_minires_runs_no_numba_of_the_current_folder(tmp_path):
    for name in ("numba", "rich", "typer", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("open('evidence', 'w')")
    for command in (["--version"], ["gradcheck", "relu", "--help"], ["cache", "info"]):
        found = subprocess.run(
            [sys.executable, "-m", "minires", *command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout
    assert not (tmp_path / "evidence").exists()


def parent_of(pid):
    """That of a running process; None if there is none, or one that has ended and is not waited for yet."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state in "ZX" else int(parent)


def children_of(pid):
    """The running child processes."""
    processes = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [process for process in processes if parent_of(process) == pid]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.skipif(precompile.usable_cores() < 2, reason="one core compiles alone")
@pytest.mark.parametrize(
    ("number", "alone"),
    [
        (signal.SIGINT, False),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_first_compilation_at_once(tmp_path, small_run, page, number, alone):
    """Alone: without other processes, when the signal arrives in the middle of LLVM's work."""
    env = ENVIRONMENT | {"MINIRES_CACHE_DIR": str(tmp_path / "cache")} | ({"MINIRES_PRECOMPILE": "0"} if alone else {})
    command = [sys.executable, "-m", "minires", *small_run, "--out", str(tmp_path / "run"), "--quiet"]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        until = time.monotonic() + 60
        children = []
        while not (list(tmp_path.glob("cache/*/*.kernel")) if alone else children) and time.monotonic() < until:
            time.sleep(0.05)
            children = children_of(process.pid)
        os.killpg(process.pid, number)  # as a terminal sends it: to all of them
        sent = time.monotonic()
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - sent < 10
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    page(out.strip())
    while any(map(parent_of, children)) and time.monotonic() < sent + 10:
        time.sleep(0.05)
    assert not any(map(parent_of, children))
    assert bool(children) != alone
