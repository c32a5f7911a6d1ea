"""Runs that begin from weights: of another run, or of a file; which do not need them any more once they have a checkpoint."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import RECIPE, begin, contents, go_on
from stop_at import StopAt

import minires as mr
from minires.data import Dataset
from minires.errors import ConfigError, DataError, RunError, WeightsError
from minires.nn import Linear
from minires.training import Callback, Recipe, build_trainer, load_run
from minires.training import build as build_module
from minires.training.checkpoint import Checkpoint
from minires.training.weights import fine_tuning_rates, inherited, pinned

pytestmark = pytest.mark.usefixtures("small_runs")
FROZEN = ("stem", "layer1", "layer2")


@pytest.fixture
def few_classes(tiny, monkeypatch):
    """The images are of two classes from here on."""
    sets = [Dataset(d.images, d.labels % 2, ("even", "odd"), "pairs", d.mean, d.std) for d in tiny]
    monkeypatch.setattr(build_module.data, "load", lambda name, data_dir, seed: sets)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A safetensors file of a ResNet-8 for ten classes, with statistics that are not the initial ones."""
    mr.manual_seed(7)
    model, rng = mr.models.resnet8(), np.random.default_rng(0)
    for name, array in model.state_dict().items():
        if name.endswith("running_var"):
            array[...] = rng.uniform(0.5, 2, array.shape)
    path = tmp_path_factory.mktemp("weights") / "ten.safetensors"
    Checkpoint(model.state_dict()).save(path)
    return path


def recipe_from(path, **settings):
    return pinned(replace(RECIPE, weights=str(path), **settings))


def test_the_run_begins_with_them(weights):
    expected = Checkpoint.load(weights).model
    trainer = build_trainer(replace(RECIPE, weights=str(weights)))
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_new_classifier_on_request_alone(weights, few_classes, page):
    with pytest.raises(ConfigError) as caught:
        build_trainer(recipe_from(weights))
    page(str(caught.value))
    trainer = build_trainer(recipe_from(weights, num_classes=2, freeze=FROZEN))
    expected = Checkpoint.load(weights).model
    mr.manual_seed(RECIPE.seed)
    fresh = mr.models.resnet8(num_classes=2).state_dict()
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, (fresh if name.startswith("fc.") else expected)[name], err_msg=name)
    with pytest.raises(
        ConfigError, match="num_classes is 3, and the images of pairs are of 2 classes: say 2, or leave it out"
    ):
        build_trainer(recipe_from(weights, num_classes=3))


def test_weights_without_a_classifier(few_classes, tmp_path, monkeypatch, page):
    """As those of a backbone; its path may begin with that of the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    mr.interop.save_safetensors(mr.models.resnet8(features_only=True), tmp_path / "backbone.safetensors")
    with pytest.raises(ConfigError) as caught:
        build_trainer(recipe_from("~/backbone.safetensors"))
    page(str(caught.value))
    assert build_trainer(recipe_from("~/backbone.safetensors", num_classes=2)).model.fc.out_features == 2


def test_a_classifier_that_fits_is_kept(weights):
    trainer = build_trainer(recipe_from(weights, num_classes=10))
    np.testing.assert_array_equal(trainer.model.fc.weight.data, Checkpoint.load(weights).model["fc.weight"])


def test_weights_of_another_network(weights, few_classes):
    for settings in ({"model": "resnet14"}, {"model": "resnet8", "model_options": {"width": 8}}):
        with pytest.raises(WeightsError, match=r"does not fit CifarResNet: .*\. Are they of a resnet"):
            build_trainer(recipe_from(weights, num_classes=2, **settings))
        with pytest.raises(WeightsError, match=r"does not fit CifarResNet: .*\. Are they of a resnet"):
            build_trainer(recipe_from(weights, **settings))


def test_an_auxiliary_classifier_is_new(weights, few_classes, tmp_path):
    """It is of training alone, so that files have none, or one for other classes."""
    options = {"model_options": {"aux_weight": 0.3}}
    trainer = build_trainer(recipe_from(weights, num_classes=2, **options))
    assert trainer.model.aux.fc.out_features == 2
    Checkpoint(mr.models.resnet8(aux_weight=0.3).state_dict()).save(tmp_path / "aux.safetensors")
    trainer = build_trainer(recipe_from(tmp_path / "aux.safetensors", num_classes=2, **options))
    assert trainer.model.aux.fc.out_features == 2
    with pytest.raises(ConfigError, match="are for 10 classes, and the images of pairs are of 2"):
        build_trainer(recipe_from(tmp_path / "aux.safetensors", **options))
    build_trainer(recipe_from(tmp_path / "aux.safetensors", num_classes=2))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"freeze": FROZEN, "lr_factors": {"head": 10.0}, "average": "ema"},
        {"freeze": ("stem",), "optimizer": "muon", "average": "lookahead"},
    ],
    ids=str,
)
def test_a_run_that_is_stopped_goes_on_to_the_same_bits_without_the_file(tmp_path, weights, few_classes, settings):
    copied = shutil.copy(weights, tmp_path / "copy.safetensors")
    recipe = recipe_from(copied, num_classes=2, **settings)
    begin(tmp_path / "whole", recipe)
    begin(tmp_path / "run", recipe, StopAt(2))
    copied.unlink()
    go_on(tmp_path / "run", StopAt(4))
    go_on(tmp_path / "run", settings={"weights": str(copied)})  # said again
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    saved, model, checkpoint = load_run(tmp_path / "run")
    assert (saved, model.fc.out_features, checkpoint.info["classes"]) == (recipe, 2, ["even", "odd"])


def test_a_run_without_a_checkpoint_begins_from_the_file_again(tmp_path, weights, page):
    copied = shutil.copy(weights, tmp_path / "copy.safetensors")
    recipe = recipe_from(copied)
    begin(tmp_path / "whole", recipe)
    at_once = Callback()
    at_once.on_start = lambda trainer: trainer.stop()
    begin(tmp_path / "run", recipe, at_once)
    moved = copied.rename(tmp_path / "moved.safetensors")
    with pytest.raises(ConfigError, match=r"there are no weights .*copy.safetensors: give a file"):
        go_on(tmp_path / "run")
    other = tmp_path / "other.safetensors"
    Checkpoint(mr.models.resnet8().state_dict()).save(other)
    with pytest.raises(RunError, match=r"\(weights is '.*copy.safetensors' there, not '.*other.safetensors'\)"):
        go_on(tmp_path / "run", settings={"weights": str(other)})
    shutil.copy(other, copied)
    with pytest.raises(ConfigError, match=r"copy.safetensors has changed since the recipe was written") as caught:
        go_on(tmp_path / "run")
    page(str(caught.value))
    go_on(tmp_path / "run", settings={"weights": str(moved)})
    run, whole = contents(tmp_path / "run"), contents(tmp_path / "whole")
    a, b = (Checkpoint.load(tmp_path / name / "last.safetensors").model for name in ("run", "whole"))
    assert all((a[name] == b[name]).all() for name in a)
    assert run["metrics.jsonl"] == whole["metrics.jsonl"]


def test_weights_for_a_run_that_began_without_any(tmp_path, weights):
    begin(tmp_path / "run", RECIPE, StopAt(2))
    with pytest.raises(RunError, match=r"\(weights is None there, not '.*ten.safetensors'\)"):
        go_on(tmp_path / "run", settings={"weights": str(weights)})


def test_a_recipe_of_a_run_notices_that_the_file_has_changed(tmp_path, weights):
    copied = shutil.copy(weights, tmp_path / "copy.safetensors")
    begin(tmp_path / "run", recipe_from(copied), StopAt(2))
    again = Recipe.from_file(tmp_path / "run")
    build_trainer(again)
    Checkpoint(mr.models.resnet8().state_dict()).save(copied)
    with pytest.raises(ConfigError, match="has changed since the recipe was written, which has another SHA-256 sum"):
        build_trainer(again)
    build_trainer(again.with_settings(weights=str(copied)))


def test_what_is_trained_already_learns_more_slowly():
    recipe = Recipe(lr=0.5, weights="net.pth", lr_factors={"biases": 64.0})
    assert fine_tuning_rates(recipe, {"weights"}) == {"lr": 0.05}
    assert fine_tuning_rates(recipe, {"weights", "num_classes"}) == {
        "lr": 0.05,
        "lr_factors": {"biases": 64.0, "head": 10.0},
    }
    assert fine_tuning_rates(recipe, {"weights", "num_classes", "lr_factors"}) == {"lr": 0.05}
    assert fine_tuning_rates(recipe, {"weights", "num_classes", "lr"}) == {}


def test_from_another_run(tmp_path, few_classes, tiny, monkeypatch):
    recipe = Recipe(
        model="preresnet8", model_options={"width": 8, "num_classes": 4, "aux_weight": 0.3}, epochs=1, batch_size=16
    )
    begin(tmp_path / "first", recipe)
    first = Checkpoint.load(tmp_path / "first/last.safetensors")
    monkeypatch.setattr(build_module.data, "load", lambda name, data_dir, seed: tiny)
    wanted = Recipe(weights=str(tmp_path / "first"), num_classes=10, epochs=1, batch_size=16)
    found = inherited(wanted, {"weights", "num_classes"})
    assert found == {
        "model": "preresnet8",
        "model_options": {"width": 8, "aux_weight": 0.3},
        "mean": tuple(first.info["mean"]),
        "std": tuple(first.info["std"]),
    }
    assert inherited(wanted, {"model", "mean", "std"}) == {}  # another model
    assert inherited(wanted.with_settings(model="preresnet8"), {"model", "mean", "std"}) == {
        "model_options": {"width": 8, "aux_weight": 0.3}
    }
    trainer = build_trainer(wanted.with_settings(**found))
    np.testing.assert_array_equal(trainer.model.stem.conv.weight.data, first.model["stem.conv.weight"])
    np.testing.assert_array_equal(trainer.train_loader.dataset.mean, np.float32(first.info["mean"]))
    assert trainer.model.head.fc.out_features == 10


def test_the_first_layer_of_a_whitened_network_is_that_of_the_weights(tmp_path):
    options = {"width1": 8, "width2": 8, "width3": 8}
    recipe = Recipe(model="whitened_resnet11", model_options=options, batch_size=16)
    model = build_trainer(recipe).model
    model.whitening.weight.data *= 2
    Checkpoint(model.state_dict()).save(tmp_path / "a.safetensors")
    found = build_trainer(replace(recipe, weights=str(tmp_path / "a.safetensors"))).model
    np.testing.assert_array_equal(found.whitening.weight.data, model.whitening.weight.data)


def test_weights_that_cannot_be(tmp_path, weights, page):
    begin(tmp_path / "run", RECIPE, StopAt(2))
    damaged = bytearray((tmp_path / "run/last.safetensors").read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "run/last.safetensors").write_bytes(damaged)
    (tmp_path / "empty").mkdir()
    (tmp_path / "half.safetensors").write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "page.pth").write_bytes(b"<html></html>")
    for name, error, said in (
        ("run", DataError, "was changed after it was written: its checksum is not right"),
        (
            "empty",
            ConfigError,
            "holds no last.safetensors to begin from: give a run that has one, or a file of weights",
        ),
        (
            "nowhere.pth",
            ConfigError,
            r"there are no weights .*nowhere.pth: give a file of weights \(.safetensors, .pth\)",
        ),
        ("half.safetensors", DataError, "half.safetensors"),
        ("page.pth", WeightsError, "it is a web page"),
    ):
        with pytest.raises(error, match=said):
            build_trainer(replace(RECIPE, weights=str(tmp_path / name)))


def test_a_file_that_may_not_be_read(weights, monkeypatch):
    def refuse(*args, **more):
        raise PermissionError(13, "Permission denied")

    recipe = replace(RECIPE, weights=str(weights))
    monkeypatch.setattr(Path, "open", refuse)
    for read in (pinned, build_trainer, lambda recipe: inherited(recipe, {})):
        with pytest.raises(ConfigError, match=r"cannot read the weights .*ten.safetensors: Permission denied"):
            read(recipe)


def test_the_classifier_learns_at_its_own_rate(weights):
    recipe = recipe_from(weights, lr_factors={"head": 0.0}, weight_decay=0.1, decay_norms=True)
    trainer = build_trainer(recipe)
    before = {name: array.copy() for name, array in trainer.model.state_dict().items()}
    trainer.fit()
    after = trainer.model.state_dict()
    linear = [f"{path}." for path, module in trainer.model.named_modules() if isinstance(module, Linear)]
    assert linear == ["fc."]
    for name, p in trainer.model.named_parameters():
        assert np.array_equal(after[name], before[name]) == name.startswith("fc."), name
        assert p.grad is not None
