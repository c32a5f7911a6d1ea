"""What networks are assembled from beside their blocks: stages, pooling, the auxiliary classifier; and how they begin."""

from __future__ import annotations

import math
from typing import Any, Literal

from .. import nn
from ..errors import ConfigError
from .blocks import BasicBlock, Block, Bottleneck, Norm, Option, PreActBlock, normalisation


def stage(
    block: Block,
    in_channels: int,
    channels: int,
    depth: int,
    stride: int,
    option: Option,
    norm: Norm = "batch",
    **settings: Any,
) -> nn.Sequential:
    """``depth`` blocks in a chain; the first has the stride, and changes in_channels to channels·expansion.

    settings: further arguments of the blocks, such as groups.
    """
    blocks = [block(in_channels, channels, stride, option, norm, **settings)]
    blocks += [block(channels * block.expansion, channels, 1, option, norm, **settings) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


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


def checked_aux_weight(weight: float) -> float:
    """The weight of an auxiliary classifier's loss, or ConfigError for one that cannot be."""
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < math.inf:
        raise ConfigError(
            f"aux_weight is the weight of the auxiliary classifier's loss, a finite number from 0 up, not {weight!r}"
        )
    return float(weight)


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


def classifier(model: nn.Module) -> tuple[str, nn.Linear]:
    """(dotted name, module) of a network's classifier: its last linear layer, that of an auxiliary classifier not counted.

    Raises ConfigError for a network without one, such as a backbone.

    >>> from minires import models
    >>> classifier(models.create("preresnet8"))
    ('head.fc', Linear(in_features=64, out_features=10, bias=True))
    """
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.partition(".")[0] != "aux"
    ]
    if not layers:
        raise ConfigError(f"this {type(model).__name__} has no classifier: there is no linear layer in it")
    return layers[-1]
