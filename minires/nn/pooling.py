"""Pooling over windows and over whole images."""

from .. import functional as F
from ..errors import ConfigError
from ..ops.checks import pair
from ..tensor import Tensor
from .module import Module


class MaxPool2d(Module):
    """y = the maximum of each window: (N, C, H, W) → (N, C, OH, OW). stride defaults to kernel_size.

    Padding counts as -∞. All settings are integers or (height, width). OH and OW as in Conv2d.
    """

    recordable = True

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
    ) -> None:
        self.kernel_size = pair("MaxPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair("MaxPool2d", "stride", stride)
        self.padding = pair("MaxPool2d", "padding", padding, least=0)
        self.dilation = pair("MaxPool2d", "dilation", dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


class AvgPool2d(Module):
    """y = the mean of each window: (N, C, H, W) → (N, C, OH, OW). stride defaults to kernel_size.

    count_include_pad: whether padding counts, as zeros. kernel_size, stride and padding are integers or (height, width).
    """

    recordable = True

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        *,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = pair("AvgPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair("AvgPool2d", "stride", stride)
        self.padding = pair("AvgPool2d", "padding", padding, least=0)
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, count_include_pad=self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _GlobalPool2d(Module):
    def __init__(self, output_size: int | tuple[int, int] = 1) -> None:
        if output_size not in (1, (1, 1), [1, 1]):
            raise ConfigError(
                f"{type(self).__name__}: only output size 1, the whole image, is there, not {output_size!r}; "
                "for windows use AvgPool2d or MaxPool2d"
            )
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool2d(_GlobalPool2d):
    """y = the mean over each channel of an image of any size: (N, C, H, W) → (N, C, 1, 1). Only output size 1."""

    recordable = True

    def forward(self, x: Tensor) -> Tensor:
        return F.global_avg_pool2d(x)


class AdaptiveMaxPool2d(_GlobalPool2d):
    """y = the maximum over each channel of an image of any size: (N, C, H, W) → (N, C, 1, 1). Only output size 1."""

    recordable = True

    def forward(self, x: Tensor) -> Tensor:
        return F.global_max_pool2d(x)
