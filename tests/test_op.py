"""Custom operations: what they may omit, and what they must define."""

from contextlib import nullcontext

import numpy as np
import pytest

import minires as mr
from minires.errors import GraphError, ShapeError
from minires.ops.arithmetic import Unary
from minires.tensor import Op


def leaf(*values):
    return mr.tensor(np.array(values), requires_grad=True)


def test_an_operation_may_have_no_gradient_for_an_input():
    class Blocked(Op):
        def forward(self, x):
            return x + 1

        def backward(self, dy, needs):
            return (None,)

    x = leaf(3.0)
    y = x * 2
    (Blocked().apply(y) + x).sum().backward()
    assert x.grad.tolist() == [1.0]


def test_a_missing_method_is_named():
    class Half(Op):
        def forward(self, x):
            return x + 1

    class Steep(Unary):
        def forward(self, x):
            return x + 1

    with pytest.raises(NotImplementedError, match=r"^Op has no forward\(\)$"):
        Op().apply(leaf(3.0))
    for op, said in ((Half(), r"^Half has no backward\(\)$"), (Steep(), r"^Steep has neither slope\(\) nor")):
        y = op.apply(leaf(3.0))
        with pytest.raises(NotImplementedError, match=said):
            y.backward()


@pytest.mark.parametrize(
    ("returned", "error", "says"),
    [
        (
            lambda dy: 2 * dy,
            GraphError,
            "double: backward returns a tuple with a gradient, or None, for each of its inputs",
        ),
        (lambda dy: (), GraphError, "double: backward returns a tuple"),
        (lambda dy: (dy.sum(0),), ShapeError, r"a gradient of shape \(3,\) for an input of shape \(2, 3\)"),
        (lambda dy: (dy.sum(),), ShapeError, r"a gradient of shape \(\) for an input of shape \(2, 3\)"),
    ],
    ids=["array", "too-few", "shape", "scalar"],
)
@pytest.mark.parametrize("watched", [False, True])
def test_what_backward_returns_is_checked(returned, error, says, watched):
    """An array in place of a tuple would be taken apart, a row for each input."""

    class Double(Op):
        def forward(self, x):
            return 2 * x

        def backward(self, dy, needs):
            return returned(dy)

    x = mr.tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(error, match=says), mr.detect_anomaly() if watched else nullcontext():
        Double().apply(x).sum().backward()
