"""Random crop, mirroring, cutout and normalisation of a batch in one pass. ``reference/augment.py`` has the rules.

Serial, and without the GIL: it runs on the loader's prefetch thread, at the same time as the kernels of the training step.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import keyed_random
from ..memory_format import Array
from ..reference.augment import prepare
from ..runtime.jit import njit

_32, _63 = np.uint64(32), np.uint64(63)
_scramble = njit(inner=True, lean=False)(keyed_random.scramble)


def augment_batch(
    images: Array,
    indices: Array,
    out: Array,
    mean: ArrayLike,
    std: ArrayLike,
    pad: int = 0,
    reflect: bool = False,
    flip: bool = False,
    cutout: int = 0,
    seed: int = 0,
    epoch: int = 0,
    alternate: bool = False,
    jitter: float = 0.0,
    samples: Array | None = None,
) -> Array:
    """Fill ``out`` (B, H, W, C) with the images at ``indices``, augmented and normalised, and return it.

    ``reference/augment.py`` lists the arguments and errors.
    """
    images, indices, samples, table = prepare(images, indices, out, mean, std, pad, reflect, cutout, jitter, samples)
    key = keyed_random.key_of("augment", seed, epoch)
    flips = 0 if not flip else 2 + epoch % 2 if alternate else 1
    keys = np.concatenate([key, keyed_random.key_of("flip", seed)])
    _augment_batch(
        images, indices, samples, out, table, int(pad), bool(reflect), flips, int(cutout), float(jitter), keys
    )
    return out


@njit()
def _augment_batch(
    images, indices, samples, out,  # (N, H, W, C) uint8, (B,) int64, (B,) int64 and (B, H, W, C)
    table,  # (256, C): the normalised value of each byte
    pad, reflect,  # as in augment_batch
    flips,  # which images are flipped: 0: none, 1: a random half, 2, 3: by the second key, in an even epoch and in an odd one
    cutout, jitter,  # as in augment_batch
    keys,  # (2,) uint64: the key of seed and epoch, and that of the seed for alternating flips
):  # fmt: skip
    for b in range(len(indices)):
        sample = np.uint64(samples[b])
        key = _scramble(keys[0], sample)
        flip = flips == 1 and _below(key, 2, 2) == 1
        if flips > 1:
            flip = (np.int64(_scramble(keys[1], sample) >> _63) + flips) % 2 == 1
        scale = out.dtype.type(1 + jitter * _signed(key, 5))
        shift = out.dtype.type(jitter * _signed(key, 6))
        _augment(images[indices[b]], out[b], table, pad, reflect, flip, cutout, scale, shift, key)


@njit(inner=True, lean=False)
def _below(key, draw, count):
    """Draw number ``draw`` of the key: an integer below ``count``."""
    return np.int64(((_scramble(key, np.uint64(draw)) >> _32) * np.uint64(count)) >> _32)


@njit(inner=True, lean=False)
def _signed(key, draw):
    """Draw number ``draw`` of the key: a number in [−1, 1)."""
    return np.float64(np.int64(_scramble(key, np.uint64(draw)) >> _32)) / 2147483648.0 - 1.0


@njit(inner=True, lean=False)
def _reflected(i, size):
    """Index i mirrored into [0, size) at the first or the last pixel, which is not repeated."""
    if i < 0:
        return -i
    return i if i < size else 2 * (size - 1) - i


@njit(inner=True, lean=False)
def _augment(
    image, out,  # (H, W, C), uint8 and float
    table,  # (256, C): the normalised value of each byte
    pad, reflect,  # as in augment_batch
    flip,  # whether it is flipped
    cutout,  # as in augment_batch
    scale, shift,  # of the values that are not padded
    key,  # the sample's key, a uint64
):  # fmt: skip
    H, W, C = image.shape
    top, left = _below(key, 0, 2 * pad + 1) - pad, _below(key, 1, 2 * pad + 1) - pad
    first, step = left, 1
    if flip:
        first, step = left + W - 1, -1
    cut_top, cut_left = _below(key, 3, H) - cutout // 2, _below(key, 4, W) - cutout // 2
    for y in range(H):
        row = top + y
        if reflect:
            row = _reflected(row, H)
        for x in range(W):
            column = first + step * x
            if reflect:
                column = _reflected(column, W)
            seen = 0 <= row < H and 0 <= column < W
            seen = seen and not (cut_top <= y < cut_top + cutout and cut_left <= x < cut_left + cutout)
            for c in range(C):
                out[y, x, c] = table[image[row, column, c], c] * scale + shift if seen else 0.0
