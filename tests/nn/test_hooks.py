from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.errors import DtypeError, ShapeError


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


def test_forward_hooks_with_keyword_arguments():
    class Power(nn.Module):
        def forward(self, x, *, to=1):
            return x**to

    layer, seen = Power(), []
    (x,) = tensors(3.0)
    layer.register_forward_hook(lambda *args: seen.append(args), with_kwargs=True)
    assert layer(x, to=2).item() == 9.0
    [(module, inputs, options, y)] = seen
    assert (module, inputs, options, y.item()) == (layer, (x,), {"to": 2}, 9.0)
    with layer.register_forward_pre_hook(lambda module, inputs, options: (inputs, {"to": 3}), with_kwargs=True):
        assert layer(x, to=2).item() == 27.0
    with layer.register_forward_pre_hook(lambda module, inputs, options: (-inputs[0], options), with_kwargs=True):
        assert layer(x, to=3).item() == -27.0
    with layer.register_forward_pre_hook(lambda module, inputs, options: None, with_kwargs=True):
        assert layer(x).item() == 3.0


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


class Nested(nn.Module):
    """x·1, x·2, … in what ``make`` makes of them."""

    def __init__(self, make):
        self.make = make

    def forward(self, x):
        return self.make(*(x * k for k in (1.0, 2.0, 3.0)))


Result = namedtuple("Result", ["first", "rest"])


class TestNested:
    """Tensors in containers, in and out of a module with a backward hook."""

    @pytest.mark.parametrize(
        ("make", "leaves"),
        [
            (lambda a, b, c: {"a": a, "b": b, "c": c}, lambda y: y.values()),
            (lambda a, b, c: OrderedDict(a=a, b=b, c=c), lambda y: y.values()),
            (lambda a, b, c: [a, b, c], lambda y: y),
            (lambda a, b, c: (a, (b, [c])), lambda y: (y[0], y[1][0], y[1][1][0])),
            (
                lambda a, b, c: {"a": a, "rest": [b, None, {"c": c}]},
                lambda y: (y["a"], y["rest"][0], y["rest"][2]["c"]),
            ),
            (lambda a, b, c: Result(a, {"b": b, 3: c}), lambda y: (y.first, y.rest["b"], y.rest[3])),
        ],
    )
    def test_outputs(self, make, leaves):
        m, seen = Nested(make), []
        (x,) = tensors(2.0)
        m.register_full_backward_hook(lambda *args: seen.append(args))
        y = m(x)
        assert type(y) is type(make(1, 2, 3))
        a, b, c = leaves(y)
        assert [t.item() for t in (a, b, c)] == [2.0, 4.0, 6.0]
        (a * 10 + b * 100 + c * 1000).backward()
        [(module, grad_input, grad_output)] = seen
        assert module is m
        assert [g.item() for g in grad_output] == [10.0, 100.0, 1000.0]
        assert [g.item() for g in grad_input] == [x.grad.item()] == [3210.0]

    def test_inputs(self):
        class Weighted(nn.Module):
            def forward(self, parts, options):
                return sum(x * w for x, w in zip(parts, options["weights"]))

        m, seen = Weighted(), []
        m.register_full_backward_hook(lambda module, grad_input, grad_output: seen.extend(grad_input))
        a, b, w = tensors(2.0, 3.0, 5.0)
        parts, options = [a, b], {"weights": (w, 7.0), "other": "text"}
        m(parts, options).backward()
        assert [g.item() for g in seen] == [5.0, 7.0, 2.0]
        assert [t.grad.item() for t in (a, b, w)] == [5.0, 7.0, 2.0]
        assert parts[0] is a  # the caller's list is as it was
        assert options["weights"] == (w, 7.0)

    def test_an_output_of_another_kind_is_refused(self, page):
        class Result:
            def __init__(self, y):
                self.y = y

        class Head(nn.Module):
            def forward(self, x):
                return Result(x * 2)

        m = Head()
        handle = m.register_full_backward_hook(lambda *args: None)
        (x,) = tensors(1.0)
        with pytest.raises(DtypeError) as caught:
            m(x)
        page(str(caught.value))
        with mr.no_grad():
            assert m(x).y.item() == 2.0
        handle.remove()
        assert m(x).y.item() == 2.0

    @pytest.mark.parametrize("value", [None, 3.0, "text", np.ones(2), (1, [2.0, {}])])
    def test_an_output_without_tensors_has_no_gradients(self, value):
        m = Nested(lambda *_: value)
        m.register_full_backward_hook(lambda *args: pytest.fail("there is no gradient"))
        assert m(tensors(1.0)[0]) is value


def test_each_place_of_a_tensor_has_its_own_gradient():
    class Product(nn.Module):
        def forward(self, a, b):
            y = a * b * b
            return y, y

    torch = pytest.importorskip("torch")

    class TorchProduct(torch.nn.Module):
        forward = Product.forward

    found = []
    for m, x in ((Product(), tensors(3.0)[0]), (TorchProduct(), torch.tensor([3.0], requires_grad=True))):
        seen = []
        m.register_full_backward_hook(lambda module, *grads, seen=seen: seen.extend(grads))
        first, second = m(x, x)
        (first * 2 + second * 5).sum().backward()
        found.append([[g.item() for g in grads] for grads in seen])
        assert x.grad.item() == 7 * 27.0
    assert found[0] == found[1] == [[7 * 9.0, 7 * 18.0], [2.0, 5.0]]


def test_a_replacement_must_fit(page):
    m = Two()
    a, b = tensors(2.0, 3.0)
    replaced = []
    m.register_full_backward_hook(lambda *args: replaced[-1])

    def walk():
        y, z = m(a, 10.0, b)
        (y + z).backward()

    replaced.append(np.ones(2))
    with pytest.raises(ShapeError) as caught:
        walk()
    page(str(caught.value))
    replaced.append((np.ones(1), np.ones((1, 1))))
    with pytest.raises(ShapeError, match=r"\[\(1,\), \(1, 1\)\] for inputs of shapes \[\(1,\), \(1,\)\]"):
        walk()
    replaced.append([mr.tensor(np.array([4.0])), np.array([5], np.int64)])
    walk()
    assert (a.grad.item(), b.grad.item()) == (4.0, 5.0)
    assert (a.grad.dtype, b.grad.dtype) == (np.float64, np.float64)


class TestBrokenOff:
    """A walk over the graph that an error ends leaves nothing that the next one adds."""

    def test_between_two_outputs(self):
        m, seen = Two(), []
        m.register_full_backward_hook(lambda module, *grads: seen.append(grads))
        a, b = tensors(2.0, 3.0)
        y, z = m(a, 10.0, b)
        first, second = y * 1.0, z * 1.0
        failing = [first.register_hook(raises), second.register_hook(raises)]
        for k in (0, 1):  # whichever comes first in the walk, once the other is left out
            failing[k].remove()
            with pytest.raises(ZeroDivisionError):
                (first * 100 + second * 100).backward(retain_graph=True)
            assert a.grad is b.grad is None
            failing[k] = (first, second)[k].register_hook(raises)
        for handle in failing:
            handle.remove()
        second.backward(retain_graph=True)
        assert [g if g is None else g.item() for g in seen[0][1]] == [None, 1.0]
        assert b.grad.item() == 10.0
        first.backward()
        assert [g if g is None else g.item() for g in seen[1][1]] == [1.0, None]
        assert [g.item() for g in seen[1][0]] == [3.0, 2.0]
        assert (a.grad.item(), b.grad.item()) == (3.0, 12.0)

    def test_a_hook_that_walks_the_same_graph(self):
        m, seen = Two(), []
        m.register_full_backward_hook(lambda module, *grads: seen.append(grads[1]))
        a, b = tensors(2.0, 3.0)
        y, z = m(a, 10.0, b)
        first, second = y * 1.0, z * 1.0
        for one, other in ((first, second), (second, first)):
            handle = one.register_hook(lambda g, other=other: other.backward(retain_graph=True))
            (first * 100 + second * 1000).backward(retain_graph=True)
            handle.remove()
        assert len(seen) == 4
        assert [g.item() for g in seen[1]] == [g.item() for g in seen[3]] == [100.0, 1000.0]


def raises(*args):
    raise ZeroDivisionError
