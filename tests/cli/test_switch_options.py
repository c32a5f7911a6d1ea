"""--fusion and --winograd on the command line."""

import json
from pathlib import Path

import pytest

from minires import training
from minires.kernels.convolution import winograd_plan
from minires.kernels.runtime import target
from minires.kernels.switches import uses_winograd
from minires.lazy import is_fusing
from minires.training import Checkpoint, diagnosis


def spy_on(monkeypatch, module, name):
    """A list that gets the switches at every call of a function."""
    seen, function = [], getattr(module, name)

    def spy(*args, **more):
        seen.append((is_fusing(), uses_winograd()))
        return function(*args, **more)

    monkeypatch.setattr(module, name, spy)
    return seen


@pytest.mark.parametrize(
    ("options", "switches", "said"),
    [
        ([], (True, True), ""),
        (["--no-fusion"], (False, True), "op by op"),
        (["--no-winograd"], (True, False), "no Winograd"),
        (["--no-fusion", "--no-winograd"], (False, False), "op by op, no Winograd"),
    ],
    ids=str,
)
def test_a_run_and_what_is_made_of_it(minires, small_run, monkeypatch, winograd_taken, options, switches, said):
    code, out, err = minires(*small_run, *options, "--epochs", 1, "--out", "run")
    assert (code, err) == (0, "")
    assert bool(winograd_taken) == switches[1]
    assert ("kernels" in out) == bool(said)
    assert said in out
    info = Checkpoint.load("run/last.safetensors").info
    assert (info["recipe"]["fusion"], info["recipe"]["winograd"], info["target"]) == (*switches, target.KIND)
    minires("train", "--recipe", "run", "--out", "again", "-q")
    assert Path("again/last.safetensors").read_bytes() == Path("run/last.safetensors").read_bytes()
    seen = spy_on(monkeypatch, training, "evaluate")
    assert minires("eval", "run")[0] == 0
    assert seen == [switches]


def test_options_win_over_the_recipe(minires, small_run):
    minires(*small_run, "--no-fusion", "--no-winograd", "--epochs", 1, "--out", "off", "-q")
    minires("train", "--recipe", "off", "--fusion", "--winograd", "--out", "on", "-q")
    recipe = training.Recipe.read("on/config.toml")
    assert (recipe.fusion, recipe.winograd) == (True, True)


def test_a_run_that_goes_on_elsewhere_is_told_so(minires, small_run):
    minires(*small_run, "--epochs", 1, "--out", "run", "-q")
    checkpoint = Checkpoint.load("run/last.safetensors")
    checkpoint.info["target"] = "riscv"
    checkpoint.save("run/last.safetensors")
    code, out, _ = minires("train", "--resume", "run", "--more-epochs", 1)
    assert code == 0
    assert f"saved on a machine with riscv kernels, and here they are {target.KIND}" in " ".join(out.split())


def test_replay(minires, small_run, monkeypatch):
    minires(*small_run, "--lr", "1e30", "--schedule", "constant", "--no-fusion", "--no-winograd", "--out", "run", "-q")
    seen = spy_on(monkeypatch, diagnosis, "diagnose")
    assert minires("replay", "run")[0] == 1
    assert seen == [(False, False)]


@pytest.mark.parametrize(("fused", "winograd"), [(True, True), (True, False), (False, True), (False, False)])
def test_gradcheck(minires, monkeypatch, winograd_taken, fused, winograd):
    from minires.gradcheck import cases

    seen = spy_on(monkeypatch, cases, "check")
    options = ["--no-fusion"] * (not fused) + ["--no-winograd"] * (not winograd)
    code, out, _ = minires("gradcheck", "relu", *options, "--json")
    found = json.loads(out)
    assert (code, found["fusion"], found["winograd"]) == (0, fused, winograd)
    assert set(seen) == {(fused, winograd)}
    _, out, _ = minires("gradcheck", "relu", *options)
    head = out.split("\n\n")[0]
    assert ("op by op" in head, "no Winograd" in head) == (not fused, not winograd)


@pytest.mark.slow
def test_gradcheck_of_a_model_takes_winograd_where_it_is_chosen(minires, winograd_taken):
    command = ["gradcheck", "--model", "resnet8", "--batch-size", 2, "--image-size", 16, "--directions", 1]
    assert minires(*command, "--no-winograd")[0] == 0
    assert winograd_taken == []
    assert minires(*command)[0] == 0
    assert set(winograd_taken) == {"forward", "input_grad", "weight_grad"}


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ({}, f"no table for {target.KIND}: every convolution is computed directly"),
        (
            {"forward": {16: {8: 1.2}, 32: {8: 1.3}}, "input_grad": {16: {8: 1.2}, 32: {8: 1.0}}, "weight_grad": {}},
            f"by the table for {target.KIND}: outputs from 16 channels, input gradients of 16 channels, no weight gradients",
        ),
    ],
    ids=["none", "some"],
)
def test_doctor(minires, monkeypatch, gains, said):
    from minires.cli import selftest

    monkeypatch.setattr(selftest, "run", list)
    monkeypatch.delitem(winograd_plan.GAINS, target.KIND, raising=False)
    if gains:
        monkeypatch.setitem(winograd_plan.GAINS, target.KIND, gains)
    winograd_plan.least_side.cache_clear()
    try:
        code, out, _ = minires("doctor")
    finally:
        winograd_plan.least_side.cache_clear()
    assert code == 0
    assert f"Winograd {said}" in " ".join(out.split())
    assert f"kernels {target.KIND}, " in " ".join(out.split())
