"""The shortcut without parameters, for where a residual block changes the shape (He et al. 2015, §3.3, option A)."""

import numbers

from .. import kernels
from ..errors import ConfigError
from ..kernels.memory_format import nchw, nhwc, out_size
from ..lazy import LazyTensor, is_fusing, is_lazy
from ..recompute import SavedActivation
from ..tensor import Op, Tensor
from .checks import image, needs_tensor, same_dtype


class ZeroPadShortcut(Op):
    """y = x at every stride-th pixel, between channels of zeros. dx = dy at those pixels, else 0.

    Its values are computed where they are added; where operations are fused, they are not stored.
    """

    reads = ()
    label = "zero_pad_shortcut"

    def __init__(self, *settings):
        self.settings = settings  # stride, channels before, channels after

    def read(self, i, x):
        self.x_shape, self.dtype = x.shape, x.dtype
        return x.saved if is_fusing() and is_lazy(x) and x.saved is not None else x.data

    def forward(self, x):
        """x itself where it is not stored: ``wrap`` says what is computed of it."""
        return x if isinstance(x, SavedActivation) else kernels.zero_pad_shortcut(nhwc(x), *self.settings)

    def wrap(self, y):
        if not isinstance(y, SavedActivation):
            return Tensor(nchw(y))
        (N, C, H, W), settings = self.x_shape, self.settings
        stride, before, after = settings
        shape = N, before + C + after, *out_size((H, W), (1, 1), (stride, stride), (0, 0))
        lazy = LazyTensor(shape, self.dtype, lambda: kernels.zero_pad_shortcut(y.values(), *settings))
        y.add_dependant(lazy.materialize)
        return lazy

    def backward(self, dy, needs):
        N, C, H, W = self.x_shape
        return (nchw(kernels.zero_pad_shortcut_grad(nhwc(dy), (N, H, W, C), *self.settings[:2])),)


def zero_pad_shortcut(x: Tensor, stride: int, before: int, after: int) -> Tensor:
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
