"""Subclasses of the layers that steps fuse, and layers that somebody has changed, run as they were written."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.lazy import LazyTensor


def conv_of(kind, **attributes):
    conv = kind(2, 2, 3, padding=1, bias=False)
    vars(conv).update(attributes)
    return conv


class DoublesCall(nn.Conv2d):
    def __call__(self, x):
        return super().__call__(x) * 2


class DoublesForward(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class DoublesInParent(DoublesCall):
    pass


class NormDoublesCall(nn.BatchNorm2d):
    def __call__(self, x):
        return super().__call__(x) * 2


class NormDoublesForward(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


class OtherUpdate(nn.BatchNorm2d):
    def update_running_stats(self, *args):
        raise AssertionError("forward does not call this")


STEPS = {
    "conv_bn": lambda x, conv, bn: F.conv_bn(x, conv, bn),
    "conv_bn_relu": lambda x, conv, bn: F.conv_bn_relu(x, conv, bn),
    "conv_bn_add_relu": lambda x, conv, bn: F.conv_bn_add_relu(x, conv, bn, x),
    "bn_relu": lambda x, conv, bn: F.bn_relu(x, bn),
    "bn_relu_conv": lambda x, conv, bn: F.bn_relu_conv(x, bn, conv),
    "bn_relu_conv_add": lambda x, conv, bn: F.bn_relu_conv_add(x, bn, conv, x),
}


@pytest.fixture
def x():
    return mr.tensor(np.random.default_rng(0).standard_normal((2, 2, 5, 5)).astype(np.float32))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("conv_kind", "norm_kind"),
    [
        (DoublesCall, nn.BatchNorm2d),
        (DoublesForward, nn.BatchNorm2d),
        (DoublesInParent, nn.BatchNorm2d),
        (nn.Conv2d, NormDoublesCall),
        (nn.Conv2d, NormDoublesForward),
        (nn.Conv2d, OtherUpdate),
    ],
)
def test_what_a_subclass_redefines_runs(x, step, conv_kind, norm_kind, training):
    mr.manual_seed(0)
    conv, bn = conv_of(conv_kind), norm_kind(2)
    bn.train(training)
    found = []
    for fused in (True, False):
        bn.reset_running_stats()
        with mr.fusion(fused), mr.no_grad():
            found.append([STEPS[step](x, conv, bn).numpy(), bn.running_mean.copy()])
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_forward_of_the_instance_runs(x):
    conv = conv_of(nn.Conv2d, forward=lambda x: x * 3)
    bn = nn.BatchNorm2d(2)
    np.testing.assert_array_equal(F.conv_bn_relu(x, conv, bn).numpy(), F.relu(nn.BatchNorm2d(2)(x * 3)).numpy())
    bn.forward = lambda x: x + 10
    np.testing.assert_array_equal(F.bn_relu(x, bn).numpy(), F.relu(x + 10).numpy())


@pytest.mark.parametrize(
    ("kind", "name"), [(nn.Conv2d, "forward"), (nn.BatchNorm2d, "forward"), (nn.Module, "__call__")]
)
def test_what_somebody_put_into_the_class_runs(x, monkeypatch, kind, name):
    conv, bn, calls = conv_of(nn.Conv2d), nn.BatchNorm2d(2), []
    original = getattr(kind, name)

    def counted(self, *args):
        calls.append(type(self))
        return original(self, *args)

    monkeypatch.setattr(kind, name, counted)
    F.conv_bn_relu(x, conv, bn)
    assert calls == ([nn.Conv2d, nn.BatchNorm2d] if kind is nn.Module else [kind])


def test_a_subclass_that_redefines_nothing_is_fused(x):
    class Conv3x3(nn.Conv2d):
        def __init__(self, channels):
            super().__init__(channels, channels, 3, padding=1, bias=False)

        def extra_repr(self):
            return "3×3"

    assert isinstance(F.conv_bn_relu(x, Conv3x3(2), nn.BatchNorm2d(2)), LazyTensor)
