"""Whole networks: the first wrong module is found, and a check has no side effects."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.gradcheck import GradcheckError
from minires.tensor import Op


class Spoilt(Op):
    """y = x, with a gradient that ``spoil`` changes."""

    def __init__(self, spoil):
        self.spoil = spoil

    def forward(self, x):
        return x.copy(order="K")

    def backward(self, dy, needs):
        return (self.spoil(dy.copy(order="K")),)


def tenfold(index):
    def spoil(dy):
        dy[index] *= 10
        return dy

    return spoil


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((3, 3, 8, 8))


def spoil_weight(bn, index):
    """Make the gradient of one element of a batch norm's weight wrong."""

    def forward(x):
        weight = Spoilt(tenfold(index)).apply(bn.weight)
        return F.batch_norm(x, bn.running_mean, bn.running_var, weight, bn.bias, training=bn.training)

    bn.forward = forward


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "preresnet8", "plain8", "resnet14"])
def test_models_are_correct(name, images, backend):
    assert mr.gradcheck_model(mr.models.create(name), images)


def test_the_first_wrong_module_is_named_down_to_the_element(images):
    mr.manual_seed(0)
    model = mr.models.resnet8()
    spoil_weight(model.layer2[0].bn1, 5)
    with pytest.raises(GradcheckError) as error:
        mr.gradcheck_model(model, images, eps=1e-6)
    message = str(error.value)
    assert "layer2.0.bn1.weight[5]: analytic " in message
    assert ", numeric " in message
    assert "relative error 9.00e-01" in message
    assert "The first wrong module on the way back is layer2.0.bn1 (BatchNorm2d). " in message
    result = error.value.result
    assert (result.module, result.operation) == ("layer2.0.bn1", "spoilt")
    assert [c.name for c in result.wrong] == ["layer2.0.bn1.weight"]


def small():
    mr.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.4), nn.Linear(64, 3)
    )


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((5, 3, 6, 6))


def test_a_wrong_input_gradient_is_found_where_it_arises(x):
    model = small()
    relu = model[2]
    relu.forward = lambda y: F.relu(Spoilt(lambda dy: 2 * dy).apply(y))
    result = mr.gradcheck_model(model, x, raise_exception=False)
    assert not result
    assert (result.module, result.operation) == ("2", "spoilt")
    assert result.finding.startswith("2 input 0[")


class Modulated(nn.Module):
    """y = (wx·(1 + gain))^power; gain and power are required keyword arguments."""

    def __init__(self):
        self.inner = nn.Linear(4, 4)

    def forward(self, x, *, gain, power):
        return (self.inner(x) * (gain + 1)) ** power


class Calls(nn.Module):
    def __init__(self):
        self.first, self.second = Modulated(), Modulated()

    def forward(self, x):
        y = self.first(x, gain=x * 0.5, power=2)
        return self.second(y, gain=y.tanh(), power=3)


def test_modules_are_checked_by_themselves_with_their_keyword_arguments():
    model, x = Calls(), np.random.default_rng(0).standard_normal((3, 4))
    assert mr.gradcheck_model(model, x)
    right = model.first.forward
    model.first.forward = lambda x, *, gain, power: right(Spoilt(lambda dy: 2 * dy).apply(x), gain=gain, power=power)
    result = mr.gradcheck_model(model, x, raise_exception=False)
    assert (result.module, result.operation) == ("first", "spoilt")
    assert result.finding.startswith("first input 0[")


def test_a_wrong_gradient_of_a_keyword_argument_is_found():
    model, x = Calls(), np.random.default_rng(0).standard_normal((3, 4))
    right = model.second.forward
    model.second.forward = lambda x, *, gain, power: right(x, gain=Spoilt(tenfold((2, 1))).apply(gain), power=power)
    result = mr.gradcheck_model(model, x, raise_exception=False)
    assert (result.module, result.operation) == ("second", "spoilt")
    assert result.finding.startswith("second input gain[2, 1]: analytic ")


def test_a_mistake_between_modules_is_attributed_to_their_parent(x):
    class Twice(nn.Module):
        def __init__(self):
            self.inner = small()

        def forward(self, x):
            y = self.inner(x)
            return y + y.detach()

    result = mr.gradcheck_model(Twice(), x, raise_exception=False)
    assert result.module == ""
    assert "the Twice itself, and every module in it is right by itself" in result.explain()
    assert "detach()" in result.explain()


def test_a_mistake_in_the_loss_is_not_attributed_to_the_model(x):
    def loss(y):
        return Spoilt(lambda dy: 2 * dy).apply(y).sum()

    result = mr.gradcheck_model(small(), x, loss=loss, raise_exception=False)
    assert not result
    assert result.module is None
    assert "the mistake is in the loss" in result.explain()


def test_a_backward_pass_that_raises_is_a_finding(x):
    model = small()

    def spoil(dy):
        raise ValueError("operands could not be broadcast")

    model[2].forward = lambda y: F.relu(Spoilt(spoil).apply(y))
    with pytest.raises(GradcheckError, match="2: backward raised ValueError: operands could not") as error:
        mr.gradcheck_model(model, x)
    assert error.value.result.module == "2"


def test_the_model_is_left_unchanged(x):
    model = small()
    y = model(mr.tensor(x.astype(np.float32)))
    y.backward(np.ones(y.shape, np.float32))
    before = {name: (array, array.copy()) for name, array in model.state_dict().items()}
    grads = [(p, p.grad, p.grad.copy()) for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    mr.manual_seed(3)
    state = mr.random.get_rng_state()
    assert mr.gradcheck_model(model, x)
    for name, array in model.state_dict().items():
        assert array is before[name][0], name
        np.testing.assert_array_equal(array, before[name][1])
    for p, grad, values in grads:
        assert p.grad is grad
        np.testing.assert_array_equal(grad, values)
    assert modes == [m.training for m in model.modules()]
    assert not any(m.is_hooked for m in model.modules())
    assert mr.random.get_rng_state() == state


def test_a_float64_model_is_left_unchanged_after_a_failure(x):
    model = small().double()
    spoil_weight(model[1], 0)
    before = {name: (array, array.copy()) for name, array in model.state_dict().items()}
    assert not mr.gradcheck_model(model, x, raise_exception=False)
    for name, array in model.state_dict().items():
        assert array is before[name][0], name
        np.testing.assert_array_equal(array, before[name][1])


def test_both_modes_and_promotion_is_noted(x):
    for mode in (True, False):
        result = mr.gradcheck_model(small().train(mode), x.astype(np.float32))
        assert any("the model is float32 and was checked as float64" in note for note in result.notes)
        assert any("input 0 is float32" in note for note in result.notes)
        # batch norm removes the bias of the convolution before it: in training, its true gradient is 0
        assert [c.name for c in result.vacuous] == (["0.bias"] if mode else [])


def test_a_cross_entropy_with_labels(x):
    labels = np.array([0, 2, 1, 1, 0])
    assert mr.gradcheck_model(small(), [x], loss=lambda y: F.cross_entropy(y, labels))


def test_frozen_parameters_are_not_checked(x):
    model = small()
    model[0].requires_grad_(False)
    assert {c.name.partition(".")[0] for c in mr.gradcheck_model(model, x).checked} == {"1", "5", "input 0"}


def test_progress_is_reported(x):
    told = []
    mr.gradcheck_model(small(), x, on_parameter=told.append)
    assert told == ["0.weight", "0.bias", "1.weight", "1.bias", "5.weight", "5.bias", "input 0"]
