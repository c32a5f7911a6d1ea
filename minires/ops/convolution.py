"""Two-dimensional convolution (cross-correlation, as in every deep-learning library)."""

import numbers

from .. import kernels
from ..errors import ConfigError, ShapeError
from ..kernels.layout import hwio, nchw, nhwc, oihw
from ..tensor import Op
from .arithmetic import unbroadcast
from .checks import image, needs_tensor, pair, same_dtype


class Conv2d(Op):
    """y[n, o, ·] = Σ_i x[n, i, ·] ∗ w[o, i] + b[o].  dx = dy ∗ᵀ w,  dw = x ∗ dy,  db = Σ dy."""

    def __init__(self, stride, padding, dilation, groups):
        self.geometry = stride, padding, dilation, groups

    def forward(self, x, w, b=None):
        self.x, self.w = nhwc(x), hwio(w)  # (N, H, W, C), (KH, KW, I, O)
        y = kernels.conv2d(self.x, self.w, *self.geometry)  # (N, OH, OW, O)
        if b is not None:
            y += b
        return nchw(y)

    def backward(self, dy, needs):
        dy = nhwc(dy)
        dx = dw = db = None
        if needs[0]:
            dx = nchw(kernels.conv2d_input_grad(dy, self.w, self.x.shape, *self.geometry))
        if needs[1]:
            dw = oihw(kernels.conv2d_weight_grad(self.x, dy, self.w.shape, *self.geometry))
        if needs[2:] == (True,):
            db = unbroadcast(dy, dy.shape[3:])
        return dx, dw, db


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolve images with filters, by im2col. PyTorch's meaning for every argument.

    x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) or None → (N, O, OH, OW) with
    OH = (H + 2·padding − dilation·(KH − 1) − 1)//stride + 1. One float dtype. stride, padding, dilation: an int or a pair.
    Raises ShapeError when channels, filters and groups do not fit or the kernel is larger than the padded image.

    >>> import numpy as np, minires as mr
    >>> x, w = mr.tensor(np.ones((1, 2, 4, 4))), mr.tensor(np.ones((3, 2, 3, 3)))
    >>> mr.functional.conv2d(x, w, stride=2, padding=1).shape
    (1, 3, 2, 2)
    """
    inputs = (x, weight) if bias is None else (x, weight, bias)
    needs_tensor("conv2d", *inputs)
    image("conv2d", x)
    if weight.ndim != 4:
        raise ShapeError(f"conv2d: needs a weight of shape (O, I, KH, KW), got shape {weight.shape}")
    same_dtype("conv2d", *inputs)
    stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    padding = pair("conv2d", "padding", padding, least=0)
    C, (O, I, *kernel) = x.shape[1], weight.shape
    if not isinstance(groups, numbers.Integral) or groups < 1:
        raise ConfigError(f"conv2d: groups is a whole number from 1 up, not {groups!r}")
    if I * groups != C or O % groups:
        raise ShapeError(
            f"conv2d: input of shape {x.shape} has {C} channels, but weight of shape {weight.shape} with groups={groups} "
            f"takes {I * groups}" + (f", and {O} filters do not divide into {groups} groups" if O % groups else "")
        )
    if bias is not None and bias.shape != (O,):
        raise ShapeError(f"conv2d: bias of shape {bias.shape} for weight of shape {weight.shape}; it needs ({O},)")
    for size, k, p, d in zip(x.shape[2:], kernel, padding, dilation):
        if size + 2 * p < d * (k - 1) + 1:
            raise ShapeError(
                f"conv2d: kernel {tuple(kernel)} with dilation {dilation} is larger than the input of shape {x.shape} "
                f"padded by {padding}"
            )
    if 0 in x.shape or 0 in weight.shape:
        raise ShapeError(f"conv2d: nothing to convolve in shapes {x.shape} and {weight.shape}")
    return Conv2d(stride, padding, dilation, groups).apply(*inputs)
