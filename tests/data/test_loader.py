"""The loader: what it yields, in which order, on which thread, and how it ends."""

import gc
import threading
import time

import numpy as np
import pytest

from minires import data, kernels
from minires.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def some():
    """Fifty images whose first pixel is their number."""
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(50)
    return data.Dataset(images, np.arange(50) % 5, tuple("abcde"), "some")


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "minires-loader"]


def numbers(some, batches):
    """Which images the batches hold, read off their first pixel."""
    first = np.concatenate([images[:, 0, 0, 0] for images, _ in batches])
    return np.rint((first * some.std[0] + some.mean[0]) * 255).astype(int)


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
class TestBatches:
    def test_shapes_dtypes_and_memory_order(self, some, prefetch):
        batches = list(data.Loader(some, 16, prefetch=prefetch))
        assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
        for images, labels in batches:
            assert images.shape == (len(labels), 3, 8, 8)
            assert images.dtype == np.float32
            assert labels.dtype == np.int64
            assert images.transpose(0, 2, 3, 1).flags.carray

    def test_in_order_and_normalised(self, some, prefetch):
        images, labels = zip(*data.Loader(some, 16, shuffle=False, prefetch=prefetch))
        expected = ((some.images / 255 - some.mean) / some.std).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(np.concatenate(images), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(np.concatenate(labels), some.labels)

    def test_every_image_once_in_a_new_order_every_epoch(self, some, prefetch):
        loader = data.Loader(some, 16, prefetch=prefetch)
        orders = [tuple(numbers(some, loader)) for _ in range(3)]
        assert len(set(orders)) == 3
        assert all(sorted(order) == list(range(50)) for order in orders)

    def test_labels_go_with_their_images(self, some, prefetch):
        batches = list(data.Loader(some, 7, prefetch=prefetch))
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), numbers(some, batches) % 5)

    def test_drop_last(self, some, prefetch):
        loader = data.Loader(some, 16, drop_last=True, prefetch=prefetch)
        assert [len(labels) for _, labels in loader] == [16] * 3
        assert len(loader) == 3
        assert len(data.Loader(some, 16, prefetch=prefetch)) == 4
        assert len(data.Loader(some, 25, prefetch=prefetch)) == 2

    def test_the_same_run_sees_the_same_bits(self, some, prefetch):
        how = data.Augmentation(pad=2, cutout=3)
        one = data.Loader(some, 16, augment=how, seed=4, prefetch=prefetch)
        other = data.Loader(some, 16, augment=how, seed=4, prefetch=2)
        list(one)
        other.set_epoch(1)  # starts in the middle
        for (images, labels), (same_images, same_labels) in zip(one, other, strict=True):
            np.testing.assert_array_equal(images, same_images)
            np.testing.assert_array_equal(labels, same_labels)

    def test_what_happens_to_a_sample_does_not_depend_on_the_batch_size(self, some, prefetch):
        def by_number(batch_size):
            how = data.Augmentation(pad=2)
            loader = data.Loader(some, batch_size, shuffle=False, augment=how, seed=1, prefetch=prefetch)
            return np.concatenate([images for images, _ in loader])

        np.testing.assert_array_equal(by_number(16), by_number(11))

    def test_batches_that_are_kept_do_not_change(self, some, prefetch):
        loader = data.Loader(some, 16, shuffle=False, prefetch=prefetch)
        kept = [images for images, _ in loader]
        copies = [images.copy() for images in kept]
        for _ in loader:
            pass
        for images, copy in zip(kept, copies):
            np.testing.assert_array_equal(images, copy)

    def test_an_exception_surfaces(self, some, prefetch):
        loader = data.Loader(some, 16, prefetch=prefetch)
        loader.order = lambda epoch: np.r_[np.arange(20), np.full(30, 99)]
        seen = []
        with pytest.raises(DataError, match="no sample 99"):
            seen.extend(loader)
        assert not loader_threads()

    def test_the_reference_back_end_gives_the_same(self, some, prefetch):
        loader = data.Loader(some, 16, augment=data.Augmentation(pad=2), prefetch=prefetch)
        fast = list(loader)
        loader.set_epoch(0)
        with kernels.backend("reference"):
            readable = list(loader)
        for (images, _), (same, _) in zip(fast, readable, strict=True):
            np.testing.assert_array_equal(images, same)


class TestThread:
    def test_it_ends_with_the_epoch(self, some):
        list(data.Loader(some, 16))
        assert not loader_threads()

    def test_breaking_off_stops_it(self, some):
        for _ in data.Loader(some, 4):
            break
        gc.collect()
        assert not loader_threads()

    def test_an_exception_in_the_loop_stops_it(self, some):
        def loop():
            for images, _ in data.Loader(some, 4):
                raise RuntimeError(images.shape)

        with pytest.raises(RuntimeError, match="8, 8"):
            loop()
        gc.collect()
        assert not loader_threads()

    def test_an_iterator_that_never_starts_has_none(self, some):
        iterator = iter(data.Loader(some, 4))
        assert not loader_threads()
        del iterator

    def test_two_iterations_at_once(self, some):
        loader = data.Loader(some, 10, shuffle=False)
        for (one, _), (other, _) in zip(loader, loader, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_it_works_ahead_but_no_further_than_asked(self, some, monkeypatch):
        made = []

        def counting(images, indices, out, *settings):
            made.append(len(indices))
            return out

        monkeypatch.setattr(data.loader.kernels, "augment_batch", counting, raising=False)
        batches = iter(data.Loader(some, 5, prefetch=3))
        next(batches)
        deadline = time.monotonic() + 5
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(made) == 4  # the one in use and three ahead
        batches.close()
        assert not loader_threads()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"batch_size": 4, "prefetch": -1}, "prefetch at least 0"),
        ({"batch_size": 64, "drop_last": True}, "50 images make no batch of 64"),
    ],
)
def test_settings_that_cannot_work_are_refused(some, settings, words):
    with pytest.raises(ConfigError, match=words):
        data.Loader(some, **settings)


def test_crops_and_cutouts_larger_than_the_images():
    some = data.shapes(0, train=4, test=4)[0]
    for settings, said in (
        ({"pad": 33}, "a crop padding of 33 pixels is larger than the images, which have 32×32: choose at most 32"),
        ({"cutout": 10**30}, f"a cutout of {10**30} pixels is larger"),
    ):
        with pytest.raises(ConfigError, match=said):
            data.Loader(some, 2, augment=data.Augmentation(**settings))
    for settings in ({"pad": 32}, {"cutout": 32}):
        images, _ = next(iter(data.Loader(some, 2, augment=data.Augmentation(**settings), prefetch=0)))
        assert images.shape == (2, 3, 32, 32)
