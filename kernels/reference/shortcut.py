"""The zero-padding shortcut (He et al. 2015, §3.3, option A). Images are (N, H, W, C)."""

import numpy as np


def zero_pad_shortcut(x, stride, before, after):
    """Every stride-th pixel, with ``before`` zero channels before x's own and ``after`` behind them."""
    return np.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(before, after)])


def zero_pad_shortcut_grad(dy, x_shape, stride, before):
    """dy at the pixels that were taken, 0 elsewhere."""
    dx = np.zeros(x_shape, dy.dtype)
    dx[:, ::stride, ::stride] = dy[..., before : before + x_shape[3]]
    return dx
