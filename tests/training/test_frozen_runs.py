"""Runs with frozen parts: what is not trained stays as it was, and a run that is stopped goes on to the same bits."""

from dataclasses import replace

import numpy as np
import pytest
from runs import RECIPE, begin, contents, go_on
from stop_at import StopAt

from minires.errors import AnomalyError, CheckpointError, ConfigError, RunError
from minires.training import Callback, Recipe, RunFolder, build_trainer, load_run
from minires.training.checkpoint import Checkpoint
from minires.training.diagnosis import diagnose
from minires.training.replay import load_anomaly

pytestmark = pytest.mark.usefixtures("small_runs")
FROZEN = ("stem", "layer1", "layer2")
BELOW = ("conv1.", "bn1.", "layer1.", "layer2.")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"average": "ema", "lr_factors": {"head": 10.0}},
        {"average": "lookahead", "optimizer": "muon", "decay_norms": True},
        {"optimizer": "adamw", "lr": 1e-3, "error_warmup": 0.1},
        {"fusion": False},
    ],
    ids=str,
)
def test_what_is_frozen_stays_and_the_rest_goes_on_to_the_same_bits(tmp_path, settings):
    recipe = replace(RECIPE, freeze=FROZEN, **settings)
    start = {name: array.copy() for name, array in build_trainer(recipe).model.state_dict().items()}
    begin(tmp_path / "whole", recipe)
    begin(tmp_path / "run", recipe, StopAt(2))
    go_on(tmp_path / "run", StopAt(4))
    go_on(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    checkpoint = Checkpoint.load(tmp_path / "run/last.safetensors")
    for name, array in checkpoint.model.items():
        assert np.array_equal(array, start[name]) == name.startswith(BELOW), name
    saved, model, _ = load_run(tmp_path / "run")
    assert (saved, saved.freeze) == (recipe, FROZEN)
    assert all(p.requires_grad for p in model.parameters())  # to be looked at, all of it


def test_frozen_batch_norms_are_evaluated_in_every_step(tmp_path):
    modes = []

    class Look(Callback):
        def on_step(self, trainer, mean):
            modes.append([module.training for module in trainer.model.modules()])

    begin(tmp_path / "run", replace(RECIPE, freeze=FROZEN), Look())
    assert len(modes) == 6  # of two epochs with an evaluation after each
    assert all(own == modes[0] for own in modes)
    assert set(modes[0]) == {True, False}


def test_other_frozen_parts_are_another_run(tmp_path):
    begin(tmp_path / "run", replace(RECIPE, freeze=FROZEN), StopAt(2))
    with pytest.raises(RunError, match=r"\(freeze is \('stem', 'layer1', 'layer2'\) there, not \('stem',\)\)"):
        go_on(tmp_path / "run", settings={"freeze": ["stem"]})
    assert go_on(tmp_path / "run", settings={"freeze": list(FROZEN)}).finished


def test_parts_that_there_are_not(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no part 'layer4' to freeze \(did you mean layer3"):
        build_trainer(replace(RECIPE, freeze=("layer4",)))
    trained = build_trainer(Recipe(model="preresnet8", freeze=("stem", "layer3", "head"))).model.named_parameters()
    assert {name.split(".blocks")[0] for name, p in trained if p.requires_grad} == {
        "stages.0",
        "stages.1",
        "norm.weight",
        "norm.bias",
    }


def test_a_step_is_replayed_with_what_was_frozen(tmp_path):
    """What a batch norm in training mode computes has nothing of its running statistics."""

    class Ruin(Callback):
        def on_step(self, trainer, mean):
            trainer.model.layer1[0].bn1.running_var[...] = np.nan  # which training mode does not read

    recipe = replace(RECIPE, freeze=FROZEN)
    trainer = build_trainer(recipe)
    with pytest.raises(AnomalyError, match=r"forward of batchnorm in layer1.0.bn1: "):
        begin(tmp_path / "run", recipe, Ruin())
    _, model, batch, _ = load_anomaly(RunFolder(tmp_path / "run").path)
    found = diagnose(model, batch)
    assert (found.op, found.path) == ("batchnorm", "layer1.0.bn1")
    assert [m.training for m in model.modules()] == [m.training for m in trainer.model.train().modules()]
    anomaly = Checkpoint.load(tmp_path / "run/anomaly.safetensors")
    anomaly.info["recipe"]["freeze"] = ["layer4"]
    anomaly.save(tmp_path / "run/anomaly.safetensors")
    with pytest.raises(
        CheckpointError, match=r"anomaly.safetensors: its recipe does not fit its model: there is no part"
    ):
        load_anomaly(tmp_path / "run")
