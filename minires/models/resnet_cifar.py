"""Networks for 32×32 images: three stages of 16, 32 and 64 channels (or others) at full, half and quarter size.

CifarResNet: "Deep Residual Learning for Image Recognition", He et al. 2015, §4.2 [1].
CifarPreResNet: "Identity Mappings in Deep Residual Networks", He et al. 2016 [2].
ResNeXt: "Aggregated Residual Transformations for Deep Neural Networks", Xie et al. 2017, is a CifarResNet of bottlenecks.
"""

from typing import Literal

from .. import functional as F
from .. import nn
from ..errors import ConfigError
from ..nn import AuxiliaryOutput
from ..tensor import Tensor
from .blocks import (
    MOST_WIDTH,
    BasicBlock,
    Bottleneck,
    Norm,
    Option,
    PreActBasicBlock,
    PreActBottleneck,
    PreActBottleneckV1,
    conv3x3,
    normalisation,
)
from .parts import (
    auxiliary_classifier,
    checked_aux_weight,
    checked_probability,
    global_pool,
    grouping,
    he_init,
    stage,
    zero_residual_init,
)
from .registry import register
from .shortcuts import Shortcut, checked_shortcut, replace_shortcuts


class CifarResNet(nn.Module):
    """[1, §4.2]: a 3×3 convolution, three stages of n blocks, global pooling, a classifier: 6n + 2 layers of basic blocks.

    (N, in_channels, H, W) → logits (N, num_classes). option: "A" for shortcuts padded with zero channels, "B" for
    projections, None for a plain network. pool: "avg" or "max". width: channels of the first stage; the others have twice and
    four times as many. norm: "batch", or "none" for convolutions with biases and no batch norm. zero_init_residual: blocks
    begin as the identity. shortcut: 1, or another factor on all shortcuts, or another kind of them; see ``replace_shortcuts``.
    aux_weight: above 0, an auxiliary classifier reads the second stage's output, the stage of the middle block, and forward
    returns an AuxiliaryOutput in training mode; ``nn.classification_loss`` makes the loss of it. block: BasicBlock, or a
    bottleneck, of which there are 9n + 2 layers, with groups and base_width as of ResNet. Raises ConfigError for another depth,
    for zero_init_residual without shortcuts or batch norm, and for another kind of shortcuts than there are, or without any.
    """

    recordable = True
    image_size = 32

    def __init__(
        self,
        depth: int,
        option: Option = "A",
        num_classes: int = 10,
        in_channels: int = 3,
        pool: Literal["avg", "max"] = "avg",
        width: int = 16,
        norm: Norm = "batch",
        zero_init_residual: bool = False,
        shortcut: Shortcut = 1.0,
        aux_weight: float = 0.0,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        expansion, w = block.expansion, checked_width(width)
        n, inner = blocks_per_stage(depth, 2 if expansion == 1 else 3), grouping(block, groups, base_width)
        self.conv1 = conv3x3(in_channels, w, bias=norm == "none")
        self.bn1 = normalisation(norm, w)
        self.layer1 = stage(block, w, w, n, 1, option, norm, **inner)
        self.layer2 = stage(block, w * expansion, 2 * w, n, 2, option, norm, **inner)
        self.layer3 = stage(block, 2 * w * expansion, 4 * w, n, 2, option, norm, **inner)
        self.avgpool = global_pool(pool)
        self.fc = nn.Linear(4 * w * expansion, num_classes)
        he_init(self)
        if zero_init_residual:
            zero_residual_init(self)
        if checked_shortcut(shortcut) != 1:
            replace_shortcuts(self, shortcut)
        self.aux_weight = checked_aux_weight(aux_weight)
        # last, so that the other weights are those of the same network without it
        self.aux = auxiliary_classifier(2 * w * expansion, num_classes) if aux_weight else None

    def forward(self, x: Tensor) -> Tensor | AuxiliaryOutput:
        x = F.conv_bn_relu(x, self.conv1, self.bn1)
        x = self.layer1(x)
        x = self.layer2(x)
        aux_logits = self.aux(x) if self.aux is not None and self.training else None
        x = self.layer3(x)
        logits = self.fc(F.flatten(self.avgpool(x), 1))
        return logits if aux_logits is None else AuxiliaryOutput(logits, aux_logits, self.aux_weight)


class CifarPreResNet(nn.Module):
    """[2]: CifarResNet with pre-activation blocks and a final BN and relu; 6n + 2 layers, or 9n + 2 with bottlenecks.

    (N, in_channels, H, W) → logits (N, num_classes). Options as of CifarResNet; block: PreActBasicBlock or a bottleneck. widen,
    dropout: see WideResNet.
    """

    recordable = True
    image_size = 32

    def __init__(
        self,
        depth: int,
        block: type[PreActBasicBlock] | type[PreActBottleneck] = PreActBasicBlock,
        option: Option = "A",
        num_classes: int = 10,
        in_channels: int = 3,
        pool: Literal["avg", "max"] = "avg",
        width: int = 16,
        norm: Norm = "batch",
        zero_init_residual: bool = False,
        aux_weight: float = 0.0,
        widen: int = 1,
        dropout: float = 0.0,
    ) -> None:
        expansion, first = block.expansion, checked_width(width)
        n, w = blocks_per_stage(depth, 2 if expansion == 1 else 3), first * checked_widening(widen)
        inner = {"dropout": checked_dropout(dropout, block)} if dropout else {}
        self.stem = nn.Sequential({"conv": conv3x3(in_channels, first, bias=norm == "none")})
        self.stages = nn.Sequential(
            nn.Sequential({"blocks": stage(block, first, w, n, 1, option, norm, **inner)}),
            nn.Sequential({"blocks": stage(block, w * expansion, 2 * w, n, 2, option, norm, **inner)}),
            nn.Sequential({"blocks": stage(block, 2 * w * expansion, 4 * w, n, 2, option, norm, **inner)}),
        )
        self.norm = normalisation(norm, 4 * w * expansion)
        self.head = nn.Sequential(
            {"pool": global_pool(pool), "flatten": nn.Flatten(), "fc": nn.Linear(4 * w * expansion, num_classes)}
        )
        he_init(self)
        if zero_init_residual:
            zero_residual_init(self)
        self.aux_weight = checked_aux_weight(aux_weight)
        self.aux = auxiliary_classifier(2 * w * expansion, num_classes, norm) if aux_weight else None

    def forward(self, x: Tensor) -> Tensor | AuxiliaryOutput:
        x = self.stem(x)
        aux_logits = None
        if self.aux is not None and self.training:
            first, second, third = self.stages
            x = second(first(x))
            aux_logits = self.aux(x)
            x = third(x)
        else:
            x = self.stages(x)
        logits = self.head(F.bn_relu(x, self.norm))
        return logits if aux_logits is None else AuxiliaryOutput(logits, aux_logits, self.aux_weight)


def checked_width(width: int) -> int:
    """The width, or ConfigError for one that no network has."""
    if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width <= MOST_WIDTH:
        raise ConfigError(
            f"width is the channels of the first stage, a whole number from 1 to {MOST_WIDTH}, not {width!r}"
        )
    return width


MOST_WIDENING = 64


def checked_widening(factor: int) -> int:
    """``widen``, or ConfigError for one that no network has."""
    if not isinstance(factor, int) or isinstance(factor, bool) or not 1 <= factor <= MOST_WIDENING:
        raise ConfigError(
            f"widen is how many times as wide the stages are, a whole number from 1 to {MOST_WIDENING}, not {factor!r}"
        )
    return factor


def checked_dropout(dropout: float, block: type) -> float:
    """The probability of dropout, or ConfigError for a number that is none, and for blocks without dropout."""
    if block is not PreActBasicBlock:
        raise ConfigError(f"dropout is between the convolutions of basic blocks, and a {block.__name__} has none")
    return checked_probability("dropout", dropout)


def blocks_per_stage(depth: int, layers: int, others: int = 2) -> int:
    """n of a network with three stages of n blocks with ``layers`` layers each, and others: depth = 3·layers·n + others.

    Raises ConfigError when there is no such n.
    """
    n, rest = divmod(depth - others, 3 * layers)
    if rest or n < 1:
        raise ConfigError(
            f"depth {depth} cannot be: three stages of n blocks of {layers} layers have depth {3 * layers}n + {others}, "
            f"such as {3 * layers * max(n, 1) + others} or {3 * layers * (max(n, 1) + 1) + others}"
        )
    return n


DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)
_BASIC = {"block": BasicBlock, "groups": 1, "base_width": 64}
for _d in DEPTHS:
    register(f"resnet{_d}", CifarResNet, f"ResNet-{_d} for CIFAR.", _BASIC | {"depth": _d})
for _d in DEPTHS:
    register(f"plain{_d}", CifarResNet, f"The plain counterpart of resnet{_d}.", _BASIC | {"depth": _d, "option": None})
for _d in DEPTHS:
    register(
        f"preresnet{_d}",
        CifarPreResNet,
        f"Pre-activation ResNet-{_d} for CIFAR.",
        {"depth": _d, "block": PreActBasicBlock, "widen": 1},
    )
for _d in (164, 1001):
    register(
        f"preresnet{_d}",
        CifarPreResNet,
        f"Pre-activation ResNet-{_d} for CIFAR, of bottlenecks.",
        {"depth": _d, "block": PreActBottleneckV1, "widen": 1, "dropout": 0.0},
        option="B",
    )
for _d in (*DEPTHS, 164, 1001):
    _bottleneck = _d in (164, 1001)
    register(
        f"preplain{_d}",
        CifarPreResNet,
        f"The plain counterpart of preresnet{_d}.",
        {"depth": _d, "block": PreActBottleneckV1 if _bottleneck else PreActBasicBlock, "option": None, "widen": 1}
        | ({"dropout": 0.0} if _bottleneck else {}),
    )
register(
    "resnext29_8x64d",
    CifarResNet,
    "ResNeXt-29 for CIFAR, of 8 groups that are 64 channels wide.",
    {"depth": 29, "block": Bottleneck, "groups": 8, "base_width": 64, "width": 64, "shortcut": 1.0},
    option="B",
)
