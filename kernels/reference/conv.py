"""Convolution as a matrix product, with the im2col matrix written out (Chellapilla et al. 2006)."""

from typing import Any

import numpy as np

from ..descriptors import Epilogue, Operand
from ..memory_format import Array, Pair, Shape, out_size
from .fusion import finish, values


def tap(kh, kw, size, stride, dilation):
    """The slices of a padded image that tap (kh, kw) reads: one element for each output pixel."""
    return tuple(slice(k * d, k * d + s * (n - 1) + 1, s) for k, n, s, d in zip((kh, kw), size, stride, dilation))


def im2col(x, kernel, stride, padding, dilation):
    """x (N, H, W, C) → (N, OH, OW, KH, KW, C): for each output pixel, the inputs that it sees."""
    (KH, KW), (ph, pw) = kernel, padding
    size = out_size(x.shape[1:3], kernel, stride, padding, dilation)
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    columns = np.empty((len(x), *size, KH, KW, x.shape[3]), x.dtype)
    for kh in range(KH):
        for kw in range(KW):
            rows, cols = tap(kh, kw, size, stride, dilation)
            columns[:, :, :, kh, kw] = padded[:, rows, cols]
    return columns


def col2im(columns, x_shape, stride, padding, dilation):
    """The transpose of im2col: each input sums the gradients from all output pixels that saw it."""
    N, H, W, C = x_shape
    OH, OW, KH, KW = columns.shape[1:5]
    ph, pw = padding
    padded = np.zeros((N, H + 2 * ph, W + 2 * pw, C), columns.dtype)
    for kh in range(KH):
        for kw in range(KW):
            rows, cols = tap(kh, kw, (OH, OW), stride, dilation)
            padded[:, rows, cols] += columns[:, :, :, kh, kw]
    return padded[:, ph : ph + H, pw : pw + W]


def _by_group(columns, groups):
    """(N, OH, OW, KH, KW, C) → groups of (N·OH·OW, KH·KW·C/groups)."""
    N, OH, OW, KH, KW, C = columns.shape
    for part in np.split(columns, groups, axis=5):
        yield part.reshape(N * OH * OW, KH * KW * (C // groups))


def conv2d(
    x: Operand | Array,
    w: Array,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    epilogue: Epilogue | None = None,
) -> Any:
    """y = im2col(x) · w, group by group. x (N, H, W, C), w (KH, KW, C/groups, O) → (N, OH, OW, O).

    Here and below, images may be Operands, and with an Epilogue a pair is returned, as in ``fusion.finish``.
    """
    x = values(x)
    KH, KW, I, O = w.shape
    columns = im2col(x, (KH, KW), stride, padding, dilation)
    weights = np.split(w.reshape(KH * KW * I, O), groups, axis=1)
    parts = [part @ weight for part, weight in zip(_by_group(columns, groups), weights)]
    y = np.concatenate(parts, axis=1).reshape(*columns.shape[:3], O)
    return y if epilogue is None else finish(y, epilogue)


def conv2d_input_grad(
    dy: Operand | Array,
    w: Array,
    x_shape: Shape,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    epilogue: Epilogue | None = None,
) -> Any:
    """dx = col2im(dy · wᵀ)."""
    dy = values(dy)
    KH, KW, I, O = w.shape
    N, OH, OW, _ = dy.shape
    weights = np.split(w.reshape(KH * KW * I, O), groups, axis=1)
    grads = np.split(dy.reshape(N * OH * OW, O), groups, axis=1)
    columns = [(g @ weight.T).reshape(N, OH, OW, KH, KW, I) for g, weight in zip(grads, weights)]
    dx = np.ascontiguousarray(col2im(np.concatenate(columns, axis=5), x_shape, stride, padding, dilation))
    return dx if epilogue is None else finish(dx, epilogue)


def conv2d_weight_grad(
    x: Operand | Array, dy: Operand | Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """dw = im2col(x)ᵀ · dy."""
    x, dy = values(x), values(dy)
    KH, KW, _, O = w_shape
    columns = im2col(x, (KH, KW), stride, padding, dilation)
    grads = np.split(dy.reshape(-1, O), groups, axis=1)
    dw = [part.T @ grad for part, grad in zip(_by_group(columns, groups), grads)]
    return np.concatenate(dw, axis=1).reshape(w_shape)
