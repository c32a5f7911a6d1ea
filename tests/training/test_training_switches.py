"""Fusing and Winograd in a run: the whole loop runs as the recipe says, it goes on so, and the files say so."""

import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from runs import RECIPE, begin, contents, go_on
from stop_at import StopAt

import minires as mr
from minires.errors import AnomalyError, ConfigError, RunError
from minires.kernels.runtime import target
from minires.kernels.switches import uses_winograd
from minires.lazy import is_fusing
from minires.training import Callback, Recipe, Resumed, RunFolder, build_trainer, load_run
from minires.training.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("small_runs")

OFF = replace(RECIPE, fusion=False, winograd=False)
REPLAY = sys.modules["minires.training.replay"]  # minires.training has a function of that name


class Spy(Callback):
    """What the switches are whenever something happens."""

    def __init__(self):
        self.seen = []

    def look(self, *_):
        self.seen.append((is_fusing(), uses_winograd()))

    on_start = on_epoch_start = on_step = on_evaluation = on_epoch = on_anomaly = on_end = look


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("winograd", [True, False])
def test_the_whole_loop_runs_as_the_recipe_says(fusion, winograd):
    spy = Spy()
    trainer = build_trainer(replace(RECIPE, epochs=1, fusion=fusion, winograd=winograd), [spy])
    with mr.fusion(not fusion), mr.winograd(not winograd):
        trainer.fit()
        assert (is_fusing(), uses_winograd()) == (not fusion, not winograd)
    assert len(spy.seen) > 8
    assert set(spy.seen) == {(fusion, winograd)}


def test_a_trainer_of_ones_own_runs_as_its_caller(make_trainer):
    spy = Spy()
    with mr.fusion(False):
        make_trainer(epochs=1, callbacks=(spy,)).fit()
    assert set(spy.seen) == {(False, True)}


def test_the_switches_are_put_back_after_an_error():
    spy = Spy()
    trainer = build_trainer(OFF, [spy])
    trainer.model.conv1.weight.data[...] = np.nan
    with pytest.raises(AnomalyError):
        trainer.fit()
    assert set(spy.seen) == {(False, False)}
    assert (is_fusing(), uses_winograd()) == (True, True)


def test_each_switch_changes_the_bits_and_is_stored(tmp_path, winograd_taken):
    recipes = [replace(RECIPE, fusion=f, winograd=w) for f in (True, False) for w in (True, False)]
    learned = set()
    for i, recipe in enumerate(recipes):
        winograd_taken.clear()
        begin(tmp_path / str(i), recipe)
        assert bool(winograd_taken) == recipe.winograd
        found, _, checkpoint = load_run(tmp_path / str(i))
        assert found == recipe == Recipe.read(tmp_path / str(i) / "config.toml")
        assert checkpoint.info["target"] == target.KIND
        learned.add(b"".join(a.tobytes() for a in checkpoint.model.values()))
    assert len(learned) == 4


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_goes_on_as_it_began(tmp_path, winograd_taken, stop):
    begin(tmp_path / "whole", OFF)
    begin(tmp_path / "run", OFF, StopAt(stop))
    spy = Spy()
    go_on(tmp_path / "run", spy)
    assert set(spy.seen) == {(False, False)}
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert winograd_taken == []


@pytest.mark.parametrize("name", ["fusion", "winograd"])
def test_another_choice_is_refused(tmp_path, name):
    begin(tmp_path / "run", replace(RECIPE, **{name: False}), StopAt(4))
    with pytest.raises(RunError, match=rf"with other settings \({name} is False there, not True\)"):
        go_on(tmp_path / "run", settings={name: True})
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace(f"{name} = false", f"{name} = true"))
    with pytest.raises(
        RunError, match=rf"config.toml was changed since the run began \({name} is False there, not True\)"
    ):
        go_on(tmp_path / "run")


def test_settings_of_before_there_were_switches_mean_on(tmp_path):
    text = RECIPE.to_toml("0.1.0")
    older = "".join(line for line in text.splitlines(True) if not line.startswith(("fusion", "winograd")))
    assert text.count("\n") == older.count("\n") + 2
    assert Recipe.parse(older) == RECIPE
    assert (RECIPE.fusion, RECIPE.winograd) == (True, True)
    begin(tmp_path / "run", RECIPE, StopAt(4))
    (tmp_path / "run/config.toml").write_text(older)
    last = tmp_path / "run/last.safetensors"
    checkpoint = Checkpoint.load(last)
    for name in ("fusion", "winograd"):
        del checkpoint.info["recipe"][name]
    del checkpoint.info["target"]
    checkpoint.save(last)
    with RunFolder.open(tmp_path / "run") as folder:
        assert Resumed(folder).note is None
    assert go_on(tmp_path / "run").finished
    with pytest.raises(ConfigError, match="winograd must be true or false, not 'off'"):
        Recipe(winograd="off")


def test_another_target_is_mentioned(tmp_path, page):
    begin(tmp_path / "run", RECIPE, StopAt(4))
    last = tmp_path / "run/last.safetensors"
    checkpoint = Checkpoint.load(last)
    checkpoint.info["target"] = "riscv"
    checkpoint.save(last)
    with RunFolder.open(tmp_path / "run") as folder:
        page(Resumed(folder).note)
    assert go_on(tmp_path / "run").finished
    assert Checkpoint.load(last).info["target"] == target.KIND
    begin(tmp_path / "off", OFF, StopAt(4))
    checkpoint = Checkpoint.load(tmp_path / "off/last.safetensors")
    checkpoint.info |= {"target": "riscv", "minires_version": "0.0.1"}
    checkpoint.save(tmp_path / "off/last.safetensors")
    with RunFolder.open(tmp_path / "off") as folder:
        version, kind = Resumed(folder).note.splitlines()
    assert version.startswith("minires 0.0.1 began this run")
    assert kind.startswith("This run was saved on a machine with riscv kernels, and here they are ")
    assert "Winograd" not in kind


def test_a_replay_runs_as_the_run_did(tmp_path, monkeypatch):
    seen, diagnose = [], REPLAY.diagnose
    monkeypatch.setattr(REPLAY, "diagnose", lambda *a: seen.append((is_fusing(), uses_winograd())) or diagnose(*a))
    with pytest.raises(AnomalyError):
        begin(tmp_path / "run", replace(OFF, lr=1e30, schedule="constant", warmup=0.0))
    with pytest.raises(AnomalyError):
        REPLAY.replay(tmp_path / "run")
    assert seen == [(False, False)]


def test_inside_switches_a_recipe_is_computed_as_it_says():
    @contextmanager
    def inside(recipe):
        with recipe.switches():
            yield is_fusing(), uses_winograd()

    for fusion, winograd in ((True, False), (False, True)):
        with inside(Recipe(fusion=fusion, winograd=winograd)) as found:
            assert found == (fusion, winograd)
    assert (is_fusing(), uses_winograd()) == (True, True)
