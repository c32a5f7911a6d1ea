"""The checker itself: it must find a wrong gradient anywhere, and say where it is."""

import json

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.gradcheck import GradcheckError
from minires.tensor import Op


class Wrong(Op):
    """y = x², with a gradient that ``spoil`` changes."""

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


def test_a_correct_gradient_passes():
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


def test_a_missing_term_of_batch_norm_is_found():
    """A plain .sum() would not find it: batch norm's outputs sum to a constant, so every gradient would be right."""
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


def test_an_input_without_influence():
    a, b = np.random.default_rng(0).standard_normal((2, 4))
    assert mr.gradcheck(lambda a, b: a * 2, [a, b])


def test_a_gradient_that_is_not_recorded_is_found():
    a = np.random.default_rng(0).standard_normal(4)
    with pytest.raises(GradcheckError, match="element"):
        mr.gradcheck(lambda a: a.detach() * a, [a])
    with pytest.raises(GradcheckError, match="no output"):
        mr.gradcheck(lambda a: a.detach() * 2, [a])


def test_inputs_are_not_changed():
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


# --- kinks, vacuous checks, notes


def test_a_corner_is_a_kink_with_the_slopes_of_its_sides():
    result = mr.gradcheck(lambda x: x.relu(), [np.array([0.0, 1.0, -1.0])])
    ((name, kink),) = result.kinks
    assert result
    assert (name, kink.index, kink.analytic) == ("input 0", (0,), 0.0)
    assert 0.0 in kink.interval
    assert kink.interval[0] < kink.interval[1]
    assert kink.flips == {"relu": 1}
    assert "1 at a kink" in repr(result)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (F.abs, [0.0, 1.0]),
        (F.relu, [0.0, 1.0]),
        (F.leaky_relu, [0.0, 1.0]),
        (lambda x: F.clip(x, 0.0, 2.0), [0.0, 2.0, 1.0]),
        (lambda x: F.add_relu(x, -x[::-1]), [1.0, 1.0]),
        (F.max, [2.0, 2.0, 1.0]),
        (lambda x: F.max_pool2d(x.reshape(1, 1, 2, 2), 2), [3.0, 3.0, 1.0, 2.0]),
        (lambda x: F.relu(x) - F.relu(-x), [0.0, 1.0]),  # this is x; at 0 backward gives 0, the slope of neither side
    ],
)
def test_every_operation_with_corners_declares_them(f, x, backend):
    result = mr.gradcheck(f, [np.array(x)])
    assert result
    assert result.kinks


@pytest.mark.parametrize("slope", [5.0, -1.0, np.nan])
def test_a_slope_outside_those_of_the_two_sides_is_wrong_at_a_corner_too(slope):
    class BadReLU(Op):
        def forward(self, x):
            self.x = x
            return np.maximum(x, 0)

        def branches(self):
            return self.x > 0

        def backward(self, dy, needs):
            return (dy * np.where(self.x == 0, slope, self.x > 0),)

    result = mr.gradcheck(lambda x: BadReLU().apply(x), [np.array([0.0, 1.0])], raise_exception=False)
    assert [d.index for d in result.checked[0].wrong] == [(0,)]
    assert "slopes on the two sides" in result.explain()


def test_the_step_avoids_a_nearby_corner():
    x = np.array([1e-4, -3e-5, 1.0, -2.0])
    result = mr.gradcheck(lambda x: x.relu() * x, [x], eps=1e-3)
    assert result
    assert not result.kinks


def test_large_arrays_with_a_few_corners_are_checked_along_other_elements():
    x = np.random.default_rng(1).standard_normal(2000)
    x[::100] = 0
    result = mr.gradcheck(lambda x: x.relu(), [x])
    assert any(d.status == "right" for d in result.checked[0].differences)
    with pytest.raises(GradcheckError):
        mr.gradcheck(lambda x: Wrong(lambda dx: dx * 1.01).apply(x.relu()), [x])


def test_a_gradient_that_is_zero_is_vacuous():
    x = np.random.default_rng(0).standard_normal((4, 3))
    result = mr.gradcheck(lambda x: F.softmax(x, 1).sum(1), [x])
    assert result
    assert [c.name for c in result.vacuous] == ["input 0"]
    assert "vacuous: input 0" in repr(result)
    assert result.largest_error == 0  # rounding beside a gradient of zero is not an error
    assert not mr.gradcheck(lambda x: F.softmax(x, 1), [x]).vacuous


@pytest.mark.parametrize("seed", range(3))
def test_cotangents_differ_from_inputs_drawn_with_the_same_seed(seed):
    """With the cotangent v = x, the gradient of batch norm is 0, and the check would be vacuous."""
    x = np.random.default_rng(seed).standard_normal((6, 5))
    result = mr.gradcheck(lambda x: F.batch_norm(x, None, None, training=True), [x], seed=seed)
    assert result.checked[0].scale > 0.1


def test_promotion_is_noted():
    result = mr.gradcheck(lambda x: x * x, [np.ones(2, np.float32)])
    assert result.notes == ["input 0 is float32 and was checked as float64: float32 has too few digits"]
    assert mr.gradcheck(lambda x: x * x, [np.ones(2)]).notes == []


# --- the step


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_sweep_finds_a_step_for_any_scale(scale):
    x = scale * np.random.default_rng(0).uniform(1, 2, 20)
    result = mr.gradcheck(lambda x: (x / scale).exp() + (x / scale) ** 3, [x])
    checked = result.checked[0]
    assert len(checked.sweep) == 8
    assert checked.largest_error < 1e-8
    errors = {h: abs(error) for h, error, _ in checked.sweep}
    assert errors[checked.h] < 1e-3 * max(errors.values())


def test_the_step_can_be_given():
    result = mr.gradcheck(lambda x: x * x, [np.ones(3)], eps=1e-4)
    assert (result.checked[0].h, result.checked[0].sweep) == (1e-4, [])


# --- what can be checked


def test_a_single_input_needs_no_list():
    x = np.arange(1.0, 4.0)
    for single in (x, mr.tensor(x)):
        assert mr.gradcheck(lambda x: x * x, single).compared == 3


@pytest.mark.parametrize("inputs", [[np.arange(3)], np.array([True])], ids=["integers", "booleans"])
def test_without_an_input_of_floats_there_is_nothing_to_check(inputs):
    with pytest.raises(mr.errors.ConfigError, match=r"needs an input of floats, got (int64|bool): give one as float64"):
        mr.gradcheck(lambda *x: mr.tensor([1.0]), inputs)


def test_without_any_input_there_is_nothing_to_check():
    with pytest.raises(GradcheckError, match="there is nothing to check: no input holds floats"):
        mr.gradcheck(lambda: mr.tensor([1.0]), [])


def test_an_input_without_elements_is_right_and_nothing_is_compared():
    result = mr.gradcheck(lambda x, w: x.sum() + w.sum(), [np.zeros((0, 3)), np.ones(2)])
    assert [(c.shape, len(c.differences)) for c in result.checked] == [((0, 3), 0), ((2,), 2)]
    assert [c.name for c in result.vacuous] == ["input 0"]


class Rounded(Op):
    """max(x, ⌊x⌋ + ½): flat up to the half, then with a slope of 1. At the corner, backward gives that of the flat side."""

    def forward(self, x):
        self.x = x
        return np.maximum(x, np.floor(x) + 0.5)

    def backward(self, dy, needs):
        return (dy * self.branches(),)

    def branches(self):
        return self.x - np.floor(self.x) > 0.5


def test_a_custom_operation_declares_its_corners():
    result = mr.gradcheck(lambda x: Rounded().apply(x), [np.array([0.5, 1.7, 2.2])])
    [(_, kink)] = result.kinks
    assert (kink.index, kink.flips) == ((0,), {"rounded": 1})
    low, high = kink.interval  # for the cotangent v: 0 and v
    assert low == pytest.approx(0, abs=1e-6)
    assert 0.5 < abs(high) < 2


# --- results


def test_without_an_exception_the_result_is_false_and_complete():
    result = mr.gradcheck(
        lambda x: Wrong(one_element((3,), 2)).apply(x), [np.ones(500)], name="squares", raise_exception=False
    )
    assert not result
    assert not result.passed
    assert result.operation == "wrong"
    assert [c.name for c in result.wrong] == ["input 0"]
    assert "a wrong element is input 0[3]: analytic" in result.explain()
    assert "squares FAILED" in str(result)
    assert "wrong" in str(result)
    with pytest.raises(GradcheckError, match=r"squares: input 0, direction") as error:
        result.raise_if_wrong()
    assert error.value.result is result
    data = json.loads(json.dumps(result.to_dict()))
    assert data["passed"] is False
    assert data["checked"][0]["located"]["index"] == [3]


def test_a_result_that_passed():
    result = mr.gradcheck(lambda a, b: a * b, [np.ones(3), np.arange(3.0)])
    assert result.raise_if_wrong() is result
    assert (result.compared, result.explain(), result.wrong, result.kinks) == (6, "", [], [])
    assert result.largest_error < 1e-9
    assert str(result).splitlines()[0] == "gradcheck passed: 6 numbers compared"
    assert json.loads(json.dumps(result.to_dict()))["passed"] is True


def test_the_first_wrong_operation_is_named():
    with pytest.raises(GradcheckError, match="first wrong operation on the way back is wrong"):
        mr.gradcheck(lambda x: (Wrong(lambda dx: 2 * dx).apply(x.exp()) + 1).tanh(), [np.ones(3)])
    with pytest.raises(GradcheckError, match="Each recorded operation in it is right by itself"):
        mr.gradcheck(lambda x: x * x.detach(), [np.ones(3)])


def test_a_backward_pass_that_raises_is_a_finding():
    def spoil(dx):
        raise IndexError("too many indices")

    with pytest.raises(GradcheckError, match=r"backward raised IndexError: too many indices.*operation .* is wrong"):
        mr.gradcheck(lambda x: Wrong(spoil).apply(x), [np.ones(3)])
