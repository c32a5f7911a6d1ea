"""Pooling over windows, and over whole images."""

from .. import kernels
from ..errors import ConfigError, ShapeError
from ..kernels.memory_format import nchw, nhwc
from ..lazy import unseen
from ..tensor import Op, Tensor
from .checks import Pair, image, needs_tensor, pair, same_dtype


class MaxPool2d(Op):
    """y = max over the window. dy goes to the element that was the largest; of equals, to the first."""

    reads = ()

    def __init__(self, *geometry):
        self.geometry = geometry  # kernel, stride, padding, dilation

    def forward(self, x):
        rows = nhwc(x)
        self.shape = rows.shape
        y, self.index = kernels.max_pool2d(rows, *self.geometry)
        return y

    def wrap(self, y):
        return unseen(y)

    def backward(self, dy, needs):
        return (nchw(kernels.max_pool2d_grad(nhwc(dy), self.index, self.shape)),)


class AvgPool2d(Op):
    """y = mean over the window. dy is shared out evenly."""

    reads = ()

    def __init__(self, *geometry):
        self.geometry = geometry  # kernel, stride, padding, whether the border counts

    def forward(self, x):
        rows = nhwc(x)
        self.shape = rows.shape
        return kernels.avg_pool2d(rows, *self.geometry)

    def wrap(self, y):
        return unseen(y)

    def backward(self, dy, needs):
        return (nchw(kernels.avg_pool2d_grad(nhwc(dy), self.shape, *self.geometry)),)


def _windows(op, x, kernel_size, stride, padding, dilation=1):
    needs_tensor(op, x)
    image(op, x)
    same_dtype(op, x)
    kernel = pair(op, "kernel_size", kernel_size)
    stride = kernel if stride is None else pair(op, "stride", stride)
    padding, dilation = pair(op, "padding", padding, least=0), pair(op, "dilation", dilation)
    if any(2 * p > k for p, k in zip(padding, kernel)):
        raise ConfigError(
            f"{op}: padding {padding} is more than half of the kernel {kernel}: a window could see nothing"
        )
    for size, k, p, d in zip(x.shape[2:], kernel, padding, dilation):
        if size + 2 * p < d * (k - 1) + 1:
            raise ShapeError(f"{op}: window {kernel} is larger than the input of shape {x.shape} padded by {padding}")
    return kernel, stride, padding, dilation


def max_pool2d(
    x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1
) -> Tensor:
    """The largest element of each window: x (N, C, H, W) → (N, C, OH, OW). The stride defaults to the kernel.

    Raises ShapeError when a window is larger than the padded image, ConfigError for a padding over half the kernel.
    """
    return MaxPool2d(*_windows("max_pool2d", x, kernel_size, stride, padding, dilation)).apply(x)


def avg_pool2d(
    x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, *, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window: x (N, C, H, W) → (N, C, OH, OW). The stride defaults to the kernel."""
    kernel, stride, padding, _ = _windows("avg_pool2d", x, kernel_size, stride, padding)
    return AvgPool2d(kernel, stride, padding, bool(count_include_pad)).apply(x)


def global_avg_pool2d(x: Tensor) -> Tensor:
    """The mean of each channel: x (N, C, H, W) → (N, C, 1, 1) (Lin et al. 2013, section 3.2)."""
    image("global_avg_pool2d", x)
    _, _, H, W = x.shape
    return avg_pool2d(x, (H, W))


def global_max_pool2d(x: Tensor) -> Tensor:
    """The maximum of each channel: x (N, C, H, W) → (N, C, 1, 1)."""
    image("global_max_pool2d", x)
    _, _, H, W = x.shape
    return max_pool2d(x, (H, W))
