"""Weights and values that are not finite: `minires eval` does not pass over them, and `minires replay` says what differs."""

from pathlib import Path

import numpy as np
import pytest

from minires.kernels import reference
from minires.training import Checkpoint, Recipe, build_trainer
from minires.training.diagnosis import Batch
from minires.training.replay import save_anomaly
from minires.training.run import Recorder, RunFolder


@pytest.fixture
def run(minires, cifar):
    """The folder ``run`` before its first step, with its checkpoint and an anomaly.safetensors: nothing is wrong yet."""
    recipe = Recipe.for_dataset("cifar10", model="resnet8", batch_size=16, data_dir=str(cifar), threads=1)
    trainer = build_trainer(recipe)
    with RunFolder.create(recipe, "run") as folder:
        recorder = Recorder(folder, recipe)
        recorder.on_start(trainer)
        checkpoint = recorder.checkpoint(trainer)
        checkpoint.save(folder.last)
        images, labels = next(iter(trainer.train_loader))
        save_anomaly(folder.anomaly, trainer.model, Batch(images, labels, checkpoint.info["random"]), checkpoint.info)
    return Path("run")


def change(path, name, factor):
    """Multiply a weight in a checkpoint."""
    checkpoint = Checkpoint.load(path)
    checkpoint.model[name] = checkpoint.model[name] * np.asarray(factor, np.float32)
    checkpoint.save(path)


def test_eval_of_weights_with_a_nan(minires, run, page):
    assert minires("eval", "run")[0] == 0
    factor = np.ones((16, 3, 3, 3))
    factor[3, 1, 0, 2] = np.nan
    change(run / "last.safetensors", "conv1.weight", factor)
    code, out, err = minires("eval", "run")
    assert (code, out) == (2, "")
    page(err)


@pytest.mark.parametrize("name", ["bn1.running_var", "fc.bias"])
def test_eval_of_other_arrays_that_are_not_finite(minires, run, name):
    change(run / "last.safetensors", name, np.inf if name == "bn1.running_var" else np.nan)
    code, _, err = minires("eval", "run")
    assert code == 2
    assert f"are not finite: {name} (" in err


def test_eval_of_weights_that_overflow(minires, run, page):
    change(run / "last.safetensors", "conv1.weight", 1e38)
    change(run / "last.safetensors", "layer1.0.conv1.weight", 1e38)
    code, _, err = minires("eval", "run")
    assert code == 2
    page(err)


def test_replay_where_only_one_back_end_overflows(minires, run, page):
    change(run / "anomaly.safetensors", "conv1.weight", 1e37)  # whose sums overflow float32
    assert minires("replay", "run")[0] == 1
    code, out, err = minires("replay", "run", "--backend", "reference")
    assert (code, err) == (0, "")
    page(out)


def test_replay_where_one_back_end_is_wrong(minires, run, page, monkeypatch):
    assert minires("replay", "run")[1].endswith("All of it is finite this time.\n")
    right = reference.conv2d
    monkeypatch.setattr(reference, "conv2d", lambda *args: right(*args) / 0)
    code, out, err = minires("replay", "run")
    assert (code, err) == (0, "")
    page(out)


def test_eval_of_a_model_with_more_classes_than_the_data_set(minires, small_run):
    minires(*small_run, "--epochs", 1, "--model-option", "num_classes=12", "--out", "run", "-q")
    checkpoint = Checkpoint.load("run/last.safetensors")
    checkpoint.model["fc.bias"][11] = 1e9
    checkpoint.save("run/last.safetensors")
    code, out, err = minires("eval", "run")
    assert (code, err) == (0, "")
    assert "class 11 (" in out
    assert "test accuracy 0.00 %" in out


def test_eval_of_a_model_with_fewer_classes(minires, small_run):
    code, _, err = minires(*small_run, "--epochs", 1, "--model-option", "num_classes=3", "--out", "run", "-q")
    assert code == 2
    assert err.startswith("error: ")
