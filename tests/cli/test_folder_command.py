"""One's own images on the command line: train, eval, data, sweep."""

import json
import os
import shutil
import sys

import pytest
from drawn_folders import folder_of_colours, noise, save

from minires.data import ImageFolder
from minires.training import Callback, Recorder, read_metrics

SMALL = (
    "train",
    "--dataset",
    "folder",
    "--model",
    "resnet8",
    "--image-size",
    "16",
    "--batch-size",
    "8",
    "--epochs",
    "1",
)


@pytest.fixture
def photos(tmp_path):
    return folder_of_colours(tmp_path / "photos", count=12)


@pytest.fixture
def train(minires, photos):
    """`minires train` on that folder into the folder "run"."""

    def call(*more):
        return minires(*SMALL, "--data-dir", "photos", "--val", "0.25", "--out", "run", *more)

    return call


def test_train_and_eval(minires, train, tmp_path, photos):
    code, out, err = train()
    assert (code, err) == (0, "")
    assert "folder: 18 training, 6 test images, 2 classes" in out
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    code, out, err = minires("eval", "run", "--json")
    assert code == 0
    measured = json.loads(out.splitlines()[-1])
    assert measured["images"] == 6
    assert measured["test_acc"] == summary["final_test_acc"]
    assert measured["test_loss"] == pytest.approx(read_metrics(tmp_path / "run/metrics.jsonl")[-1]["test_loss"])
    assert "blue" in err
    assert minires("export", "run", "weights.safetensors")[0] == 0  # which do not say how images were normalised
    weights = ("eval", "--model", "resnet8", "--weights", "weights.safetensors", "--dataset", "folder")
    assert "normalised by their own colours" in minires(*weights, "--data-dir", "photos")[1]
    assert "by their own" not in minires(*weights, "--data-dir", "photos", "--normalize", "cifar10")[1]
    save(photos / "red" / "new.png", noise(0, 40, 40))
    code, out, err = minires("eval", "run")
    assert (code, err) == (0, "")
    assert "1 image that the run does not know is left out: to test on new images" in out
    assert "6 images" in out


def test_a_network_with_more_outputs_than_classes_and_a_test_set_with_fewer(minires, tmp_path):
    folder_of_colours(tmp_path / "photos/train", ("blue", "green", "red"), count=6)
    folder_of_colours(tmp_path / "photos/val", ("green", "red"), count=4, size=44)
    assert minires(*SMALL, "--data-dir", "photos", "--model-option", "num_classes=5", "--out", "run")[0] == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    code, out, _ = minires("eval", "run", "--json")
    measured = json.loads(out.splitlines()[-1])
    assert (code, measured["test_acc"]) == (0, summary["final_test_acc"])
    assert measured["test_loss"] == pytest.approx(
        read_metrics(tmp_path / "run/metrics.jsonl")[-1]["test_loss"], rel=1e-4
    )
    code, out, _ = minires("predict", "--run", "run", "photos/val/red/000.png")
    assert (code, "class 4" in out) == (0, True)


def test_it_can_be_run_from_elsewhere_and_moved(minires, train, tmp_path, photos, monkeypatch):
    assert train()[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert minires("eval", "../run")[0] == 0
    shutil.move(photos, tmp_path / "moved")
    assert "there is no folder" in minires("eval", "../run")[2]
    code, out, _ = minires("eval", "../run", "--data-dir", "../moved")
    assert (code, "6 images" in out) == (0, True)


def test_train_and_val_inside(minires, tmp_path):
    for i, (part, count) in enumerate((("train", 8), ("val", 3), ("test", 4))):
        folder_of_colours(tmp_path / "photos" / part, count=count, size=40 + i)
    code, out, err = minires(*SMALL, "--data-dir", "photos", "--out", "run")
    assert (code, err) == (0, "")
    assert "16 training, 8 test, 6 validation images" in out
    assert (tmp_path / "run/best.safetensors").exists()
    assert "8 images" in minires("eval", "run")[1]


def test_an_image_that_vanishes(minires, train, page, tmp_path, photos, monkeypatch):
    train()
    whole = read_metrics(tmp_path / "run/metrics.jsonl")
    listed = json.loads((tmp_path / "run/images.json").read_text())
    shutil.rmtree(tmp_path / "run")
    gone = photos / next(name for name in listed["test"] if name.endswith("3.png") or True)

    def on_step(self, trainer, mean):
        if gone.exists():
            gone.rename(tmp_path / "3.png")

    monkeypatch.setattr(Recorder, "on_step", on_step)
    code, _, err = train()
    assert code == 2
    page(err.replace(gone.name, "3.png"))
    monkeypatch.setattr(Recorder, "on_step", Callback.on_step)
    code, _, err = minires("train", "--resume", "run")
    assert (code, "is gone" in err) == (2, True)
    (tmp_path / "3.png").rename(gone)
    assert minires("train", "--resume", "run")[0] == 0
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [row["test_loss"] for row in rows] == [row["test_loss"] for row in whole]


def test_another_image_is_noticed(minires, train, page, tmp_path, photos):
    train("--steps", "5")
    config = tmp_path / "run/config.toml"
    (tmp_path / "run/summary.json").unlink()
    save(photos / "red" / "new.png", noise(0, 40, 40))
    code, _, err = minires("train", "--resume", "run")
    assert (code, config.exists()) == (2, True)
    page(err)


def test_dry_run_says_what_reading_costs(minires, photos, tmp_path):
    code, out, err = minires(*SMALL, "--data-dir", "photos", "--val", "0.25", "--dry-run")
    assert (code, err) == (0, "")
    assert "ms of a step, for its images" in out
    assert not (tmp_path / "runs").exists()


def test_sweep(minires, photos, tmp_path):
    recipe = "dataset = 'folder'\nmodel = 'resnet8'\nimage_size = 16\nbatch_size = 8\nepochs = 1\nval = 0.25\n"
    (tmp_path / "small.toml").write_text(f"{recipe}data_dir = 'photos'\n")
    code, out, _ = minires(
        "sweep", "--recipe", "small.toml", "--set", "crop_scale=[0.5,1.0]", "--seeds", "0,1", "--out", "s"
    )
    assert code == 0, out
    assert len(list((tmp_path / "s").rglob("summary.json"))) == 2


@pytest.mark.filterwarnings("always:minires decodes the images")
def test_no_augmentation_and_a_cache(minires, train, tmp_path):
    code, _, err = train("--no-augment", "--cache", "cache")
    assert (code, err) == (0, "")
    assert 'cache = "' in (tmp_path / "run/config.toml").read_text()
    assert "crop_scale = []" in (tmp_path / "run/config.toml").read_text()
    assert sum(path.is_file() for path in (tmp_path / "cache").rglob("*")) == 24
    expected = minires("eval", "run")[1]
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("")  # its disk is gone
    code, out, err = minires("eval", "run")
    assert (code, out) == (0, expected)
    assert "decodes the images without the run's cache" in err


class TestData:
    def test_info(self, minires, photos, tmp_path):
        code, out, err = minires("data", "info", "folder", "--data-dir", "photos")
        assert (code, err) == (0, "")
        assert "24, in one folder" in out
        assert "blue" in out
        folder_of_colours(tmp_path / "parts/train", count=3)
        folder_of_colours(tmp_path / "parts/test", ("red",), count=2)
        out = minires("data", "info", "folder", "--data-dir", "parts")[1]
        assert "6 training, 2 test" in out

    def test_verify(self, minires, photos):
        code, out, err = minires("data", "verify", "folder", "--data-dir", "photos")
        assert (code, err) == (0, "")
        assert "All is well." in out
        (photos / "red" / "001.png").write_bytes(b"")
        (photos / "red" / "002.png").write_bytes((photos / "red" / "003.png").read_bytes()[:-40])
        code, out, err = minires("data", "verify", "folder", "--data-dir", "photos")
        assert (code, err) == (1, "")
        assert "red/001.png is empty" in out.replace(os.sep, "/")
        assert "red/002.png" in out.replace(os.sep, "/")
        assert "2 images of 24 should be put right." in out

    def test_verify_names_copies(self, minires, tmp_path):
        for part in ("train", "val"):
            folder_of_colours(tmp_path / "photos" / part, count=2)
        code, out, _ = minires("data", "verify", "folder", "--data-dir", "photos")
        assert code == 1
        assert out.count("which is in another set") == 4

    def test_show(self, minires, photos, tmp_path):
        code, _, err = minires("data", "show", "folder", "--data-dir", "photos", "--images", "3")
        assert (code, err) == (0, "")
        assert (tmp_path / "folder.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a name with a line break")
def test_hostile_names_are_escaped(minires, tmp_path, photos):
    os.rename(photos / "red", photos / "a\x1b[2J\nb")
    code, out, err = minires(*SMALL, "--data-dir", "photos", "--val", "0.25", "--out", "run")
    assert (code, err) == (0, "")
    code, out, err = minires("eval", "run")
    assert (code, err) == (0, "")
    assert "\x1b[2J" not in out
    assert ImageFolder(photos).classes[0] == "a\x1b[2J\nb"
