"""What Windows does in another way, and odd file systems."""

import importlib.util
import os
import struct
import sys
from types import SimpleNamespace

import pytest

from minires import lock as lock_module
from minires.errors import ConfigError, RunError
from minires.training import Recipe, RunFolder

fcntl = pytest.importorskip("fcntl")


@pytest.fixture
def windows_lock(monkeypatch):
    """The module as Windows imports it, with msvcrt's byte locks made of Linux's, which belong to an open file too."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        pytest.skip("no locks of open files here")
    locked = []

    def locking(descriptor, mode, count):
        assert mode == "LK_NBLCK"
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        locked.append((at, count))
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, at, count, 0))

    monkeypatch.setitem(sys.modules, "fcntl", None)  # importing it fails
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK="LK_NBLCK", locking=locking))
    spec = importlib.util.spec_from_file_location("minires.windows_lock", lock_module.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.locked = locked
    return module


def test_a_lock_of_bytes_far_behind_the_text(windows_lock, tmp_path):
    held = windows_lock.FolderLock(tmp_path)
    text = (tmp_path / lock_module.NAME).read_text()
    assert text == f"{os.getpid()}\n"
    assert windows_lock.locked == [(1 << 30, 1)]
    with pytest.raises(RunError, match=rf"in use by another run \(process {os.getpid()}\): wait until it ends"):
        windows_lock.FolderLock(tmp_path)
    assert (tmp_path / lock_module.NAME).read_text() == text
    held.release()
    windows_lock.FolderLock(tmp_path).release()


def test_runs_that_lead_nowhere(monkeypatch, tmp_path):
    """A link to a disk that is not there any more: told, and not tried for ever."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(tmp_path / "gone" / "disk")
    with pytest.raises(ConfigError, match=r"cannot write the run to runs.*: choose a folder that you may write to"):
        RunFolder.create(Recipe())
