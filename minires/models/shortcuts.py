"""Shortcuts to compare with the identity: scaled, gated, convolved, or with dropout.

[1] "Deep Residual Learning for Image Recognition", He et al. 2015: blocks y = relu(F(x) + S(x)), where S is the identity, or
option A or B where the shape changes.
[2] "Identity Mappings in Deep Residual Networks", He et al. 2016, §3: something else in the place of every S.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from .. import functional as F
from .. import nn
from ..errors import ConfigError, nearest
from ..tensor import Tensor
from .blocks import BasicBlock, Norm, Projection, conv1x1
from .parts import he_init

Named = Literal["exclusive-gating", "shortcut-only-gating", "conv1x1", "dropout"]
Shortcut = float | Named  # a number λ: λ·S(x); 1 leaves the shortcuts as they are

GATE_BIAS = -6.0  # where [2] found both gatings to be best
DROPPED = 0.5  # of the shortcut's elements, in training


class Scaled(nn.Module):
    """λ·S(x). [2, Fig. 2b]"""

    def __init__(self, shortcut: nn.Module, factor: float) -> None:
        self.shortcut, self.factor = shortcut, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) * self.factor

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class Gate(nn.Module):
    """g(x) = σ(W x + b) with a 1×1 convolution W, a value for each element of the block's output; closing: 1 − g(x)."""

    def __init__(self, conv: nn.Conv2d, closing: bool = False) -> None:
        self.conv, self.closing = conv, closing

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        return F.sigmoid(-z if self.closing else z)  # 1 − σ(z) = σ(−z), without cancellation

    def extra_repr(self) -> str:
        return f"closing={self.closing}"


class Gated(nn.Module):
    """(1 − g(x))·S(x). [2, Fig. 2c, d]"""

    def __init__(self, shortcut: nn.Module, gate: Gate) -> None:
        self.shortcut, self.gate = shortcut, gate

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) * self.gate(x)


def replace_shortcuts(network: nn.Module, kind: Shortcut, gate_bias: float = GATE_BIAS) -> None:
    """Replace every shortcut S of a network of basic blocks [1], in place. The other weights stay as they are.

    kind: a number λ for λ·S(x); "exclusive-gating" for g(x)·F(x) + (1 − g(x))·S(x); "shortcut-only-gating" for
    F(x) + (1 − g(x))·S(x); "conv1x1" for a 1×1 convolution and its batch norm in place of S; "dropout" for half of S(x), times
    2, in training. gate_bias: b of g(x) = σ(W x + b) to begin with; W is initialised as other convolutions. Raises ConfigError
    for any other kind, and for a network without such shortcuts.
    """
    checked_shortcut(kind)
    blocks = [m for m in network.modules() if isinstance(m, BasicBlock)]
    if not blocks or any(block.downsample is None or block.gate is not None for block in blocks):
        raise ConfigError(
            "other shortcuts than the identity are for residual networks of basic blocks, such as resnet20, that have not been "
            f"given any yet: not for this {type(network).__name__}"
        )
    for block in blocks:
        _replace(block, kind, gate_bias)


def _replace(block: BasicBlock, kind: Shortcut, gate_bias: float) -> None:
    shortcut = block.downsample
    assert shortcut is not None
    new: nn.Module
    match kind:
        case "dropout":
            new = nn.Sequential(shortcut, nn.Dropout(DROPPED))
        case "conv1x1":
            norm: Norm = "batch" if isinstance(block.bn2, nn.BatchNorm2d) else "none"
            new = Projection(*_shape(block), norm)
            he_init(new)
        case "exclusive-gating" | "shortcut-only-gating":
            conv = conv1x1(*_shape(block), bias=True)
            he_init(conv)
            assert conv.bias is not None
            nn.init.constant_(conv.bias, gate_bias)
            new = Gated(shortcut, Gate(conv, closing=True))
            if kind == "exclusive-gating":
                block.gate = Gate(conv)  # which computes W x + b again: so x is the last tensor that both sides share
        case _:
            new = Scaled(shortcut, float(kind))
    block.downsample = new
    for added in (new, block.gate):
        if added is not None:
            added.to(block.conv1.weight.dtype).train(block.training)


def _shape(block: BasicBlock) -> tuple[int, int, int]:
    """(channels of the input, channels of the output, stride) of a block."""
    return block.conv1.in_channels, block.conv2.out_channels, block.conv1.stride[0]


def checked_shortcut(kind: Shortcut) -> Shortcut:
    """The kind, or ConfigError for one that there is none of."""
    names = get_args(Named)
    if isinstance(kind, str) and kind in names:
        return kind
    if isinstance(kind, int | float) and not isinstance(kind, bool) and math.isfinite(kind):
        return kind
    near = nearest(kind, names) if isinstance(kind, str) else ""
    raise ConfigError(f"shortcut is a number, such as 0.5, or one of {', '.join(names)}, not {kind!r}{near}")
