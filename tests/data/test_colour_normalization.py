"""Normalisation by other means and deviations than those of the training images."""

import math

import numpy as np
import pytest
import torch_peers

from minires import data
from minires.data import Dataset, Loader, Normalization
from minires.errors import ConfigError
from minires.training import Recipe, load_data


def test_pixels_are_normalised_by_it() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    own = Dataset(images, np.array([0, 1]), ("a", "b"), "own")
    other = Normalization.named("imagenet").applied(own)
    got = next(iter(Loader(other, 2, shuffle=False, prefetch=0)))[0]
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    want = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_imagenets_is_torchvisions() -> None:
    preset = torch_peers.torchvision().transforms._presets.ImageClassification(crop_size=224)
    assert Normalization.named("imagenet") == Normalization(tuple(preset.mean), tuple(preset.std))


def test_all_parts_of_a_recipe_have_it() -> None:
    recipe = Recipe.for_dataset("shapes", val=100, mean=(0.5, 0.25, 0.125), std=(0.5, 1, 2))
    for part in load_data(recipe):
        assert part is not None
        assert part.mean.tolist() == [0.5, 0.25, 0.125]
        assert part.std.tolist() == [0.5, 1, 2]
    assert Recipe.parse(recipe.to_toml("0")) == recipe


def test_without_one_it_is_that_of_the_training_images() -> None:
    train, test, val = load_data(Recipe.for_dataset("shapes", val=100))
    rest = data.load("shapes")[0].hold_out(100, 0)[0]
    assert val is not None
    for part in (train, test, val):
        np.testing.assert_array_equal(part.mean, rest.mean)
        np.testing.assert_array_equal(part.std, rest.std)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5,), (0.0,)),
        ((0.5,), (-1.0,)),
        ((math.nan,), (1.0,)),
        ((0.5,), (math.inf,)),
        ((0.5,), (True,)),
        (("x",), (1.0,)),
    ],
)
def test_what_cannot_be_one(mean: tuple, std: tuple) -> None:
    with pytest.raises(ConfigError, match="for each channel"):
        Normalization(mean, std)


def test_as_many_means_as_deviations() -> None:
    with pytest.raises(ConfigError, match="there are 2 and 1 numbers"):
        Normalization((0.5, 0.5), (1.0,))
    with pytest.raises(ConfigError, match="not none"):
        Normalization((), ())


def test_images_of_other_channels() -> None:
    with pytest.raises(ConfigError, match="of 1 channels, and the images of shapes have 3"):
        load_data(Recipe.for_dataset("shapes", mean=(0.5,), std=(0.5,)))
