import json
import os
from pathlib import Path

import numpy as np
import pytest

import minires as mr
from minires.data import Loader
from minires.errors import ConfigError, DataError
from minires.training import Checkpoint, Recipe, Recorder, RunFolder, evaluate, load_run, read_metrics

RECIPE = Recipe(epochs=2, batch_size=16)
SUMMARY = ["model", "dataset", "epochs", "final_test_acc", "wall_seconds"]
SUMMARY += ["params", "seed", "threads", "minires_version"]


@pytest.fixture
def recorded(make_trainer, tmp_path):
    """A function that trains into a new folder: (trainer, folder)."""

    def train(**more):
        folder = RunFolder.create(RECIPE, tmp_path / "run")
        trainer = make_trainer(epochs=2, callbacks=(Recorder(folder, RECIPE),), **more)
        trainer.fit()
        return trainer, folder

    return train


def test_a_run_leaves_everything_in_its_folder(recorded):
    trainer, folder = recorded()
    names = {".lock", "config.toml", "metrics.jsonl", "summary.json", "last.safetensors", "curves.png"}
    assert {path.name for path in folder.path.iterdir()} == names
    assert Recipe.read(folder.config) == RECIPE
    assert [row["epoch"] for row in read_metrics(folder.metrics)] == [1, 2]
    summary = json.loads(folder.summary.read_text())
    assert list(summary) == SUMMARY
    assert summary["params"] == 75_290
    assert summary["final_test_acc"] == trainer.history[-1]["test_acc"]
    assert summary["minires_version"] == mr.__version__


def test_the_best_epoch_is_chosen_by_validation(recorded, tiny, monkeypatch):
    trainer, folder = recorded(val_loader=Loader(tiny[1], 20, shuffle=False))
    accuracies = [row["val_acc"] for row in trainer.history]
    assert Checkpoint.load(folder.best).info["epoch"] == 1 + int(np.argmax(accuracies))
    assert json.loads(folder.summary.read_text())["best_val_acc"] == max(accuracies)


def test_the_checkpoint_holds_all_that_goes_on(recorded, make_trainer):
    trainer, folder = recorded()
    checkpoint = Checkpoint.load(folder.last)
    info = checkpoint.info
    assert (info["epoch"], info["step"], info["num_classes"]) == (2, 6, 10)
    assert info["minires_version"] == mr.__version__
    other = make_trainer(epochs=2)
    other.model.load_state_dict(checkpoint.model)
    other.optimizer.load_state_dict(checkpoint.optimizer)
    other.schedule.load_state_dict(info["schedule"])
    for mine, theirs in zip(trainer.optimizer.state.values(), other.optimizer.state.values(), strict=True):
        np.testing.assert_array_equal(mine["momentum_buffer"], theirs["momentum_buffer"])
    assert other.schedule.position == 6


def test_load_run_restores_the_model(recorded):
    trainer, folder = recorded()
    for path in (folder.path, folder.last, str(folder.path)):
        recipe, model, _ = load_run(path)
        assert recipe == RECIPE
        assert not model.training
        result = evaluate(model, trainer.test_loader)
        assert result.accuracy == trainer.history[-1]["test_acc"]
        assert result.loss == trainer.history[-1]["test_loss"]  # to the last bit


def test_an_unfinished_run_has_no_summary(make_trainer, tmp_path):
    folder = RunFolder.create(RECIPE, tmp_path / "run")
    recorder = Recorder(folder, RECIPE)
    trainer = make_trainer(epochs=2, callbacks=(recorder,))
    recorder.on_step = lambda trainer, mean: trainer.stop() if trainer.step == 5 else None
    trainer.fit()
    assert Checkpoint.load(folder.last).info["epoch"] == 1
    assert folder.curves.exists()
    assert not folder.summary.exists()


def test_runs_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="there is no run"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is not a run folder"):
        load_run(tmp_path)
    RunFolder.create(RECIPE, tmp_path)
    with pytest.raises(ConfigError, match="has finished no epoch yet"):
        load_run(tmp_path)
    (tmp_path / "last.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cut off or corrupt"):
        load_run(tmp_path)


def test_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(RunFolder.create(RECIPE)) for _ in range(2)] == ["runs/resnet8-shapes-1", "runs/resnet8-shapes-2"]
    assert RunFolder.create(RECIPE, "deep/er/run").config.exists()


def test_a_folder_with_a_run_is_refused(tmp_path):
    RunFolder.create(RECIPE, tmp_path)
    with pytest.raises(ConfigError, match=r"already holds a run \(config.toml\): choose another folder"):
        RunFolder.create(RECIPE, tmp_path)


def test_temporary_files_of_a_killed_run_are_removed_and_nobody_elses(tmp_path):
    ours, theirs = ".last.safetensors.0123456789abcdef.tmp", {".notes.tmp", ".last.safetensors.tmp", ".x.png.tmp"}
    RunFolder.create(Recipe(), tmp_path / "run").close()
    for name in {ours} | theirs:
        (tmp_path / "run" / name).touch()
    RunFolder.open(tmp_path / "run").close()
    assert {path.name for path in (tmp_path / "run").glob(".*.tmp")} == theirs


def test_folders_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"file is a file, not a folder"):
            RunFolder.create(RECIPE, path)
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    with pytest.raises(ConfigError, match=r"runs is a file, not a folder"):
        RunFolder.create(RECIPE)


def test_a_file_system_that_refuses(tmp_path, monkeypatch, page):
    def refuse(self, *args, **more):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        ConfigError, match=r"cannot write the run to .*run \(Permission denied\): choose a folder"
    ) as caught:
        RunFolder.create(RECIPE, tmp_path / "run")
    page(str(caught.value))


@pytest.mark.parametrize("name", [".lock", "config.toml"])
def test_a_read_only_folder_that_holds_a_lock_file(tmp_path, monkeypatch, name):
    """The file that cannot be written is there: that is not why."""
    RunFolder.create(RECIPE, tmp_path / "run").close()
    real = os.open

    def refuse(path, *args, **more):
        if Path(path).name == name:
            raise OSError(30, "Read-only file system", str(path))
        return real(path, *args, **more)

    if name == "config.toml":
        monkeypatch.setattr("minires.training.run.atomic_write", refuse)
        (tmp_path / "run/config.toml").unlink()
    else:
        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=rf"cannot write the run to .*{name} \(Read-only file system\): choose"):
        RunFolder.create(RECIPE, tmp_path / "run")
