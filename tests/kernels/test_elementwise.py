"""ReLU, addition, matrix product, cross-entropy and the SGD step: compiled and reference kernels, and naive loops."""

import numpy as np
import pytest
import reference_loops as loops
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import DTYPES, arrays, assert_close

from minires.errors import DtypeError, ShapeError
from minires.kernels import memory_format as layout
from minires.kernels import reference
from minires.kernels.compiled import backend as fast

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.lists(st.integers(1, 9), min_size=0, max_size=4).map(tuple)
BOTH = pytest.mark.parametrize("module", [fast, reference], ids=["numba", "reference"])


def foreign_orders(x):
    """The same values in memory layouts of every kind."""
    wide = np.full((*x.shape, 2), np.nan, x.dtype)
    wide[..., 0] = x
    back = np.empty_like(x[..., ::-1]) if x.ndim else x
    if x.ndim:
        back = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    read_only = x.copy()
    read_only.flags.writeable = False
    return {"C": x, "F": np.asfortranarray(x), "sliced": wide[..., 0], "reversed": back, "read-only": read_only}


@given(SHAPES, DTYPES, SEEDS)
def test_relu_and_addition_are_exact(shape, dtype, seed):
    a, b, dy = arrays(seed, dtype, shape, shape, shape)
    for module in (fast, reference):
        y = module.relu(a)
        expected = np.array([max(float(v), 0.0) for v in a.ravel()], dtype).reshape(shape)
        np.testing.assert_array_equal(y, expected)
        assert y.dtype == dtype
        masked = [g if v > 0 else 0 for g, v in zip(dy.ravel(), a.ravel())]
        np.testing.assert_array_equal(module.relu_grad(dy, y), np.array(masked, dtype).reshape(shape))
        np.testing.assert_array_equal(module.add(a, b), a + b)
        np.testing.assert_array_equal(module.add_relu(a, b), np.where(a + b > 0, a + b, 0))


@BOTH
@pytest.mark.parametrize("shape", [(150, 3, 40), (3, 70, 7, 16), (20_011,)])
def test_memory_order_makes_no_difference(module, shape):
    """The arrays are large enough for the parallel path of ``add``."""
    a, b = arrays(0, np.float32, shape, shape)
    for name_a, left in foreign_orders(a).items():
        for name_b, right in foreign_orders(b).items():
            names = f"{name_a}, {name_b}"
            np.testing.assert_array_equal(module.add(left, right), a + b, names)
            np.testing.assert_array_equal(module.add_relu(left, right), np.maximum(a + b, 0), names)
            np.testing.assert_array_equal(module.relu_grad(left, right), np.where(b > 0, a, 0), names)
        np.testing.assert_array_equal(module.relu(left), np.maximum(a, 0), name_a)


@BOTH
def test_add_in_place(module):
    a, b = arrays(0, np.float32, (200, 101), (200, 101))
    expected = a + b
    for make in (np.copy, np.asfortranarray, lambda x: np.repeat(x, 2, axis=1)[:, ::2]):
        mine = make(a)
        assert module.add(mine, b, out=mine) is mine
        np.testing.assert_array_equal(mine, expected)


@BOTH
def test_nan_is_propagated(module):
    x = np.array([np.nan, -1, 0, 2], np.float32)
    np.testing.assert_array_equal(module.relu(x), [np.nan, 0, 0, 2])
    np.testing.assert_array_equal(module.add_relu(x, np.zeros_like(x)), [np.nan, 0, 0, 2])
    np.testing.assert_array_equal(module.relu_grad(np.full_like(x, 7), module.relu(x)), [7, 0, 0, 7])
    np.testing.assert_array_equal(module.relu_grad(x, np.ones_like(x)), x)


@BOTH
def test_results_own_their_memory(module):
    a, b = arrays(0, np.float32, (300, 100), (300, 100))
    for y in (module.relu(a), module.add(a, b), module.add_relu(a, b), module.relu_grad(a, b)):
        assert not np.may_share_memory(y, a)
        assert not np.may_share_memory(y, b)


MATRICES = st.tuples(st.integers(1, 120), st.integers(1, 70), st.integers(1, 70))


@given(MATRICES, st.sampled_from(["", "a", "b", "ab"]), DTYPES, SEEDS)
def test_fast_matmul(sizes, transposed, dtype, seed):
    M, K, N = sizes
    a, b = arrays(seed, dtype, (K, M) if "a" in transposed else (M, K), (N, K) if "b" in transposed else (K, N))
    a, b = a.T if "a" in transposed else a, b.T if "b" in transposed else b
    y = fast.matmul(a, b)
    assert y.dtype == dtype
    wide = a.astype(np.float64), b.astype(np.float64)
    assert_close(y, reference.matmul(*wide), np.abs(wide[0]) @ np.abs(wide[1]))


@given(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)), SEEDS)
def test_matmul_against_loops(sizes, seed):
    M, K, N = sizes
    a, b = arrays(seed, np.float32, (M, K), (K, N))
    for module in (fast, reference):
        assert_close(module.matmul(a, b), loops.matmul(a, b), np.abs(a) @ np.abs(b))


@BOTH
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 1), (1, 3)), ((4,), (4,)), ((), (5,)), ((5,), ()), ((2, 3), (3,)), ((), (2, 3)), ((1,), (4,)), ((), (1,))],
)
def test_matmul_broadcasts_leading_axes(module, order, left, right):
    a, b = (np.asarray(v, order=order) for v in arrays(0, np.float32, (*left, 7, 5), (*right, 5, 9)))
    y = module.matmul(a, b)
    assert y.shape == (*np.broadcast_shapes(left, right), 7, 9)
    for at in np.ndindex(y.shape[:-2]):
        each = [np.broadcast_to(v, (*y.shape[:-2], *v.shape[-2:]))[at] for v in (a, b)]
        assert_close(y[at], loops.matmul(*each), np.abs(each[0]) @ np.abs(each[1]))


@BOTH
@pytest.mark.parametrize("sizes", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_matmul_of_empty_arrays(module, sizes):
    M, K, N = sizes
    y = module.matmul(np.ones((M, K), np.float32), np.ones((K, N), np.float32))
    np.testing.assert_array_equal(y, np.zeros((M, N)))


@given(st.integers(1, 20), st.integers(1, 30), st.sampled_from([0.0, 0.1, 1.0]), DTYPES, SEEDS)
def test_cross_entropy_against_loops(N, K, smoothing, dtype, seed):
    logits, dlosses = arrays(seed, dtype, (N, K), (N,))
    logits *= 5
    labels = np.random.default_rng(seed).integers(0, K, N)
    tolerance = {"rtol": 200 * np.finfo(dtype).eps, "atol": 100 * np.finfo(dtype).eps}
    expected, expected_p = loops.cross_entropy(logits, labels, smoothing)
    for module in (fast, reference):
        losses, p = module.cross_entropy(logits, labels, smoothing)
        assert losses.dtype == p.dtype == dtype
        np.testing.assert_allclose(losses, expected, **tolerance)
        np.testing.assert_allclose(p, expected_p, **tolerance)
        d = module.cross_entropy_grad(p, labels, smoothing, dlosses)
        assert d.dtype == dtype
        np.testing.assert_allclose(d, loops.cross_entropy_grad(expected_p, labels, smoothing, dlosses), **tolerance)


@BOTH
def test_cross_entropy_does_not_overflow(module):
    logits = np.array([[1e4, -1e4, 0], [-np.inf, 0, 0], [1e30, 1e30, 0]], np.float32)  # −∞ rules a class out
    losses, p = module.cross_entropy(logits, np.array([1, 1, 1]), 0.0)
    np.testing.assert_allclose(losses, [2e4, np.log(2), np.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(p, [[1, 0, 0], [0, 0.5, 0.5], [0.5, 0.5, 0]])


@BOTH
def test_cross_entropy_propagates_nan(module):
    losses, p = module.cross_entropy(np.array([[0, np.nan], [0, 0]], np.float32), np.array([0, 1]), 0.0)
    assert np.isnan(losses).tolist() == [True, False]
    assert np.isnan(p).any(1).tolist() == [True, False]


@given(
    st.sampled_from([(7,), (5, 6), (9, 4, 3, 3), (40, 41)]),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.0, 1e-2]),
    st.booleans(),
    st.sampled_from(["C", "weights", "F"]),
    DTYPES,
    SEEDS,
)
def test_sgd_step_against_loops(shape, momentum, decay, nesterov, order, dtype, seed):
    nesterov = nesterov and momentum > 0
    start, grad, v = arrays(seed, dtype, shape, shape, shape)
    if not momentum:
        v[...] = 0
    expected, expected_v = loops.sgd_step(start, grad, v, 0.1, momentum, decay, nesterov)
    for module in (fast, reference):
        param, velocity = start.copy(), v.copy()
        if order == "F" or (order == "weights" and len(shape) == 4):
            stored = np.asfortranarray if order == "F" else lambda w: layout.oihw(np.copy(layout.hwio(w)))
            param, velocity = stored(param), stored(velocity)
        module.sgd_step([param], [grad], [velocity] if momentum else None, 0.1, momentum, decay, nesterov)
        assert param.dtype == dtype
        assert_close(param, expected, np.abs(start) + np.abs(grad) + np.abs(v))
        if momentum:
            assert_close(velocity, expected_v, np.abs(start) + np.abs(grad) + np.abs(v))


def test_sgd_step_refuses_what_it_cannot_update_in_place():
    gaps, dense = np.ones((4, 8), np.float32)[:, ::2], np.ones((4, 4), np.float32)
    for param, velocity in ((gaps, dense), (dense, gaps), (dense, np.asfortranarray(dense))):
        with pytest.raises(ShapeError, match="memory"):
            fast.sgd_step([param], [dense], [velocity], 0.1, 0.9, 0.0, False)
    np.testing.assert_array_equal(gaps, 1)


@BOTH
@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), DTYPES, SEEDS)
def test_the_zero_padding_shortcut_is_exact(module, shape, stride, before, after, dtype, seed):
    (x,) = arrays(seed, dtype, shape)
    N, H, W, C = shape
    y = module.zero_pad_shortcut(x, stride, before, after)
    rows, columns = range(0, H, stride), range(0, W, stride)
    expected = np.zeros((N, len(rows), len(columns), before + C + after), dtype)
    for n, i, j in np.ndindex(N, len(rows), len(columns)):
        for c in range(C):
            expected[n, i, j, before + c] = x[n, rows[i], columns[j], c]
    np.testing.assert_array_equal(y, expected)
    (dy,) = arrays(seed + 1, dtype, y.shape)
    dx = module.zero_pad_shortcut_grad(dy, shape, stride, before)
    expected = np.zeros(shape, dtype)
    for n, i, j in np.ndindex(N, len(rows), len(columns)):
        for c in range(C):
            expected[n, rows[i], columns[j], c] = dy[n, i, j, before + c]
    np.testing.assert_array_equal(dx, expected)
    assert y.dtype == dx.dtype == dtype


@pytest.mark.parametrize("dy", [(2, 3, 4, 9), (2, 4, 4, 9), (2, 4, 3, 4)])
def test_the_gradient_of_another_shortcut_is_refused(dy):
    with pytest.raises(ShapeError, match=r"zero_pad_shortcut_grad: shapes \(2"):
        fast.zero_pad_shortcut_grad(np.zeros(dy), (2, 7, 6, 5), 2, 1)


@BOTH
@given(st.tuples(*[st.integers(1, 9)] * 3), st.lists(st.integers(1, 20), min_size=1, max_size=5), DTYPES, SEEDS)
def test_channels_are_joined_and_parted(module, shape, channels, dtype, seed):
    xs = arrays(seed, dtype, *[(*shape, C) for C in channels])
    y = module.concat_channels(xs)
    assert y.shape == (*shape, sum(channels))
    assert y.dtype == dtype
    at = 0
    for C, x, part in zip(channels, xs, module.split_channels(y, channels), strict=True):
        np.testing.assert_array_equal(y[..., at : at + C], x)
        np.testing.assert_array_equal(part, x)
        assert part.flags.c_contiguous
        assert not np.may_share_memory(part, y)
        at += C


def test_channels_that_do_not_go_together_are_refused():
    x = np.zeros((2, 3, 4, 5))
    with pytest.raises(ShapeError, match=r"concat_channels: shapes \(2, 3, 4, 5\) and \(2, 3, 5, 5\)"):
        fast.concat_channels([x, np.zeros((2, 3, 5, 5))])
    with pytest.raises(DtypeError, match="concat_channels: takes arrays of one dtype"):
        fast.concat_channels([x, x.astype(np.float32)])
    with pytest.raises(ShapeError, match=r"split_channels: shapes \(2, 3, 4, 5\)"):
        fast.split_channels(x, [2, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_not_finite_finds_every_nan_and_inf(dtype):
    info = np.finfo(dtype)
    fine = [
        np.array([info.max, -info.max, info.smallest_subnormal, -0.0], dtype),
        np.ones((300, 401), dtype),
        np.zeros((0, 3), dtype),
    ]
    wrong = []
    for value in (np.nan, -np.nan, np.inf, -np.inf):
        for at in (0, 77, 120299):
            array = np.ones((300, 401), dtype)
            array.flat[at] = value
            wrong.append(array[:, ::-1] if at == 77 else array)
    mixed = [a for pair in zip(wrong, fine * 4, strict=True) for a in pair]
    for module in (fast, reference):
        assert module.not_finite(mixed).tolist() == [1, 0] * len(wrong)
        assert module.not_finite(fine).tolist() == [0] * len(fine)
        assert module.not_finite([]).tolist() == []


def test_one_update_of_many_parameters():
    """Parameters of all sizes, on several threads, against one at a time."""
    rng = np.random.default_rng(0)
    shapes = [(1,), (70000,), (3, 3, 5, 7), (16,), (200, 300), (0,), (2,)]
    params, grads, velocities = ([rng.standard_normal(s).astype(np.float32) for s in shapes] for _ in range(3))
    alone = [[a.copy() for a in arrays] for arrays in (params, velocities)]
    fast.sgd_step(params, grads, velocities, 0.1, 0.9, 1e-2, True)
    for param, grad, velocity in zip(alone[0], grads, alone[1], strict=True):
        fast.sgd_step([param], [grad], [velocity], 0.1, 0.9, 1e-2, True)
    for found, expected in zip([*params, *velocities], [*alone[0], *alone[1]], strict=True):
        assert found.tobytes() == expected.tobytes()
