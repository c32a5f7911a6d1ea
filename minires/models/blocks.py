"""Shortcuts and residual blocks, from which all networks here are assembled.

[1] "Deep Residual Learning for Image Recognition", He et al. 2015: y = relu(F(x) + Wₛx).
[2] "Identity Mappings in Deep Residual Networks", He et al. 2016: y = x + F(x), with F = conv ∘ relu ∘ bn, two or three times.
Blocks without a shortcut, y = relu(F(x)) or y = F(x), make the plain networks of [1].
[3] "Wide Residual Networks", Zagoruyko & Komodakis 2016: more channels, and dropout between the convolutions.
[4] "Aggregated Residual Transformations for Deep Neural Networks" (ResNeXt), Xie et al. 2017: grouped 3×3 convolutions.
[5] "Deep Networks with Stochastic Depth", Huang et al. 2016: F is left out at random in training.
"""

from __future__ import annotations

from typing import Literal

from .. import functional as F
from .. import nn
from ..errors import ConfigError
from ..random import generator
from ..tensor import Tensor

Option = Literal["A", "B"] | None  # the shortcut where the shape changes, or None for a plain network
Pair = tuple[int, int]
Norm = Literal["batch", "none"]  # batch norm, or no normalisation; convolutions have biases then

MOST_WIDTH = 4096


def conv3x3(
    in_channels: int, out_channels: int, stride: int = 1, bias: bool = False, groups: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """A 3×3 convolution, padded so that at stride 1 it keeps height and width."""
    return nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=bias
    )


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


# --- stochastic depth


class ResidualBlock(nn.Module):
    """What blocks have in common. drop: the probability that F is left out, in training. [5]"""

    drop = 0.0
    downsample: nn.Module | None

    def factor(self) -> float:
        """What F(x) is multiplied by in this call: 1, or with stochastic depth in training 0 or 1/(1 − drop).

        It is drawn once for all images, as in [5, §3], so that nothing is computed of an F that is left out. The factor above 1
        makes the expectation of F(x) what evaluation computes, as in torchvision's StochasticDepth. ([5] multiplies by
        1 − drop in evaluation instead.) So the weights are good for the network without stochastic depth as they are.
        """
        if not self.drop or not self.training:
            return 1.0
        return 0.0 if generator().random() < self.drop else 1 / (1 - self.drop)

    def without_residual(self, x: Tensor) -> Tensor:
        """The block without F."""
        assert self.downsample is not None  # a plain network has no stochastic depth
        return F.relu(self.downsample(x))


def _is_fixed(block: ResidualBlock) -> bool:
    """Whether every call launches the same kernels: not where F may be left out."""
    return not (block.drop and block.training)


# --- blocks of [1]


class BasicBlock(ResidualBlock):
    """relu(x + F(x)), F = 3×3 → BN → relu → 3×3 → BN. [1, fig. 5 left]

    dilation: of the two convolutions. gate: what F(x) is multiplied by, a function of x; see ``shortcuts.py``.
    """

    recordable = property(_is_fixed)

    expansion = 1

    last_norm = "bn2"

    gate: nn.Module | None = None

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        option: Option = "B",
        norm: Norm = "batch",
        dilation: Pair = (1, 1),
    ) -> None:
        bias = norm == "none"
        self.conv1 = conv3x3(in_channels, channels, stride, bias, dilation=dilation[0])
        self.bn1 = normalisation(norm, channels)
        self.conv2 = conv3x3(channels, channels, bias=bias, dilation=dilation[1])
        self.bn2 = normalisation(norm, channels)
        self.downsample = make_shortcut(option, Projection, in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor()
        if factor == 0:
            return self.without_residual(x)
        y = F.conv_bn_relu(x, self.conv1, self.bn1)
        if self.downsample is None:
            return F.conv_bn_relu(y, self.conv2, self.bn2)
        if self.gate is not None:
            return F.add_relu(F.conv_bn(y, self.conv2, self.bn2) * self.gate(x) * factor, self.downsample(x))
        return F.conv_bn_add_relu(y, self.conv2, self.bn2, self.downsample(x), factor)


class Bottleneck(ResidualBlock):
    """relu(x + F(x)), F = 1×1 → BN → relu → 3×3 → BN → relu → 1×1 → BN, the last with 4 times the channels. [1, fig. 5]

    The stride is on the 3×3 convolution ("v1.5"): a strided 1×1 would ignore three of four pixels. groups, base_width: see
    ``inner_width``; the 3×3 convolution has so many groups. dilation: its own is the first.
    """

    recordable = property(_is_fixed)

    expansion = 4
    stride_on_3x3 = True

    last_norm = "bn3"

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        option: Option = "B",
        norm: Norm = "batch",
        groups: int = 1,
        base_width: int = 64,
        dilation: Pair = (1, 1),
    ) -> None:
        bias, inner = norm == "none", inner_width(channels, groups, base_width)
        first, second = (1, stride) if self.stride_on_3x3 else (stride, 1)
        self.conv1 = conv1x1(in_channels, inner, first, bias)
        self.bn1 = normalisation(norm, inner)
        self.conv2 = conv3x3(inner, inner, second, bias, groups, dilation[0])
        self.bn2 = normalisation(norm, inner)
        self.conv3 = conv1x1(inner, 4 * channels, bias=bias)
        self.bn3 = normalisation(norm, 4 * channels)
        self.downsample = make_shortcut(option, Projection, in_channels, 4 * channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor()
        if factor == 0:
            return self.without_residual(x)
        y = F.conv_bn_relu(x, self.conv1, self.bn1)
        y = F.conv_bn_relu(y, self.conv2, self.bn2)
        if self.downsample is None:
            return F.conv_bn_relu(y, self.conv3, self.bn3)
        return F.conv_bn_add_relu(y, self.conv3, self.bn3, self.downsample(x), factor)


def inner_width(channels: int, groups: int, base_width: int) -> int:
    """The channels of a bottleneck's 3×3 convolution: base_width of every 64, in each of the groups; as in torchvision.

    groups 1 and base_width 128 are the wide bottleneck of [3], 32 and 4 the ResNeXt-32×4d of [4]. Raises ConfigError for
    numbers that leave nothing.
    """
    for name, value in (("groups", groups), ("base_width", base_width)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_WIDTH:
            raise ConfigError(f"{name} is a whole number from 1 to {MOST_WIDTH}, not {value!r}")
    width = channels * base_width // 64
    if not width:
        raise ConfigError(
            f"base_width = {base_width} leaves no channel: it is of every 64, and a block here has {channels}"
        )
    return width * groups


class BottleneckV1(Bottleneck):
    """The bottleneck as in [1]: the stride is on the first 1×1 convolution."""

    stride_on_3x3 = False


# --- blocks of [2]


class PreActBlock(ResidualBlock):
    """x + F(x), with BN and relu before each convolution of F. [2, fig. 4e]

    Where the shape changes, the first BN and relu come before the fork, so that the shortcut takes their output too.
    """

    last_norm: str  # the names of F's last norm and convolution
    last_conv: str
    norm1: nn.Module
    conv1: nn.Conv2d

    @property
    def changes_shape(self) -> bool:
        return isinstance(self.downsample, ZeroPad | LinearProjection)

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(the input of the shortcut, conv1(relu(norm1(x))))."""
        if self.changes_shape:
            x = F.bn_relu(x, self.norm1)
            return x, self.conv1(x)
        return x, F.bn_relu_conv(x, self.norm1, self.conv1)

    def without_residual(self, x: Tensor) -> Tensor:
        assert self.downsample is not None
        return self.downsample(F.bn_relu(x, self.norm1) if self.changes_shape else x)

    def join(self, x: Tensor, y: Tensor, norm: nn.Module, conv: nn.Module, factor: float) -> Tensor:
        """conv(relu(norm(y))), the end of F, times the factor, plus the shortcut of x; in a plain network F alone."""
        if self.downsample is None:
            return F.bn_relu_conv(y, norm, conv)
        return F.bn_relu_conv_add(y, norm, conv, self.downsample(x), factor)


class PreActBasicBlock(PreActBlock):
    """x + F(x), F = BN → relu → 3×3, twice.

    dropout: the probability of it between the convolutions, [3, §2.4]. dilation: of the two convolutions.
    """

    recordable = property(_is_fixed)

    expansion = 1

    last_norm = "norm2"
    last_conv = "conv2"

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        option: Option = "B",
        norm: Norm = "batch",
        dropout: float = 0.0,
        dilation: Pair = (1, 1),
    ) -> None:
        bias = norm == "none"
        self.norm1 = normalisation(norm, in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride, bias, dilation=dilation[0])
        self.norm2 = normalisation(norm, channels)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.conv2 = conv3x3(channels, channels, bias=bias, dilation=dilation[1])
        self.downsample = make_shortcut(option, LinearProjection, in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor()
        if factor == 0:
            return self.without_residual(x)
        x, y = self.fork(x)
        if self.dropout is None:
            return self.join(x, y, self.norm2, self.conv2, factor)
        y = self.conv2(self.dropout(F.bn_relu(y, self.norm2)))
        if self.downsample is None:
            return y
        return F.residual_add(y if factor == 1 else y * factor, self.downsample(x))


class PreActBottleneck(PreActBlock):
    """x + F(x), F = BN → relu → 1×1, BN → relu → 3×3, BN → relu → 1×1. The stride is on the 3×3 convolution.

    dilation: that of the 3×3 convolution is the first.
    """

    recordable = property(_is_fixed)

    expansion = 4
    stride_on_3x3 = True

    last_norm = "norm3"
    last_conv = "conv3"

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        option: Option = "B",
        norm: Norm = "batch",
        dilation: Pair = (1, 1),
    ) -> None:
        bias = norm == "none"
        first, second = (1, stride) if self.stride_on_3x3 else (stride, 1)
        self.norm1 = normalisation(norm, in_channels)
        self.conv1 = conv1x1(in_channels, channels, first, bias)
        self.norm2 = normalisation(norm, channels)
        self.conv2 = conv3x3(channels, channels, second, bias, dilation=dilation[0])
        self.norm3 = normalisation(norm, channels)
        self.conv3 = conv1x1(channels, 4 * channels, bias=bias)
        self.downsample = make_shortcut(option, LinearProjection, in_channels, 4 * channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor()
        if factor == 0:
            return self.without_residual(x)
        x, y = self.fork(x)
        y = F.bn_relu_conv(y, self.norm2, self.conv2)
        return self.join(x, y, self.norm3, self.conv3, factor)


class PreActBottleneckV1(PreActBottleneck):
    """The stride is on the first 1×1 convolution, as in the code that the authors of [2] published."""

    stride_on_3x3 = False


Block = type[BasicBlock] | type[Bottleneck] | type[PreActBasicBlock] | type[PreActBottleneck]
