"""Shortcuts, residual blocks and stages, from which all networks here are assembled.

[1] "Deep Residual Learning for Image Recognition", He et al. 2015: y = relu(F(x) + Wₛx).
[2] "Identity Mappings in Deep Residual Networks", He et al. 2016: y = x + F(x), with F = conv ∘ relu ∘ bn, two or three times.
Blocks without a shortcut, y = relu(F(x)) or y = F(x), make the plain networks of [1].
"""

from __future__ import annotations

import math
from typing import Literal

from .. import functional as F
from .. import nn
from ..errors import ConfigError
from ..tensor import Tensor

Option = Literal["A", "B"] | None  # the shortcut where the shape changes, or None for a plain network
Norm = Literal["batch", "none"]  # batch norm, or no normalisation; convolutions have biases then


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A 3×3 convolution, padded so that at stride 1 it keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A 1×1 convolution."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=bias)


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """A batch norm, or for "none" the identity. Raises ConfigError for anything else."""
    if norm not in ("batch", "none"):
        raise ConfigError(f"norm is 'batch' (batch norm) or 'none' (convolutions with biases), not {norm!r}")
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


# --- shortcuts


class ZeroPad(nn.Module):
    """Option A of [1, §3.3]: every stride-th pixel, padded with channels of zeros, half of them before x and half after."""

    recordable = True

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.zero_pad_shortcut(x, self.stride, self.before, self.after)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, channels=({self.before}, {self.after})"


class Projection(nn.Sequential):
    """Option B of [1, §3.3]: a 1×1 convolution and its batch norm."""

    recordable = True

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm = "batch") -> None:
        conv = conv1x1(in_channels, out_channels, stride, bias=norm == "none")
        super().__init__(conv, normalisation(norm, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_bn(x, self[0], self[1])


class LinearProjection(nn.Sequential):
    """Option B of [2]: a 1×1 convolution alone, since its input is normalised already."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm = "batch") -> None:
        super().__init__({"conv": conv1x1(in_channels, out_channels, stride, bias=norm == "none")})


def make_shortcut(
    option: Option,
    projection: type[Projection] | type[LinearProjection],
    in_channels: int,
    out_channels: int,
    stride: int,
    norm: Norm = "batch",
) -> nn.Module | None:
    """The shortcut of a block: option "A" or "B" where the shape changes, else the identity; None for a plain network.

    projection: the class for option B. Raises ConfigError for any other option.
    """
    if option not in ("A", "B", None):
        raise ConfigError(f"option is 'A' (zero channels), 'B' (projection) or None (no shortcuts), not {option!r}")
    if option is None:
        return None
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if option == "A":
        return ZeroPad(in_channels, out_channels, stride)
    return projection(in_channels, out_channels, stride, norm)


# --- blocks of [1]


class BasicBlock(nn.Module):
    """relu(x + F(x)), F = 3×3 → BN → relu → 3×3 → BN. [1, fig. 5 left]

    gate: what F(x) is multiplied by, a function of x; see ``shortcuts.py``.
    """

    recordable = True

    expansion = 1

    last_norm = "bn2"

    gate: nn.Module | None = None

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, option: Option = "B", norm: Norm = "batch"
    ) -> None:
        bias = norm == "none"
        self.conv1 = conv3x3(in_channels, channels, stride, bias)
        self.bn1 = normalisation(norm, channels)
        self.conv2 = conv3x3(channels, channels, bias=bias)
        self.bn2 = normalisation(norm, channels)
        self.downsample = make_shortcut(option, Projection, in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv_bn_relu(x, self.conv1, self.bn1)
        if self.downsample is None:
            return F.conv_bn_relu(y, self.conv2, self.bn2)
        if self.gate is not None:
            return F.add_relu(F.conv_bn(y, self.conv2, self.bn2) * self.gate(x), self.downsample(x))
        return F.conv_bn_add_relu(y, self.conv2, self.bn2, self.downsample(x))


class Bottleneck(nn.Module):
    """relu(x + F(x)), F = 1×1 → BN → relu → 3×3 → BN → relu → 1×1 → BN, the last with 4 times the channels. [1, fig. 5]

    The stride is on the 3×3 convolution ("v1.5"): a strided 1×1 would ignore three of four pixels.
    """

    recordable = True

    expansion = 4
    stride_on_3x3 = True

    last_norm = "bn3"

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, option: Option = "B", norm: Norm = "batch"
    ) -> None:
        bias = norm == "none"
        first, second = (1, stride) if self.stride_on_3x3 else (stride, 1)
        self.conv1 = conv1x1(in_channels, channels, first, bias)
        self.bn1 = normalisation(norm, channels)
        self.conv2 = conv3x3(channels, channels, second, bias)
        self.bn2 = normalisation(norm, channels)
        self.conv3 = conv1x1(channels, 4 * channels, bias=bias)
        self.bn3 = normalisation(norm, 4 * channels)
        self.downsample = make_shortcut(option, Projection, in_channels, 4 * channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv_bn_relu(x, self.conv1, self.bn1)
        y = F.conv_bn_relu(y, self.conv2, self.bn2)
        if self.downsample is None:
            return F.conv_bn_relu(y, self.conv3, self.bn3)
        return F.conv_bn_add_relu(y, self.conv3, self.bn3, self.downsample(x))


class BottleneckV1(Bottleneck):
    """The bottleneck as in [1]: the stride is on the first 1×1 convolution."""

    stride_on_3x3 = False


# --- blocks of [2]


class PreActBlock(nn.Module):
    """x + F(x), with BN and relu before each convolution of F. [2, fig. 4e]

    Where the shape changes, the first BN and relu come before the fork, so that the shortcut takes their output too.
    """

    last_norm: str  # the name of F's last norm
    norm1: nn.Module
    conv1: nn.Conv2d
    downsample: nn.Module | None

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(the input of the shortcut, conv1(relu(norm1(x))))."""
        if isinstance(self.downsample, ZeroPad | LinearProjection):
            x = F.bn_relu(x, self.norm1)
            return x, self.conv1(x)
        return x, F.bn_relu_conv(x, self.norm1, self.conv1)

    def join(self, x: Tensor, y: Tensor, norm: nn.Module, conv: nn.Module) -> Tensor:
        """conv(relu(norm(y))), the end of F, plus the shortcut of x; in a plain network without the shortcut."""
        if self.downsample is None:
            return F.bn_relu_conv(y, norm, conv)
        return F.bn_relu_conv_add(y, norm, conv, self.downsample(x))


class PreActBasicBlock(PreActBlock):
    """x + F(x), F = BN → relu → 3×3, twice."""

    recordable = True

    expansion = 1

    last_norm = "norm2"

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, option: Option = "B", norm: Norm = "batch"
    ) -> None:
        bias = norm == "none"
        self.norm1 = normalisation(norm, in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride, bias)
        self.norm2 = normalisation(norm, channels)
        self.conv2 = conv3x3(channels, channels, bias=bias)
        self.downsample = make_shortcut(option, LinearProjection, in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        x, y = self.fork(x)
        return self.join(x, y, self.norm2, self.conv2)


class PreActBottleneck(PreActBlock):
    """x + F(x), F = BN → relu → 1×1, BN → relu → 3×3, BN → relu → 1×1. The stride is on the 3×3 convolution."""

    recordable = True

    expansion = 4
    stride_on_3x3 = True

    last_norm = "norm3"

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, option: Option = "B", norm: Norm = "batch"
    ) -> None:
        bias = norm == "none"
        first, second = (1, stride) if self.stride_on_3x3 else (stride, 1)
        self.norm1 = normalisation(norm, in_channels)
        self.conv1 = conv1x1(in_channels, channels, first, bias)
        self.norm2 = normalisation(norm, channels)
        self.conv2 = conv3x3(channels, channels, second, bias)
        self.norm3 = normalisation(norm, channels)
        self.conv3 = conv1x1(channels, 4 * channels, bias=bias)
        self.downsample = make_shortcut(option, LinearProjection, in_channels, 4 * channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        x, y = self.fork(x)
        y = F.bn_relu_conv(y, self.norm2, self.conv2)
        return self.join(x, y, self.norm3, self.conv3)


class PreActBottleneckV1(PreActBottleneck):
    """The stride is on the first 1×1 convolution, as in the code that the authors of [2] published."""

    stride_on_3x3 = False


# --- parts of networks

Block = type[BasicBlock] | type[Bottleneck] | type[PreActBasicBlock] | type[PreActBottleneck]


def stage(
    block: Block, in_channels: int, channels: int, depth: int, stride: int, option: Option, norm: Norm = "batch"
) -> nn.Sequential:
    """``depth`` blocks in a chain; the first has the stride, and changes in_channels to channels·expansion."""
    blocks = [block(in_channels, channels, stride, option, norm)]
    blocks += [block(channels * block.expansion, channels, 1, option, norm) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def global_pool(pool: Literal["avg", "max"]) -> nn.Module:
    """The global pooling before the classifier: "avg" or "max". Raises ConfigError for anything else."""
    if pool not in ("avg", "max"):
        raise ConfigError(f"pool is 'avg' or 'max', the global pooling at the end, not {pool!r}")
    return nn.AdaptiveAvgPool2d(1) if pool == "avg" else nn.AdaptiveMaxPool2d(1)


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
    """γ = 0 in the last batch norm of every residual function, which is then zero and its block the identity.

    "Accurate, Large Minibatch SGD", Goyal et al. 2017, §5.1. Raises ConfigError for a network without shortcuts or batch norm.
    """
    blocks = [m for m in network.modules() if isinstance(m, BasicBlock | Bottleneck | PreActBlock)]
    for block in blocks:
        norm = getattr(block, block.last_norm)
        if block.downsample is None or not isinstance(norm, nn.BatchNorm2d):
            raise ConfigError(
                "zero_init_residual is for residual networks with batch norm: without shortcuts a network would compute "
                "nothing, and without batch norm there is no γ"
            )
        assert norm.weight is not None  # its batch norms are affine
        nn.init.zeros_(norm.weight)
