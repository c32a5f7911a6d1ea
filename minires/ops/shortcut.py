"""The shortcut without parameters, for where a residual block changes the shape (He et al. 2015, §3.3, option A)."""

import numbers

from .. import kernels
from ..deferred import Postponed, is_fusing, values
from ..errors import ConfigError
from ..kernels.layout import nchw, nhwc, out_size
from ..tensor import Op, Tensor
from .checks import image, needs_tensor, same_dtype


class ZeroPadShortcut(Op):
    """y = x at every stride-th pixel, between channels of zeros. dx = dy at those pixels, else 0.

    Its values are made where they are added; where operations are fused, they are not kept.
    """

    label = "zero_pad_shortcut"

    def __init__(self, stride, before, after):
        self.stride, self.before, self.after = stride, before, after

    def read(self, i, x):
        return x

    def forward(self, x):
        self.x_shape = N, C, H, W = x.shape
        settings = self.stride, self.before, self.after
        shape = N, self.before + C + self.after, *out_size((H, W), (1, 1), (self.stride, self.stride), (0, 0))
        if is_fusing() and not x.is_leaf:  # a leaf's values may be changed in place before anybody looks
            return Postponed(lambda: kernels.zero_pad_shortcut(values(x), *settings), shape, x.dtype)
        return Tensor(nchw(kernels.zero_pad_shortcut(values(x), *settings)))

    def wrap(self, y):
        return y

    def backward(self, dy, needs):
        N, C, H, W = self.x_shape
        return (nchw(kernels.zero_pad_shortcut_grad(nhwc(dy), (N, H, W, C), self.stride, self.before)),)


def zero_pad_shortcut(x, stride, before, after):
    """Every stride-th pixel of x (N, C, H, W), and so many channels of zeros before and after x's own.

    Shape (N, before + C + after, ⌈H/stride⌉, ⌈W/stride⌉). Raises ShapeError, DtypeError and ConfigError.

    >>> import numpy as np
    >>> import minires as mr
    >>> mr.functional.zero_pad_shortcut(mr.tensor(np.ones((1, 16, 32, 32))), 2, 8, 8).shape
    (1, 32, 16, 16)
    """
    op = "zero_pad_shortcut"
    needs_tensor(op, x)
    image(op, x)
    same_dtype(op, x)
    for name, value, least in (("stride", stride, 1), ("before", before, 0), ("after", after, 0)):
        if not isinstance(value, numbers.Integral) or value < least:
            raise ConfigError(f"{op}: {name} is a whole number from {least} up, not {value!r}")
    return ZeroPadShortcut(int(stride), int(before), int(after)).apply(x)


__all__ = ["zero_pad_shortcut"]
