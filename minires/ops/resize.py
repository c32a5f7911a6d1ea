"""Feature maps in another size, as decoders of segmentation networks make them."""

import math
import numbers
from functools import lru_cache
from typing import Literal

import numpy as np

from .. import kernels
from ..errors import ConfigError, ShapeError, nearest
from ..kernels.memory_format import nchw, nhwc
from ..kernels.sampling import Line
from ..lazy import unseen
from ..tensor import Op, Tensor
from .checks import image, needs_tensor, pair, same_dtype

MODES = ("nearest", "bilinear")
MOST = 1 << 20  # pixels along a side


class Interpolate(Op):
    """y[i, j] = Σ w x of the one pixel of x that is nearest, or the four that are. dx = their shares of dy."""

    reads = ()

    def __init__(self, size, scale, mode, align_corners):
        self.size, self.scale, self.mode, self.align_corners = size, scale, mode, align_corners

    def forward(self, x):
        rows = nhwc(x)
        self.shape = rows.shape
        settings = self.mode, self.align_corners, x.dtype.char
        self.lines = [line(n, m, s, *settings) for n, m, s in zip(x.shape[2:], self.size, self.scale)]
        return kernels.resize(rows, *self.lines)

    def wrap(self, y):
        return unseen(y)

    def backward(self, dy, needs):
        return (nchw(kernels.resize_grad(nhwc(dy), self.shape, *self.lines)),)


@lru_cache(maxsize=256)
def line(size, target, scale, mode, align_corners, dtype):
    """The Line of an axis of length ``size`` that becomes ``target`` long, rounded as in PyTorch. scale: if one was given.

    nearest: pixel ⌊i·r⌋, r = 1/scale or size/target, in float32. bilinear: between the pixels around r·(i + ½) − ½, or with
    align_corners around i·(size − 1)/(target − 1). Where the length stays the same, or with nearest doubles, a scale that is
    not whole makes no difference.
    """
    at = np.arange(target)
    if target == size:
        return Line(at, at, np.zeros(target, dtype))
    if mode == "nearest":
        if target == 2 * size:
            return Line(at // 2, at // 2, np.zeros(target, dtype))
        ratio = np.float32(1 / scale) if scale else np.float32(size) / np.float32(target)
        first = np.minimum((at.astype(np.float32) * ratio).astype(np.int64), size - 1)
        return Line(first, first, np.zeros(target, dtype))
    real = np.dtype(dtype).type
    if align_corners:
        ratio = real(size - 1) / real(target - 1) if target > 1 else real(0)
        position = ratio * at.astype(dtype)
    else:
        ratio = real(1 / scale) if scale else real(size) / real(target)
        position = np.maximum(ratio * (at.astype(dtype) + real(0.5)) - real(0.5), real(0))
    first = np.minimum(position.astype(np.int64), size - 1)
    weight = np.clip(position - first.astype(dtype), 0, 1).astype(dtype)
    return Line(first, np.minimum(first + 1, size - 1), weight)


def interpolate(
    x: Tensor,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: Literal["nearest", "bilinear"] = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """x (N, C, H, W) with another height and width. PyTorch's meaning for every argument.

    size: an int or (height, width); or scale_factor: a number or a pair, and the size is ⌊H·scale⌋. mode: "nearest" or
    "bilinear"; align_corners, of the latter, fixes the corners' centres. Raises ConfigError unless one of size and scale_factor
    is given, and for other values that cannot be.

    >>> import minires as mr
    >>> x = mr.tensor([[[[1.0, 2.0]]]])
    >>> mr.functional.interpolate(x, scale_factor=(1, 2), mode="bilinear").numpy()
    array([[[[1.  , 1.25, 1.75, 2.  ]]]], dtype=float32)
    """
    op = "interpolate"
    needs_tensor(op, x)
    image(op, x)
    same_dtype(op, x)
    if mode not in MODES:
        known = nearest(mode, MODES) if isinstance(mode, str) else ""
        raise ConfigError(f"{op}: mode is one of {', '.join(MODES)}, not {mode!r}{known}")
    if align_corners not in (None, True, False) or (align_corners is not None and mode == "nearest"):
        raise ConfigError(
            f"{op}: align_corners is true or false, of mode 'bilinear', not {align_corners!r} of {mode!r}"
        )
    if (size is None) == (scale_factor is None):
        raise ConfigError(f"{op}: give one of size and scale_factor, not {'both' if size is not None else 'neither'}")
    if 0 in x.shape:
        raise ShapeError(f"{op}: there are no pixels in shape {x.shape}")
    if size is not None:
        target, scales = pair(op, "size", size), (None, None)
    else:
        scales = _scales(op, scale_factor)
        target = tuple(math.floor(n * s) for n, s in zip(x.shape[2:], scales))
    if not all(1 <= n <= MOST for n in target):
        raise ConfigError(f"{op}: images of {x.shape[2]}×{x.shape[3]} would become {target[0]}×{target[1]}")
    return Interpolate(target, scales, mode, bool(align_corners)).apply(x)


def _scales(op, value):
    """A number or a pair of them, above 0, as a pair of floats."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2 or not all(
        isinstance(v, numbers.Real) and not isinstance(v, bool) and 0 < v < math.inf for v in values
    ):
        raise ConfigError(f"{op}: scale_factor is a number above 0, or a pair of them, not {value!r}")
    return tuple(map(float, values))


__all__ = ["interpolate"]
