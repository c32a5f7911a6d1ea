"""The zero-padding shortcut (He et al. 2015, §3.3, option A). Images are (N, H, W, C)."""

import numpy as np

from ..memory_format import Array, Shape


def zero_pad_shortcut(x: Array, stride: int, before: int, after: int) -> Array:
    """Every stride-th pixel, with ``before`` zero channels before x's own and ``after`` behind them."""
    return np.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(before, after)])


def zero_pad_shortcut_grad(dy: Array, x_shape: Shape, stride: int, before: int) -> Array:
    """dy at the pixels that were taken, 0 elsewhere."""
    dx = np.zeros(x_shape, dy.dtype)
    dx[:, ::stride, ::stride] = dy[..., before : before + x_shape[3]]
    return dx
