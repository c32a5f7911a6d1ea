"""Convolution, linear layers, activations, dropout, flatten."""

import math
from typing import Literal

import numpy as np

from .. import functional as F
from ..errors import ConfigError
from ..kernels.memory_format import oihw
from ..ops.checks import pair
from ..ops.convolution import Geometry, geometry
from ..tensor import Tensor
from . import init
from .module import Module, Parameter


class Identity(Module):
    """y = x."""

    recordable = True

    def forward(self, x: Tensor) -> Tensor:
        return x


class Linear(Module):
    """y = x wᵀ + b: (…, in_features) → (…, out_features). weight (out_features, in_features), bias (out_features,).

    Raises ConfigError for fewer than one feature.
    """

    recordable = True

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        if in_features < 1 or out_features < 1:
            raise ConfigError(f"Linear: needs one feature or more, not {in_features} in and {out_features} out")
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        self.bias = Parameter(np.empty(out_features, np.float32)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and biases ~ U[-1/√fan_in, 1/√fan_in)."""
        _default_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Conv2d(Module):
    """y[n, o] = Σᵢ x[n, i] ⋆ w[o, i] + b[o]: (N, in_channels, H, W) → (N, out_channels, OH, OW).

    OH = ⌊(H + 2·padding - dilation·(KH - 1) - 1) / stride⌋ + 1. weight (out_channels, in_channels/groups, KH, KW), stored
    (KH, KW, I, O). kernel_size, stride, padding and dilation are integers or (height, width). float32, or float64 after
    ``double()``. Raises ConfigError for groups that do not divide both numbers of channels.
    """

    recordable = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        if in_channels < 1 or out_channels < 1 or groups < 1 or in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"Conv2d: groups must divide the channels, and groups={groups} does not go with "
                f"in_channels={in_channels}, out_channels={out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size)
        self.stride = pair("Conv2d", "stride", stride)
        self.padding = pair("Conv2d", "padding", padding, least=0)
        self.dilation = pair("Conv2d", "dilation", dilation)
        stored = np.empty((*self.kernel_size, in_channels // groups, out_channels), np.float32)
        self.weight = Parameter(oihw(stored))
        self.bias = Parameter(np.empty(out_channels, np.float32)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and biases ~ U[-1/√fan_in, 1/√fan_in)."""
        _default_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    @property
    def geometry(self) -> Geometry:
        """(stride, padding, dilation, groups), each but the last a pair (height, width)."""
        return geometry("conv2d", self.stride, self.padding, self.dilation, self.groups)

    @property
    def fusable(self) -> bool:
        """Whether a fused operation may replace a call of this module: it has no bias, no hooks and no forward of its own."""
        return self.is_plain(_CONV2D) and self.bias is None

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else text + ", bias=False"


_CONV2D = {name: getattr(Conv2d, name) for name in ("__call__", "forward", "geometry")}


def _default_init(layer: Linear | Conv2d) -> None:
    """PyTorch's default: Kaiming with a = √5, that is U[-1/√fan_in, 1/√fan_in), for the weight and for the bias."""
    init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    if layer.bias is not None:
        bound = 1 / math.sqrt(init.fans(layer.weight.shape)[0])
        init.uniform_(layer.bias, -bound, bound)


class ReLU(Module):
    """y = max(x, 0)."""

    recordable = True

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class LeakyReLU(Module):
    """y = x where x > 0, else negative_slope·x."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class GELU(Module):
    """y = x·Φ(x), with the cumulative normal distribution Φ; approximate="tanh" for the usual approximation by tanh.

    "Gaussian Error Linear Units", Hendrycks & Gimpel 2016.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Sigmoid(Module):
    """y = 1 / (1 + e⁻ˣ)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """y = tanh(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Dropout(Module):
    """In training each element of x is 0 with probability p, else x / (1 - p). In evaluation y = x. Srivastava et al. 2014.

    Raises ConfigError for a p outside [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ConfigError(f"Dropout: p is a probability from 0 to 1, not {p}")
        self.p = p

    @property
    def recordable(self) -> bool:
        """In training another mask is drawn each time."""
        return not self.training

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """(N, C, H, W) → (N, C·H·W): merges all dimensions from start_dim on, in logical order."""

    recordable = True

    def __init__(self, start_dim: int = 1) -> None:
        self.start_dim = start_dim

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, self.start_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}"
