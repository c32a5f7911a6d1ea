"""Batch normalisation: compiled against reference, reference against naive loops; accuracy where float32 is at its limits."""

import numpy as np
import pytest
import reference_loops as loops
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import DTYPES, EPS, arrays, assert_close

from minires.kernels import reference
from minires.kernels.compiled import backend as fast

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(1, 13), st.integers(1, 13), st.integers(1, 70)),
    st.tuples(st.integers(2, 300), st.integers(1, 300)),
)
SMALL = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))


def check(shape, dtype, seed, training, tested, oracle):
    C = shape[-1]
    x, dy, weight, bias = arrays(seed, dtype, shape, shape, (C,), (C,))
    x += np.arange(C, dtype=dtype) % 7  # channels of different means
    eps = EPS[np.dtype(dtype)]
    wide = x.astype(np.float64)

    mean, var = tested.batch_norm_stats(x)
    expected_mean, expected_var = oracle.batch_norm_stats(wide)
    assert mean.dtype == var.dtype == np.float64
    np.testing.assert_allclose(mean, expected_mean, atol=16 * eps * np.abs(wide).max())
    np.testing.assert_allclose(var, expected_var, rtol=64 * eps, atol=64 * eps)

    inv_std = 1 / np.sqrt(expected_var + 1e-5)
    scale = weight * inv_std
    y = tested.batch_norm(x, expected_mean, scale, bias)
    assert y.dtype == dtype
    bound = (np.abs(wide) + np.abs(expected_mean)) * np.abs(scale) + np.abs(bias)
    assert_close(y, oracle.batch_norm(wide, expected_mean, scale, bias), bound)

    args = (expected_mean, inv_std, weight.astype(np.float64), training)
    dx, dw, db = tested.batch_norm_grad(dy, x, *args)
    expected_dx, expected_dw, expected_db = oracle.batch_norm_grad(dy.astype(np.float64), wide, *args)
    assert dx.dtype == dtype
    assert dw.dtype == db.dtype == np.float64
    axes = tuple(range(x.ndim - 1))
    sum_db = np.abs(dy).sum(axes)
    sum_dw = (np.abs(dy) * (np.abs(wide) + np.abs(expected_mean)) * inv_std).sum(axes)
    assert np.all(np.abs(db - expected_db) <= 16 * eps * sum_db)
    assert np.all(np.abs(dw - expected_dw) <= 16 * eps * sum_dw)
    M = x.size // C
    x_hat = (np.abs(wide) + np.abs(expected_mean)) * inv_std
    bound = np.abs(weight) * inv_std * (np.abs(dy) + sum_db / M + x_hat * sum_dw / M)
    assert_close(dx, expected_dx, bound)


@given(SHAPES, DTYPES, SEEDS, st.booleans())
def test_fast_against_reference(shape, dtype, seed, training):
    check(shape, dtype, seed, training, fast, reference)


@given(SMALL, DTYPES, SEEDS, st.booleans())
def test_reference_against_loops(shape, dtype, seed, training):
    check(shape, dtype, seed, training, reference, loops)


@given(SMALL, DTYPES, SEEDS, st.booleans())
def test_fast_against_loops(shape, dtype, seed, training):
    check(shape, dtype, seed, training, fast, loops)


@pytest.mark.parametrize("module", [fast, reference], ids=["numba", "reference"])
@pytest.mark.parametrize("shape", [(128, 32, 32, 16), (16, 8, 8, 64), (64, 7, 7, 3), (2048, 5), (2, 3, 5, 7)])
def test_the_variance_survives_a_large_mean(module, shape):
    """Mean 1000, deviation 0.1: E[x²] − E[x]² in float32 has an error of 0.1 in a variance of 0.01."""
    x = (np.random.default_rng(0).standard_normal(shape) * 0.1 + 1000).astype(np.float32)
    mean, var = module.batch_norm_stats(x)
    rows = x.reshape(-1, shape[-1]).astype(np.float64)
    np.testing.assert_allclose(var, rows.var(0), rtol=1e-3)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-7)
    naive = (x.reshape(-1, shape[-1]) ** 2).mean(0) - x.reshape(-1, shape[-1]).mean(0) ** 2
    assert np.abs(naive - rows.var(0)).max() > 1e-3 * rows.var(0).max()  # this is not easy to achieve


@pytest.mark.parametrize("module", [fast, reference], ids=["numba", "reference"])
def test_a_slow_drift_does_not_spoil_the_variance(module):
    """The shift by a block's first row must be good enough even if values change considerably from row to row."""
    x = np.linspace(0, 1e4, 20_000, dtype=np.float32)[:, None] + np.float32([0, 5e4])
    _, var = module.batch_norm_stats(x)
    np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=1e-5)


@pytest.mark.parametrize("module", [fast, reference], ids=["numba", "reference"])
def test_nan_stays_in_its_channel(module):
    x = np.ones((4, 3, 3, 5), np.float32)
    x[1, 2, 0, 3] = np.nan
    mean, var = module.batch_norm_stats(x)
    assert np.isnan(mean).tolist() == np.isnan(var).tolist() == [False, False, False, True, False]
    y = module.batch_norm(x, np.zeros(5), np.ones(5), np.zeros(5))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


@given(st.integers(1, 70), st.sampled_from([0.0, 0.1, 1.0]), st.integers(2, 10**6), DTYPES, SEEDS)
def test_running_statistics_have_the_bits_of_numpy(C, momentum, count, dtype, seed):
    running, batch = arrays(seed, dtype, (C,), (C,)), arrays(seed + 1, np.float64, (C,), (C,))
    found = []
    for module in (fast, reference):
        mine, batches = [np.array(a) for a in running], np.array(7, np.int64)
        module.update_running_stats(*mine, batches, momentum, *batch, count)
        assert batches == 8
        found.append([a.tobytes() for a in mine])
    assert found[0] == found[1]


def test_running_statistics_may_be_slices():
    rows = np.zeros((5, 4), np.float32)
    fast.update_running_stats(rows[:, 0], rows[:, 2], np.zeros((), np.int64), 0.5, np.arange(5.0), np.ones(5), 2)
    np.testing.assert_array_equal(rows, np.stack([np.arange(5) / 2, 0 * np.arange(5), np.ones(5), np.zeros(5)], 1))


@given(st.integers(1, 70), DTYPES, DTYPES, SEEDS)
def test_fixed_terms_have_the_bits_of_numpy(C, dtype, kept, seed):
    weight, bias = arrays(seed, dtype, (C,), (C,))
    mean, var = arrays(seed + 1, kept, (C,), (C,))
    args = mean, np.abs(var), 1e-5, weight, bias
    assert fast.norm_fixed_terms(*args).tobytes() == reference.norm_fixed_terms(*args).tobytes()
