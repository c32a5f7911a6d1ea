"""Files are written whole or not at all."""

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from minires.files import atomic_write, expand_user, remove_temporary_files


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    def write_half():
        with atomic_write(path) as file:
            file.write(b"ne")
            raise error

    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", [False, True])
def test_files_with_names_like_our_temporary_ones_are_left_alone(tmp_path, fails):
    theirs = {".file.tmp": b"notes", ".file.0123456789abcdef.tmp": b"more"}
    for name, content in theirs.items():
        (tmp_path / name).write_bytes(content)
    with suppress(OSError), atomic_write(tmp_path / "file") as file:
        file.write(b"new")
        if fails:
            raise OSError
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == theirs | ({} if fails else {"file": b"new"})


def test_only_temporary_files_of_these_names_are_removed(tmp_path):
    ours = ".last.bin.0123456789abcdef.tmp"
    theirs = {".notes.tmp", ".last.bin.tmp", ".notes.0123456789abcdef.tmp", ".last-bin.0123456789abcdef.tmp"}
    for name in {ours} | theirs:
        (tmp_path / name).touch()
    folder = tmp_path / ".last.bin.fedcba9876543210.tmp"
    folder.mkdir()
    remove_temporary_files(tmp_path, ("config", "last.bin"))
    assert {path.name for path in tmp_path.iterdir()} == theirs | {folder.name}


def test_what_a_killed_writer_leaves_is_what_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *paths: None)  # killed before it renames
    with atomic_write(tmp_path / "last.bin") as file:
        file.write(b"new")
    assert len(list(tmp_path.iterdir())) == 1
    remove_temporary_files(tmp_path, ["last.bin"])
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "file"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file")


def test_where_folders_cannot_be_synced_files_are_written_all_the_same(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)
    with atomic_write(tmp_path / "file") as file:
        file.write(b"content")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"content")]


def write(path, content=b"new"):
    with atomic_write(path) as file:
        file.write(content)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to pipe").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for name, said in [("pipe", "Not a regular file"), ("to pipe", "Not a regular file"), ("folder", "Is a directory")]:
        with pytest.raises(OSError, match=said) as caught:
            write(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)
        assert sorted(tmp_path.iterdir()) == before
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(OSError, match="Not a regular file"):
        write(os.devnull)


@pytest.mark.parametrize("there", [True, False])
def test_of_a_symbolic_link_the_target_is_replaced(tmp_path, there):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere/file", tmp_path / "link"
    if there:
        target.write_bytes(b"old")
    link.symlink_to("elsewhere/file")
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux's /proc")
def test_a_file_that_has_no_name_any_more_is_not_replaced(tmp_path):
    with open(tmp_path / "file", "w") as file:
        (tmp_path / "file").unlink()
        with pytest.raises(OSError, match="Not a regular file"):
            write(f"/proc/self/fd/{file.fileno()}")
    assert not list(tmp_path.iterdir())


def test_a_link_to_itself_is_an_error(tmp_path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(OSError):
        write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_stay(tmp_path):
    write(tmp_path / "file")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    (tmp_path / "file").chmod(0o640)
    write(tmp_path / "file", b"newer")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    with atomic_write(tmp_path / "file") as first:
        first.write(b"first")
        write(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_as_long_as_the_file_system_takes(tmp_path):
    write(tmp_path / ("ä" * 127))
    assert (tmp_path / ("ä" * 127)).read_bytes() == b"new"


def test_a_home_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/x") == tmp_path / "x"
    assert expand_user("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
