"""Images that are read as a Loader needs them: pixels, draws, threads, memory, and objects of the user's."""

import threading
import tracemalloc

import numpy as np
import pytest
import torch_peers
from drawn_folders import folder_of_noise, noise

from minires import data
from minires.data.images.resized_crop import RATIO, random_window, reduced, resized_crop
from minires.errors import ConfigError, DataError, DtypeError

CROPS = data.Augmentation(pad=0, scale=(0.08, 1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return data.ImageFolder(folder_of_noise(tmp_path_factory.mktemp("photos"), count=10))


class Objects:
    """A user's data set. image(i) is the image of a sample."""

    def __init__(self, image=lambda i: noise(i, 12, 12), label=lambda i: i % 3, count=7):
        self.image, self.label, self.count = image, label, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if not 0 <= i < self.count:
            raise IndexError(i)
        return self.image(i), self.label(i)


def batches(samples, epochs=2, **settings):
    loader = data.Loader(samples, 8, **{"image_size": 32, "augment": CROPS, "seed": 3, **settings})
    return [[(images.copy(), labels.copy()) for images, labels in loader] for _ in range(epochs)]


def assert_same(a, b):
    for epoch, other in zip(a, b, strict=True):
        for (x, y), (u, v) in zip(epoch, other, strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)


class TestBatches:
    def test_the_same_bits_with_any_number_of_threads(self, folder):
        expected = batches(folder, workers=1, prefetch=0)
        for workers, prefetch in ((2, 0), (5, 2), (None, 1)):
            assert_same(expected, batches(folder, workers=workers, prefetch=prefetch))

    def test_every_epoch_has_other_crops_and_every_seed(self, folder):
        first, second = batches(folder)
        assert not np.array_equal(np.sort(first[0][0].ravel()), np.sort(second[0][0].ravel()))
        assert not np.array_equal(first[0][0], batches(folder, seed=4)[0][0][0])

    def test_an_epoch_can_be_gone_on_with(self, folder):
        later = data.Loader(folder, 8, image_size=32, augment=CROPS, seed=3)
        later.set_epoch(1)
        assert_same([batches(folder)[1]], [list(later)])

    def test_a_sample_does_not_depend_on_the_batch(self, folder):
        def by_sample(batch_size):
            loader = data.Loader(folder, batch_size, image_size=32, augment=CROPS, seed=3)
            order = loader.order(0)
            images = np.concatenate([images for images, _ in loader])
            return images[np.argsort(order)]

        np.testing.assert_array_equal(by_sample(8), by_sample(3))

    def test_evaluation_images_are_normalised_and_labelled(self, folder):
        loader = data.Loader(folder, 20, shuffle=False, image_size=32)
        ((images, labels),) = loader
        np.testing.assert_array_equal(labels, folder.labels)
        dataset = loader.dataset
        pixels = np.stack([data.evaluation_transform(folder[i][0], 32) for i in range(20)])
        expected = (pixels / 255 - dataset.mean) / dataset.std
        np.testing.assert_allclose(images.transpose(0, 2, 3, 1), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dataset.mean, (pixels / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(dataset.std, (pixels / 255).std(axis=(0, 1, 2)), rtol=1e-5)

    def test_flips_are_of_a_random_half(self, folder):
        flip = data.Augmentation(pad=0, flip=True)
        settings = {"image_size": 32, "shuffle": False, "seed": 1}
        ((plain, _),) = data.Loader(folder, 20, **settings)
        ((flipped, _),) = data.Loader(folder, 20, augment=flip, **settings)
        mirrored = [np.array_equal(b, a[..., ::-1]) for a, b in zip(plain, flipped)]
        assert all(same or np.array_equal(a, b) for same, a, b in zip(mirrored, plain, flipped))
        assert 4 <= sum(mirrored) <= 16

    def test_smaller_images_at_first(self, folder):
        loader = data.Loader(folder, 8, image_size=32, augment=CROPS, sizes={0: 16, 1: 32})
        assert [next(iter(loader))[0].shape[2:] for _ in range(2)] == [(16, 16), (32, 32)]

    def test_leaving_a_loop_ends_its_threads(self, folder):
        for prefetch in (0, 2):
            for _ in data.Loader(folder, 2, image_size=32, prefetch=prefetch, workers=3):
                break
        left = [t.name for t in threading.enumerate() if t.name.startswith(("minires-loader", "minires-decoder"))]
        assert not left

    def test_an_image_that_vanishes_is_named(self, tmp_path):
        root = folder_of_noise(tmp_path)
        dataset = data.MapDataset(data.ImageFolder(root), 32, mean=[0.5] * 3, std=[0.2] * 3)
        loader = data.Loader(dataset, 3, shuffle=False)
        (root / "cat" / "004.png").unlink()
        seen = []
        with pytest.raises(DataError, match=r"cat/004\.png cannot be read"):
            seen.extend(labels for _, labels in loader)
        assert len(seen) == 1


class TestObjects:
    def test_arrays_and_labels(self):
        loader = data.Loader(Objects(), 3, shuffle=False)
        images, labels = zip(*loader)
        np.testing.assert_array_equal(np.concatenate(labels), [0, 1, 2, 0, 1, 2, 0])
        pixels = np.stack([noise(i, 12, 12) for i in range(7)])
        expected = (pixels / 255 - loader.dataset.mean) / loader.dataset.std
        np.testing.assert_allclose(np.concatenate(images).transpose(0, 2, 3, 1), expected, rtol=1e-4, atol=1e-5)
        assert loader.dataset.classes == ("0", "1", "2")

    def test_pillow_images_of_any_mode(self):
        image = pytest.importorskip("PIL.Image")
        rgb = image.fromarray(noise(0, 12, 12))
        modes = Objects(lambda i: (rgb, rgb.convert("P"), rgb.convert("RGBA"))[i], count=3)
        for i, (images, _) in enumerate(data.Loader(modes, 1, shuffle=False)):
            assert images.shape == (1, 3, 12, 12), i

    def test_grey_images_have_one_channel(self):
        grey = Objects(lambda i: noise(i, 20, 30)[..., 0])
        ((images, _),) = data.Loader(grey, 7, image_size=16, augment=CROPS)
        assert images.shape == (7, 1, 16, 16)

    def test_a_torch_data_set(self):
        torch = torch_peers.torch()
        pairs = [(torch.from_numpy(noise(i, 12, 12)), torch.tensor(i)) for i in range(4)]
        ((_, labels),) = data.Loader(pairs, 4, shuffle=False)
        assert labels.tolist() == [0, 1, 2, 3]

    def test_large_square_images_of_the_size_stay_as_they_are(self):
        large = Objects(lambda i: noise(i, 128, 128))
        dataset = data.MapDataset(large, 128)
        np.testing.assert_array_equal(dataset.evaluated(0), noise(0, 128, 128))

    @pytest.mark.parametrize(
        ("objects", "error", "said"),
        [
            (Objects(lambda i: noise(i, 12, 12).transpose(2, 0, 1)), DataError, r"channels come last"),
            (Objects(lambda i: noise(i, 12, 12) / 255), DtypeError, "is of dtype float64: images are uint8"),
            (Objects(lambda i: noise(i, 12, 12)[0, 0]), DataError, r"has shape \(3,\)"),
            (Objects(label=lambda i: "cat"), DataError, r"is \(image, label\), the label an integer"),
            (Objects(label=lambda i: -1), DataError, "has label -1"),
            ([noise(0, 12, 12)], DataError, r"sample 0 is \(image, label\)"),
            (Objects(count=0), DataError, "at least one image"),
            (3, DataError, "a int is no data set: it has no __len__"),
        ],
    )
    def test_what_is_no_labelled_image(self, objects, error, said):
        with pytest.raises(error, match=said):
            list(data.Loader(objects, 2, image_size=12))

    def test_labels_beyond_the_classes(self):
        objects = Objects()
        objects.classes = ["a", "b"]
        with pytest.raises(DataError, match="sample 2 has label 2; labels are integers from 0 to 1"):
            list(data.Loader(objects, 2, shuffle=False, image_size=12))

    def test_other_numbers_of_channels_than_the_first(self):
        mixed = Objects(lambda i: noise(i, 12, 12)[..., : 3 if i else 1])
        with pytest.raises(DataError, match="channels"):
            list(data.Loader(data.MapDataset(mixed, 12, mean=[0.5], std=[0.5]), 2, shuffle=False))

    def test_errors_of_the_object_are_raised_as_they_are(self):
        def image(i):
            raise ZeroDivisionError("the user's")

        with pytest.raises(ZeroDivisionError, match="the user's"):
            list(data.Loader(Objects(image), 2, image_size=12))


class TestSettings:
    def test_images_of_no_size(self, folder):
        with pytest.raises(ConfigError, match=r"has \d+×\d+ pixels, and .* of one size: give image_size"):
            data.Loader(folder, 4)
        for size in (0, -3, 5000, 2.5, True):
            with pytest.raises(ConfigError, match="image_size is a whole number"):
                data.Loader(folder, 4, image_size=size)

    def test_random_resized_crops_are_of_files(self):
        with pytest.raises(ConfigError, match=r"random resized crops .* are of images that are read from files"):
            data.Loader(data.Dataset(noise(0, 8, 8)[None], [0], ("a",), "one"), 1, augment=CROPS)

    @pytest.mark.parametrize("scale", [(0, 1), (0.5, 0.2), (0.5, 1.5), (0.5,), "ab", (True, True)])
    def test_scales(self, scale):
        with pytest.raises(ConfigError, match="scale is two parts of the area"):
            data.Augmentation(scale=scale)

    def test_workers(self, folder):
        with pytest.raises(ConfigError, match="workers is at least 1"):
            data.Loader(folder, 4, image_size=32, workers=0)

    def test_held_out_images(self, folder):
        rest, held_out = data.MapDataset(folder, 32).hold_out(5, seed=1)
        assert sorted([*rest.indices, *held_out.indices]) == list(range(20))
        assert len(held_out) == 5
        np.testing.assert_array_equal(rest.mean, held_out.mean)
        assert rest.checksum() != held_out.checksum()


class TestCrops:
    def test_windows_have_the_sizes_of_torchvisions(self):
        """Areas and shapes are distributed as those of RandomResizedCrop.get_params: means of 2,000 draws."""
        transforms, torch = torch_peers.torchvision().transforms, torch_peers.torch()
        for height, width in ((48, 64), (300, 40), (20, 20)):
            ours = np.array([random_window(height, width, (0.08, 1.0), 0, 0, i) for i in range(2000)])
            torch.manual_seed(0)
            image = torch.zeros(3, height, width)
            # top, left, height, width
            theirs = np.array([transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), RATIO) for _ in range(2000)])
            left, top, right, bottom = ours.T
            assert min(left.min(), top.min()) >= 0
            assert right.max() <= width
            assert bottom.max() <= height
            for own, other in ((right - left, theirs[:, 3]), (bottom - top, theirs[:, 2]), (left, theirs[:, 1])):
                error = other.std() / len(other) ** 0.5
                assert abs(own.mean() - other.mean()) < 5 * error + 0.02

    def test_resizing_is_torchvisions(self):
        functional, image = torch_peers.torchvision().transforms.functional, pytest.importorskip("PIL.Image")
        pixels = noise(0, 60, 90)
        for window in ((0, 0, 90, 60), (13, 7, 40, 58), (5, 5, 6, 6)):
            left, top, right, bottom = window
            expected = functional.resized_crop(image.fromarray(pixels), top, left, bottom - top, right - left, [32, 32])
            np.testing.assert_array_equal(resized_crop(pixels, window, 32), np.asarray(expected))

    def test_grey_images_are_resized_as_colours_are(self):
        pixels = noise(0, 60, 90)
        np.testing.assert_array_equal(
            resized_crop(pixels[..., 1:2], (3, 4, 70, 50), 32), resized_crop(pixels, (3, 4, 70, 50), 32)[..., 1:2]
        )

    @pytest.mark.parametrize(
        ("shape", "expected"), [((60, 90), (48, 72)), ((100, 40), (100, 40)), ((90, 60), (72, 48))]
    )
    def test_large_images_are_reduced(self, shape, expected):
        assert reduced(noise(0, *shape), 16).shape[:2] == expected

    @pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (2, 3)])
    def test_images_of_few_pixels(self, shape):
        for sample in range(50):
            left, top, right, bottom = random_window(*shape, (0.08, 1.0), 0, 0, sample)
            assert 0 <= left < right <= shape[1]
            assert 0 <= top < bottom <= shape[0]
            assert resized_crop(noise(0, *shape), (left, top, right, bottom), 8).shape == (8, 8, 3)


def test_sets_may_be_larger_than_memory():
    """Six hundred images of 300×300, 162 MB, are read in a fraction of that."""
    large = Objects(lambda i: np.full((300, 300, 3), i % 251, np.uint8), count=600)
    loader = data.Loader(data.MapDataset(large, 16, ("0", "1", "2")), 16, augment=CROPS)
    tracemalloc.start()
    try:
        assert loader.dataset.mean.shape == (3,)
        assert sum(len(labels) for _, labels in loader) == 600
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6


GREY = np.full((8, 8), 0.5, np.float32)


@pytest.mark.parametrize(
    "pixels", [GREY, (GREY * 60_000).astype(np.uint16), (GREY * 9).astype(np.int32)], ids=["F", "I;16", "I"]
)
def test_pictures_of_wide_grey_levels_are_not_black(pixels):
    """Pillow would clip them to 0 … 255."""
    image = pytest.importorskip("PIL.Image").fromarray(pixels)
    with pytest.raises(
        DtypeError, match=r"a Pillow image of mode \S+, which does not say what white is: scale it to uint8"
    ):
        data.MapDataset([(image, 0)])


def test_parts_have_the_classes_of_the_whole():
    image = np.zeros((4, 4, 3), np.uint8)
    whole = data.MapDataset([(image, 9 if i == 3 else i % 2) for i in range(20)])
    assert {part.num_classes for part in whole.hold_out(5)} == {10}
    assert whole.take(np.array([0, 1])).num_classes == 10
    for label in (10**12, 2**70, -1):
        with pytest.raises(DataError, match=f"sample 1 has label {label}; labels are integers from 0 to 1,048,575"):
            assert data.MapDataset([(image, 0), (image, label)]).labels


def test_statistics_and_names_that_are_given_count():
    images, labels = np.zeros((4, 4, 4, 3), np.uint8), np.arange(4)
    samples = list(zip(images, labels))
    with pytest.raises(ConfigError, match="mean and std go together"):
        data.Dataset(images, labels, "abcd", "x", mean=[0.5] * 3)
    for given in ({"mean": [0.5] * 3}, {"std": [0.5] * 3}):
        with pytest.raises(ConfigError, match="mean and std go together"):
            data.MapDataset(samples, **given)
    assert data.MapDataset(samples, classes=np.array(["a", "b", "c", "d"])).classes == ("a", "b", "c", "d")
    assert data.MapDataset(samples, classes=[10, 20, 30, 40]).classes == ("10", "20", "30", "40")
