"""Files are written whole or not at all."""

import os

import pytest

from minires.files import atomic_write


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


def test_what_a_killed_writer_left_behind_is_overwritten(tmp_path):
    (tmp_path / ".file.tmp").write_bytes(b"a long beginning of something")
    with atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "file"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file")


def test_where_folders_cannot_be_synced_files_are_written_all_the_same(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)
    with atomic_write(tmp_path / "file") as file:
        file.write(b"content")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"content")]
