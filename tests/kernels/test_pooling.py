"""Pooling: compiled kernels against the reference, the reference against naive loops."""

import numpy as np
import pytest
import reference_loops as loops
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import DTYPES, arrays, assert_close, poolings

from minires.kernels import reference
from minires.kernels.compiled import backend as fast

SEEDS = st.integers(0, 2**32 - 1)


def some_image(shape, dtype, seed, ties):
    """Random values, or with ``ties`` only three different ones, so that windows contain equal elements."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, shape) if ties else rng.standard_normal(shape)
    return x.astype(dtype)


def check_max(case, dtype, seed, ties, tested, oracle):
    shape, geometry = case
    x = some_image(shape, dtype, seed, ties)
    y, index = tested.max_pool2d(x, *geometry)
    expected_y, expected_index = oracle.max_pool2d(x, *geometry)
    assert (y.dtype, index.dtype) == (dtype, np.int32)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(index, expected_index)
    (dy,) = arrays(seed + 1, dtype, y.shape)
    dx = tested.max_pool2d_grad(dy, index, shape)
    assert dx.dtype == dtype
    bound = reference.max_pool2d_grad(np.abs(dy).astype(np.float64), index, shape)
    assert_close(dx, oracle.max_pool2d_grad(dy.astype(np.float64), index, shape), bound)


def check_average(case, dtype, seed, count_padding, tested, oracle):
    shape, (kernel, stride, padding, _) = case
    geometry = (kernel, stride, padding, count_padding)
    (x,) = arrays(seed, dtype, shape)
    y = tested.avg_pool2d(x, *geometry)
    expected = oracle.avg_pool2d(x.astype(np.float64), *geometry)
    assert y.dtype == dtype
    assert_close(y, expected, reference.avg_pool2d(np.abs(x).astype(np.float64), *geometry))
    (dy,) = arrays(seed + 1, dtype, y.shape)
    dx = tested.avg_pool2d_grad(dy, shape, *geometry)
    assert dx.dtype == dtype
    expected = oracle.avg_pool2d_grad(dy.astype(np.float64), shape, *geometry)
    assert_close(dx, expected, reference.avg_pool2d_grad(np.abs(dy).astype(np.float64), shape, *geometry))


@given(poolings(), DTYPES, SEEDS, st.booleans())
def test_fast_max_against_reference(case, dtype, seed, ties):
    check_max(case, dtype, seed, ties, fast, reference)


@given(poolings(most_size=6, most_channels=3), DTYPES, SEEDS, st.booleans())
def test_reference_max_against_loops(case, dtype, seed, ties):
    check_max(case, dtype, seed, ties, reference, loops)


@given(poolings(), DTYPES, SEEDS, st.booleans())
def test_fast_average_against_reference(case, dtype, seed, count_padding):
    case = _undilated(case)
    check_average(case, dtype, seed, count_padding, fast, reference)


@given(poolings(most_size=6, most_channels=3), DTYPES, SEEDS, st.booleans())
def test_reference_average_against_loops(case, dtype, seed, count_padding):
    check_average(_undilated(case), dtype, seed, count_padding, reference, loops)


def _undilated(case):
    shape, (kernel, stride, padding, _) = case
    return shape, (kernel, stride, padding, (1, 1))


@pytest.mark.parametrize("module", [fast, reference], ids=["numba", "reference"])
class TestMeaning:
    def test_a_window_of_minus_infinities_has_its_maximum_at_its_first_element(self, module):
        y, index = module.max_pool2d(np.full((1, 2, 2, 1), -np.inf, np.float32), (2, 2), (2, 2), (0, 0), (1, 1))
        assert (y.item(), index.item()) == (-np.inf, 0)

    def test_nan_wins(self, module):
        x = np.zeros((1, 4, 4, 2), np.float32)
        x[0, 1, 2, 1] = np.nan
        x[0, 1, 3, 1] = np.inf
        y, index = module.max_pool2d(x, (2, 2), (2, 2), (0, 0), (1, 1))
        expected = np.zeros((2, 2, 2), bool)
        expected[0, 1, 1] = True
        np.testing.assert_array_equal(np.isnan(y[0]), expected)
        assert index[0, 0, 1, 1] == 6

    def test_a_window_entirely_in_the_padding_has_no_gradient(self, module):
        """Taps at −1 and 2 of an image two pixels high: the maximum of no elements is −∞, and no input gets its gradient."""
        x = np.ones((1, 2, 4, 1), np.float32)
        y, index = module.max_pool2d(x, (2, 1), (1, 1), (1, 0), (3, 1))
        assert np.isneginf(y).all()
        np.testing.assert_array_equal(module.max_pool2d_grad(np.ones_like(y), index, x.shape), np.zeros_like(x))

    def test_ties_send_the_gradient_to_the_first(self, module):
        x = np.ones((1, 2, 2, 1), np.float32)
        y, index = module.max_pool2d(x, (2, 2), (2, 2), (0, 0), (1, 1))
        dx = module.max_pool2d_grad(np.full_like(y, 5), index, x.shape)
        assert dx.ravel().tolist() == [5, 0, 0, 0]
