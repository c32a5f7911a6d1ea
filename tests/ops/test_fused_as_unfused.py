"""What is refused, and what the gradients are, does not depend on whether operations are fused."""

import numpy as np
import pytest
from op_cases import CASES

import minires as mr
from minires import nn
from minires.errors import GraphError, MiniresError
from minires.gradcheck.cases import draw
from minires.lazy import LazyTensor

F = mr.functional
CASES_OF_ALL = [(name, case) for name, cases in CASES.items() for case in cases]


def rng(seed=0):
    return np.random.default_rng(seed)


def modules(features=4, groups=1, **settings):
    conv = nn.Conv2d(4, 4, 3, **{"padding": 1, "bias": False, **settings}, groups=groups)
    return conv, nn.BatchNorm2d(features)


def image(C=4):
    return mr.tensor(rng().standard_normal((2, C, 5, 5)).astype(np.float32), requires_grad=True)


STEPS = {
    "conv_bn": lambda x, conv, bn: F.conv_bn(x, conv, bn),
    "conv_bn_relu": lambda x, conv, bn: F.conv_bn_relu(x, conv, bn),
    "conv_bn_add_relu": lambda x, conv, bn: F.conv_bn_add_relu(x, conv, bn, x),
    "bn_relu": lambda x, conv, bn: F.bn_relu(x, bn),
    "bn_relu_conv": lambda x, conv, bn: F.bn_relu_conv(x, bn, conv),
    "bn_relu_conv_add": lambda x, conv, bn: F.bn_relu_conv_add(x, bn, conv, x),
}


@pytest.mark.parametrize("model", ["resnet20", "resnet50", "preresnet20"])
def test_a_watched_backward_pass_of_an_unwatched_forward_pass(model):
    """The gradients are those of an unwatched one, by every parameter."""
    gradients = []
    for watched in (False, True):
        mr.manual_seed(0)
        network = mr.models.create(model)
        x = mr.tensor(rng().standard_normal((2, 3, 32, 32)).astype(np.float32))
        loss = F.cross_entropy(network(x), np.array([1, 2]))
        if watched:
            with mr.detect_anomaly():
                loss.backward()
        else:
            loss.backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, watched in zip(*gradients):
        np.testing.assert_allclose(watched, plain, rtol=1e-2, atol=1e-2 * np.abs(plain).max() + 1e-7)


def break_weight(conv, bn):
    bn.weight = nn.Parameter(np.ones(3, np.float32))


def break_bias(conv, bn):
    bn.bias = nn.Parameter(np.zeros(9, np.float32))


def break_statistics(conv, bn):
    bn.running_mean = np.zeros(2, np.float32)


def break_groups(conv, bn):
    conv.weight.data = conv.weight.data[:3, :2]
    conv.groups = 2


def negative_padding(conv, bn):
    conv.padding = (-1, -1)


def no_dilation(conv, bn):
    conv.dilation = (0, 0)


def stride_of_floats(conv, bn):
    conv.stride = (1.0, 1.0)


BREAKS = [break_weight, break_bias, break_statistics, break_groups, negative_padding, no_dilation, stride_of_floats]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("broken", BREAKS, ids=lambda f: f.__name__)
def test_what_is_refused_unfused_is_refused_fused(broken, step, training):
    if step == "bn_relu" and broken in BREAKS[3:]:
        pytest.skip("it has no convolution")
    messages = []
    for fused in (False, True):
        conv, bn = modules()
        broken(conv, bn)
        bn.train(training)
        with mr.fusion(fused), mr.set_grad_enabled(training), pytest.raises(MiniresError) as error:
            STEPS[step](image(), conv, bn).numpy()
        messages.append((error.type, str(error.value)))
    assert messages[0] == messages[1]


def no_weight(conv, bn):
    bn.weight = None


def no_bias(conv, bn):
    bn.bias = None


def no_statistics(conv, bn):
    bn.running_mean = bn.running_var = None


def integer_padding(conv, bn):
    conv.padding = 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("unusual", [no_weight, no_bias, no_statistics, integer_padding], ids=lambda f: f.__name__)
def test_what_is_accepted_unfused_is_accepted_fused(unusual, step, training):
    results = []
    for fused in (False, True):
        mr.manual_seed(0)
        conv, bn = modules()
        unusual(conv, bn)
        bn.train(training)
        with mr.fusion(fused), mr.set_grad_enabled(training):
            results.append(STEPS[step](image(), conv, bn).numpy())
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("step", ["conv_bn_add_relu", "bn_relu_conv_add"])
def test_an_array_as_shortcut(step, training):
    results = []
    for fused in (False, True):
        mr.manual_seed(0)
        conv, bn = modules()
        bn.train(training)
        x, s = image(), image().numpy() + 1
        with mr.fusion(fused), mr.set_grad_enabled(training):
            parts = (x, conv, bn, s) if step == "conv_bn_add_relu" else (x, bn, conv, s)
            results.append(getattr(F, step)(*parts).numpy())
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


def test_the_shape_of_a_lazy_tensor_whose_data_is_replaced():
    y = F.bn_relu(F.conv2d(image(), modules()[0].weight, padding=1), modules()[1])
    assert isinstance(y, LazyTensor)
    y.data = np.zeros((3, 2), np.float64)
    assert (y.shape, y.dtype, y.ndim, y.size, len(y)) == ((3, 2), np.float64, 2, 6, 3)


# --- values that were changed between the forward and the backward pass


def change_by_step(network):
    for p in network.parameters():
        p.grad = np.ones_like(p.data)
    mr.optim.SGD(network.parameters(), lr=0.1).step()


def change_by_loading(network):
    network.load_state_dict({name: array + 1 for name, array in network.state_dict().items()})


def change_by_assignment(network):
    for p in network.parameters():
        p.data = p.data + 1


def change_by_initialising(network):
    for p in network.parameters():
        nn.init.uniform_(p)


CHANGED = [change_by_step, change_by_loading, change_by_assignment, change_by_initialising]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("change", CHANGED, ids=lambda f: f.__name__)
def test_weights_that_were_changed_before_backward(change, fused):
    network = mr.models.create("resnet8")
    x = mr.tensor(rng().standard_normal((2, 3, 8, 8)).astype(np.float32))
    with mr.fusion(fused):
        loss = F.cross_entropy(network(x), np.array([0, 1]))
        change(network)
        with pytest.raises(GraphError, match=r"was changed after the forward pass .* run the forward pass again"):
            loss.backward()
        network.zero_grad()
        F.cross_entropy(network(x), np.array([0, 1])).backward()


def test_a_change_that_no_gradient_reads_is_no_error():
    w = mr.tensor(np.ones(3), requires_grad=True)
    b = mr.tensor(np.ones(3), requires_grad=True)
    c = mr.tensor(np.full(3, 2.0))
    loss = (w * c + b).sum()
    w.data, b.data = np.zeros(3), np.zeros(3)  # the gradient of w reads c, that of b nothing
    loss.backward()
    assert w.grad.tolist() == [2.0] * 3
    assert b.grad.tolist() == [1.0] * 3
    loss = (w * c).sum()
    c.data = np.zeros(3)
    with pytest.raises(GraphError, match=r"input 1 of mul, of shape \(3,\)"):
        loss.backward()


def gradients_after(function, inputs, changed=None):
    """The gradients of function(*inputs) if input number ``changed`` is NaN before the backward pass; None if refused."""
    leaves = [mr.tensor(x.copy(order="K"), requires_grad=True) for x in inputs]
    mr.manual_seed(0)
    y = function(*leaves)
    seed = np.arange(y.size, dtype=y.dtype).reshape(y.shape)
    if changed is not None:
        leaves[changed].data[...] = np.nan
        leaves[changed].count_change()
    try:
        y.backward(seed)
    except GraphError:
        return None
    return [x.grad for x in leaves]


def test_views_share_their_version():
    w = nn.Parameter(np.ones((2, 6)))
    x = mr.tensor(np.ones((3, 4)), requires_grad=True)
    loss = (x @ w.reshape(3, 4).transpose(0, 1)).sum()
    w.grad = np.ones((2, 6))
    mr.optim.SGD([w], lr=0.1).step()
    with pytest.raises(GraphError, match="input 1 of matmul"):
        loss.backward()
    loss = (x * w.detach().reshape(3, 4)).sum()
    nn.init.zeros_(w)
    with pytest.raises(GraphError, match="input 1 of mul"):
        loss.backward()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "case"), CASES_OF_ALL, ids=lambda value: getattr(value, "label", value))
def test_a_change_that_a_gradient_reads_is_refused(name, case):
    inputs = draw(case)
    right = gradients_after(case.ours, inputs)
    for i in range(len(inputs)):
        found = gradients_after(case.ours, inputs, i)
        assert found is None or all(np.array_equal(a, b) for a, b in zip(found, right)), f"input {i} of {name}"
