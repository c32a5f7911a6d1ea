"""Max and average pooling over windows of (N, H, W, C). Pairs are (height, width)."""

import numpy as np

from ..checks import fits
from ..memory_format import Array, Pair, Shape, contiguous, out_size
from ..runtime.jit import njit
from ..runtime.memory_pool import empty
from ..runtime.parallel import on_threads
from ..runtime.threads import launch


@njit()
def _max_pool(
    share, shares, thread,
    x,  # (N, H, W, C)
    kernel, stride, padding, dilation,  # pairs (height, width)
    y, index,  # the outputs, (N, OH, OW, C): the maxima, and their positions h·W + w or −1
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    (N, H, W, C), (OH, OW) = x.shape, y.shape[1:3]
    for row in range(share * N * OH // shares, (share + 1) * N * OH // shares):
        n, oh = row // OH, row % OH
        for ow in range(OW):
            best, where = y[n, oh, ow], index[n, oh, ow]
            best[:] = -np.inf
            where[:] = -1
            for kh in range(kernel[0]):
                h = oh * stride[0] - padding[0] + kh * dilation[0]
                if h < 0 or h >= H:
                    continue
                for kw in range(kernel[1]):
                    w = ow * stride[1] - padding[1] + kw * dilation[1]
                    if w < 0 or w >= W:
                        continue
                    pixel, at = x[n, h, w], np.int32(h * W + w)
                    for c in range(C):
                        if where[c] < 0 or pixel[c] > best[c] or pixel[c] != pixel[c]:  # the first of equals; NaN wins
                            best[c] = pixel[c]
                            where[c] = at
    return 0


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[Array, Array]:
    """The largest element of each window, y (N, OH, OW, C), and its position h·W + w, int32 and of the same shape."""
    x = contiguous(x)
    shape = (x.shape[0], *out_size(x.shape[1:3], kernel, stride, padding, dilation), x.shape[3])
    y, index = empty(shape, x.dtype), empty(shape, np.int32)
    launch(_max_pool, x, kernel, stride, padding, dilation, y, index)
    return y, index


@njit()
def _max_pool_grad(share, shares, thread, dy, index, dx):
    if share < 0:
        return on_threads(share, shares)
    N, OH, OW, C = dy.shape
    W = dx.shape[2]
    for n in range(share * N // shares, (share + 1) * N // shares):
        dx[n] = 0
        for oh in range(OH):
            for ow in range(OW):
                for c in range(C):
                    at = index[n, oh, ow, c]
                    if at >= 0:  # −1: a dilated window that lies entirely in the padding
                        dx[n, at // W, at % W, c] += dy[n, oh, ow, c]
    return 0


def max_pool2d_grad(dy: Array, index: Array, x_shape: Shape) -> Array:
    """dx (N, H, W, C): each dy goes to the element that was the largest of its window. Raises ShapeError."""
    same = dy.shape == index.shape and (dy.shape[0], dy.shape[3]) == (x_shape[0], x_shape[3])
    fits("max_pool2d_grad", same, dy, index)
    dx = empty(x_shape, dy.dtype)
    launch(_max_pool_grad, contiguous(dy), contiguous(index), dx)
    return dx


@njit(inner=True)
def _window(o, k, s, p, n):
    """Start and end of the part of window ``o`` in [0, n), and the length of its part in [−p, n + p)."""
    start = o * s - p
    return max(start, 0), min(start + k, n), min(start + k, n + p) - start


@njit()
def _avg_pool(
    share, shares, thread,
    x,  # (N, H, W, C)
    kernel, stride, padding,  # pairs (height, width)
    count_padding,  # whether a window's elements in the padding count
    y,  # the output, (N, OH, OW, C)
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    N, H, W, C = x.shape
    OH, OW = y.shape[1:3]
    for n in range(share * N // shares, (share + 1) * N // shares):
        for oh in range(OH):
            h0, h1, padded_h = _window(oh, kernel[0], stride[0], padding[0], H)
            for ow in range(OW):
                w0, w1, padded_w = _window(ow, kernel[1], stride[1], padding[1], W)
                total = y[n, oh, ow]
                total[:] = 0
                for h in range(h0, h1):
                    for w in range(w0, w1):
                        pixel = x[n, h, w]
                        for c in range(C):
                            total[c] += pixel[c]
                count = padded_h * padded_w if count_padding else (h1 - h0) * (w1 - w0)
                for c in range(C):
                    total[c] /= count
    return 0


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, count_padding: bool) -> Array:
    """The mean of each window: x (N, H, W, C) → (N, OH, OW, C). count_padding: whether zeros in the padding count."""
    x = contiguous(x)
    y = empty((x.shape[0], *out_size(x.shape[1:3], kernel, stride, padding), x.shape[3]), x.dtype)
    launch(_avg_pool, x, kernel, stride, padding, count_padding, y)
    return y


@njit()
def _avg_pool_grad(
    share, shares, thread,
    dy,  # (N, OH, OW, C)
    kernel, stride, padding,  # pairs (height, width)
    count_padding,  # whether a window's elements in the padding counted
    dx,  # the output, (N, H, W, C)
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1:3]
    for n in range(share * N // shares, (share + 1) * N // shares):
        dx[n] = 0
        for oh in range(OH):
            h0, h1, padded_h = _window(oh, kernel[0], stride[0], padding[0], H)
            for ow in range(OW):
                w0, w1, padded_w = _window(ow, kernel[1], stride[1], padding[1], W)
                count = padded_h * padded_w if count_padding else (h1 - h0) * (w1 - w0)
                grad = dy[n, oh, ow]
                for h in range(h0, h1):
                    for w in range(w0, w1):
                        pixel = dx[n, h, w]
                        for c in range(C):
                            pixel[c] += grad[c] / count
    return 0


def avg_pool2d_grad(dy: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Pair, count_padding: bool) -> Array:
    """dx (N, H, W, C): each dy is distributed evenly over its window."""
    N, H, W, C = x_shape
    fits("avg_pool2d_grad", dy.shape == (N, *out_size((H, W), kernel, stride, padding), C), dy)
    dx = empty(x_shape, dy.dtype)
    launch(_avg_pool_grad, contiguous(dy), kernel, stride, padding, count_padding, dx)
    return dx
