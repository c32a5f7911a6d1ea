"""Channels of several images side by side, and apart again: what a DenseNet has in place of additions (Huang et al. 2017).

Images are (N, H, W, C).
"""

from collections.abc import Sequence

from ..checks import fits, one_dtype
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.memory_pool import empty
from ..runtime.parallel import on_threads
from ..runtime.threads import launch


@njit()
def _join(share, shares, thread, a, b, before, y):
    """y[:, before:] = a's and b's channels. a, b and y are (pixels, channels)."""
    if share < 0:
        return on_threads(share, shares)
    pixels, A, B = y.shape[0], a.shape[1], b.shape[1]
    for i in range(share * pixels // shares, (share + 1) * pixels // shares):
        pixel = y[i, before:]
        for c in range(A):
            pixel[c] = a[i, c]
        for c in range(B):
            pixel[A + c] = b[i, c]
    return 0


@njit()
def _part(share, shares, thread, y, before, a, b):
    """a and b = their channels of y, which begin at ``before``. a, b and y are (pixels, channels)."""
    if share < 0:
        return on_threads(share, shares)
    pixels, A, B = y.shape[0], a.shape[1], b.shape[1]
    for i in range(share * pixels // shares, (share + 1) * pixels // shares):
        pixel = y[i, before:]
        for c in range(A):
            a[i, c] = pixel[c]
        for c in range(B):
            b[i, c] = pixel[A + c]
    return 0


def concat_channels(xs: Sequence[Array]) -> Array:
    """y (N, H, W, ΣC): the channels of the xs (N, H, W, C), one after another. Two at a time: a pixel's lie side by side."""
    one_dtype("concat_channels", *xs)
    fits("concat_channels", all(x.shape[:3] == xs[0].shape[:3] for x in xs), *xs)
    y = empty((*xs[0].shape[:3], sum(x.shape[3] for x in xs)), xs[0].dtype)
    rows = y.reshape(-1, y.shape[3])
    for before, a, b in _pairs([contiguous(x).reshape(len(rows), x.shape[3]) for x in xs]):
        launch(_join, a, b, before, rows)
    return y


def split_channels(y: Array, channels: Sequence[int]) -> list[Array]:
    """The reverse: arrays with so many channels each, (N, H, W, C). Raises ShapeError unless they are all of y's."""
    fits("split_channels", sum(channels) == y.shape[3], y)
    xs = [empty((*y.shape[:3], C), y.dtype) for C in channels]
    rows = contiguous(y).reshape(-1, y.shape[3])
    for before, a, b in _pairs([x.reshape(len(rows), x.shape[3]) for x in xs]):
        launch(_part, rows, before, a, b)
    return xs


def _pairs(xs):
    """(the channels before them, x, the next x) for every second x; a last one is paired with no channels."""
    before = 0
    for i in range(0, len(xs), 2):
        a = xs[i]
        b = xs[i + 1] if i + 1 < len(xs) else empty((len(a), 0), a.dtype)
        yield before, a, b
        before += a.shape[1] + b.shape[1]
