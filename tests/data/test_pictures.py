"""The grid of pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from minires import data
from minires.data.pictures import GAP, choose, draw_grid, mosaic
from minires.errors import ConfigError


def some_data(classes=3, count=60):
    labels = np.arange(count) % classes
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images[:] = (labels * 2 + 1).astype(np.uint8)[:, None, None, None]
    return data.Dataset(images, labels, tuple(f"class {c}" for c in range(classes)), "some")


def test_images_are_of_their_class_and_chosen_by_the_seed():
    some = some_data()
    places = choose(some, 5, seed=1)
    assert places.shape == (3, 5)
    np.testing.assert_array_equal(some.labels[places], [[0] * 5, [1] * 5, [2] * 5])
    assert len(np.unique(places)) == 15
    np.testing.assert_array_equal(places, choose(some, 5, seed=1))
    assert not np.array_equal(places, choose(some, 5, seed=2))


def test_a_class_with_too_few_images_leaves_gaps():
    places = choose(some_data(3, 7), 4)
    np.testing.assert_array_equal((places >= 0).sum(axis=1), [3, 2, 2])
    canvas = mosaic(some_data(3, 7), places)
    assert (canvas[:8, -8:] == 255).all()


def test_the_mosaic_holds_every_pixel():
    some = some_data()
    canvas = mosaic(some, choose(some, 4))
    assert canvas.shape == (3 * 8 + 2 * GAP, 4 * 8 + 3 * GAP, 3)
    for row in range(3):
        y = row * (8 + GAP)
        assert (canvas[y : y + 8, :8] == 2 * row + 1).all()
    assert (canvas[8 : 8 + GAP] == 255).all()


@pytest.mark.parametrize("classes", [2, 10, 60, 100])
def test_the_grid_is_a_png(classes):
    png = draw_grid(some_data(classes, 200), 4, title="some: training images")
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 100
    for c in range(classes):
        assert (pixels == 2 * c + 1).all(axis=2).any()
    assert png == draw_grid(some_data(classes, 200), 4, title="some: training images")


@pytest.mark.parametrize("count", [0, -1, 51])
def test_what_cannot_be_drawn(count):
    with pytest.raises(ConfigError, match=f"1 to 50 images, not {count}"):
        draw_grid(some_data(), count)
