"""Data sets in memory, and by name."""

import numpy as np
import pytest

from minires import data
from minires.data.dataset import colour_statistics
from minires.errors import ConfigError, DataError, DtypeError


def some_data(count=40, channels=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)
    return data.Dataset(images, rng.integers(0, 3, count), ("a", "b", "c"), "some")


class TestDataset:
    def test_it_knows_what_it_is(self):
        some = some_data()
        assert (len(some), some.num_classes, some.classes) == (40, 3, ("a", "b", "c"))
        assert repr(some) == "Dataset some: 40 images of 6×5×3, 3 classes"

    def test_arrays_are_brought_into_one_form_without_a_needless_copy(self):
        images = np.zeros((4, 3, 6, 5), np.uint8).transpose(0, 2, 3, 1)
        frozen = np.zeros((4, 6, 5, 3), np.uint8)
        frozen.flags.writeable = False
        for given in (images, frozen):
            some = data.Dataset(given, np.array([0, 1, 1, 0], np.uint8), ["a", "b"], "some")
            assert some.images.flags.carray
            assert some.labels.dtype == np.int64
            assert some.classes == ("a", "b")
        good = np.zeros((4, 6, 5, 3), np.uint8)
        assert data.Dataset(good, np.zeros(4, np.int64), ("a",), "some").images is good

    @pytest.mark.parametrize("channels", [1, 3])
    def test_colour_statistics(self, channels):
        some = some_data(1100, channels)
        pixels = some.images.reshape(-1, channels) / 255
        np.testing.assert_allclose(some.mean, pixels.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(some.std, pixels.std(axis=0), rtol=1e-6)
        assert some.mean.dtype == some.std.dtype == np.float32

    def test_a_channel_of_one_value_can_be_normalised(self):
        mean, std = colour_statistics(np.full((3, 4, 4, 1), 255, np.uint8))
        assert (mean, std) == (1, 1)

    def test_take_keeps_the_statistics(self):
        some = some_data()
        few = some.take([3, 1])
        np.testing.assert_array_equal(few.images, some.images[[3, 1]])
        np.testing.assert_array_equal(few.labels, some.labels[[3, 1]])
        np.testing.assert_array_equal(few.mean, some.mean)

    def test_hold_out_splits_by_the_seed(self):
        some = some_data()
        rest, held_out = some.hold_out(10, seed=3)
        assert (len(rest), len(held_out)) == (30, 10)
        everything = {image.tobytes() for half in (rest, held_out) for image in half.images}
        assert everything == {image.tobytes() for image in some.images}
        np.testing.assert_array_equal(held_out.images, some.hold_out(10, seed=3)[1].images)
        assert not np.array_equal(held_out.images, some.hold_out(10, seed=4)[1].images)

    def test_nothing_is_learnt_from_held_out_images(self):
        rest, held_out = some_data().hold_out(10)
        expected, _ = colour_statistics(rest.images)
        np.testing.assert_array_equal(rest.mean, expected)
        np.testing.assert_array_equal(held_out.mean, expected)

    @pytest.mark.parametrize("count", [0, -1, 40, 41])
    def test_hold_out_leaves_something_on_both_sides(self, count):
        with pytest.raises(ConfigError, match=f"{count} of 40 images"):
            some_data().hold_out(count)

    @pytest.mark.parametrize(
        ("images", "labels", "error", "words"),
        [
            (np.zeros((2, 4, 4, 3)), np.zeros(2, int), DtypeError, "float64"),
            (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2), DtypeError, "float64"),
            (np.zeros((2, 4, 4), np.uint8), np.zeros(2, int), DataError, r"\(2, 4, 4\)"),
            (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 1), int), DataError, r"\(2, 1\)"),
            (np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, int), DataError, "at least one"),
            (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 2]), DataError, "image 1 has label 2; there are 2 classes"),
            (np.zeros((2, 4, 4, 3), np.uint8), np.array([-1, 0]), DataError, "image 0 has label -1"),
        ],
    )
    def test_what_is_no_data_set_is_refused(self, images, labels, error, words):
        with pytest.raises(error, match=words):
            data.Dataset(images, labels, ("a", "b"), "bad")


class TestByName:
    def test_an_unknown_name_is_answered_with_the_nearest(self):
        with pytest.raises(ConfigError, match=r"'cifar-10' \(did you mean cifar10"):
            data.load("cifar-10")

    def test_the_built_in_set_reads_no_folder(self):
        with pytest.raises(ConfigError, match="reads no files"):
            data.load("shapes", data_dir="somewhere")

    @pytest.mark.parametrize("name", ["cifar10", "cifar100"])
    def test_files_need_a_folder(self, name, monkeypatch, tmp_path):
        monkeypatch.setenv("MINIRES_CACHE_DIR", str(tmp_path))
        with pytest.raises(DataError, match=f"minires data download {name}.*give data_dir"):
            data.load(name)


class TestAugmentation:
    def test_defaults_are_the_papers(self):
        how = data.Augmentation()
        assert (how.pad, how.reflect, how.flip, how.cutout) == (4, False, True, 0)

    @pytest.mark.parametrize("change", [{"pad": -1}, {"cutout": -8}, {"pad": 1.5}, {"cutout": True}])
    def test_settings_out_of_range_are_refused(self, change):
        with pytest.raises(ConfigError, match=next(iter(change))):
            data.Augmentation(**change)


@pytest.mark.parametrize("side", [1, 4, 6, 9, 12])
def test_smaller_images_are_means_of_areas(side):
    """Against the integral of the image, a function that is constant on every pixel, over each new pixel."""
    rng = np.random.default_rng(0)
    dataset = data.Dataset(rng.integers(0, 256, (5, 12, 12, 3), dtype=np.uint8), np.arange(5), tuple("abcde"), "x")
    small = dataset.resized(side)
    # of 12·side pixels, which both sizes divide
    fine = dataset.images.repeat(side, 1).repeat(side, 2).astype(np.float64)
    means = fine.reshape(5, side, 12, side, 12, 3).mean((2, 4))
    assert np.abs(small.images - means).max() <= 0.5 + 1e-4
    assert small.images.shape == (5, side, side, 3)
    np.testing.assert_allclose(small.mean, small.images.mean((0, 1, 2)) / 255, rtol=1e-5)
    assert small.classes == dataset.classes
    assert (small is dataset) == (side == 12)
    for wrong in (0, 13):
        with pytest.raises(ConfigError, match=f"images of 12×12 pixels cannot be made {wrong}×{wrong}"):
            dataset.resized(wrong)
