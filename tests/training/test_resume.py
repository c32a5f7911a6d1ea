"""A run that is stopped or dies, at any moment, and goes on, ends with the bits of one that never stopped."""

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from runs import RECIPE, begin, contents, go_on
from stop_at import StopAt

import minires as mr
from minires import data, nn
from minires.errors import ConfigError, DataError, RunError
from minires.lock import FolderLock
from minires.training import Callback, Recipe, Resumed, RunFolder, load_run
from minires.training import build as build_module
from minires.training.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("small_runs")


class Crash(BaseException):
    """The process is gone: nothing cleans up."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def uninterrupted(whole):
    """The contents of the run that was never stopped."""
    if not (whole / "run").exists():
        begin(whole / "run")
    return contents(whole / "run")


@pytest.mark.parametrize("stop", [{"step": n} for n in range(1, 6)] + [{"epoch": 1}, {"epoch": 2}])
def test_a_stop_anywhere_costs_nothing(tmp_path, uninterrupted, stop):
    trainer = begin(tmp_path / "run", RECIPE, StopAt(**stop))
    assert not trainer.finished
    steps = trainer.step
    assert Checkpoint.load(tmp_path / "run/last.safetensors").info["step"] == steps
    assert load_run(tmp_path / "run")[0] == RECIPE  # can be evaluated, in the middle of an epoch too
    resumed = go_on(tmp_path / "run")
    assert resumed.finished
    assert contents(tmp_path / "run") == uninterrupted
    [row] = [row for row in resumed.history if row["epoch"] == trainer.epoch + 1]
    assert row["images_per_second"] > 0


@pytest.mark.parametrize("stop", [{"step": n} for n in range(1, 5)] + [{"epoch": 1}, {"epoch": 2}])
def test_a_run_whose_length_is_given_in_steps(tmp_path, whole, stop):
    recipe = replace(RECIPE, epochs=1, steps=4, error_warmup=0.1)  # an epoch of 3 steps, and one of another: not 1
    if not (whole / "steps").exists():
        trainer = begin(whole / "steps", recipe)
        assert (trainer.step, trainer.epoch, len(trainer.history)) == (4, 2, 2)
    trainer = begin(tmp_path / "run", recipe, StopAt(**stop))
    assert not trainer.finished
    assert go_on(tmp_path / "run").finished
    assert contents(tmp_path / "run") == contents(whole / "steps")
    assert go_on(tmp_path / "run") is None
    with pytest.raises(RunError, match="is a run of 4 steps, to which no epochs can be added"):
        go_on(tmp_path / "run", more_epochs=1)
    with pytest.raises(RunError, match="steps is 4 there, not 5"):
        go_on(tmp_path / "run", settings={"steps": 5})


def test_a_stop_after_every_step(tmp_path, uninterrupted):
    begin(tmp_path / "run", RECIPE, StopAt(1))
    for step in range(2, 7):
        go_on(tmp_path / "run", StopAt(step))
    go_on(tmp_path / "run")
    assert contents(tmp_path / "run") == uninterrupted


def test_a_stop_before_the_first_step(tmp_path, uninterrupted):
    at_once = Callback()
    at_once.on_start = lambda trainer: trainer.stop()
    begin(tmp_path / "run", RECIPE, at_once)
    assert [p.name for p in (tmp_path / "run").iterdir() if p.name != ".lock"] == ["config.toml"]
    go_on(tmp_path / "run")
    assert contents(tmp_path / "run") == uninterrupted


def crash_at(event, monkeypatch):
    """Die at the n-th time that something goes to disk: before a file is whole, before or after it takes its place."""
    happened = 0

    def after(function):
        def call(*args):
            nonlocal happened
            happened += 1
            if happened > event + 1:
                raise Crash  # whatever a finally block still tries
            if happened == event + 1:
                if function is os.fsync and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2 + event % 3)  # torn
                raise Crash
            return function(*args)

        return call

    monkeypatch.setattr(os, "fsync", after(os.fsync))
    monkeypatch.setattr(os, "replace", after(os.replace))
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda p, **k: None if happened > event else unlink(p, **k))


def test_death_at_every_write_costs_nothing(tmp_path, uninterrupted):
    def session(run, die_at=None):
        """Whether it lived."""
        with pytest.MonkeyPatch.context() as patch:
            if die_at is not None:
                crash_at(die_at, patch)
            try:
                go_on(run) if (run / "config.toml").exists() else begin(run)
            except Crash:
                return False
            return True

    event = 0
    while not session(tmp_path / f"run{event}", event):
        run = tmp_path / f"run{event}"
        session(run, event % 5)  # and again when it goes on
        session(run)
        assert contents(run) == uninterrupted, event
        event += 1
    assert event > 20  # of 2 epochs


def test_long_epochs_are_saved_on_the_way(tmp_path, uninterrupted):
    class Die(Callback):
        def on_step(self, trainer, mean):
            if trainer.step == 5:
                raise Crash

    with pytest.raises(Crash):
        begin(tmp_path / "run", RECIPE, Die(), save_every=0.0)
    assert Checkpoint.load(tmp_path / "run/last.safetensors").info["step"] == 5
    go_on(tmp_path / "run")
    assert contents(tmp_path / "run") == uninterrupted


def test_dropout_goes_on_with_the_same_random_numbers(tmp_path, monkeypatch):
    class Net(nn.Sequential):
        def __init__(self, num_classes):
            super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, num_classes))

    monkeypatch.setattr(build_module.models, "create", lambda name, **options: Net(**options))
    begin(tmp_path / "whole")
    begin(tmp_path / "run", RECIPE, StopAt(2))
    mr.manual_seed(99)
    go_on(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_another_number_of_threads_and_a_moved_data_folder_are_fine(tmp_path, uninterrupted, whole):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    go_on(tmp_path / "run", settings={"threads": 1, "data_dir": "/moved"})
    assert Recipe.read(tmp_path / "run/config.toml") == replace(RECIPE, threads=1, data_dir="/moved")
    a, b = (Checkpoint.load(p / "last.safetensors").model for p in (tmp_path / "run", whole / "run"))
    assert all((a[name] == b[name]).all() for name in a)


def test_the_same_settings_may_be_said_again(tmp_path):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    assert go_on(tmp_path / "run", settings={"lr": 0.05, "epochs": 2, "model": "resnet8"}).finished


@pytest.mark.parametrize("stop", [None, 2, 5])
def test_more_epochs_are_those_of_the_longer_run(tmp_path, stop):
    constant = replace(RECIPE, schedule="constant", warmup=0.0)
    begin(tmp_path / "long", replace(constant, epochs=3))
    begin(tmp_path / "run", constant, *([StopAt(stop)] if stop else []))
    for step in (7, 8):  # the same again is no more than once
        go_on(tmp_path / "run", StopAt(step), settings={"epochs": 3})
        assert not (tmp_path / "run/summary.json").exists()
    go_on(tmp_path / "run")
    run, long = contents(tmp_path / "run"), contents(tmp_path / "long")
    best, other = (Checkpoint.load(tmp_path / name / "best.safetensors") for name in ("run", "long"))
    del run["best.safetensors"], long["best.safetensors"]  # its recipe may be that of the run before it got longer
    assert run == long
    assert all((best.model[name] == other.model[name]).all() for name in other.model)


def test_epochs_are_added_to_a_complete_run_and_once(tmp_path):
    """Said again after the longer run was killed, a number of epochs to add would be added twice."""
    begin(tmp_path / "run")
    go_on(tmp_path / "run", StopAt(7), more_epochs=1)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(RunError, match=r"has finished 2 of its 3 epochs, .* leave --more-epochs out .* say --epochs 4"):
        go_on(tmp_path / "run", more_epochs=1)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    assert len(go_on(tmp_path / "run").history) == 3
    assert len(go_on(tmp_path / "run", more_epochs=1).history) == 4


@pytest.mark.parametrize("damaged", [False, True])
def test_the_best_epoch_is_one_of_those_that_are_there(tmp_path, damaged):
    """Killed between the checkpoint of the best epoch and the last one, and gone on with other weights than then."""
    begin(tmp_path / "run")
    best = tmp_path / "run/best.safetensors"
    checkpoint = Checkpoint.load(best)
    checkpoint.info["epoch"] = 3
    Checkpoint(checkpoint.model, checkpoint.optimizer, checkpoint.info).save(best)
    if damaged:
        best.write_bytes(best.read_bytes()[:-1])
    last = Checkpoint.load(tmp_path / "run/last.safetensors")
    last.info["best_val_acc"] = 1.0  # no epoch is better
    Checkpoint(last.model, last.optimizer, last.info).save(tmp_path / "run/last.safetensors")
    row = go_on(tmp_path / "run", more_epochs=1).history[-1]
    assert Checkpoint.load(best).info["best_val_acc"] == row["val_acc"]
    assert json.loads((tmp_path / "run/summary.json").read_text())["best_val_acc"] == pytest.approx(row["val_acc"])


def test_a_run_that_is_complete_is_left_alone(tmp_path):
    begin(tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    assert go_on(tmp_path / "run") is None
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": 0.1}, r"begun with other settings \(lr is 0.05 there, not 0.1\): leave these options out"),
        ({"seed": 1, "model": "plain8"}, r"model is 'resnet8' there, not 'plain8', seed is 0 there, not 1"),
        ({"epochs": 1}, "epochs is 2 there, not 1"),
        ({"schedule": "cosine"}, r"\(schedule is 'one-cycle' there, not 'cosine'\)"),
    ],
)
def test_other_settings_are_refused(tmp_path, settings, said):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    before = (tmp_path / "run/config.toml").read_bytes()
    with pytest.raises(RunError, match=said):
        go_on(tmp_path / "run", settings=settings)
    assert (tmp_path / "run/config.toml").read_bytes() == before


def test_a_config_that_was_edited_is_refused(tmp_path, page):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    config = tmp_path / "run/config.toml"
    config.write_text(replace(RECIPE, momentum=0.5, epochs=1).to_toml("0.1.0"))
    with pytest.raises(
        RunError, match=r"config.toml was changed .*momentum is 0.9 there, not 0.5, epochs is 2 there"
    ) as caught:
        go_on(tmp_path / "run")
    page(str(caught.value))
    config.write_text(replace(RECIPE, epochs=3).to_toml("0.1.0"))  # more of them is another way to ask for more
    assert len(go_on(tmp_path / "run").history) == 3


def test_other_images_are_refused(tmp_path, monkeypatch, page):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    monkeypatch.setattr(build_module.data, "load", lambda *a, **k: data.shapes(1, train=48, test=20))
    with pytest.raises(RunError, match=r"the images of shapes are not those that .*run was begun with") as caught:
        go_on(tmp_path / "run")
    page(str(caught.value))


def test_checkpoints_that_cannot_be_gone_on_from(tmp_path):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    last = tmp_path / "run/last.safetensors"
    checkpoint = Checkpoint.load(last)
    other = mr.models.create("resnet14", num_classes=10).state_dict()
    Checkpoint(other, checkpoint.optimizer, checkpoint.info).save(last)
    with pytest.raises(RunError, match="does not fit the model"):
        go_on(tmp_path / "run")
    info = {name: value for name, value in checkpoint.info.items() if name != "random"}
    Checkpoint(checkpoint.model, checkpoint.optimizer, info).save(last)
    with pytest.raises(DataError, match="of an earlier minires: it can be evaluated, not gone on from"):
        go_on(tmp_path / "run")
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut off or corrupt"):
        go_on(tmp_path / "run")


@pytest.mark.parametrize("way_out", ["copy", "delete"])
def test_the_ways_out_of_a_damaged_checkpoint_lead_to_the_same_bits(tmp_path, uninterrupted, way_out, page):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    last = tmp_path / "run/last.safetensors"
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    last.write_bytes(damaged)
    best = last.with_name("best.safetensors")
    if way_out == "delete":
        best.unlink()
    with pytest.raises(DataError, match=f"was changed after it was written: .*{way_out.title()} ") as caught:
        go_on(tmp_path / "run")
    page(str(caught.value))
    shutil.copy(best, last) if way_out == "copy" else last.unlink()
    go_on(tmp_path / "run")
    assert contents(tmp_path / "run") == uninterrupted


def test_another_version_is_mentioned(tmp_path):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    last = tmp_path / "run/last.safetensors"
    checkpoint = Checkpoint.load(last)
    with RunFolder.open(tmp_path / "run") as folder:
        assert Resumed(folder).note is None
        checkpoint.info["minires_version"] = "0.0.1"
        checkpoint.save(last)
        assert "minires 0.0.1 began this run" in Resumed(folder).note


def test_no_run_to_go_on_with(tmp_path):
    with pytest.raises(ConfigError, match="there is no run"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"is not a run folder: it holds no config.toml"):
        RunFolder.open(tmp_path)


def test_one_run_a_folder(tmp_path):
    with RunFolder.create(RECIPE, tmp_path / "run"):
        for enter in (lambda: RunFolder.create(RECIPE, tmp_path / "run"), lambda: RunFolder.open(tmp_path / "run")):
            with pytest.raises(RunError, match=rf"run is in use by another run \(process {os.getpid()}\): wait until"):
                enter()
    RunFolder.open(tmp_path / "run").close()
    assert (tmp_path / "run/.lock").exists()  # which means nothing


def test_a_forgotten_lock_is_let_go(tmp_path):
    FolderLock(tmp_path)
    FolderLock(tmp_path).release()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, page):
    def refuse(descriptor):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("minires.lock.try_lock", refuse)
    with pytest.raises(
        RunError, match=r"cannot be locked \(No locks available\): choose a folder on a file system"
    ) as caught:
        FolderLock(tmp_path)
    page(str(caught.value))
