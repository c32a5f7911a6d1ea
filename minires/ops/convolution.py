"""Two-dimensional convolution (cross-correlation, as in every deep-learning library)."""

import numbers
from functools import lru_cache

import numpy as np

from .. import kernels
from ..errors import ConfigError, ShapeError
from ..kernels.descriptors import ADD, MOMENTS, Epilogue, Operand
from ..kernels.memory_format import hwio, nhwc, oihw, out_size
from ..lazy import ConvGradient, NormGradient, is_fusing, saved, unseen, values
from ..tensor import Op, Tensor
from .arithmetic import unbroadcast
from .checks import Pair, image, needs_tensor, pair, same_dtype

MANY = 1 << 16  # values, from which a kernel sums them
Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]  # stride, padding, dilation, groups


class Conv2d(Op):
    """y[n, o, ·] = Σ_i x[n, i, ·] ∗ w[o, i] + b[o] + s.  dx = dy ∗ᵀ w,  dw = x ∗ dy,  db = Σ dy,  ds = dy.

    Inputs: x, w, then b if ``bias`` and the shortcut s if ``shortcut``. moments: let the kernel sum the mean and variance of
    y's channels while they are in cache, for the batch norm that follows. x may be lazy, and so is dx.
    """

    takes = (NormGradient,)
    reads = ((1,), (0,), (), ())

    def __init__(self, geometry, bias=False, shortcut=False, moments=False):
        self.geometry = geometry  # stride, padding, dilation, groups
        self.bias, self.moments = bias, moments
        self.shortcut = self.aliases = shortcut  # dy itself is the shortcut's gradient
        self.residual = 0 if shortcut else None

    def read(self, i, x):
        if i == 0:
            return saved(x)
        return values(x) if i > 1 + self.bias else x.data

    def forward(self, x, w, *rest):
        self.x, self.x_shape, self.w = x, x.operand().array.shape, hwio(w)  # of (N, H, W, C); (KH, KW, I, O)
        shortcut = rest[-1] if self.shortcut else None
        epilogue = Epilogue(MOMENTS if self.moments else ADD, other=shortcut) if self.moments or self.shortcut else None
        y = kernels.conv2d(x.operand(), self.w, *self.geometry, epilogue)  # (N, OH, OW, O)
        if epilogue is not None:
            y, self.statistics = y
        if self.bias:
            kernels.also(np.add, y, rest[0], out=y)
        return y

    def wrap(self, y):
        return unseen(y, self.statistics if self.moments else None)

    def backward(self, dy, needs):
        lazy = isinstance(dy, NormGradient)
        operand = dy.operand if lazy else Operand(nhwc(dy))
        dx = dw = None
        if needs[0]:
            dx = ConvGradient(operand, self.w, self.x_shape, self.geometry)
            dx = dx if is_fusing() else dx.array()
        if needs[1]:
            dw = oihw(kernels.conv2d_weight_grad(self.x.operand(), operand, self.w.shape, *self.geometry))
        rest = ()
        if len(needs) > 2:
            dy = dy.array() if lazy else dy
            db = (_bias_grad(nhwc(dy)) if needs[2] else None,) if self.bias else ()
            rest = (*db, *([dy] if self.shortcut else []))
        return dx, dw, *rest


def _bias_grad(dy):
    """The sum over all positions of dy (N, OH, OW, O); of a large one by the kernel of batch norm's means."""
    if dy.size < MANY:
        return unbroadcast(dy, dy.shape[-1:])
    mean, _ = kernels.batch_norm_stats(dy)
    return kernels.computed(np.multiply, mean.shape, dy.dtype, mean, dy.size // len(mean))


def geometry(op: str, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Geometry:
    """(stride, padding, dilation, groups) with pairs of (height, width). ConfigError for what no convolution has."""
    stride, dilation = pair(op, "stride", stride), pair(op, "dilation", dilation)
    padding = pair(op, "padding", padding, least=0)
    if not isinstance(groups, numbers.Integral) or groups < 1:
        raise ConfigError(f"{op}: groups is a whole number from 1 up, not {groups!r}")
    return stride, padding, dilation, int(groups)


@lru_cache(maxsize=512)
def conv2d_shape(x_shape, w_shape, stride, padding, dilation, groups):
    """(N, O, OH, OW) of x_shape (N, C, H, W) and w_shape (O, C/groups, KH, KW). ShapeError when they do not fit."""
    (N, C, *size), (O, I, *kernel) = x_shape, w_shape
    if I * groups != C or O % groups:
        raise ShapeError(
            f"conv2d: input of shape {x_shape} has {C} channels, but weight of shape {w_shape} with groups={groups} "
            f"takes {I * groups}" + (f", and {O} filters do not divide into {groups} groups" if O % groups else "")
        )
    for n, k, p, d in zip(size, kernel, padding, dilation):
        if n + 2 * p < d * (k - 1) + 1:
            raise ShapeError(
                f"conv2d: kernel {tuple(kernel)} with dilation {dilation} is larger than the input of shape {x_shape} "
                f"padded by {padding}"
            )
    if 0 in x_shape or 0 in w_shape:
        raise ShapeError(f"conv2d: nothing to convolve in shapes {x_shape} and {w_shape}")
    return N, O, *out_size(size, kernel, stride, padding, dilation)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
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
    sizes = geometry("conv2d", stride, padding, dilation, groups)
    conv2d_shape(x.shape, weight.shape, *sizes)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"conv2d: bias of shape {bias.shape} for weight of shape {weight.shape}; it needs ({weight.shape[0]},)"
        )
    return Conv2d(sizes, bias=bias is not None).apply(*inputs)
