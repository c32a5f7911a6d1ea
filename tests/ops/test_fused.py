"""Fused operations against the compositions that they replace: values, every gradient, running statistics, hooks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minires as mr
from minires import functional as F
from minires import nn
from minires.lazy import LazyTensor, is_fusing, is_lazy
from minires.models.blocks import Bottleneck, BottleneckV1, PreActBottleneck, PreActBottleneckV1
from minires.models.densenet import DenseLayer, Transition
from minires.models.parts import stage
from minires.tensor import backward

rng = np.random.default_rng


def modules(ins, outs, kernel=3, seed=0, norm_first=False, **options):
    """A convolution and a batch norm with random parameters, in float64."""
    mr.manual_seed(seed)
    conv = nn.Conv2d(ins, outs, kernel, bias=False, **options).double()
    bn = nn.BatchNorm2d(ins if norm_first else outs, eps=0.1).double()  # the variance of few values may be almost 0
    draw = rng(seed)
    bn.weight.data[...], bn.bias.data[...] = draw.standard_normal((2, bn.num_features))
    return conv, bn


def results(function, parts, x, *others, fused):
    """Output, gradients of inputs and parameters, and buffers after one step; then the output in evaluation mode."""
    tensors = [mr.tensor(a, requires_grad=True) for a in (x, *others)]
    for m in parts:
        m.zero_grad()
        m.train()
    before = [{name: b.copy() for name, b in m.named_buffers()} for m in parts]
    with mr.fusion(fused):
        y = function(*tensors)
        cotangent = rng(1).standard_normal(y.shape)
        (y * mr.tensor(cotangent)).sum().backward()
        for m in parts:
            m.eval()
        with mr.no_grad():
            evaluated = function(*tensors).numpy().copy()
    found = {"y": y.numpy(), "evaluated": evaluated} | {f"dx{i}": t.grad for i, t in enumerate(tensors)}
    for i, m in enumerate(parts):
        found |= {f"{i}.{name}.grad": p.grad for name, p in m.named_parameters()}
        found |= {f"{i}.{name}": b.copy() for name, b in m.named_buffers()}
        for name, b in m.named_buffers():
            b[...] = before[i][name]
    return found


def same(function, parts, *arrays, rtol=1e-9):
    fused, unfused = (results(function, parts, *arrays, fused=fused) for fused in (True, False))
    assert fused.keys() == unfused.keys()
    for name, value in unfused.items():
        # 1e-14 is 45 ε: a gradient that is 0 but for rounding has no scale of its own
        allowed = rtol * np.abs(value).max() + 1e-14
        np.testing.assert_allclose(fused[name], value, rtol=0, atol=allowed, err_msg=name)


@st.composite
def geometries(draw):
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    ins, outs = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 20))
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    least = max(1, dilation * (kernel - 1) + 1 - 2 * options["padding"])
    size = draw(st.integers(least, 18)), draw(st.integers(least, 18))
    return ins, outs, kernel, options, (draw(st.integers(2, 9)), ins, *size)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 100))
def test_three_layers_of_any_geometry(geometry, seed):
    ins, outs, kernel, options, shape = geometry
    conv1, bn1 = modules(ins, outs, kernel, seed, **options)
    conv2, bn2 = modules(outs, 5, 3, seed + 1, padding=1)
    conv3, bn3 = modules(5, 4, 1, seed + 2, norm_first=True)

    def block(x):
        y = F.conv_bn_relu(x, conv1, bn1)
        z = F.conv_bn_relu(y, conv2, bn2)
        return F.bn_relu_conv(z, bn3, conv3)

    same(block, [conv1, bn1, conv2, bn2, conv3, bn3], rng(seed).standard_normal(shape))


NETWORKS = {
    "resnet8": (3, 32),
    "plain8": (3, 16),
    "preresnet8": (3, 32),
    "preplain8": (2, 16),
    **dict.fromkeys([Bottleneck, BottleneckV1, PreActBottleneck, PreActBottleneckV1], (4, 11)),
}


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_whole_networks(network):
    images, size = NETWORKS[network]
    mr.manual_seed(0)
    model = mr.models.create(network) if isinstance(network, str) else stage(network, 3, 5, 3, 2, "B")
    model.double()
    draw = rng(2)
    for _, p in model.named_parameters():
        if p.ndim == 1:
            p.data[...] += 0.2 * draw.standard_normal(p.shape)
    same(model, [model], draw.standard_normal((images, 3, size, size)), rtol=1e-7)


def test_steps_with_and_without_a_shortcut():
    x, s = rng(0).standard_normal((4, 6, 9, 7)), rng(1).standard_normal((4, 10, 9, 7))
    conv, bn = modules(6, 10, padding=1)
    same(lambda x, s: F.conv_bn_add_relu(x, conv, bn, s), [conv, bn], x, s)
    same(lambda x: F.conv_bn(x, conv, bn), [conv, bn], x)
    conv, bn = modules(6, 10, padding=1, norm_first=True)
    same(lambda x, s: F.bn_relu_conv_add(x, bn, conv, s), [conv, bn], x, s)
    same(lambda x: F.bn_relu(x, bn), [bn], x)


def two_blocks(seed=0):
    """Two residual blocks; a fused backward pass reaches across the border between them."""
    parts = [m for i in range(4) for m in modules(4, 4, seed=seed + i, padding=1)]

    def function(x):
        for conv1, bn1, conv2, bn2 in (parts[:4], parts[4:]):
            x = F.conv_bn_add_relu(F.conv_bn_relu(x, conv1, bn1), conv2, bn2, x)
        return x

    return parts, function


def test_borders_between_blocks():
    parts, function = two_blocks()
    same(function, parts, rng(0).standard_normal((5, 4, 8, 8)))


def test_an_output_with_several_uses():
    conv1, bn1 = modules(4, 4, padding=1)
    conv2, bn2 = modules(4, 4, seed=1, padding=1)

    def function(x):
        y = F.conv_bn_relu(x, conv1, bn1)
        z = F.conv_bn_relu(y, conv2, bn2)
        return z * y + F.conv_bn_relu(y, conv1, bn1)

    same(function, [conv1, bn1, conv2, bn2], rng(0).standard_normal((3, 4, 6, 6)))


def test_backward_from_an_inner_tensor():
    parts, _ = two_blocks()
    found = []
    for fused in (True, False):
        x = mr.tensor(rng(0).standard_normal((2, 4, 6, 6)), requires_grad=True)
        with mr.fusion(fused):
            y = F.conv_bn_relu(x, *parts[:2])
            z = F.conv_bn_relu(y, *parts[2:4])
            backward([z, y], [np.ones(z.shape), np.full(y.shape, 2.0)])
        found.append(x.grad)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_values_are_not_stored_until_they_are_read():
    conv, bn = modules(4, 6, padding=1)
    x = mr.tensor(rng(0).standard_normal((2, 4, 5, 5)))
    y = F.conv_bn_relu(x, conv, bn)
    assert isinstance(y, LazyTensor)
    assert (y.shape, y.ndim, y.size, y.dtype) == ((2, 6, 5, 5), 4, 300, np.float64)
    assert is_lazy(y)
    values = y.numpy()
    assert y.numpy() is values
    assert values.min() == 0 < values.max()
    assert mr.tensor(y.numpy()).shape == y.shape


def test_the_next_layer_reads_values_that_were_changed_in_place():
    conv1, bn1 = modules(4, 4, padding=1)
    conv2, bn2 = modules(4, 4, seed=1, padding=1)
    found = []
    for fused in (True, False):
        with mr.fusion(fused):
            y = F.conv_bn_relu(mr.tensor(rng(0).standard_normal((2, 4, 5, 5))), conv1, bn1)
            y.numpy()[:, 2] = 7
            found.append(F.conv_bn_relu(y, conv2, bn2).numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_hooks_and_retained_gradients_are_as_without_fusion():
    parts, _ = two_blocks()
    seen = []
    for fused in (True, False):
        mine, x = [], mr.tensor(rng(0).standard_normal((2, 4, 6, 6)), requires_grad=True)
        with mr.fusion(fused):
            y = F.conv_bn_relu(x, *parts[:2])
            y.register_hook(lambda g, mine=mine: mine.append(g.copy()))
            z = F.conv_bn_add_relu(y, *parts[2:4], x)
            z.retain_grad()
            w = F.conv_bn_add_relu(F.conv_bn_relu(z, *parts[4:6]), *parts[6:], z)
            (w * w).sum().backward()
        seen.append([*mine, z.grad, x.grad])
        assert len(mine) == 1
    for a, b in zip(*seen):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_hook_can_replace_the_gradient():
    conv1, bn1 = modules(4, 4, padding=1)
    conv2, bn2 = modules(4, 4, seed=1, padding=1)
    grads = []
    for fused in (True, False):
        x = mr.tensor(rng(0).standard_normal((2, 4, 6, 6)), requires_grad=True)
        with mr.fusion(fused):
            y = F.conv_bn_relu(x, conv1, bn1)
            y.register_hook(lambda g: g * 3 + 1)
            F.conv_bn_relu(y, conv2, bn2).sum().backward(None)
        grads.append(x.grad)
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("which", ["conv", "bn"])
def test_a_module_with_hooks_is_called(which):
    conv, bn = modules(3, 4, padding=1)
    x, heard = mr.tensor(rng(0).standard_normal((2, 3, 5, 5)), requires_grad=True), []
    module = {"conv": conv, "bn": bn}[which]
    module.register_forward_hook(lambda m, i, y: heard.append("forward"))
    module.register_full_backward_hook(lambda m, i, o: heard.append("backward"))
    F.conv_bn_relu(x, conv, bn).sum().backward()
    assert heard == ["forward", "backward"]


def test_an_overridden_forward_is_called():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    _, bn = modules(3, 4)
    conv = Doubled(3, 4, 3, bias=False).double()
    x = mr.tensor(rng(0).standard_normal((2, 3, 5, 5)))
    expected = F.relu(bn(conv(x))).numpy()
    np.testing.assert_array_equal(F.conv_bn_relu(x, conv, bn).numpy(), expected)


def test_a_second_backward_over_a_retained_graph():
    _, function = two_blocks()
    x = mr.tensor(rng(0).standard_normal((2, 4, 6, 6)), requires_grad=True)
    loss = (function(x) ** 2).sum()
    loss.backward(retain_graph=True)
    first, x.grad = x.grad, None
    loss.backward()
    np.testing.assert_array_equal(x.grad, first)


def test_where_nothing_is_fused():
    assert is_fusing()
    with mr.fusion(False):
        assert not is_fusing()
        with mr.fusion(True):
            assert is_fusing()
    with mr.backend("reference"):
        assert not is_fusing()
    with mr.detect_anomaly():
        assert not is_fusing()
    conv, bn = modules(3, 4, padding=1)
    x = mr.tensor(rng(0).standard_normal((2, 3, 5, 5)))
    bn.eval()
    assert not isinstance(F.conv_bn_relu(x, conv, bn), LazyTensor)  # fixed statistics, but gradients may be required


def test_errors_are_as_without_fusion():
    conv, bn = modules(3, 4, padding=1)
    with pytest.raises(mr.errors.ShapeError, match="has 5 channels"):
        F.conv_bn_relu(mr.tensor(np.zeros((2, 5, 6, 6))), conv, bn)
    with pytest.raises(mr.errors.DtypeError, match="float32 and float64"):
        F.conv_bn_relu(mr.tensor(np.zeros((2, 3, 6, 6), np.float32)), conv, bn)
    with pytest.raises(mr.errors.ShapeError, match="one value per channel"):
        F.conv_bn_relu(mr.tensor(np.zeros((1, 3, 1, 1))), conv, bn)


@pytest.mark.parametrize("size", [1, 5, 32])
def test_statistics_of_a_large_mean_and_a_small_deviation(size):
    """Mean 1000, deviation 0.1, in float32: the variance is within 1e-3 of that in float64."""
    images = 32
    x = (1000 + 0.1 * rng(0).standard_normal((images, 16, size, size))).astype(np.float32)
    conv, bn = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16, momentum=1.0)
    conv.weight.data[...] = np.eye(16, dtype=np.float32)[:, :, None, None]
    F.conv_bn_relu(mr.tensor(x), conv, bn)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(bn.running_mean, exact.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(bn.running_var, exact.var((0, 2, 3), ddof=1), rtol=1e-3)


def test_same_bits_for_any_number_of_threads():
    found, before = [], mr.get_num_threads()
    try:
        for threads in (1, 2):
            mr.set_num_threads(threads)
            mr.manual_seed(0)
            model = mr.models.resnet8()
            x = mr.tensor(rng(0).standard_normal((9, 3, 32, 32)).astype(np.float32))
            F.cross_entropy(model(x), np.arange(9)).backward()
            found.append([p.grad.tobytes() for p in model.parameters()] + [b.tobytes() for b in model.buffers()])
    finally:
        mr.set_num_threads(before)
    assert found[0] == found[1]


def test_dense_layers():
    """Concatenations hand on the moments of their inputs: each is computed once, and batch norms find them."""
    mr.manual_seed(0)
    chain = nn.Sequential(*[DenseLayer(4 + 3 * i, 3) for i in range(3)], Transition(13, 6), DenseLayer(6, 3)).double()
    same(chain, [chain], rng(0).standard_normal((2, 4, 6, 6)))
    x, seen = mr.tensor(rng(0).standard_normal((2, 4, 6, 6)), requires_grad=True), []
    x = nn.Conv2d(4, 4, 3, bias=False, padding=1).double()(x)
    chain.train()
    stats = mr.kernels.batch_norm_stats
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mr.kernels, "batch_norm_stats", lambda x: seen.append(x.shape[-1]) or stats(x), raising=False)
        y = chain(x)
    assert seen == [4, 6]  # the first input's, and the transition's
    mean, var = y.moments
    values = y.numpy()
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(var, values.var((0, 2, 3)), rtol=1e-12)
