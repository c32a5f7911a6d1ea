"""Networks for 32×32 images: three stages of 16, 32 and 64 channels (or others) at full, half and quarter size.

CifarResNet: "Deep Residual Learning for Image Recognition", He et al. 2015, §4.2 [1].
CifarPreResNet: "Identity Mappings in Deep Residual Networks", He et al. 2016 [2].
ResNeXt: "Aggregated Residual Transformations for Deep Neural Networks", Xie et al. 2017, is a CifarResNet of bottlenecks.
"""

from typing import Literal

from .. import functional as F
from .. import nn
from ..errors import ConfigError
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
from .network import Network, Output, PreActNetwork, outputs
from .parts import (
    checked_probability,
    global_pool,
    grouping,
    he_init,
    resolutions,
    set_stochastic_depth,
    stage,
    zero_residual_init,
)
from .registry import register
from .shortcuts import Shortcut, checked_shortcut, replace_shortcuts


class CifarResNet(Network):
    """[1, §4.2]: a 3×3 convolution, three stages of n blocks, global pooling, a classifier: 6n + 2 layers of basic blocks.

    (N, in_channels, H, W) → logits (N, num_classes). option: "A" for shortcuts padded with zero channels, "B" for
    projections, None for a plain network. pool: "avg" or "max". width: channels of the first stage; the others have twice and
    four times as many. norm: "batch", or "none" for convolutions with biases and no batch norm. zero_init_residual: blocks
    begin as the identity. shortcut: 1, or another factor on all shortcuts, or another kind of them; see ``replace_shortcuts``.
    aux_weight: above 0, an auxiliary classifier reads the second stage's output, the stage of the middle block, and forward
    returns an AuxiliaryOutput in training mode; ``nn.classification_loss`` makes the loss of it. block: BasicBlock, or a
    bottleneck, of which there are 9n + 2 layers, with groups and base_width as of ResNet. stochastic_depth, features_only: as
    of ResNet; the maps are those of the three stages. output_stride: 4, or 2 or 1 by dilation. Raises ConfigError for another
    depth, for zero_init_residual without shortcuts or batch norm, for another kind of shortcuts than there are, or without
    any, and for other values that cannot be.
    """

    recordable = True

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
        stochastic_depth: float = 0.0,
        features_only: bool = False,
        output_stride: int = 4,
    ) -> None:
        expansion, w = block.expansion, checked_width(width)
        n, more = blocks_per_stage(depth, 2 if expansion == 1 else 3), grouping(block, groups, base_width)
        first, second, third = sizes = resolutions((1, 2, 2), 1, output_stride)
        features = ((f"layer{i + 1}", (w << i) * expansion, size.reduction) for i, size in enumerate(sizes))
        self.prepare(features_only, aux_weight, features)
        self.conv1 = conv3x3(in_channels, w, bias=norm == "none")
        self.bn1 = normalisation(norm, w)
        self.layer1 = stage(block, w, w, n, first.stride, option, norm, first.dilation, **more)
        self.layer2 = stage(block, w * expansion, 2 * w, n, second.stride, option, norm, second.dilation, **more)
        self.layer3 = stage(block, 2 * w * expansion, 4 * w, n, third.stride, option, norm, third.dilation, **more)
        if not features_only:
            self.avgpool = global_pool(pool)
            self.fc = nn.Linear(4 * w * expansion, num_classes)
        he_init(self)
        if zero_init_residual:
            zero_residual_init(self)
        set_stochastic_depth(self, stochastic_depth)
        if checked_shortcut(shortcut) != 1:
            replace_shortcuts(self, shortcut)
        self.add_auxiliary(aux_weight, num_classes)

    def forward(self, x: Tensor) -> Output:
        x = F.conv_bn_relu(x, self.conv1, self.bn1)
        if self.features_only:
            return outputs((self.layer1, self.layer2, self.layer3), x)
        x = self.layer1(x)
        x = self.layer2(x)
        aux_logits = self.auxiliary(x)
        x = self.layer3(x)
        return self.output(self.fc(F.flatten(self.avgpool(x), 1)), aux_logits)


class CifarPreResNet(PreActNetwork):
    """[2]: CifarResNet with pre-activation blocks and a final BN and relu; 6n + 2 layers, or 9n + 2 with bottlenecks.

    (N, in_channels, H, W) → logits (N, num_classes). Options as of CifarResNet; block: PreActBasicBlock or a bottleneck. widen,
    dropout: see WideResNet. Of features_only the last map is that after the final norm and relu; the others have neither.
    """

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
        stochastic_depth: float = 0.0,
        features_only: bool = False,
        output_stride: int = 4,
    ) -> None:
        n, first = blocks_per_stage(depth, 2 if block.expansion == 1 else 3), checked_width(width)
        more = {"dropout": checked_dropout(dropout, block)} if dropout else {}
        sizes = resolutions((1, 2, 2), 1, output_stride)
        widths = [first * checked_widening(widen) << i for i in range(3)]
        features = ((f"stages.{i}", w * block.expansion, sizes[i].reduction) for i, w in enumerate(widths))
        self.prepare(features_only, aux_weight, features)
        self.stem = nn.Sequential({"conv": conv3x3(in_channels, first, bias=norm == "none")})
        self.stages = nn.Sequential()
        inside = first
        for w, size in zip(widths, sizes):
            blocks = stage(block, inside, w, n, size.stride, option, norm, size.dilation, **more)
            self.stages.append(nn.Sequential({"blocks": blocks}))
            inside = w * block.expansion
        self.norm = normalisation(norm, inside)
        if not features_only:
            self.head = nn.Sequential(
                {"pool": global_pool(pool), "flatten": nn.Flatten(), "fc": nn.Linear(inside, num_classes)}
            )
        he_init(self)
        if zero_init_residual:
            zero_residual_init(self)
        set_stochastic_depth(self, stochastic_depth)
        self.add_auxiliary(aux_weight, num_classes, norm)


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
