"""What a gradient check must not be fooled by: gradients written in place, tiny values, kinks, edges of a function's domain."""

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import ConfigError
from minires.gradcheck import gradcheck, gradcheck_model
from minires.ops.reduction import Min
from minires.tensor import Op


class Unary(Op):
    """y = forward(x), and dx = backward(x, dy), which may be wrong, or write into dy."""

    def __init__(self, forward, backward):
        self.f, self.df = forward, backward

    def forward(self, x):
        self.x = x
        return self.f(x)

    def backward(self, dy, needs):
        return (self.df(self.x, dy),)


def passes(f, *inputs, **more):
    return bool(gradcheck(f, list(inputs), raise_exception=False, **more))


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (2.0, False), (-1.0, False)])
def test_a_backward_pass_may_write_into_what_it_gets(factor, right):
    def backward(x, dy):
        dy *= factor * np.exp(x)
        return dy

    assert passes(lambda x: Unary(np.exp, backward).apply(x), np.array([1.0, -2.0, 0.7])) == right


class Bad(nn.Module):
    """Adds 5, and gives a gradient twice too large."""

    def forward(self, x):
        return Unary(lambda x: x + 5, lambda x, dy: 2 * dy).apply(x)


class Mean(nn.Module):
    """Subtracts a running mean, an ndarray that each call moves."""

    def __init__(self):
        self.mean = np.zeros(3)

    def forward(self, x):
        y = x - self.mean
        self.mean += 0.1 * (x.data.mean(0) - self.mean)
        return y


def test_the_search_for_a_mistake_leaves_buffers_as_they_were():
    mr.manual_seed(0)
    bn, x = nn.BatchNorm2d(3).double(), np.random.default_rng(0).standard_normal((4, 3, 2, 2))
    bad = Bad()
    assert not passes(lambda x: bn(bad(x)).sigmoid(), x)
    assert not bn.running_mean.any()
    assert (bn.running_var == 1).all()
    model = nn.Sequential(Bad(), Mean(), nn.Linear(3, 2))
    result = gradcheck_model(model, x[:, :, 0, 0], raise_exception=False)
    assert result.module == "0"
    assert not model[1].mean.any()


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.relu() - x * x,
        lambda x: x * x - x.relu(),
        lambda x: x.relu() - x.exp(),
    ],
    ids=["relu - x²", "x² - relu", "relu - exp"],
)
@pytest.mark.parametrize("eps", [None, 1e-4])
def test_a_kink_in_a_curve(f, eps):
    """With a large step the slopes of the two sides are not those at the kink: a smaller one may show that all is right."""
    assert passes(f, np.array([0.0, 1.0]), eps=eps)


class Corner(Unary):
    def branches(self):
        return self.x > 0


@pytest.mark.parametrize(("slope", "right"), [(0.0, True), (0.6, True), (1.0, True), (2.0, False), (-0.5, False)])
def test_slopes_at_a_kink_in_a_curve(slope, right):
    """At 0 the right ones are those between its two sides."""

    def gradient(x, dy):
        return dy * (slope * (x == 0) + (x > 0))

    x = np.array([0.5, -1.0, 0.0])
    assert passes(lambda x: Corner(lambda x: np.maximum(x, 0), gradient).apply(x) - x * x, x) == right


@pytest.mark.parametrize(("name", "value"), [("directions", 0), ("sweep_points", 2)])
def test_settings_that_compare_nothing(name, value):
    with pytest.raises(ConfigError, match=f"gradcheck: {name} must be a whole number from . up, not {value}"):
        gradcheck(lambda x: x * 2, np.ones(3), **{name: value})
    with pytest.raises(ConfigError, match=name):
        gradcheck_model(nn.Linear(2, 2), np.ones((3, 2)), **{name: value})


@pytest.mark.parametrize("size", [1e-13, 1e-9, 1.0])
def test_tiny_values_do_not_hide_a_wrong_sign(size):
    x = np.full(3, size)
    assert not passes(lambda x: Unary(lambda x: x + 1, lambda x, dy: -dy).apply(x), x)
    assert passes(lambda x: Unary(lambda x: x + 1, lambda x, dy: dy).apply(x), x)
    assert passes(lambda x: x.log(), x)  # whose step has to be as tiny


def test_steps_that_lead_out_of_the_functions_domain():
    assert passes(lambda x: x.log(), np.array([1e6, 1e-2]))
    assert not passes(
        lambda x: Unary(lambda x: np.log(np.where(x > 0, x, np.nan)), lambda x, dy: 2 * dy / x).apply(x),
        np.array([1e6, 1e-2]),
    )


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (-7.0, False)])
def test_ties_of_a_minimum(factor, right):
    class Least(Min):
        label = "min"

        def backward(self, dy, needs):
            return (factor * super().backward(dy, needs)[0],)

    assert passes(lambda x: Least((0,), False).apply(x), np.array([3.0, 3.0])) == right


def test_sparse_directions_are_not_zero():
    model = nn.Sequential(nn.Linear(2, 6), nn.ReLU())
    for p in model.parameters():
        p.data[...] = 0
    result = gradcheck_model(model, np.ones((3, 2)), raise_exception=False)
    [bias] = [checked for checked in result.checked if checked.name == "0.bias"]
    assert {d.status for d in bias.differences} == {"kink"}
