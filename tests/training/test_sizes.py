"""Images that are smaller at first."""

import numpy as np
import pytest
from runs import RECIPE, begin, contents, go_on
from stop_at import StopAt

from minires.data import Augmentation, Loader
from minires.errors import ConfigError
from minires.training import Callback, Recipe, build_trainer

pytestmark = pytest.mark.usefixtures("small_runs")


def test_a_loader_has_the_sizes_of_its_epochs(tiny):
    train, _ = tiny
    loader = Loader(train, 16, sizes={1: 16, 3: 32}, seed=3)
    assert [next(iter(loader))[0].shape[2:] for _ in range(4)] == [(32, 32), (16, 16), (16, 16), (32, 32)]
    loader.set_epoch(2)
    images, labels = next(iter(loader))
    small = Loader(train.resized(16), 16, seed=3)
    small.set_epoch(2)
    expected, expected_labels = next(iter(small))
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels, expected_labels)
    with pytest.raises(ConfigError, match="a crop padding of 10 pixels is larger than the images, which have 8×8"):
        Loader(train, 16, augment=Augmentation(pad=10), sizes={0: 8})
    with pytest.raises(ConfigError, match=r"a reflected crop padding of 8 pixels .* 8×8: choose at most 7"):
        Loader(train, 16, augment=Augmentation(pad=8, reflect=True), sizes={0: 8})


def test_a_normalisation_that_is_given_is_that_of_small_images_too():
    recipe = RECIPE.with_settings(epochs=2, sizes=((16, 0.0), (32, 0.5)))
    own = build_trainer(recipe).train_loader
    assert own.dataset_at(0).std.tolist() != own.dataset.std.tolist()  # averages vary less
    given = build_trainer(recipe.with_settings(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))).train_loader
    for epoch in range(2):
        assert given.dataset_at(epoch).mean.tolist() == [0.5] * 3
        assert given.dataset_at(epoch).std.tolist() == [0.25] * 3


@pytest.mark.parametrize(("start", "epochs"), [(0.6, 1), (0.95, 8), (0.5, 1)])
def test_the_last_size_comes_in_any_case(start, epochs):
    """Rounding to whole epochs would put its start after the end."""
    recipe = RECIPE.with_settings(epochs=epochs, sizes=((24, 0.0), (32, start)))
    loader = build_trainer(recipe).train_loader
    sides = [loader.dataset_at(epoch).image_size for epoch in range(epochs)]
    assert sides == [24] * (epochs - 1) + [32]


def test_a_run(tmp_path):
    seen = []

    class Sides(Callback):
        def on_epoch_start(self, trainer):
            seen.append(trainer.train_loader.dataset_at(trainer.epoch).images.shape[1])

    recipe = RECIPE.with_settings(epochs=4, sizes=((16, 0.0), (24, 0.25), (32, 0.5)), jitter=0.1)
    trainer = begin(tmp_path / "whole", recipe, Sides())
    assert seen == [16, 24, 32, 32]
    assert trainer.finished
    assert Recipe.read(tmp_path / "whole/config.toml") == recipe
    begin(tmp_path / "run", recipe, StopAt(step=5))  # in the epoch of 24 pixels
    go_on(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([[24]], r"sizes are pairs of a side .* not \[\[24\]\]"),
        ([[24, 1.0]], "sizes are pairs"),
        ([[24, 0.5], [32, 0.5]], "sizes are pairs"),
        ([[24.5, 0.0]], "sizes are pairs"),
        ([24, 0.0], "sizes are pairs"),
        (24, "sizes must be a list, not 24"),
        ([[48, 0.0]], "images of 32×32 pixels cannot be made 48×48 by averaging"),
    ],
)
def test_sizes_that_cannot_be(tmp_path, sizes, said):
    with pytest.raises(ConfigError, match=said):
        begin(tmp_path / "run", RECIPE.with_settings(sizes=sizes))


def test_a_size_that_the_network_cannot_take(tmp_path, page):
    recipe = RECIPE.with_settings(model="whitened_resnet11", model_options={"width1": 4}, sizes=((4, 0.0), (32, 0.5)))
    with pytest.raises(ConfigError) as caught:
        begin(tmp_path / "run", recipe)
    page(str(caught.value))
