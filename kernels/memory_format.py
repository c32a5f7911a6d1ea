"""The memory format. Images are logically (N, C, H, W) and stored channels-last: their NHWC view is C-contiguous.

Weights are logically (O, I, KH, KW) and stored (KH, KW, I, O): their HWIO view is C-contiguous.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .runtime.memory_pool import empty, empty_like
from .runtime.recording import also, is_recording, preparing

Array = NDArray[Any]
Pair = tuple[int, int]  # (height, width)
Shape = tuple[int, ...]


def contiguous(x: Array) -> Array:
    """x itself if C-contiguous, aligned and writeable, else a copy that is. Kernels thus compile for one array type only."""
    if x.flags.carray:
        return x
    copy = empty(x.shape, x.dtype)
    also(np.copyto, copy, x)
    return copy


def copy(x: Array) -> Array:
    """A copy in the same memory order."""
    y = empty_like(x)
    also(np.copyto, y, x)
    return y


def reshaped(x: Array, shape: Shape) -> Array:
    """x.reshape(shape): a view where it can be one, else a copy, which is recorded. Raises ValueError as NumPy does."""
    y = x.reshape(shape)
    if not is_recording() or np.may_share_memory(x, y):
        return y
    recorded = empty(y.shape, y.dtype)
    also(np.copyto, recorded.reshape(x.shape), x)
    return recorded


def nhwc(x: Array) -> Array:
    """(N, C, H, W) → (N, H, W, C), C-contiguous: a view of channels-last storage, a copy of any other."""
    return contiguous(x.transpose(0, 2, 3, 1))


def nchw(x: Array) -> Array:
    """(N, H, W, C) → (N, C, H, W), a view."""
    return x.transpose(0, 3, 1, 2)


def hwio(w: Array) -> Array:
    """(O, I, KH, KW) → (KH, KW, I, O), C-contiguous: a view of weights that are stored so, a copy of any other."""
    with preparing():  # a copy follows from the weights alone, as what is packed of it does
        return contiguous(w.transpose(2, 3, 1, 0))


def oihw(w: Array) -> Array:
    """(KH, KW, I, O) → (O, I, KH, KW), a view."""
    return w.transpose(3, 2, 0, 1)


def is_channels_last(x: Array) -> bool:
    """Whether a 4-D array (N, C, H, W) is stored channels-last."""
    return x.transpose(0, 2, 3, 1).flags.c_contiguous


def to_channels_last(x: Array) -> Array:
    """A 4-D array (N, C, H, W) in channels-last storage, uncopied if it already is; any other array unchanged."""
    return x if x.ndim != 4 or is_channels_last(x) else nchw(nhwc(x))


def out_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Shape:
    """(OH, OW): the number of positions of a window that slides over (H, W). Pairs are (height, width)."""
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation)
    )
