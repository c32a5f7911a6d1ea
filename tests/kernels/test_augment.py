"""Augmentation: the compiled kernel against the reference, and both against their description."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires.errors import ConfigError, DataError, DtypeError, ShapeError
from minires.kernels import keyed_random
from minires.kernels.compiled import augment
from minires.kernels.reference import augment as reference

MEAN, STD = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.25, 0.3])


def some_images(count=6, size=(8, 8), channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, *size, channels), dtype=np.uint8)


def run(kernel, images, indices, dtype=np.float32, mean=MEAN, std=STD, **settings):
    out = np.full((len(indices), *images.shape[1:]), np.nan, dtype)
    assert kernel.augment_batch(images, np.asarray(indices), out, mean, std, **settings) is out
    return out


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    channels=st.integers(1, 4),
    pad=st.integers(0, 6),
    cutout=st.integers(0, 14),
    reflect=st.booleans(),
    flip=st.booleans(),
    alternate=st.booleans(),
    jitter=st.sampled_from([0.0, 0.1, 0.7]),
    seed=st.integers(-3, 2**70),
    epoch=st.integers(0, 1000),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_compiled_and_reference_give_the_same_bits(
    size, channels, pad, cutout, reflect, flip, alternate, jitter, seed, epoch, dtype
):
    images = some_images(5, size, channels)
    if reflect:
        pad = min(pad, min(size) - 1)
    mean, std = np.linspace(0.3, 0.6, channels), np.linspace(0.2, 0.4, channels)
    how = {"pad": pad, "cutout": cutout, "reflect": reflect, "flip": flip, "seed": seed, "epoch": epoch}
    how |= {"alternate": alternate, "jitter": jitter}
    results = [run(kernel, images, [4, 0, 4, 2], dtype, mean, std, **how) for kernel in (augment, reference)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("kernel", [augment, reference])
class TestMeaning:
    def test_without_options_images_are_only_normalised(self, kernel):
        images = some_images()
        expected = (images[[3, 1]].astype(np.float64) / 255 - MEAN) / STD
        np.testing.assert_allclose(run(kernel, images, [3, 1]), expected, rtol=1e-5, atol=1e-6)

    def test_a_crop_is_a_window_of_the_padded_image(self, kernel):
        images = some_images(1)
        for reflect in (False, True):
            plain = run(kernel, images, [0])[0]
            border = ((3, 3), (3, 3), (0, 0))
            padded = np.pad(plain, border, mode="reflect") if reflect else np.pad(plain, border)
            windows = {padded[y : y + 8, x : x + 8].tobytes() for y in range(7) for x in range(7)}
            assert len(windows) == 49
            # All 49 windows occur: the probability that one does not is about 49 · (48/49)⁴⁰⁰ = 1 %, and the draws are fixed.
            crops = {run(kernel, images, [0], pad=3, reflect=reflect, epoch=epoch).tobytes() for epoch in range(400)}
            assert crops == windows

    def test_draws_are_of_the_samples_wherever_their_images_are(self, kernel):
        images, how = some_images(), {"pad": 2, "flip": True, "cutout": 3, "jitter": 0.2, "epoch": 1}
        for alternate in (False, True):
            expected = run(kernel, images, [4, 1], alternate=alternate, **how)
            moved = run(kernel, images[[1, 4]], [1, 0], samples=np.array([4, 1]), alternate=alternate, **how)
            np.testing.assert_array_equal(moved, expected)

    def test_a_flip_swaps_left_and_right_about_half_of_the_time(self, kernel):
        images = some_images(1)
        plain = run(kernel, images, [0])[0]
        seen = [run(kernel, images, [0], flip=True, epoch=epoch)[0].tobytes() for epoch in range(200)]
        assert set(seen) == {plain.tobytes(), plain[:, ::-1].tobytes()}
        assert 70 < seen.count(plain.tobytes()) < 130

    def test_alternating_flips(self, kernel):
        """Each image in every other epoch: a random half in epoch 0, the others in epoch 1, and so on."""
        images = some_images(200, (4, 4))
        plain = run(kernel, images, np.arange(200))
        flipped = []
        for epoch in range(4):
            found = run(kernel, images, np.arange(200), flip=True, alternate=True, epoch=epoch, seed=5)
            flipped.append([not np.array_equal(x, y) for x, y in zip(plain, found)])
            assert all(np.array_equal(y, x[:, ::-1] if f else x) for f, x, y in zip(flipped[-1], plain, found))
        assert 70 < sum(flipped[0]) < 130
        assert flipped[1] == [not f for f in flipped[0]]
        assert flipped[2:] == flipped[:2]

    def test_jitter_moves_contrast_and_brightness(self, kernel):
        """y = a·x + b with one a in [0.7, 1.3) and one b in [-0.3, 0.3) for an image, all of the range in the end."""
        images = some_images(1)
        plain = run(kernel, images, [0], np.float64)[0]
        found = []
        for epoch in range(300):
            y = run(kernel, images, [0], np.float64, jitter=0.3, epoch=epoch)[0]
            a, b = np.polyfit(plain.ravel(), y.ravel(), 1)
            np.testing.assert_allclose(y, a * plain + b, atol=1e-12)
            found.append((a, b))
        for values, centre in zip(np.array(found).T, (1, 0)):
            assert centre - 0.3 <= values.min() < centre - 0.28
            assert centre + 0.28 < values.max() < centre + 0.3
            assert abs(values.mean() - centre) < 0.04
        assert abs(np.corrcoef(np.array(found).T)[0, 1]) < 0.2
        padded = run(kernel, images, [0], pad=3, jitter=0.3, epoch=3)[0]
        assert (padded == 0).all(-1).any()

    @pytest.mark.parametrize("side", [1, 2, 3, 4, 12])
    def test_cutout_blanks_one_square(self, kernel, side):
        images = some_images(1)
        plain, sizes = run(kernel, images, [0])[0], set()
        for epoch in range(150):
            seen = run(kernel, images, [0], cutout=side, epoch=epoch)[0]
            blank = (seen == 0).all(axis=-1)
            rows, columns = np.flatnonzero(blank.any(axis=1)), np.flatnonzero(blank.any(axis=0))
            assert blank[np.ix_(rows, columns)].all()
            assert blank.sum() == len(rows) * len(columns)
            np.testing.assert_array_equal(seen[~blank], plain[~blank])
            sizes.add((len(rows), len(columns)))
        assert max(sizes) == (min(side, 8), min(side, 8))
        assert side == 1 or len(sizes) > 1  # some squares extend beyond the border

    def test_a_sample_does_not_depend_on_its_batch(self, kernel):
        images = some_images()
        how = {"pad": 2, "flip": True, "cutout": 3, "seed": 5, "epoch": 7}
        together = run(kernel, images, [0, 1, 2, 3, 4, 5], **how)
        apart = np.concatenate([run(kernel, images, [i], **how) for i in (5, 2)])
        np.testing.assert_array_equal(together[[5, 2]], apart)

    def test_seed_epoch_and_sample_all_matter(self, kernel):
        images = np.repeat(some_images(1), 40, axis=0)
        base, *others = (
            run(kernel, images, np.arange(40), pad=3, flip=True, seed=seed, epoch=epoch)
            for seed, epoch in ((0, 0), (1, 0), (0, 1), (1, 1))
        )
        assert len({image.tobytes() for image in base}) > 20
        assert all((base != other).any() for other in others)

    def test_options_do_not_affect_each_other(self, kernel):
        """Cutout does not change the crop and the flip."""
        images = some_images()
        plain = run(kernel, images, np.arange(6), pad=2, flip=True)
        cut = run(kernel, images, np.arange(6), pad=2, flip=True, cutout=3)
        np.testing.assert_array_equal(cut[cut != 0], plain[cut != 0])

    def test_any_integer_indices_and_foreign_memory_order(self, kernel):
        images = some_images()
        strange = np.asfortranarray(images)
        for indices in (np.array([1, 4], np.int32), np.array([1, 9, 4], np.uint8)[::2]):
            np.testing.assert_array_equal(run(kernel, strange, indices), run(kernel, images, [1, 4]))

    def test_an_empty_batch(self, kernel):
        assert run(kernel, some_images(), np.empty(0, np.int64)).shape == (0, 8, 8, 3)

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"indices": np.array([0, 6])}, DataError, "sample 6 in a data set of 6"),
            ({"indices": np.array([-1, 0])}, DataError, "sample -1"),
            ({"indices": np.array([0.0, 1.0])}, DtypeError, "float64"),
            ({"indices": np.arange(3)}, ShapeError, r"\(3,\)"),
            ({"images": some_images().astype(np.float32)}, DtypeError, "uint8"),
            ({"images": some_images()[0]}, ShapeError, r"\(8, 8, 3\)"),
            ({"out": np.empty((2, 8, 8, 3), np.float16)}, DtypeError, "float16"),
            ({"out": np.empty((2, 8, 9, 3), np.float32)}, ShapeError, r"\(2, 8, 9, 3\)"),
            ({"out": np.empty((2, 3, 8, 8), np.float32).transpose(0, 2, 3, 1)}, ShapeError, "C-contiguous"),
            ({"mean": MEAN[:2]}, ShapeError, r"mean \(2,\)"),
            ({"pad": 8, "reflect": True}, ConfigError, "at most 7"),
            ({"pad": -1}, ConfigError, "-1"),
            ({"cutout": -2}, ConfigError, "-2"),
            ({"jitter": 1.0}, ConfigError, "jitter is a number from 0 up and below 1, not 1.0"),
        ],
    )
    def test_invalid_arguments_are_refused(self, kernel, change, error, words):
        good = {
            "images": some_images(),
            "indices": np.arange(2),
            "out": np.empty((2, 8, 8, 3), np.float32),
            "mean": MEAN,
            "std": STD,
        }
        with pytest.raises(error, match=words):
            kernel.augment_batch(**(good | change))


def test_it_compiles_once_per_dtype():
    images = some_images()
    for indices in ([0, 1], np.array([2], np.int32), np.array([1, 2, 3, 4])[::2]):
        for how in (
            {},
            {"pad": np.int64(2), "flip": np.True_, "reflect": True},
            {"cutout": 2, "seed": 2**64, "epoch": np.int32(3)},
        ):
            for dtype in (np.float32, np.float64):
                run(augment, images, np.asarray(indices), dtype, **how)
    assert len(augment._augment_batch.signatures) <= 2


class TestKeyedRandom:
    def test_it_is_splitmix64(self):
        """The first outputs of SplitMix64 from the state 1234567, as in the published reference implementation."""
        state, expected = (
            np.array([1234567], np.uint64),
            [6457827717110365317, 3203168211198807973, 9817491932198370423],
        )
        assert [int(keyed_random.scramble(state, np.array([k], np.uint64))[0]) for k in range(3)] == expected

    def test_purposes_and_words_give_different_keys(self):
        keys = [
            keyed_random.key_of(p, *w) for p in ("order", "augment") for w in ((0, 0), (0, 1), (1, 0), (-1, 0), (0,))
        ]
        assert len({int(key[0]) for key in keys}) == len(keys)

    def test_bits_are_balanced(self):
        draws = keyed_random.scramble(keyed_random.key_of("augment", 0, 0), np.arange(20_000, dtype=np.uint64))
        shares = np.unpackbits(draws.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
        assert np.abs(shares - 0.5).max() < 0.02

    def test_a_permutation_contains_every_number_once(self):
        order = keyed_random.permutation(1000, "order", 3, 4)
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
        assert (order != keyed_random.permutation(1000, "order", 3, 5)).any()
        assert keyed_random.permutation(0, "order").shape == (0,)

    def test_a_known_permutation(self):
        """A new version of NumPy must not reorder a training run."""
        assert keyed_random.permutation(8, "order", 0, 1).tolist() == [3, 5, 7, 2, 0, 6, 4, 1]
