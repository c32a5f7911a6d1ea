import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn


class Two(nn.Module):
    """Two tensors (and something that is none) in, two out."""

    def forward(self, a, factor, b):
        return a * b, b * factor


def tensors(*values, requires_grad=True):
    return [mr.tensor(np.array([v]), requires_grad=requires_grad) for v in values]


def test_forward_hooks_see_and_replace():
    layer, seen = nn.ReLU(), []
    (x,) = tensors(-2.0)
    before = layer.register_forward_pre_hook(lambda module, inputs: (-inputs[0],))
    after = layer.register_forward_hook(lambda module, inputs, y: seen.append((module, inputs[0].item(), y.item())))
    assert layer.is_hooked
    assert layer(x).item() == 2.0
    assert seen == [(layer, 2.0, 2.0)]
    before.remove()
    after.remove()
    assert not layer.is_hooked
    with layer.register_forward_hook(lambda module, inputs, y: y + 1):
        assert layer(x).item() == 1.0
    assert layer(x).item() == 0.0


def test_backward_hook_sees_both_sides():
    m, seen = Two(), []
    a, b = tensors(2.0, 3.0)
    m.register_full_backward_hook(lambda *args: seen.append(args))
    y, z = m(a, 10.0, b)
    (y * 5 + z).backward()
    [(module, grad_input, grad_output)] = seen
    assert module is m
    assert [g.item() for g in grad_input] == [15.0, 20.0]
    assert [g.item() for g in grad_output] == [5.0, 1.0]
    assert (a.grad.item(), b.grad.item()) == (15.0, 20.0)


def test_backward_hook_replaces_the_gradient_of_the_inputs():
    m = Two()
    a, b = tensors(2.0, 3.0)
    m.register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 100, grad_input[1]))
    y, z = m(a, 10.0, b)
    (y + z + a).backward()
    assert (a.grad.item(), b.grad.item()) == (301.0, 12.0)


def test_backward_hook_where_parts_have_no_gradient():
    m, seen = Two(), []
    m.register_full_backward_hook(lambda module, *grads: seen.append(grads))
    [a], [b] = tensors(2.0), tensors(3.0, requires_grad=False)
    y, _ = m(a, 10.0, b)
    y.backward()  # the second output is not used
    assert seen.pop() == ((np.array([3.0]), None), (np.array([1.0]), None))
    layer = nn.Linear(1, 1)
    layer.register_full_backward_hook(lambda module, *grads: seen.append(grads))
    layer(mr.tensor(np.ones((1, 1), np.float32))).sum().backward()  # only the parameters have gradients
    assert seen.pop() == ((None,), (np.ones((1, 1)),))
    with mr.no_grad():
        layer(mr.tensor(np.ones((1, 1), np.float32)))
    assert not seen


def test_backward_hook_fires_each_time_the_walk_passes():
    m, seen = nn.Tanh(), []
    m.register_full_backward_hook(lambda module, *grads: seen.append(grads))
    (x,) = tensors(0.0)
    y = m(m(x))  # called twice: two watches
    y.backward(retain_graph=True)
    y.backward()
    assert len(seen) == 4
    assert x.grad.item() == 2.0


def test_hooks_fire_inside_a_model_and_change_nothing():
    mr.manual_seed(0)
    model = mr.models.resnet8().double()  # without hooks it runs fused, which rounds otherwise
    x, y = mr.tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8))), np.array([1, 2])
    F.cross_entropy(model(x), y).backward()
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    forward, backward = [], []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: forward.append(name))
        module.register_full_backward_hook(lambda *_, name=name: backward.append(name))
    F.cross_entropy(model(x), y).backward()
    names = {name for name, _ in model.named_modules()}
    assert set(forward) == names
    assert set(backward) == names
    assert len(forward) == len(backward) == len(names)
    for p, grad in zip(model.parameters(), expected):
        np.testing.assert_allclose(p.grad, grad, rtol=1e-9, atol=1e-12)


def test_backward_hooks_as_in_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours, theirs = nn.Linear(3, 2).double(), torch.nn.Linear(3, 2).double()
    theirs.load_state_dict({key: torch.tensor(a) for key, a in ours.state_dict().items()})
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    seen = []
    for layer in (ours, theirs):
        layer.register_full_backward_hook(
            lambda module, *grads: seen.append([np.asarray(g) for part in grads for g in part])
        )
    ours(mr.tensor(x, requires_grad=True)).backward(dy)
    theirs(torch.tensor(x, requires_grad=True)).backward(torch.tensor(dy))
    assert len(seen) == 2
    for a, b in zip(*seen, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
