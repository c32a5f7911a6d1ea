import json

import numpy as np
import pytest

from minires import models
from minires.lab import networks, times
from minires.training import Callback, Checkpoint, Recipe, Recorder, RunFolder, build_trainer, load_run


class StopAfterOneStep(Callback):
    def on_step(self, trainer, mean):
        trainer.stop()


@pytest.fixture
def small(cifar):
    return ["--data-dir", cifar, "--epochs", 1, "--threads", 1]


def test_trains_what_is_missing_and_leaves_the_rest_alone(minires, small, tmp_path, page):
    code, out, err = minires("lab", "train", "plain20", "resnet20", *small)
    assert (code, err) == (0, "")
    assert "plain20, 1 of 2" in out
    assert "resnet20, 2 of 2" in out
    folder = tmp_path / "runs/lab/resnet20"
    recipe, model, _ = load_run(folder)
    assert recipe.with_settings(data_dir=None, threads=None) == Recipe.for_dataset("cifar10", epochs=1)
    assert isinstance(model, models.CifarResNet)
    assert [path.name for path in sorted((tmp_path / "runs/lab").iterdir())] == ["plain20", "resnet20"]

    before = (folder / "last.safetensors").read_bytes()
    code, out, _ = minires("lab", "train", "resnet20", *small)
    assert code == 0
    assert out.splitlines()[1] == "runs/lab/resnet20 is complete"
    assert (folder / "last.safetensors").read_bytes() == before

    code, _, err = minires("lab", "train", "resnet20", *small, "--seed", 3)
    assert code == 2
    page(err)


def test_goes_on_with_a_run_that_was_stopped(minires, small, cifar, tmp_path):
    small = [*small, "--epochs", 2]  # of one step each
    assert minires("lab", "train", "resnet20", *small, "--out", "whole")[0] == 0
    recipe = networks.recipe("resnet20", epochs=2, data_dir=str(cifar), threads=1, batch_size=128)
    with RunFolder.create(recipe, tmp_path / "stopped/resnet20") as folder:
        trainer = build_trainer(recipe)
        trainer.callbacks = (Recorder(folder, recipe), StopAfterOneStep())
        trainer.fit(progress=False)
    (tmp_path / "stopped/resnet20/summary.json").unlink(missing_ok=True)
    code, out, _ = minires("lab", "train", "resnet20", *small, "--out", "stopped")
    assert code == 0
    assert "Going on with stopped/resnet20" in out
    whole, stopped = (
        Checkpoint.load(tmp_path / name / "resnet20/last.safetensors").model for name in ("whole", "stopped")
    )
    assert all(np.array_equal(whole[name], stopped[name]) for name in whole)


def test_every_network_is_one_of_models():
    assert set(networks.NETWORKS) >= {"plain20", "plain56", "resnet20", "resnet56", "preresnet20", "preresnet56"}
    for network in networks.NETWORKS.values():
        models.create(network.model, num_classes=10, **network.options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet21",), "unknown network 'resnet21'"),
        (("--dataset", "mnist"), "unknown data set 'mnist'"),
        (("--epochs", "0"), "epochs must be a whole number from 1 up, not 0"),
        (("--data-dir", "no/such"), "no/such does not exist"),
    ],
)
def test_bad_input(minires, arguments, message, tmp_path):
    code, out, err = minires("lab", "train", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    assert not (tmp_path / "runs").exists()


# --- the list, and its times


def test_times_are_those_of_runs_here(minires, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(times, "MEASURED", {"split": (2.0, 30.0), "refine": (4.0, 600.0), "paths": (1.0, 8.0)})
    code, out, _ = minires("lab")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert code == 0
    assert lines["split"][-4:] == ["~2", "s", "~30", "s"]
    assert lines["refine"][-4:] == ["~4", "s", "~10", "min"]
    assert times.MACHINE in out

    times.remember("split", True, 6.0)  # three times as slow as the other machine
    times.remember("paths", False, 24.0)
    _, out, _ = minires("lab")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert lines["split"][-4:] == ["6.0", "s", "~2", "min"]
    assert lines["paths"][-4:] == ["~3", "s", "24.0", "s"]
    assert lines["refine"][-4:] == ["~12", "s", "~30", "min"]
    assert "estimated by those that ran here" in out


def test_only_the_usual_experiment_is_remembered(minires, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRES_CACHE_DIR", str(tmp_path / "cache"))
    assert minires("lab", "split", "--quick", "--model", "resnet8", "--width", 4, "--image-size", 8)[0] == 0
    assert not times.file().exists()
    assert minires("lab", "split", "--quick", "--seed", 1)[0] == 0
    assert list(json.loads(times.file().read_text())) == ["split --quick"]


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"split": "x", "paths": -1, "refine": NaN, "cut": 1e99}', "[" * 10**5]
)
def test_a_damaged_file_of_times_is_no_file(tmp_path, monkeypatch, text):
    monkeypatch.setenv("MINIRES_CACHE_DIR", str(tmp_path))
    times.file().write_text(text)
    assert all(t.seconds is None or not t.measured for both in times.expected(["split", "cut"]).values() for t in both)
    times.remember("split", False, 2.0)
    assert json.loads(times.file().read_text()) == {"split": 2.0}


def test_times_that_cannot_be_kept_are_not(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIRES_CACHE_DIR", str(tmp_path / "file"))
    times.remember("split", False, 2.0)
    assert not times.expected(["split"])["split"][1].measured
