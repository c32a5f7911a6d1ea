"""What a check must not change, and what must be the same in each of its evaluations."""

import functools

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.gradcheck import GradcheckError


class Counting:
    """A different function at each call."""

    def __init__(self):
        self.calls = np.zeros(1)

    def __call__(self, x):
        return self.compute(x)

    def compute(self, x, power=1):
        self.calls += 1
        return (x * self.calls[0]) ** power


@pytest.mark.parametrize("way", ["method", "partial", "closure"])
def test_a_functions_state_is_restored(way):
    kept = Counting()
    f = {
        "method": kept.compute,
        "partial": functools.partial(kept.compute, power=2),
        "closure": lambda x: kept(x),
    }[way]
    assert mr.gradcheck(f, [np.array([1.0, 2.0])])
    assert kept.calls == 0


def test_a_function_may_refer_to_an_undefined_variable():
    def f(x):
        return x * 2 if x.data[0] < 10 else never(x)

    assert mr.gradcheck(f, [np.array([1.0])])
    if not f:
        never = None


def test_running_statistics_do_not_change():
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 2))
    bn = mr.nn.BatchNorm2d(3).double()
    mean, var = np.zeros(3), np.ones(3)
    before = {name: array.copy() for name, array in bn.state_dict().items()}
    assert mr.gradcheck(bn, [x])
    assert mr.gradcheck(lambda x: bn(x), [x])
    assert mr.gradcheck(lambda x: F.batch_norm(x, mean, var, training=True), [x])
    for name, array in bn.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    np.testing.assert_array_equal([mean, var], [np.zeros(3), np.ones(3)])
    assert bn.weight.grad is None


def test_arrays_in_objects_and_containers_are_restored():
    class Counter:
        def __init__(self):
            self.calls = {"here": [np.zeros(1)]}

        def __call__(self, x):
            self.calls["here"][0] += 1
            return x * float(self.calls["here"][0][0])

    counter = Counter()
    assert mr.gradcheck(counter, [np.ones(2)])
    assert counter.calls["here"][0] == 0


def test_dropout_draws_one_mask_and_the_generator_is_restored():
    mr.manual_seed(7)
    state = mr.random.get_rng_state()
    assert mr.gradcheck(lambda x: F.dropout(x, 0.5), [np.ones((5, 6))])
    assert mr.random.get_rng_state() == state


def test_a_function_that_is_not_deterministic_is_refused():
    draw = np.random.default_rng(0)
    with pytest.raises(GradcheckError, match="other values for the same inputs"):
        mr.gradcheck(lambda x: x * draw.random(), [np.ones(2)])


def test_outputs_that_are_not_finite_are_refused():
    with np.errstate(divide="ignore"), pytest.raises(GradcheckError, match="not finite"):
        mr.gradcheck(lambda x: x.log(), [np.array([0.0, 1.0])])


def test_an_output_may_be_the_input_itself():
    assert mr.gradcheck(lambda x: (x, x * 2), [np.ones(3)])
