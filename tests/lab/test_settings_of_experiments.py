"""What the lab does with settings: those that an experiment cannot use are refused, and a result says what was done."""

import numpy as np
import pytest

from minires import data, lab
from minires.cli.explain import _batch, _network
from minires.errors import ConfigError
from minires.lab import catalogue, fit, runners
from minires.lab.experiments.refine import Refine
from minires.lab.explain import explain
from minires.lab.setting import Setting
from minires.training import Recipe, Recorder, RunFolder, build_trainer

SMALL = {"quick": True, "batch_size": 4, "width": 4, "image_size": 8}


def train(path, steps=2, **settings):
    """A small run in a folder."""
    recipe = Recipe(
        **{"model": "resnet8", "model_options": {"width": 4}, "batch_size": 8, "crop": 0} | settings
    ).with_settings()
    recipe = recipe.with_settings(epochs=1, threads=1).with_settings(steps=steps)
    with RunFolder.create(recipe, path) as folder:
        trainer = build_trainer(recipe)
        trainer.callbacks = (Recorder(folder, recipe),)
        trainer.fit()
    return str(path)


@pytest.fixture
def few(monkeypatch):
    """Few images as the built-in ones."""
    monkeypatch.setattr(data, "load", lambda *args, **more: data.shapes(0, train=48, test=24))


@pytest.fixture
def folder(tmp_path):
    """24 images of three colours, in folders of their own: (the settings of a run on them)."""
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("blue", (0, 0, 200)), ("green", (0, 200, 0)), ("red", (200, 0, 0))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            image.fromarray(np.full((24, 24, 3), np.add(colour, i), np.uint8)).save(
                tmp_path / "photos" / name / f"{i}.png"
            )
    return {"dataset": "folder", "data_dir": str(tmp_path / "photos"), "val": 0.25, "image_size": 24}


def test_the_first_images_of_a_folder_are_of_all_classes(folder, tmp_path):
    """Its own order is by class: the first third would be of one."""
    run = train(tmp_path / "run", **folder)
    train_set, test_set = Setting(run=run).datasets()
    assert len(set(train_set.labels[:9].tolist())) == 3
    assert len(set(test_set.labels.tolist())) == 3
    assert sorted(train_set.labels.tolist()) == [0] * 6 + [1] * 6 + [2] * 6
    colours = train_set.images.mean(axis=(1, 2)).argmax(1)
    assert np.array_equal(colours, 2 - train_set.labels)  # labels go with their images


def test_explain_of_a_run_of_few_classes_and_larger_images(folder, tmp_path):
    run = train(tmp_path / "run", **folder)
    network, name, side, classes = _network(run, None, 0, None)
    assert (name, side, classes) == ("resnet8", 24, 3)
    assert explain(network, _batch(network, 16, side, classes, 0), True, name).macs > 0


def test_where_a_fine_tuned_run_began_is_not_a_new_network(few, tmp_path):
    first = train(tmp_path / "first")
    second = train(tmp_path / "second", weights=first)
    assert len(Setting(run=first).first_and_last()) == 2
    with pytest.raises(
        ConfigError, match=r"began with the weights .*first, and this looks at a training from new ones"
    ):
        Setting(run=second).first_and_last()


def test_a_control_on_images_of_another_size_is_refused(few, tmp_path):
    plain = train(tmp_path / "plain", model="plain8")
    for name in ("lesion", "responses", "landscape"):
        with pytest.raises(
            ConfigError, match="plain was trained on images of 32×32 pixels, and the others here have 8×8"
        ):
            catalogue.run(name, Setting(**SMALL), plain=plain)
    residual = train(tmp_path / "residual")
    for size in (None, 16):  # both runs' images are averaged
        setting = Setting(run=residual, quick=True, image_size=size)
        assert catalogue.run("responses", setting, plain=plain).deviations
    deep = train(tmp_path / "deep", model="plain20")
    setting = Setting(run=plain, quick=True, image_size=16, batch_size=8)
    assert catalogue.run("construct", setting, steps=1, deeper=deep).settings["model"] == "plain8"


def test_runs_on_images_of_two_sizes_are_not_compared(folder, tmp_path):
    small = train(tmp_path / "small", **folder)
    large = train(tmp_path / "large", model="plain8", **folder | {"image_size": 32})
    with pytest.raises(
        ConfigError, match="large was trained on images of 32×32 pixels, and the others here have 24×24: comp"
    ):
        catalogue.run("responses", Setting(run=small, quick=True), plain=large)


def test_a_width_that_is_given_counts():
    wide = Setting(model_options={"width": 16}).sized(8, 16)
    assert wide.network().conv1.weight.shape[0] == 16
    assert Setting().sized(8, 16).network().conv1.weight.shape[0] == 8
    with pytest.raises(ConfigError, match="width is given twice"):
        Setting(width=4, model_options={"width": 16}).network()


@pytest.mark.parametrize(("dataset", "classes"), [("shapes", 10), ("cifar10", 10), ("cifar100", 100)])
def test_networks_have_the_classes_of_the_data_set(dataset, classes, monkeypatch):
    setting = Setting(model="preresnet8", dataset=dataset, **SMALL)
    assert setting.network().head[-1].weight.shape[0] == classes
    with pytest.raises(ConfigError, match="unknown data set 'cifar'"):
        Setting(dataset="cifar").network()
    made = {}
    monkeypatch.setattr(runners, "identity", lambda networks, *rest: made.update(networks))
    monkeypatch.setattr(Setting, "batch", lambda self: None)
    runners.run_identity(setting, None)
    assert {list(network.parameters())[-1].size for network in made.values()} == {classes}


@pytest.mark.parametrize(
    ("name", "options"),
    [("lesion", {"steps": 7}), ("responses", {"steps": 7}), ("landscape", {"steps": 7}), ("deepen", {"steps": 7})],
)
def test_steps_of_no_training_are_refused(few, tmp_path, name, options):
    run = train(tmp_path / "run")
    with pytest.raises(ConfigError, match="--steps is for "):
        catalogue.run(name, Setting(run=run, quick=True), **options)


@pytest.mark.parametrize("option", ["depths", "steps"])
def test_trained_networks_are_those_that_are_there(tmp_path, option):
    with pytest.raises(ConfigError, match=f"--trained compares the runs that are there: leave --{option} out"):
        catalogue.run("degradation", Setting(), trained=str(tmp_path), **{option: "20" if option == "depths" else 3})


def test_a_result_says_what_was_done_and_not_what_was_asked():
    result = catalogue.run("shatter", Setting(quick=True))
    assert result.settings["networks"] == 6


def test_depths_are_those_that_are_given(monkeypatch):
    """Of families, too, in which there is no deeper one by itself."""
    made = []
    monkeypatch.setattr(runners, "training_curve", lambda network, *rest, **more: made.append(type(network).__name__))
    monkeypatch.setattr(runners, "degradation", lambda curves: list(curves))
    monkeypatch.setattr(fit, "images_for", lambda setting: (None, None))
    assert runners.run_degradation(
        Setting(model="resnet18", model_options={"option": "B"}), None, trained=None, depths="18,34", steps=None
    ) == ["plain18", "plain34", "resnet18", "resnet34"]


@pytest.mark.parametrize("name", ["lesion", "landscape", "responses"])
def test_a_plain_twin_has_no_options_of_shortcuts(few, monkeypatch, name):
    monkeypatch.setattr(fit, "fit", lambda *args, **more: None)
    setting = Setting(model="resnet8", model_options={"option": "B"}, **SMALL)
    catalogue.run(name, setting, **({"points": 5, "images": 8} if name == "landscape" else {}))


def test_a_plain_twin_is_made_before_anything_is_trained(few, monkeypatch):
    monkeypatch.setattr(fit, "fit", lambda *args, **more: pytest.fail("trained"))
    with pytest.raises(ConfigError):
        catalogue.run("lesion", Setting(model="resnet8", model_options={"aux_weight": -1}, **SMALL))


def test_construct_of_a_run_with_an_auxiliary_classifier(few, tmp_path):
    run = train(tmp_path / "run", model="plain20", model_options={"width": 4, "aux_weight": 0.3})
    assert (
        catalogue.run("construct", Setting(run=run, quick=True, batch_size=8), steps=2).settings["model"] == "plain20"
    )


def test_refine_of_a_network_whose_last_stage_changes_the_shape_alone(few):
    result = catalogue.run("refine", Setting(model="resnet8", **SMALL))
    assert isinstance(result, Refine)
    assert result.stage == [0]
    assert result.verdict == ("unclear", "the last stage has no block that keeps its shape")
    deeper = catalogue.run("refine", Setting(model="resnet14", **SMALL))
    assert "over 1 blocks of the last stage" in deeper.verdict.because


def test_samples_are_not_negative():
    setting = Setting(model="resnet8", **SMALL)
    images, labels = np.zeros((4, 3, 8, 8)), np.zeros(4, np.int64)
    with pytest.raises(ConfigError, match="samples must be a whole number from 0 up, not -1"):
        lab.paths(setting.network(), (images, labels), samples=-1)
