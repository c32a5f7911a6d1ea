"""The checker itself: it must find a wrong gradient, wherever it is, and say where."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.gradcheck import GradcheckError
from minires.tensor import Op


class Wrong(Op):
    """y = x², with a gradient that ``spoil`` gets its hands on."""

    def __init__(self, spoil):
        self.spoil = spoil

    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, dy, needs):
        return (self.spoil(2 * self.x * dy),)


def one_element(at, factor):
    def spoil(dx):
        dx[at] *= factor
        return dx

    return spoil


def test_a_right_gradient_passes():
    assert mr.gradcheck(lambda x: Wrong(lambda dx: dx).apply(x), [np.arange(1.0, 7.0).reshape(2, 3)])


def test_one_wrong_element_is_named():
    x = np.arange(1.0, 7.0).reshape(2, 3)
    with pytest.raises(GradcheckError) as error:
        mr.gradcheck(lambda x: Wrong(one_element((1, 2), 1.01)).apply(x), [x])
    message = str(error.value)
    assert "input 0, element [1, 2]" in message
    assert "analytic" in message
    assert "numeric" in message
    assert "relative error 9.9" in message  # 1 − 1/1.01


@pytest.mark.parametrize(
    "spoil",
    [
        lambda dx: -dx,
        lambda dx: dx * (1 + 1e-3),
        lambda dx: np.zeros_like(dx),
        lambda dx: dx * np.nan,
        lambda dx: dx[::-1],
    ],
    ids=["sign", "a thousandth", "zero", "nan", "order"],
)
@pytest.mark.parametrize("size", [20, 2000], ids=["by element", "by direction"])
def test_other_mistakes(spoil, size):
    x = np.random.default_rng(0).standard_normal(size)
    with pytest.raises(GradcheckError, match="element" if size == 20 else "direction"):
        mr.gradcheck(lambda x: Wrong(spoil).apply(x), [x])


def test_a_missing_term_of_batch_norm_is_seen():
    """A plain .sum() is blind for it: the outputs of batch norm sum to a constant, so every gradient is right."""
    x = np.random.default_rng(0).standard_normal((8, 3))

    def without_the_statistics(x):
        mean, std = mr.tensor(x.numpy().mean(0)), mr.tensor(x.numpy().std(0))
        return (x - mean) / std

    with pytest.raises(GradcheckError):
        mr.gradcheck(without_the_statistics, [x])
    assert mr.gradcheck(lambda x: F.batch_norm(x, None, None, training=True, eps=1e-12), [x])


def test_several_inputs_and_outputs():
    a, b = np.random.default_rng(0).standard_normal((2, 4))
    assert mr.gradcheck(lambda a, b: (a * b, a + b), [a, b])
    with pytest.raises(GradcheckError, match="input 1"):
        mr.gradcheck(lambda a, b: (a * 2, a + Wrong(lambda dx: -dx).apply(b)), [a, b])


def test_an_input_that_has_no_influence():
    a, b = np.random.default_rng(0).standard_normal((2, 4))
    assert mr.gradcheck(lambda a, b: a * 2, [a, b])


def test_a_gradient_that_is_not_recorded_is_found():
    a = np.random.default_rng(0).standard_normal(4)
    with pytest.raises(GradcheckError, match="element"):
        mr.gradcheck(lambda a: a.detach() * a, [a])
    with pytest.raises(GradcheckError, match="no output"):
        mr.gradcheck(lambda a: a.detach() * 2, [a])


def test_inputs_stay_as_they_were():
    x, labels = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32), np.array([0, 3, 1])
    before = x.copy()
    assert mr.gradcheck(lambda x, labels: F.cross_entropy(x, labels), [mr.from_numpy(x), labels])
    np.testing.assert_array_equal(x, before)
    assert x.dtype == np.float32


def test_float32_inputs_are_checked_in_float64():
    seen = []
    mr.gradcheck(lambda x: (seen.append(x.dtype), x * x)[1], [np.ones(2, np.float32)])
    assert set(seen) == {np.dtype(np.float64)}


def test_the_whole_gradient_has_the_inputs_shape():
    with pytest.raises(GradcheckError, match=r"\(3,\)"):
        mr.gradcheck(lambda x: Wrong(lambda dx: dx[:3]).apply(x), [np.ones(5)])
