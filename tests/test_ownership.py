"""Who holds an array of a gradient: what a hook keeps or returns, .grad and the walk itself do not share one."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn


def leaf(*values):
    return mr.tensor(np.array(values), requires_grad=True)


USES = [  # whose gradients come from the tape, from an operation, or are shared by several
    pytest.param(lambda x: x * 2, id="mul"),
    pytest.param(lambda x: x * 2 + x * 3, id="a sum"),
    pytest.param(lambda x: x + x.exp(), id="add"),
    pytest.param(lambda x: x.reshape(1, -1), id="reshape"),
    pytest.param(lambda x: F.relu(x), id="relu"),
    pytest.param(lambda x: x, id="nothing"),
]


@pytest.mark.parametrize("use", USES)
def test_what_a_hook_of_a_leaf_keeps_is_not_its_grad(use):
    x, kept = leaf(1.0, 2.0), []
    x.register_hook(kept.append)
    use(x).sum().backward()
    expected = x.grad.copy()
    kept[0][:] = 100
    np.testing.assert_array_equal(x.grad, expected)
    x.grad[:] = -100
    np.testing.assert_array_equal(kept[0], 100)


@pytest.mark.parametrize("use", USES)
def test_what_a_hook_of_an_inner_tensor_keeps_is_not_its_grad(use):
    x, kept = leaf(1.0, 2.0), []
    y = x * 1.0
    y.retain_grad()
    y.register_hook(kept.append)
    use(y).sum().backward()
    expected = y.grad.copy(), x.grad.copy()
    assert not np.shares_memory(y.grad, kept[0])
    kept[0][:] = 100
    np.testing.assert_array_equal(y.grad, expected[0])
    np.testing.assert_array_equal(x.grad, expected[1])


def test_what_a_hook_returns_stays_its_own():
    x, z, mine = leaf(1.0, 2.0), leaf(1.0, 2.0), np.array([5.0, 6.0])
    y = x + z
    y.retain_grad()
    for tensor in (x, y):
        tensor.register_hook(lambda g: mine)
    (y + x).sum().backward()
    for tensor in (x, y, z):
        assert tensor.grad.tolist() == [5.0, 6.0]
        assert not np.shares_memory(tensor.grad, mine)
        tensor.grad[:] = 0
    assert mine.tolist() == [5.0, 6.0]


def test_a_hook_that_writes_changes_nobody_elses_gradient():
    x, z = leaf(1.0, 2.0), leaf(1.0, 2.0)
    y = x + 0
    seed = np.ones(2)
    total = y + z  # both get the seed itself
    y.register_hook(lambda g: g.__imul__(10))
    total.backward(seed)
    assert seed.tolist() == [1.0, 1.0]
    assert z.grad.tolist() == [1.0, 1.0]
    assert x.grad.tolist() == [10.0, 10.0]


def test_the_seed_stays_the_callers():
    x, seed = leaf(1.0, 2.0), np.ones(2)
    x.register_hook(lambda g: g.fill(7))
    x.backward(seed)
    assert seed.tolist() == [1.0, 1.0]


def test_a_convolutions_gradient():
    """Lazy gradients become arrays for a hook."""
    x = mr.tensor(np.random.default_rng(0).standard_normal((1, 2, 4, 4)), requires_grad=True)
    w, kept = mr.tensor(np.ones((3, 2, 3, 3)), requires_grad=True), []
    for tensor in (x, w):
        tensor.register_hook(kept.append)
    F.conv2d(x, w, padding=1).sum().backward()
    for tensor in (x, w):
        expected = tensor.grad.copy()
        for array in kept:
            assert not np.shares_memory(array, tensor.grad)
            array.fill(100)
        np.testing.assert_array_equal(tensor.grad, expected)


def test_what_hooks_of_modules_keep():
    """Two modules whose outputs are added get one array from the addition, and the caller's from backward()."""
    x, kept, seed = leaf(1.0, 2.0), [], np.ones(2)
    modules = [nn.Tanh(), nn.Identity(), nn.Identity()]
    for module in modules:
        module.register_full_backward_hook(
            lambda module, grad_input, grad_output: kept.extend(grad_input + grad_output)
        )
    (modules[0](x) + modules[1](x) + modules[2](x)).backward(seed)
    expected = x.grad.copy()
    assert len(kept) == 6
    for i, array in enumerate(kept):
        assert not any(np.shares_memory(array, other) for other in (*kept[i + 1 :], x.grad, seed))
        array[:] = 100
    np.testing.assert_array_equal(x.grad, expected)
    assert seed.tolist() == [1.0, 1.0]
