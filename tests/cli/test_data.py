"""`minires data`, as a user sees it."""

import re
import shlex
import sys
import tarfile
from pathlib import Path

import pytest

from minires.cli import main
from minires.data.cifar import downloads
from minires.data.cifar.datasets import CIFAR10
from minires.errors import DataError

COMMANDS = ("download", "info", "verify", "show")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty folder in the place of the user's caches."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MINIRES_CACHE_DIR", str(folder))
    return folder / "data"


@pytest.fixture
def archive(cifar, tmp_path_factory):
    """The small CIFAR-10 of this folder's tests, as an archive with the official name."""
    path = tmp_path_factory.mktemp("archive") / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(cifar, cifar.name)
    return path


def ends_well(minires, *args):
    code, out, err = minires("data", *args)
    assert (code, err) == (0, "")
    return out


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(minires, args):
    out = ends_well(minires, *args)
    assert all(re.search(rf"\b{command}\b", out) for command in COMMANDS)


def test_info_lists_what_there_is(minires, cifar, archive):
    out = ends_well(minires, "info")
    assert re.search(r"^shapes +20,000 +4,000 +10 +built in", out, re.M)
    assert re.search(r"^cifar10 +50,000 +10,000 +10 +not here: minires data download cifar10 \(170 MB\)", out, re.M)
    assert re.search(r"^cifar100 +50,000 +10,000 +100 +not here: minires data download cifar100", out, re.M)
    here = re.sub(r"\s", "", ends_well(minires, "info", "--data-dir", cifar))
    assert str(cifar) in here
    assert str(archive) in re.sub(r"\s", "", ends_well(minires, "info", "--data-dir", archive.parent))


def test_info_about_one(minires, cifar):
    out = ends_well(minires, "info", "cifar10", "--data-dir", cifar)
    assert f"from       {cifar}" in out
    assert "40 training, 24 test, of 32×32 pixels, 3 channels" in out
    assert re.search(r"mean +0\.\d{4} 0\.\d{4} 0\.\d{4}$", out, re.M)
    assert re.search(r"^ +3 +cat +4 +3 *$", out, re.M)
    assert "drawn by minires" in ends_well(minires, "info", "shapes")


def test_info_about_many_classes(minires, tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "train.bin").write_bytes(b"".join(bytes([0, fine]) + bytes(3072) for fine in range(100)))
    (folder / "test.bin").write_bytes(b"".join(bytes([0, fine]) + bytes(3072) for fine in range(50)))
    out = ends_well(minires, "info", "cifar100", "--data-dir", tmp_path)
    assert "100 classes with 1 training and 0 to 1 test images each: apple, aquarium_fish" in out
    assert "worm" in out


def test_verify_says_what_is_in_order(minires, cifar):
    out = ends_well(minires, "verify", "cifar10", "--data-dir", cifar, "--own")
    assert out.startswith(f"cifar10 in {cifar}\n")
    assert re.search(r"✓ data_batch_1.bin +8 images, labels 0 to 7$", out, re.M)
    assert out.count("✓") == 6
    assert out.endswith("All is well.\n")


def test_verify_of_what_is_not_official(minires, cifar, archive):
    code, out, err = minires("data", "verify", "cifar10", "--data-dir", cifar)
    assert (code, err) == (1, "")
    assert f"✗ test_batch.bin: {cifar / 'test_batch.bin'} has 73,752 bytes, 24 images; the official file 10,000" in out
    assert out.endswith("6 of 6 checks failed.\n")
    code, out, _ = minires("data", "verify", "cifar10", "--data-dir", archive)
    assert code == 1
    assert "✗ cifar-10-binary.tar.gz: is not the official archive: md5" in out
    assert "1 of 7 checks failed." in out


def test_verify_of_what_is_cut_short(minires, archive, page):
    archive.write_bytes(archive.read_bytes()[:-1000])
    code, out, err = minires("data", "verify", "cifar10", "--data-dir", archive, "--own")
    assert (code, err) == (1, "")
    page(out)


def test_show_writes_a_picture(minires, cifar):
    out = ends_well(minires, "show", "cifar10", "--data-dir", cifar, "--images", 3)
    assert "drawn in  cifar10.png" in out
    assert Path("cifar10.png").read_bytes().startswith(b"\x89PNG")
    ends_well(minires, "show", "cifar10", "--data-dir", cifar, "--images", 3, "--test", "--seed", 1, "--out", "t.png")
    assert Path("t.png").read_bytes() != Path("cifar10.png").read_bytes()
    assert sorted(path.name for path in Path().iterdir()) == ["cifar10.png", "t.png"]


def test_show_replaces_a_picture_and_nothing_else(minires, cifar, tmp_path):
    def show(out):
        return minires("data", "show", "cifar10", "--data-dir", cifar, "--images", 1, "--out", out)

    (tmp_path / ".grid.png.tmp").write_text("my notes")
    (tmp_path / "grid.png").write_text("old")
    (tmp_path / "link.png").symlink_to("grid.png")
    assert show("link.png")[0] == 0
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    before = sorted(path.name for path in tmp_path.iterdir())
    for place in ("/dev/null", ".", "..", "/", ""):
        code, out, err = show(place)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        assert err.count("\n") == 1
    assert Path("/dev/null").is_char_device() or sys.platform == "win32"
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / ".grid.png.tmp").read_text() == "my notes"


@pytest.mark.parametrize("command", ["info", "verify", "show", "download"])
def test_a_folder_that_is_an_empty_text_is_refused(minires, command):
    code, out, err = minires("data", command, "cifar10", "--data-dir", "")
    assert (code, out) == (2, "")
    assert "a path is needed, not ''" in err


def test_commands_to_copy_are_quoted_and_in_one_piece(archive, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the output for a terminal
    monkeypatch.setattr(downloads, "md5_of", lambda path: CIFAR10.versions[0].md5)
    folder = tmp_path / "my data; it's mine"
    folder.mkdir()
    archive.rename(folder / archive.name)
    for args, wanted in [
        (
            ["download", "cifar10", "--data-dir", folder],
            ["minires", "train", "--dataset", "cifar10", "--data-dir", folder],
        ),
        (["info"], ["minires", "data", "download", "cifar100"]),
    ]:
        with pytest.raises(SystemExit):
            main(["data", *map(str, args)])
        out = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
        line = next(line for line in out.splitlines() if shlex.join(map(str, wanted[:4])) in line)
        words = shlex.split(line[line.index("minires ") :])
        assert words[: len(wanted)] == list(map(str, wanted))
    with pytest.raises(SystemExit):
        main(["data", "verify", "cifar100"])
    assert "`minires data download cifar100`" in re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().err)


def test_download(minires, archive, cache, monkeypatch):
    def fetch(url, md5, target, size, progress, say):
        assert url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
        assert md5 == "c32a1d4ab5d03f1284b67883e8d87530"
        for done in (0, 50, 100):
            progress(done, 100)
        say("the connection broke off: trying again (2 of 3)")
        target.parent.mkdir(parents=True)
        target.write_bytes(archive.read_bytes())

    monkeypatch.setattr(downloads, "fetch", fetch)
    out = ends_well(minires, "download", "cifar10")
    assert "trying again (2 of 3)\ncifar10 downloaded, md5 sum is right\n" in out
    assert f"archive  {cache / archive.name}" in out
    assert "next     minires train --dataset cifar10\n" in out
    assert "\x1b" not in out

    monkeypatch.setattr(downloads, "md5_of", lambda path: CIFAR10.versions[0].md5)
    assert "already there, md5 sum is right" in ends_well(minires, "download", "cifar10")
    out = ends_well(minires, "download", "cifar10", "--data-dir", archive.parent)
    assert f"next     minires train --dataset cifar10 --data-dir {archive.parent}" in out


def test_download_shows_a_bar_in_a_terminal():
    import io

    from rich.console import Console

    from minires.cli.data import _download_bar

    out = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)
    with _download_bar(out, "downloading cifar10") as progress:
        progress(0, 0)
        progress(60_000_000, 170_000_000)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.file.getvalue())
    assert "downloading cifar10" in text
    assert "60.0/170.0 MB" in text


def test_training_finds_what_was_downloaded(minires, small_run, archive, cache):
    cache.mkdir()
    archive.rename(cache / archive.name)
    options = small_run[: small_run.index("--data-dir")]
    code, out, _ = minires(*options, "--epochs", 1, "--threads", 1, "--out", "run", "-q")
    assert code == 0
    assert out.startswith("test accuracy")
    assert minires("eval", "run")[0] == 0


def test_debug_shows_the_traceback():
    with pytest.raises(DataError, match="cifar10 is not in"):
        main(["data", "info", "cifar10", "--debug"])
