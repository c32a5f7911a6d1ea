"""The zero-padding shortcut: every stride-th pixel, between zero channels (He et al. 2015, §3.3, option A).

Images are (N, H, W, C).
"""

from ..checks import fits
from ..memory_format import Array, Shape, contiguous
from ..runtime.jit import njit
from ..runtime.memory_pool import empty
from ..runtime.parallel import on_threads
from ..runtime.threads import launch


@njit()
def _subsample(share, shares, thread, x, stride, before, y):
    if share < 0:
        return on_threads(share, shares)
    images, rows, columns, _ = y.shape
    C = x.shape[3]
    for line in range(share * images * rows // shares, (share + 1) * images * rows // shares):
        n, i = line // rows, line % rows
        for j in range(columns):
            pixel, source = y[n, i, j], x[n, i * stride, j * stride]
            pixel[:before] = 0
            for c in range(C):
                pixel[before + c] = source[c]
            pixel[before + C :] = 0
    return 0


def zero_pad_shortcut(x: Array, stride: int, before: int, after: int) -> Array:
    """y (N, ⌈H/stride⌉, ⌈W/stride⌉, before + C + after): x's pixels (i·stride, j·stride), zeros in the other channels."""
    N, H, W, C = x.shape
    y = empty((N, -(-H // stride), -(-W // stride), before + C + after), x.dtype)
    launch(_subsample, contiguous(x), stride, before, y)
    return y


@njit()
def _subsample_grad(share, shares, thread, dy, stride, before, dx):
    if share < 0:
        return on_threads(share, shares)
    images, rows, columns, C = dx.shape
    for line in range(share * images * rows // shares, (share + 1) * images * rows // shares):
        n, i = line // rows, line % rows
        dx[n, i] = 0
        if i % stride == 0:
            for j in range(0, columns, stride):
                pixel, source = dx[n, i, j], dy[n, i // stride, j // stride, before:]
                for c in range(C):
                    pixel[c] = source[c]
    return 0


def zero_pad_shortcut_grad(dy: Array, x_shape: Shape, stride: int, before: int) -> Array:
    """dx (N, H, W, C), of shape x_shape: dy at the pixels that were taken, 0 elsewhere. Raises ShapeError."""
    N, H, W, C = x_shape
    fits("zero_pad_shortcut_grad", dy.shape[:3] == (N, -(-H // stride), -(-W // stride)), dy)
    fits("zero_pad_shortcut_grad", dy.shape[3] >= before + C, dy)
    dx = empty(x_shape, dy.dtype)
    launch(_subsample_grad, contiguous(dy), stride, before, dx)
    return dx
