"""What networks are assembled from beside their blocks: stages, pooling, the auxiliary classifier; and how they begin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from .. import nn
from ..errors import ConfigError
from .blocks import BasicBlock, Block, Bottleneck, Norm, Option, Pair, PreActBlock, ResidualBlock, normalisation


def stage(
    block: Block,
    in_channels: int,
    channels: int,
    depth: int,
    stride: int,
    option: Option,
    norm: Norm = "batch",
    dilation: Pair = (1, 1),
    **settings: Any,
) -> nn.Sequential:
    """``depth`` blocks in a chain; the first has the stride, and changes in_channels to channels·expansion.

    dilation: of the first 3×3 convolution, and of all others. settings: further arguments of the blocks, such as groups.
    """
    first, rest = (  # without a dilation of 1, so that a block of one's own need not know dilations
        settings if pair == (1, 1) else {**settings, "dilation": pair}
        for pair in (dilation, (dilation[1], dilation[1]))
    )
    blocks = [block(in_channels, channels, stride, option, norm, **first)]
    blocks += [block(channels * block.expansion, channels, 1, option, norm, **rest) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


class Resolution(NamedTuple):
    """Of a stage: the stride of its first block, the dilation of its first 3×3 convolution and of all others, and the stride
    of its output, in pixels of the image."""

    stride: int
    dilation: Pair
    reduction: int


def resolutions(strides: Sequence[int], first: int, output_stride: int) -> list[Resolution]:
    """The resolutions of stages that follow at a stride of ``first`` and have these strides.

    output_stride: where they would reduce the image by more, their strides become dilations, as in torchvision: what a position
    sees stays the same, and there are more positions. "DeepLab", Chen et al. 2016, §3.1. Raises ConfigError unless it is the
    stride of the network without dilation, its half or its quarter.
    """
    whole = first * math.prod(strides)
    if output_stride not in (whole, whole // 2, whole // 4) or isinstance(output_stride, bool | float):
        raise ConfigError(f"output_stride is {whole}, {whole // 2} or {whole // 4} here, not {output_stride!r}")
    found, reduction, dilation = [], first, 1
    for stride in strides:
        before = dilation
        if reduction * stride > output_stride:
            stride, dilation = 1, dilation * stride
        reduction *= stride
        found.append(Resolution(stride, (before, dilation), reduction))
    return found


def grouping(block: Block, groups: int, base_width: int) -> dict[str, Any]:
    """The arguments ``groups`` and ``base_width`` of a block. Basic blocks have none: ConfigError for others than 1 and 64."""
    if issubclass(block, Bottleneck):
        return {"groups": groups, "base_width": base_width}
    if (groups, base_width) != (1, 64):
        raise ConfigError(
            f"groups = {groups} and base_width = {base_width} are of bottlenecks, such as those of resnet50: "
            f"a {block.__name__} has none"
        )
    return {}


def global_pool(pool: Literal["avg", "max"]) -> nn.Module:
    """The global pooling before the classifier: "avg" or "max". Raises ConfigError for anything else."""
    if pool not in ("avg", "max"):
        raise ConfigError(f"pool is 'avg' or 'max', the global pooling at the end, not {pool!r}")
    return nn.AdaptiveAvgPool2d(1) if pool == "avg" else nn.AdaptiveMaxPool2d(1)


def checked_probability(name: str, value: float) -> float:
    """The probability that an option called ``name`` is, or ConfigError for a number that is none; 1 is none of use."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ConfigError(f"{name} is a probability from 0 up and below 1, not {value!r}")
    return float(value)


def auxiliary_classifier(channels: int, num_classes: int, norm: Norm | None = None) -> nn.Sequential:
    """Global average pooling and a linear layer: logits from a feature map inside a network.

    norm: that of a pre-activation network, whose feature maps have been neither normalised nor rectified: batch norm and ReLU
    come first then, as before its own classifier. "Going Deeper with Convolutions", Szegedy et al. 2015, §5, in its simplest
    form. The bias is 0 to begin with.
    """
    layers: dict[str, nn.Module] = {} if norm is None else {"norm": normalisation(norm, channels), "relu": nn.ReLU()}
    fc = nn.Linear(channels, num_classes)
    classifier = nn.Sequential({**layers, "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": fc})
    he_init(classifier)
    return classifier


def he_init(network: nn.Module) -> None:
    """Convolutions ~ N(0, 2 / fan_out), all biases 0; batch norms keep γ = 1, β = 0.

    "Delving Deep into Rectifiers", He et al. 2015, §2.2, the backward case, as in the authors' code.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def zero_residual_init(network: nn.Module) -> None:
    """Let every residual function begin as zero, and its block as the identity.

    Where batch norm is last in it, its γ = 0 ("Accurate, Large Minibatch SGD", Goyal et al. 2017, §5.1). In a pre-activation
    block the last convolution is 0: γ = 0 before a ReLU would stay 0, as would all that comes before it, since the gradient of
    the ReLU at 0 is 0. Raises ConfigError for a network without shortcuts, and for blocks [1] without batch norm.
    """
    for block in network.modules():
        if not isinstance(block, BasicBlock | Bottleneck | PreActBlock):
            continue
        last = getattr(block, block.last_conv if isinstance(block, PreActBlock) else block.last_norm)
        if block.downsample is None or not isinstance(last, nn.BatchNorm2d | nn.Conv2d):
            raise ConfigError(
                "zero_init_residual is for residual networks with batch norm: without shortcuts a network would compute "
                "nothing, and without batch norm there is no γ"
            )
        assert last.weight is not None  # its batch norms are affine
        nn.init.zeros_(last.weight)


def set_stochastic_depth(network: nn.Module, probability: float) -> None:
    """Leave out residual functions at random in training: the last with this probability, the l-th of L with l/L of it.

    "Deep Networks with Stochastic Depth", Huang et al. 2016, §3, eq. 4; see ``ResidualBlock.factor``. Raises ConfigError for a
    number that is no such probability, and for a network without shortcuts.
    """
    checked_probability("stochastic_depth", probability)
    if not probability:
        return
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    if any(block.downsample is None for block in blocks):
        raise ConfigError(
            "stochastic_depth is for residual networks: where F(x) is left out, there is nothing without a shortcut"
        )
    for i, block in enumerate(blocks, 1):
        block.drop = probability * i / len(blocks)
