"""Max and average pooling, one window tap at a time."""

import numpy as np

from ..memory_format import Array, Pair, Shape, out_size
from .conv import col2im, tap


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[Array, Array]:
    """The largest element of each window, y (N, OH, OW, C), and its position h·W + w, int32 and of the same shape."""
    N, H, W, C = x.shape
    size = out_size((H, W), kernel, stride, padding, dilation)
    border = ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0))
    padded = np.pad(x, border, constant_values=-np.inf)
    place = np.pad(np.arange(H * W, dtype=np.int32).reshape(H, W), (border[1], border[2]), constant_values=-1)
    y, index = np.full((N, *size, C), -np.inf, x.dtype), np.full((N, *size, C), -1, np.int32)
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            rows, cols = tap(kh, kw, size, stride, dilation)
            here, where = padded[:, rows, cols], place[rows, cols][None, :, :, None]
            better = ((index < 0) | (here > y) | np.isnan(here)) & (where >= 0)  # the first of equals; NaN wins
            y, index = np.where(better, here, y), np.where(better, where, index)
    return y, index


def max_pool2d_grad(dy: Array, index: Array, x_shape: Shape) -> Array:
    """dx (N, H, W, C): each dy goes to the element that was the largest of its window."""
    N, H, W, C = x_shape
    dx = np.zeros((N, H * W, C), dy.dtype)
    image, channel = np.arange(N)[:, None, None, None], np.arange(C)
    np.add.at(dx, (image, index, channel), np.where(index < 0, 0, dy))  # −1: a dilated window entirely in the padding
    return dx.reshape(x_shape)


def _counts(size, kernel, stride, padding, count_padding):
    """(OH, OW): the divisor of each window's sum, its elements in [−p, n + p) or in [0, n)."""
    counts = []
    for n, k, s, p in zip(size, kernel, stride, padding):
        start = np.arange((n + 2 * p - k) // s + 1) * s - p
        low, high = (-p, n + p) if count_padding else (0, n)
        counts.append(np.minimum(start + k, high) - np.maximum(start, low))
    return np.outer(*counts)


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, count_padding: bool) -> Array:
    """The mean of each window: x (N, H, W, C) → (N, OH, OW, C)."""
    size = out_size(x.shape[1:3], kernel, stride, padding, (1, 1))
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    y = np.zeros((len(x), *size, x.shape[3]), x.dtype)
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            y += padded[:, *tap(kh, kw, size, stride, (1, 1))]
    counts = _counts(x.shape[1:3], kernel, stride, padding, count_padding)
    return y / counts[:, :, None].astype(x.dtype)


def avg_pool2d_grad(dy: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Pair, count_padding: bool) -> Array:
    """dx (N, H, W, C): each dy is distributed evenly over its window."""
    counts = _counts(x_shape[1:3], kernel, stride, padding, count_padding)
    share = dy / counts[:, :, None].astype(dy.dtype)
    columns = np.broadcast_to(share[:, :, :, None, None], (*share.shape[:3], *kernel, share.shape[3]))
    return np.ascontiguousarray(col2im(columns, x_shape, stride, padding, (1, 1)))
