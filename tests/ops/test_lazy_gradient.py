"""Lazy gradients: what may happen between a convolution's backward pass and the use of its input gradient."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import kernels, nn
from minires.kernels.compiled import backend
from minires.kernels.descriptors import MASK, Operand
from minires.lazy import ConvGradient

rng = np.random.default_rng


def layers(count, channels=4):
    mr.manual_seed(0)
    parts = []
    for _ in range(count):
        conv, bn = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels, eps=0.1)
        parts.append((conv.double(), bn.double()))
    return parts


def gradients(listen, fused):
    """All gradients of three layers and a shortcut, with the hooks that ``listen(layers, inner tensors)`` registers."""
    parts = layers(3)
    x = mr.tensor(rng(0).standard_normal((2, 4, 6, 6)), requires_grad=True)
    with mr.fusion(fused):
        y = F.conv_bn_relu(x, *parts[0])
        z = F.conv_bn_relu(y, *parts[1])
        w = F.conv_bn_add_relu(z, *parts[2], y)
        listen(parts, (y, z, w))
        (w * w).sum().backward()
    return [x.grad, *(p.grad for pair in parts for module in pair for p in module.parameters())]


def scale(parameter, factor=3.0):
    def hook(*_):
        parameter.data[...] *= factor

    return hook


CHANGES = {
    "the weight, in its own hook": lambda parts, inner: parts[2][0].weight.register_hook(scale(parts[2][0].weight)),
    "the weight, in the hook of another": lambda parts, inner: parts[2][1].weight.register_hook(
        scale(parts[1][0].weight)
    ),
    "the weight, in the hook of the tensor below": lambda parts, inner: inner[0].register_hook(
        scale(parts[0][0].weight)
    ),
    "the weight, in a hook of the module below": lambda parts, inner: parts[0][1].register_full_backward_hook(
        scale(parts[0][0].weight)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_hook_that_changes_a_weight(change):
    for fused, unfused in zip(*(gradients(CHANGES[change], on) for on in (True, False))):
        np.testing.assert_allclose(fused, unfused, rtol=1e-9, atol=1e-9)


def test_a_hook_that_changes_the_gradient_it_received():
    """The shortcut's gradient is added to one that the convolution has not computed yet. A hook may have seen the former."""

    def listen(parts, inner):
        shown = []
        inner[2].register_hook(lambda g: shown.append(g))
        parts[2][0].weight.register_hook(lambda _: shown[0].fill(0.0))

    for fused, unfused in zip(*(gradients(listen, on) for on in (True, False))):
        np.testing.assert_allclose(fused, unfused, rtol=1e-9, atol=1e-9)


def lazy_gradient(addend=None):
    x_shape, geometry = (2, 5, 5, 4), ((1, 1), (1, 1), (1, 1), 1)
    dy, w = rng(0).standard_normal((2, 5, 5, 3)), rng(1).standard_normal((3, 3, 4, 3))
    dx = kernels.conv2d_input_grad(dy, w, x_shape, *geometry).transpose(0, 3, 1, 2)
    return ConvGradient(Operand(dy), w, x_shape, geometry, addend), dx


def test_a_sum_with_one_array_is_lazy_and_with_two_is_correct():
    lazy, dx = lazy_gradient()
    a, b = rng(2).standard_normal((2, *dx.shape))
    np.testing.assert_allclose(lazy.array(), dx, rtol=1e-12, atol=1e-12)
    once = lazy.plus(a)
    assert isinstance(once, ConvGradient)
    np.testing.assert_allclose(once.array(), dx + a, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(once.plus(b), dx + a + b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(lazy.array(), dx, rtol=1e-12, atol=1e-12)  # nothing was added in place


@pytest.mark.parametrize("network", ["resnet14", "resnet14-B", "preresnet14", "preresnet14-B", "resnet50v2"])
def test_only_the_gradient_of_the_pooling_takes_a_separate_pass(network, monkeypatch):
    """The gradient of every other ReLU is finished by the convolution above, also at the borders between stages."""
    name, *option = network.split("-")
    model = mr.models.create(name, **({"option": option[0]} if option else {}))
    masks, pointwise = [], backend.pointwise

    def spy(operand, epilogue):
        if epilogue.kind == MASK:
            masks.append(operand.array.shape)
        return pointwise(operand, epilogue)

    monkeypatch.setattr(backend, "pointwise", spy)
    x = mr.tensor(rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    F.cross_entropy(model(x), np.arange(2)).backward()
    assert masks == [(2, 1, 1, 2048) if name == "resnet50v2" else (2, 8, 8, 64)]
