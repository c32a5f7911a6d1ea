"""Every differentiable function, under its PyTorch name. The maths stands in ``ops/``, one file a family."""

from typing import Any

from .ops import fused
from .ops.activation import (
    add_relu,
    dropout,
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from .ops.arithmetic import abs, add, clip, div, exp, log, mul, neg, pow, residual_add, sqrt, sub
from .ops.convolution import conv2d
from .ops.fused import fusable
from .ops.linear import linear, matmul
from .ops.loss import cross_entropy, mse_loss
from .ops.normalization import batch_norm
from .ops.pooling import avg_pool2d, global_avg_pool2d, global_max_pool2d, max_pool2d
from .ops.reduction import max, mean, sum
from .ops.resize import interpolate
from .ops.shape import cat, flatten, getitem, pad, permute, reshape, stack, transpose
from .ops.shortcut import zero_pad_shortcut
from .tensor import Tensor

Layer = Any  # an nn.Conv2d or nn.BatchNorm2d: nn is built on this module

# The steps that residual networks are written in. Each equals the composition that its docstring names, hooks included.
# Where nobody looks between, the whole step runs at once (``ops/fused.py``): in training, and in evaluation under no_grad.


def conv_bn(x: Tensor, conv: Layer, bn: Layer) -> Tensor:
    """bn(conv(x)): modules ``conv`` and ``bn`` on a Tensor x (N, C, H, W)."""
    if not bn.training and fusable(x, bn, conv):
        return fused.conv_bn(x, conv, bn, relu=False)
    return bn(conv(x))


def conv_bn_relu(x: Tensor, conv: Layer, bn: Layer) -> Tensor:
    """relu(bn(conv(x))): the first layers of a residual function (He et al. 2015, Fig. 5)."""
    if fusable(x, bn, conv):
        return fused.conv_bn(x, conv, bn)
    return relu(bn(conv(x)))


def conv_bn_add_relu(x: Tensor, conv: Layer, bn: Layer, shortcut: Tensor, factor: float = 1.0) -> Tensor:
    """relu(bn(conv(x))·factor + shortcut): where a residual block ends (He et al. 2015, eq. 1)."""
    if fusable(x, bn, conv, shortcut):
        return fused.conv_bn(x, conv, bn, shortcut=shortcut, factor=factor)
    y = bn(conv(x))
    return add_relu(y if factor == 1 else y * factor, shortcut)


def bn_relu(x: Tensor, bn: Layer) -> Tensor:
    """relu(bn(x)): pre-activation (He et al. 2016, Fig. 1b)."""
    if fusable(x, bn):
        return fused.bn_relu(x, bn)
    return relu(bn(x))


def bn_relu_conv(x: Tensor, bn: Layer, conv: Layer) -> Tensor:
    """conv(relu(bn(x))): one layer of a pre-activation residual function (He et al. 2016, Fig. 1b)."""
    if fusable(x, bn, conv, norm_first=True):
        return fused.bn_relu_conv(x, bn, conv)
    return conv(relu(bn(x)))


def bn_relu_conv_add(x: Tensor, bn: Layer, conv: Layer, shortcut: Tensor, factor: float = 1.0) -> Tensor:
    """conv(relu(bn(x)))·factor + shortcut: where a pre-activation block ends (He et al. 2016, eq. 3)."""
    if fusable(x, bn, conv, shortcut, norm_first=True):
        return fused.bn_relu_conv(x, bn, conv, shortcut, factor)
    y = conv(relu(bn(x)))
    return residual_add(y if factor == 1 else y * factor, shortcut)


__all__ = [
    "abs",
    "add",
    "add_relu",
    "avg_pool2d",
    "batch_norm",
    "bn_relu",
    "bn_relu_conv",
    "bn_relu_conv_add",
    "cat",
    "clip",
    "conv2d",
    "conv_bn",
    "conv_bn_add_relu",
    "conv_bn_relu",
    "cross_entropy",
    "div",
    "dropout",
    "exp",
    "flatten",
    "gelu",
    "getitem",
    "global_avg_pool2d",
    "global_max_pool2d",
    "interpolate",
    "leaky_relu",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "max_pool2d",
    "mean",
    "mse_loss",
    "mul",
    "neg",
    "pad",
    "permute",
    "pow",
    "relu",
    "reshape",
    "residual_add",
    "sigmoid",
    "softmax",
    "sqrt",
    "stack",
    "sub",
    "sum",
    "tanh",
    "transpose",
    "zero_pad_shortcut",
]
