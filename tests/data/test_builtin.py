"""The built-in set: what it holds, how quickly, and how hard it is."""

import time
import warnings

import numpy as np
import pytest

from minires import data, kernels
from minires.errors import ConfigError


def test_it_has_the_size_and_balance_it_promises():
    train, test = data.load("shapes")
    assert repr(train) == "Dataset shapes: 20000 images of 32×32×3, 10 classes"
    assert len(test) == 4000
    assert (np.bincount(train.labels) == 2000).all()
    assert (np.bincount(test.labels) == 400).all()
    assert len(train.classes) == 10
    np.testing.assert_array_equal(train.mean, test.mean)
    assert 0.4 < train.mean.min() < train.mean.max() < 0.6
    assert train.std.min() > 0.2
    seen = {image.tobytes() for image in train.images}
    assert len(seen) == 20_000
    assert not any(image.tobytes() in seen for image in test.images)


def test_it_is_drawn_in_under_three_seconds():
    """Of this process: others may run beside it."""
    data.shapes(train=10, test=10)  # compiles
    began = time.process_time()
    data.shapes(seed=1)
    assert time.process_time() - began < 3 * kernels.get_num_threads()


def test_a_small_set_is_the_beginning_of_the_large_one():
    small, _ = data.shapes(seed=5, train=30, test=10)
    large, _ = data.shapes(seed=5, train=60, test=10)
    np.testing.assert_array_equal(small.images, large.images[:30])
    assert not np.array_equal(small.images, data.shapes(seed=6, train=30, test=10)[0].images)


def test_an_empty_set_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        data.shapes(train=0)


def test_colour_says_nothing_about_the_class():
    """The mean colours of the classes lie close together: within a twentieth of the range."""
    train, _ = data.shapes(train=5000, test=10)
    colours = np.array([train.images[train.labels == k].mean(axis=(0, 1, 2)) for k in range(10)])
    assert np.ptp(colours, axis=0).max() < 255 / 20


@pytest.mark.slow
def test_a_linear_classifier_cannot_learn_it():
    """Logistic regression on pixels: under 45 % (about 14 %). The network has to see shapes."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, test = data.load("shapes")

    def features(some):
        return (some.images / np.float32(255) - train.mean).reshape(len(some), -1).astype(np.float32)

    for C in (1.0, 1e-3):
        model = linear_model.LogisticRegression(C=C, max_iter=60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sixty steps fit the training set as far as it goes; lbfgs wants more
            model.fit(features(train), train.labels)
        assert model.score(features(test), test.labels) < 0.45
