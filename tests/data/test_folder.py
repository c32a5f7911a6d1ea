"""A folder of photographs as a training set and a test set."""

import os
import random

import numpy as np
import pytest
from drawn_folders import folder_of_noise, noise, save

from minires import data
from minires.data.folder import folder_layout, split
from minires.data.images import folder as image_folder
from minires.errors import ConfigError, DataError


def names(images):
    return {images.path(i).relative_to(images.samples.root).as_posix() for i in range(len(images))}


@pytest.fixture
def uneven(tmp_path):
    """Three classes of 20, 10 and 3 images."""
    for name, count in (("a", 20), ("b", 10), ("c", 3)):
        folder_of_noise(tmp_path / "photos", (name,), count)
    return tmp_path / "photos"


class TestSplit:
    @pytest.mark.parametrize(
        ("val", "expected"),
        [
            *((0.1, [2, 1, 1]), (0.25, [5, 3, 1]), (0.9, [18, 9, 2]), (0.01, [1, 1, 1]), (0.999, [19, 9, 2])),
            *((1, [1, 0, 0]), (3, [2, 1, 0]), (11, [7, 3, 1]), (30, [19, 9, 2]), (29, [18, 9, 2])),
        ],
    )
    def test_every_class_gives_its_share(self, uneven, val, expected):
        train, test, none = data.folder(uneven, 32, val, seed=3)
        assert none is None
        assert np.bincount(test.labels, minlength=3).tolist() == expected
        assert names(train) | names(test) == set(data.ImageFolder(uneven).files)
        assert not names(train) & names(test)
        assert train.labels[0] == 0
        assert list(train.labels) == sorted(train.labels)

    def test_it_depends_on_seed_and_paths_and_not_on_the_order_of_a_listing(self, uneven, monkeypatch):
        expected = names(data.folder(uneven, 32, 0.3, seed=1).test)
        assert expected != names(data.folder(uneven, 32, 0.3, seed=2).test)
        scandir = os.scandir

        def shuffled(path):
            return random.Random(5).sample(entries := list(scandir(path)), len(entries))

        monkeypatch.setattr(image_folder.os, "scandir", shuffled)
        assert names(data.folder(uneven, 32, 0.3, seed=1).test) == expected
        monkeypatch.undo()
        os.rename(uneven, uneven.parent / "elsewhere")
        assert names(data.folder(uneven.parent / "elsewhere", 32, 0.3, seed=1).test) == expected

    def test_another_image_changes_little(self, uneven):
        before = names(data.folder(uneven, 32, 0.2, seed=1).test)
        save(uneven / "a" / "new.png", noise(1, 30, 30))
        after = names(data.folder(uneven, 32, 0.2, seed=1).test)
        assert len(before ^ after) <= 2

    def test_too_many(self, uneven):
        with pytest.raises(ConfigError, match=r"val = 31 is too many of the 33 images in .*: .* hold out at most 30"):
            data.folder(uneven, 32, 31)

    def test_classes_of_one_image(self, tmp_path):
        images = data.ImageFolder(folder_of_noise(tmp_path, count=1))
        with pytest.raises(ConfigError, match="has no class with two images"):
            split(images, 0.5, 0)


class TestLayout:
    def test_train_and_val(self, tmp_path):
        folder_of_noise(tmp_path / "train", count=4)
        folder_of_noise(tmp_path / "val", count=2)
        train, test, val = data.folder(tmp_path, 32)
        assert (len(train), len(test), val) == (8, 4, None)
        train, test, val = data.folder(tmp_path, 32, 0.25)
        assert (len(train), len(test), len(val)) == (6, 4, 2)

    @pytest.mark.parametrize("name", ["val", "valid", "validation"])
    def test_train_val_and_test(self, tmp_path, name):
        for part, count in (("train", 4), (name, 2), ("test", 3)):
            folder_of_noise(tmp_path / part, count=count)
        assert [len(part) for part in data.folder(tmp_path, 32)] == [8, 6, 4]
        with pytest.raises(ConfigError, match=r"has a validation set, .*: leave --val out"):
            data.folder(tmp_path, 32, 0.1)

    def test_classes_that_are_called_train_or_val(self, tmp_path):
        folder_of_noise(tmp_path, ("bus", "train", "tram"), 2)
        assert data.folder(tmp_path, 32, 0.5).train.classes == ("bus", "train", "tram")

    @pytest.mark.parametrize(
        ("folders", "val", "error", "said"),
        [
            (
                ["train/a", "train/b"],
                0,
                DataError,
                "has train/ alone: put test/ or val/ beside it, or give .*train with --val",
            ),
            (
                ["train/a", "train/b", "val/a", "cat"],
                0,
                DataError,
                "has cat beside train and val: a folder holds train, val",
            ),
            (
                ["a", "b"],
                0,
                ConfigError,
                "so a part of it is to be held out as the test set: say how much, such as --val 0.1",
            ),
            (["a"], 0.5, DataError, "has a single class, 'a': a network learns to tell two or more apart"),
            (
                ["train/a", "train/b", "val/c"],
                0,
                DataError,
                "has a folder 'c', and there is no such class: there are a, b",
            ),
        ],
    )
    def test_what_is_no_data_set(self, tmp_path, folders, val, error, said):
        for name in folders:
            folder_of_noise(tmp_path / name / "..", (name.split("/")[-1],), 2)
        with pytest.raises(error, match=said):
            data.folder(tmp_path, 32, val)

    def test_no_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
            folder_layout(tmp_path / "nowhere")
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="file cannot be looked into: Not a directory"):
            folder_layout(tmp_path / "file")


def test_colour_statistics_are_those_of_the_training_images(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        folder_of_noise(tmp_path / part, count=count)
    train, test, val = data.folder(tmp_path, 32)
    expected = np.stack([train.evaluated(i) for i in range(8)]) / 255
    for images in (train, test, val, test.take(np.arange(2)), val.resized(16)):
        np.testing.assert_allclose(images.mean, expected.mean(axis=(0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(images.std, expected.std(axis=(0, 1, 2)), rtol=1e-5)
    rest, test, val = data.folder(tmp_path / "train", 32, 0.25)
    assert val is None
    assert rest.mean[0] != train.mean[0]
    np.testing.assert_array_equal(test.mean, rest.mean)


def test_load_says_where_folders_are_read():
    with pytest.raises(ConfigError, match="a data set that is held in memory is needed here"):
        data.load("folder", "photos")


def test_in_memory(tmp_path):
    images = data.MapDataset(data.ImageFolder(folder_of_noise(tmp_path)), 32)
    dataset = images.in_memory()
    np.testing.assert_array_equal(dataset.images[3], images.evaluated(3))
    np.testing.assert_array_equal(dataset.mean, images.mean)
    with pytest.raises(ConfigError, match="GB of memory: take fewer"):
        images.take(np.arange(12).repeat(10_000)).resized(4096).in_memory()
