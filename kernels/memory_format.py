"""Memory order, in one place. Logical (N, C, H, W), stored channels-last: the NHWC view is C-contiguous.

Weights are logically (O, I, KH, KW) and stored (KH, KW, I, O): their HWIO view is C-contiguous.
"""

import numpy as np

from .runtime.memory_pool import empty


def contiguous(x):
    """x itself when C-contiguous, aligned and writeable (so that no kernel compiles twice), else a copy that is."""
    if x.flags.carray:
        return x
    copy = empty(x.shape, x.dtype)
    np.copyto(copy, x)
    return copy


def nhwc(x):
    """(N, C, H, W) → a C-contiguous (N, H, W, C): a view of channels-last storage, a copy of any other order."""
    return contiguous(x.transpose(0, 2, 3, 1))


def nchw(x):
    """(N, H, W, C) → its (N, C, H, W) view."""
    return x.transpose(0, 3, 1, 2)


def hwio(w):
    """(O, I, KH, KW) → a C-contiguous (KH, KW, I, O)."""
    return contiguous(w.transpose(2, 3, 1, 0))


def oihw(w):
    """(KH, KW, I, O) → its (O, I, KH, KW) view."""
    return w.transpose(3, 2, 0, 1)


def is_channels_last(x):
    """Whether a 4-d array is stored channels-last."""
    return x.transpose(0, 2, 3, 1).flags.c_contiguous


def to_channels_last(x):
    """A 4-d (N, C, H, W) array in channels-last storage (itself when it is already); other arrays unchanged."""
    return x if x.ndim != 4 or is_channels_last(x) else nchw(nhwc(x))


def out_size(size, kernel, stride, padding, dilation=(1, 1)):
    """(OH, OW) of a window that slides over (H, W)."""
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation)
    )
