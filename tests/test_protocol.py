"""Comparisons, conversions and reductions of tensors, in Python's and NumPy's spelling, against what NumPy does with arrays."""

import operator
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import minires as mr
from minires import functional as F
from minires.errors import MiniresError

COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
FLOATS = st.sampled_from([np.float32, np.float64])
VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, np.inf, -np.inf, np.nan])  # few, so that some are equal
FINITE = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0])


@st.composite
def pairs(draw):
    """Two arrays of floats or integers whose shapes broadcast."""
    shapes = draw(arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3)).input_shapes
    dtypes = [draw(st.sampled_from([np.float32, np.float64, np.int64, np.bool_])) for _ in range(2)]
    elements = [VALUES if np.dtype(d).kind == "f" else st.integers(0, 1) for d in dtypes]
    return [draw(arrays.arrays(d, s, elements=e)) for d, s, e in zip(dtypes, shapes, elements)]


@st.composite
def reductions(draw, elements=VALUES):
    """An array, and the axis and keepdims of a reduction over it."""
    x = draw(arrays.arrays(draw(FLOATS), draw(SHAPES), elements=elements))
    axes = (
        st.lists(st.integers(-x.ndim, x.ndim - 1), unique_by=lambda a: a % x.ndim).map(tuple) if x.ndim else st.just(())
    )
    one = st.integers(-x.ndim, x.ndim - 1) if x.ndim else st.none()
    return x, draw(st.one_of(st.none(), one, axes)), draw(st.booleans())


def assert_same(ours, numpys):
    """Of the same type, shape, dtype and values."""
    assert type(ours) is np.ndarray
    assert (ours.shape, ours.dtype) == (np.shape(numpys), numpys.dtype)
    np.testing.assert_array_equal(ours, numpys)


@given(pairs(), st.sampled_from(COMPARISONS))
def test_comparisons(pair, compare):
    a, b = pair
    expected = compare(a, b)
    for ours in (compare(mr.tensor(a), mr.tensor(b)), compare(mr.tensor(a), b), compare(a, mr.tensor(b))):
        assert_same(ours, expected)


@given(arrays.arrays(FLOATS, SHAPES, elements=VALUES), VALUES, st.sampled_from(COMPARISONS))
def test_comparisons_with_numbers(a, number, compare):
    for scalar in (number, np.float32(number), np.float64(number), 1, True, np.int64(1)):
        assert_same(compare(mr.tensor(a), scalar), compare(a, scalar))
        assert_same(compare(scalar, mr.tensor(a)), compare(scalar, a))
        assert (scalar in mr.tensor(a)) is (scalar in a)


@given(reductions())
def test_comparisons_reduced(case):
    x, axis, keepdims = case
    for name in ("any", "all"):
        assert_same(
            getattr(np, name)(mr.tensor(x), axis=axis, keepdims=keepdims), getattr(np, name)(x, axis, keepdims=keepdims)
        )


@given(reductions(), st.sampled_from(["sum", "mean", "max", "min"]), st.sampled_from([None, np.float32, np.float64]))
def test_reductions(case, name, dtype):
    """NumPy's function calls the method; both spellings of its keywords work."""
    x, axis, keepdims = case
    reduce, options = getattr(np, name), {"axis": axis, "keepdims": keepdims}
    if name in ("sum", "mean") and dtype:
        options["dtype"] = dtype
    t = mr.tensor(x, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of nothing
        try:
            expected = np.asarray(reduce(x, **options))
        except ValueError:  # the maximum of nothing
            with pytest.raises(MiniresError):
                reduce(t, **options)
            return
        ours, torchs = reduce(t, **options), getattr(t, name)(axis, keepdim=keepdims)
    assert isinstance(ours, mr.Tensor)
    assert ours.requires_grad
    assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(torchs.numpy(), expected, rtol=1e-6)


@given(reductions(FINITE), st.sampled_from(["sum", "mean", "max", "min"]))
def test_gradients_of_reductions_are_torchs(case, name):
    torch = pytest.importorskip("torch")
    x, axis, keepdims = case
    dim = tuple(range(x.ndim)) if axis is None else axis
    if not x.size or dim == ():  # torch takes () for all axes
        return
    ours, theirs = mr.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    getattr(np, name)(ours, axis=axis, keepdims=keepdims).sum().backward()
    reduce = getattr(torch, {"max": "amax", "min": "amin"}.get(name, name))
    reduce(theirs, dim, keepdim=keepdims).sum().backward()
    assert type(ours.grad) is np.ndarray
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-6)


@given(arrays.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.bool_]), SHAPES, elements=st.integers(0, 1)))
def test_conversions(a):
    t = mr.tensor(a)
    for convert in (float, int, bool, lambda x: f"{x:.3f}", lambda x: x.item()):
        if a.size == 1:
            assert convert(t) == convert(a.reshape(()))
        else:
            with pytest.raises(MiniresError, match="one element, got shape"):
                convert(t)
    assert f"{t}" == str(t)
    if a.ndim:
        assert [row.tolist() for row in (r.numpy() for r in t)] == [row.tolist() for row in a]
    else:
        for iterate in (list, iter, len):
            with pytest.raises(TypeError) as error:
                iterate(t)
            assert isinstance(error.value, MiniresError)
    if a.dtype.kind == "f":
        assert_same(abs(t - 0.5).numpy(), np.asarray(abs(a - a.dtype.type(0.5))))


def test_the_accuracy_of_a_batch():
    predicted, labels = np.array([1, 2, 3, 4]), mr.tensor([1, 2, 0, 0])
    assert np.mean(predicted == labels) == 0.5
    assert np.mean(labels == predicted) == 0.5
    assert np.mean(mr.tensor([[0.1, 0.9], [0.8, 0.2]]).numpy().argmax(1) == mr.tensor([1, 0])) == 1.0


def test_values_of_other_types_differ():
    x = mr.tensor([1.0, 2.0])
    for other in (None, "text"):
        assert_same(x == other, np.array([False, False]))
        assert_same(x != other, np.array([True, True]))
    assert 2.0 in x
    assert 3.0 not in x
    assert 1.0 in mr.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert [1.0, 2.0] in mr.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_tensors_are_told_apart_by_identity():
    tensors = [mr.tensor([1.0, 2.0]) for _ in range(100)]
    assert len(set(tensors)) == len(dict.fromkeys(tensors)) == 100
    assert all({t: i for i, t in enumerate(tensors)}[tensors[k]] == k for k in (0, 50, 99))
    assert hash(tensors[0]) == object.__hash__(tensors[0])


def test_comparisons_are_not_recorded():
    x = mr.tensor([1.0, -1.0], requires_grad=True)
    (x * (x > 0).astype(x.dtype)).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]


class TestZeroDimensions:
    """Of 0-d arrays NumPy's ufuncs return scalars, which are no arrays."""

    FUNCTIONS = [
        *(F.exp, F.log, F.sqrt, F.abs, F.neg, F.relu, F.sigmoid, F.tanh, F.gelu, F.leaky_relu, F.sum, F.mean, F.max),
        *(lambda x: F.clip(x, 0, 5), lambda x: F.gelu(x, "tanh"), lambda x: x.min(), lambda x: F.dropout(x, 0.5)),
        *(lambda x: x**2, lambda x: 2**x, lambda x: x**x, lambda x: x / x, lambda x: 1 / x, lambda x: x - x),
        *(lambda x: F.add_relu(x, x), lambda x: x[...], lambda x: x.reshape(1)[0], lambda x: x.T, lambda x: x + x + x),
        *(lambda x: x.astype(np.float64).astype(np.float32), lambda x: F.mse_loss(x, x * 2)),
    ]

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_a_result_used_twice(self, backend, function):
        """Twice in one operation, and by two: the same gradient as with one axis."""
        grads = []
        for shape in ((), (1,)):
            mr.manual_seed(0)
            x = mr.tensor(np.full(shape, 3.0, np.float32), requires_grad=True)
            seen = []
            x.register_hook(seen.append)
            y = function(x)
            y = y * y + y * 2
            assert type(y.data) is np.ndarray
            y.sum().backward()
            y = function(x)
            (y * y).sum().backward()  # adds to what is there
            assert type(x.grad) is type(seen[0]) is np.ndarray
            assert x.grad.shape == seen[0].shape == shape
            assert x.grad.dtype == np.float32
            grads.append(x.grad.reshape(()))
        np.testing.assert_allclose(*grads, rtol=1e-6)

    def test_known_gradients(self):
        x = mr.tensor(3.0, requires_grad=True)
        (x * x).backward()
        assert x.grad == np.array(6.0)
        loss = (x * 2).sum()
        (loss * loss).backward()  # 4x²
        assert x.grad == np.array(6.0 + 24.0)

    def test_values_that_are_assigned(self):
        x = mr.tensor(3.0, requires_grad=True)
        (x * x).backward()
        x.data = x.data - x.grad / 4  # a NumPy scalar
        assert type(x.data) is np.ndarray
        assert x.data == np.array(1.5)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_an_optimizer_of_a_number(self, backend, momentum):
        x = mr.tensor(3.0, requires_grad=True)
        optimizer = mr.optim.SGD([x], lr=0.1, momentum=momentum)
        value, velocity = 3.0, 0.0
        for _ in range(3):
            optimizer.zero_grad()
            (x * x).backward()
            optimizer.step()
            velocity = momentum * velocity + 2 * value
            value -= 0.1 * velocity
        np.testing.assert_allclose(float(x), value, rtol=1e-6)


class TestAssigningAGradient:
    def test_a_tensor_gives_its_array(self):
        x, grad = mr.tensor([1.0, 2.0], requires_grad=True), mr.tensor([3.0, 4.0])
        x.grad = grad
        assert x.grad is grad.data
        (x * 2).sum().backward()
        assert x.grad.tolist() == [5.0, 6.0]
        x.grad = None
        assert x.grad is None

    def test_numbers_take_the_tensors_dtype(self):
        x = mr.tensor([1.0, 2.0], requires_grad=True)
        x.grad = [3, 4]
        assert_same(x.grad, np.array([3.0, 4.0], np.float32))
