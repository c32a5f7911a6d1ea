"""Gradients near the ends of what float32 holds: where the true gradient is a float32, so is ours, and right.

The true one comes from the formula in the other direction: in float64, and where that would cancel, from ``math``.
"""

import math

import numpy as np
import pytest

import minires as mr
from minires import functional as F

LARGE, SMALL = 1e38, 1e-37


def gradients(function, *values, dy=1.0):
    """The gradients of a function of 0-d float32 tensors, as Python floats."""
    tensors = [mr.tensor(np.float32(v), requires_grad=True) for v in values]
    with np.errstate(over="ignore", under="ignore"):
        function(*tensors).backward(np.float32(dy))
    return [float(t.grad) for t in tensors]


def rounded(*values):
    """As float32 numbers."""
    return [float(np.float32(v)) for v in values]


@pytest.mark.parametrize(
    ("a", "b", "dy"),
    [
        (1e-23, 1e-23, 1.0),  # b² is 0
        (1.0, 1e-18, 1.0),
        (1e-30, 1e-25, 1.0),
        (1e25, 1e23, 1.0),  # b² is ∞
        (-1e30, 1e30, 1e20),
        (1.0, 1e-23, 1e-10),  # a/b² is ∞, and dy·a/b² is not
        (1.0, 1e30, 1e30),
    ],
)
def test_quotients(a, b, dy):
    a, b, dy = rounded(a, b, dy)
    np.testing.assert_allclose(gradients(F.div, a, b, dy=dy), [dy / b, -dy * a / b**2], rtol=1e-6)


def test_quotients_of_random_magnitudes():
    """Wherever dy/b, the gradient by a, is a normal float32, so that not even it is rounded to 0 or ∞."""
    draw = np.random.default_rng(0)
    a, b, dy = (10.0 ** draw.uniform(-37, 37, (3, 20_000))).astype(np.float32)
    x, y = mr.tensor(a, requires_grad=True), mr.tensor(b, requires_grad=True)
    with np.errstate(all="ignore"):
        (x / y).backward(dy)
    a, b, dy = a.astype(np.float64), b.astype(np.float64), dy.astype(np.float64)
    true = dy / b, -dy * a / b**2
    held = np.all([(abs(t) > SMALL) & (abs(t) < LARGE) for t in (*true, a / b)], axis=0)
    assert held.sum() > 2000
    np.testing.assert_allclose(x.grad[held], true[0][held], rtol=1e-6)
    np.testing.assert_allclose(y.grad[held], true[1][held], rtol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "dy"),
    [(1e-20, -1.0, 1e-10), (1e-30, -0.5, 1e-20), (1e25, 3.0, 1e-20), (1e-15, 4.0, 1e30), (3.0, 2.5, 1.0)],
)
def test_powers(a, b, dy):
    a, b, dy = rounded(a, b, dy)
    np.testing.assert_allclose(gradients(lambda x: x**b, a, dy=dy), [dy * b * a ** (b - 1)], rtol=1e-6)


def test_exponents_of_zero():
    with np.errstate(divide="ignore"):
        assert gradients(F.pow, 0.0, -1.0)[1] == -math.inf  # 0ᵇ falls from ∞ as b rises
    assert gradients(F.pow, 0.0, 2.0) == [0.0, 0.0]


@pytest.mark.parametrize("x", [-90.0, -30.0, -5.0, 0.0, 5.0, 16.0, 17.0, 30.0, 85.0])
def test_sigmoid_and_tanh_far_out(x):
    """Where y rounds to 1, its slope is not 0."""
    np.testing.assert_allclose(gradients(F.sigmoid, x), [1 / (2 + math.exp(x) + math.exp(-x))], rtol=2e-6)
    if abs(x) < 40:
        np.testing.assert_allclose(gradients(F.tanh, x), [1 / math.cosh(x) ** 2], rtol=2e-6)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize(("x", "slope"), [(1e20, 1), (-1e20, 0), (1e38, 1), (60.0, 1), (-60.0, 0)])
def test_gelu_far_out(approximate, x, slope):
    x = mr.tensor(np.float32(x), requires_grad=True)
    y = F.gelu(x, approximate)  # without a warning: those are errors here
    y.backward()
    assert (float(y), float(x.grad)) == (slope * float(x), slope)


def test_softmax_of_nothing():
    for shape, dim in (((2, 0), 1), ((0, 2), 1), ((2, 0), 0)):
        for function in (F.softmax, F.log_softmax):
            x = mr.tensor(np.zeros(shape), requires_grad=True)
            function(x, dim).sum().backward()
            assert x.grad.shape == shape


class TestClip:
    @pytest.mark.parametrize(
        "low", [0.5, np.float64(0.5), np.full(2, 0.5), np.full((1, 2), 0.5), mr.tensor(np.float64(0.5)), [0.5, 0.5]]
    )
    def test_the_dtype_stays(self, low):
        x = mr.tensor(np.array([[0.25, 0.5], [2.0, 9.0]], np.float32), requires_grad=True)
        y = F.clip(x, low, np.float64(3))
        assert y.dtype == np.float32
        assert y.numpy().tolist() == [[0.5, 0.5], [2.0, 3.0]]
        y.sum().backward()
        assert x.grad.dtype == np.float32
        assert x.grad.tolist() == [[0.0, 1.0], [1.0, 0.0]]

    def test_bounds_that_broadcast(self):
        torch = pytest.importorskip("torch")
        draw = np.random.default_rng(0)
        values, low, high = draw.standard_normal((3, 1)), draw.uniform(-1, 0, (2, 1, 4)), draw.uniform(0, 1, 4)
        ours, theirs = mr.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        y, z = F.clip(ours, low, high), torch.clamp(theirs, torch.tensor(low), torch.tensor(high))
        np.testing.assert_array_equal(y.numpy(), z.detach().numpy())
        dy = draw.standard_normal(y.shape)
        y.backward(dy)
        z.backward(torch.tensor(dy))
        assert ours.grad.shape == values.shape
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-12)

    def test_numpys_function(self):
        x = mr.tensor([-1.0, 2.0], requires_grad=True)
        np.clip(x, 0, 5).sum().backward()
        assert x.grad.tolist() == [0.0, 1.0]

    def test_bounds_beyond_float32(self):
        x = mr.tensor([-1.0, 2.0], requires_grad=True)
        y = x.clip(-1e300, 1e300)
        y.sum().backward()
        assert y.numpy().tolist() == [-1.0, 2.0]
        assert x.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: [2, 0], lambda index: index.__setitem__(0, 1)),
        (lambda: (slice(None), [2, 0]), lambda index: index[1].reverse()),
        (lambda: [[2, 0], [1, 1]], lambda index: index[0].__setitem__(0, 1)),
        (lambda: (np.array([2, 0]),), lambda index: index[0].fill(1)),
        (lambda: [True, False, True], lambda index: index.__setitem__(0, False)),
        (lambda: [mr.tensor(2), mr.tensor(0)], lambda index: index[0].data.fill(1)),
    ],
)
def test_an_index_may_change_before_backward(make, change):
    x = mr.tensor(np.arange(9.0).reshape(3, 3), requires_grad=True)
    index, untouched = make(), make()
    y = x[index]
    change(index)
    dy = np.arange(1.0, 1 + y.size).reshape(y.shape)
    y.backward(dy)
    plain = (
        [int(i) for i in untouched]
        if isinstance(untouched, list) and isinstance(untouched[0], mr.Tensor)
        else untouched
    )
    expected = np.zeros((3, 3))
    np.add.at(expected, plain, dy)
    np.testing.assert_array_equal(x.grad, expected)


def test_tanh_reads_its_input_again():
    x = mr.tensor([1.0, 2.0], requires_grad=True)
    y = F.tanh(x)
    x.data = np.zeros(2, np.float32)
    with pytest.raises(mr.errors.GraphError, match="input 0 of tanh"):
        y.sum().backward()
