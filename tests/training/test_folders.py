"""Runs on folders of images: the same bits however they are read, and none tested on what it was trained on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from drawn_folders import folder_of_colours, noise, save
from runs import begin, contents, go_on
from stop_at import StopAt

from minires import data, kernels, models
from minires.errors import ConfigError, DataError, ImageError, RunError
from minires.training import Callback, Recipe, Recorder, RunFolder, build_trainer, load_data, load_run
from minires.training.folders import load_test_images, read_listing

pytestmark = pytest.mark.usefixtures("small_runs")  # for their curves


@pytest.fixture
def photos(tmp_path):
    return folder_of_colours(tmp_path / "photos", count=12)


@pytest.fixture
def recipe(photos):
    """Four steps an epoch, two epochs."""
    return Recipe.for_dataset(
        "folder", model="resnet8", data_dir=str(photos), val=0.25, epochs=2, batch_size=5, seed=1, image_size=16
    )


def names(images, root):
    return {images.path(i).relative_to(root).as_posix() for i in range(len(images))}


def test_every_network_says_the_size_of_its_images():
    for name in ("resnet20", "preresnet20", "resnet18", "resnet50v2", "crossing", "whitened_resnet11"):
        assert models.image_size(name) == models.create(name).image_size
    assert set(models.registry.SIZES) == set(models.names())
    with pytest.raises(ConfigError, match="unknown model 'resnet21'"):
        models.image_size("resnet21")


def test_the_size_of_the_images_is_that_of_the_network(recipe):
    assert load_data(recipe)[0].image_shape == (16, 16, 3)
    assert load_data(replace(recipe, image_size=None))[1].image_shape == (32, 32, 3)


class TestBits:
    @pytest.mark.parametrize("stop", [{"step": 2}, {"step": 6}, {"epoch": 2}])
    def test_a_run_that_was_stopped_ends_as_one_that_was_not(self, tmp_path, recipe, stop):
        begin(tmp_path / "whole", recipe)
        begin(tmp_path / "run", recipe, StopAt(**stop))
        go_on(tmp_path / "run")
        assert contents(tmp_path / "run") == contents(tmp_path / "whole")

    def test_threads_and_a_cache_change_nothing(self, tmp_path, recipe):
        begin(tmp_path / "whole", recipe)
        before = kernels.get_num_threads()
        try:
            begin(tmp_path / "run", replace(recipe, threads=1, cache=str(tmp_path / "cache")), StopAt(step=5))
            for entry in (tmp_path / "cache").rglob("*"):
                if entry.is_file() and entry.name[0] in "0123456":
                    entry.write_bytes(b"damaged")
            go_on(tmp_path / "run", settings={"threads": 2, "cache": str(tmp_path / "cache")})
        finally:
            kernels.set_num_threads(before)
        ours, theirs = contents(tmp_path / "run"), contents(tmp_path / "whole")
        for name in ("metrics.jsonl", "images.json"):
            assert ours[name] == theirs[name]
        a, b = (load_run(tmp_path / name)[1].state_dict() for name in ("run", "whole"))
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])

    def test_the_files_may_have_been_moved(self, tmp_path, recipe, photos):
        begin(tmp_path / "run", recipe, StopAt(step=3))
        shutil.move(photos, tmp_path / "elsewhere")
        assert go_on(tmp_path / "run", settings={"data_dir": str(tmp_path / "elsewhere")}).finished


class TestChanges:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda root: save(root / "red" / "new.png", noise(0, 40, 40)), r"\(red/new\.png is new\)"),
            (lambda root: (root / "red" / "003.png").unlink(), r"\(red/003\.png is gone\)"),
            (lambda root: save(root / "red" / "003.png", noise(0, 40, 40)), r"\(red/003\.png is changed\)"),
            (
                lambda root: shutil.move(root / "red" / "003.png", root / "blue" / "x.png"),
                r"\(blue/x\.png is new; red/003\.png is gone\)",
            ),
        ],
    )
    def test_other_images_are_named(self, tmp_path, recipe, photos, change, said):
        begin(tmp_path / "run", recipe, StopAt(step=3))
        change(photos)
        with pytest.raises(RunError, match=rf"are not those that .* was begun with {said}: give their folder"):
            go_on(tmp_path / "run")

    def test_an_image_that_vanishes_ends_the_run_which_can_be_gone_on_with(self, tmp_path, recipe, photos, page):
        begin(tmp_path / "whole", recipe)
        path = photos / "red" / "003.png"
        if path in {data.folder(photos, 16, 0.25, 1).test.path(i) for i in range(6)}:
            path = photos / "red" / "004.png"
        content = path.read_bytes()

        class Remove(Callback):
            def on_step(self, trainer, mean):
                if trainer.step == 4:
                    path.write_bytes(content[:50])

        with pytest.raises(DataError) as caught:
            begin(tmp_path / "run", recipe, Remove())
        assert path.name in str(caught.value)
        page(str(caught.value))
        assert load_run(tmp_path / "run")[2].info["step"] >= 4
        with pytest.raises(
            ImageError, match=rf"{path.name} \(50 bytes\).*Which others there are says minires data verify"
        ):
            go_on(tmp_path / "run")
        path.write_bytes(content)
        go_on(tmp_path / "run")
        assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_run_that_begins_again_lists_its_images_anew(tmp_path, recipe, photos):
    trainer = build_trainer(recipe)
    with RunFolder.create(recipe, tmp_path / "run") as folder:
        Recorder(folder, recipe).on_start(trainer)  # killed before the first checkpoint
    save(photos / "red" / "new.png", noise(0, 40, 40))
    (photos / "blue" / "003.png").unlink()
    trainer = go_on(tmp_path / "run")
    parts = (trainer.train_loader.dataset, trainer.test_loader.dataset)
    assert [set(part) for part in read_listing(tmp_path / "run" / "images.json").values()] == [
        names(part, photos) for part in parts
    ]


def test_all_images_are_read_before_a_run_begins(tmp_path, recipe, photos):
    (photos / "red" / "007.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(
        ImageError, match=r"red/007\.png .* Which others there are says minires data verify folder --data-dir"
    ):
        begin(tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()
    (photos / "red" / "007.png").unlink()
    seen = []
    load_data(recipe, lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 23) for i in range(23)]


def test_copies_among_the_test_images_are_told(recipe, photos, page):
    for i in range(12):
        shutil.copy(photos / "red" / "000.png", photos / "red" / f"copy{i}.png")
    with pytest.warns(UserWarning, match="has found copies of training images") as said:
        load_data(recipe)
    page(str(said[0].message))


class TestWhatIsTestedOn:
    @pytest.fixture
    def run(self, tmp_path, recipe, photos):
        begin(tmp_path / "run", recipe)
        return RunFolder(tmp_path / "run")

    def chosen(self, run, recipe, with_listing=True):
        _, _, checkpoint = load_run(run.path)
        then = read_listing(run.images) if with_listing else None
        images, notes = load_test_images(recipe, ("blue", "red"), then, checkpoint.info["data"][1])
        return names(images, recipe.data_dir), notes

    def test_the_images_that_were_held_out(self, run, recipe, photos):
        held_out = set(json.loads(run.images.read_text())["test"])
        assert len(held_out) == 6
        assert self.chosen(run, recipe) == (held_out, [])
        assert self.chosen(run, recipe, with_listing=False) == (held_out, [])

    def test_a_new_image_is_left_out_and_moves_no_other(self, run, recipe, photos, page):
        held_out, _ = self.chosen(run, recipe)
        for i in range(5):
            save(photos / "red" / f"0000{i}.png", noise(i, 40, 40))
        found, notes = self.chosen(run, recipe)
        assert found == held_out
        assert notes == [
            "5 images that the run does not know are left out: to test on new images, put them into a folder of their own "
            "(--data-dir)."
        ]
        with pytest.raises(DataError) as caught:
            self.chosen(run, recipe, with_listing=False)
        page(str(caught.value))

    def test_images_that_were_trained_on_are_left_out_under_other_names_too(self, run, recipe, photos):
        listed = json.loads(run.images.read_text())
        held_out, trained = set(listed["test"]), sorted(listed["train"])
        os_name = sorted(held_out)[0]
        (photos / os_name).unlink()
        shutil.move(photos / trained[0], photos / os_name)
        found, notes = self.chosen(run, recipe)
        assert found == held_out - {os_name}
        assert notes == [
            "1 image that the run was trained on is left out.",
            "1 of the 6 images it has held out are gone.",
        ]

    def test_another_folder_is_tested_on_whole(self, tmp_path, run, recipe, photos):
        other = tmp_path / "others"
        save(other / "red" / "1.png", noise(1, 40, 40))
        save(other / "blue" / "1.png", noise(2, 40, 40))
        elsewhere = replace(recipe, data_dir=str(other))
        assert self.chosen(run, elsewhere) == ({"red/1.png", "blue/1.png"}, [])
        shutil.copy(photos / sorted(json.loads(run.images.read_text())["train"])[0], other / "red" / "2.png")
        assert self.chosen(run, elsewhere)[1] == ["1 image that the run was trained on is left out."]
        for part in ("train", "val"):
            save(tmp_path / "parts" / part / "red" / "1.png", noise(7, 40, 40))
        assert self.chosen(run, replace(recipe, data_dir=str(tmp_path / "parts")))[0] == {"val/red/1.png"}

    @pytest.mark.parametrize("part", ["held out", "trained on"])
    def test_images_of_another_folder_may_have_the_names_of_those_of_the_run(self, tmp_path, run, recipe, photos, part):
        listed = json.loads(run.images.read_text())["test" if part == "held out" else "train"]
        for i, name in enumerate(listed):
            save(tmp_path / "others" / name, noise(i, 40, 40))
        elsewhere = replace(recipe, data_dir=str(tmp_path / "others"))
        assert self.chosen(run, elsewhere) == (set(listed), [])
        name = next(iter(json.loads(run.images.read_text())["train"]))
        shutil.copy(photos / name, tmp_path / "others" / name)
        assert self.chosen(run, elsewhere) == (
            set(listed) - {name},
            ["1 image that the run was trained on is left out."],
        )

    def test_nothing_is_left(self, tmp_path, run, recipe, photos, page):
        for name in json.loads(run.images.read_text())["test"]:
            (photos / name).unlink()
        with pytest.raises(DataError) as caught:
            self.chosen(run, recipe)
        page(str(caught.value))

    @pytest.mark.parametrize("text", ["", "[]", '{"train": 3}', '{"train": {"a": []}}', '{"other": {}}', "{" * 100_000])
    def test_a_damaged_list(self, run, text, page):
        run.images.write_text(text)
        with pytest.raises(DataError) as caught:
            read_listing(run.images)
        page(str(caught.value))


def test_a_test_set_without_some_classes_has_the_labels_of_the_training_set(tmp_path):
    for name in ("blue", "green", "red"):
        folder_of_colours(tmp_path / "train", [name], count=2)
    folder_of_colours(tmp_path / "val", ["red"], count=2)
    recipe = Recipe.for_dataset("folder", model="resnet8", data_dir=str(tmp_path), image_size=16)
    images, _ = load_test_images(recipe)
    assert (images.classes, images.labels.tolist()) == (("blue", "green", "red"), [2, 2])


@pytest.mark.parametrize("settings", [{"image_size": 16}, {"crop_scale": (0.5, 1.0)}, {"cache": "x"}])
def test_settings_of_folders_alone(settings):
    (name,) = settings
    with pytest.raises(
        ConfigError, match=f"{name} is of a folder of images, and those of cifar10 have one size, in memory"
    ):
        load_data(Recipe.for_dataset("cifar10", **settings))


def test_no_folder_is_named():
    with pytest.raises(ConfigError, match="which folder of images"):
        load_data(Recipe.for_dataset("folder"))


@pytest.mark.parametrize("val", [-1, 1.5, float("nan"), "0.1", True, float("inf")])
def test_parts_to_hold_out(val):
    with pytest.raises(ConfigError, match="val must be a whole number from 0 up, or a fraction below 1"):
        Recipe(val=val)


def test_a_fraction_of_the_built_in_images():
    train, _, val = load_data(Recipe(val=0.25))
    assert (len(train), len(val)) == (36, 12)
    assert Recipe(val=8.0).val == 8
    assert isinstance(Recipe(val=8.0).val, int)
