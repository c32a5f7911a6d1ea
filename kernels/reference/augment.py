"""Random crop, mirroring, cutout and normalisation of a batch, image by image.

What happens to a sample depends only on (seed, epoch, sample), not on the batch, the order or the thread.
"""

import numpy as np
from numpy.typing import ArrayLike

from ...errors import ConfigError, DataError, DtypeError, ShapeError
from ..keyed_random import key_of, scramble
from ..memory_format import Array, contiguous


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
    """Fill ``out`` with the images at ``indices``, augmented and normalised, and return it.

    out[b] = cutout(jitter(mirror(crop((images[indices[b]] / 255 − mean) / std))))
    crop    a window of the image's size, anywhere in the image padded with ``pad`` pixels on each side: mirrored at the
            border if ``reflect`` is set (as in ``np.pad(mode="reflect")``), else zero
    mirror  left and right are swapped in half of the images, if ``flip`` is set; with ``alternate`` in a random half in epoch
            0, in the others in epoch 1, and so on
    jitter  values are multiplied by a number in [1 − jitter, 1 + jitter), and one in [−jitter, jitter) is added, the same for
            all pixels; what a crop has padded with zero stays zero
    cutout  a square with side ``cutout`` around a random pixel is zero (DeVries and Taylor, 2017)

    Zero means zero after normalisation: the data set's mean colour, as in He et al. (2015, section 4.2).
    images: (N, H, W, C) uint8; indices: (B,) integer; out: (B, H, W, C) float32 or float64; mean, std: (C,). samples: (B,)
    integer from 0 up, the numbers of the samples, which draws depend on: by default the indices.
    Raises ShapeError, DtypeError, ConfigError (a setting out of range) and DataError (a sample that does not exist).
    """
    images, indices, samples, table = prepare(images, indices, out, mean, std, pad, reflect, cutout, jitter, samples)
    _, H, W, C = images.shape
    epoch_key, flip_key = key_of("augment", seed, epoch), key_of("flip", seed)
    for b, (index, sample) in enumerate(zip(indices, samples)):
        key = scramble(epoch_key, np.array([sample], np.uint64))

        def below(draw, count, key=key):
            bits = scramble(key, np.array([draw], np.uint64)) >> np.uint64(32)
            return int(bits[0]) * count >> 32

        image = table[images[index], np.arange(C)]
        if jitter:
            scale, shift = (jitter_draw(key, draw, jitter) for draw in (5, 6))
            image = image * out.dtype.type(1 + scale) + out.dtype.type(shift)
        border = ((pad, pad), (pad, pad), (0, 0))
        padded = np.pad(image, border, mode="reflect") if reflect else np.pad(image, border)
        top, left = below(0, 2 * pad + 1), below(1, 2 * pad + 1)
        crop = padded[top : top + H, left : left + W]
        mirrored = below(2, 2)
        if alternate:
            mirrored = (int(scramble(flip_key, np.array([sample], np.uint64))[0] >> np.uint64(63)) + epoch) % 2
        if flip and mirrored:
            crop = crop[:, ::-1]
        out[b] = crop
        top, left = below(3, H) - cutout // 2, below(4, W) - cutout // 2
        out[b, max(top, 0) : max(top + cutout, 0), max(left, 0) : max(left + cutout, 0)] = 0
    return out


def jitter_draw(key, draw, jitter):
    """Draw number ``draw`` of the key: a number in [−jitter, jitter)."""
    bits = scramble(key, np.array([draw], np.uint64)) >> np.uint64(32)
    return jitter * (int(bits[0]) / 2**31 - 1)


def prepare(images, indices, out, mean, std, pad, reflect, cutout, jitter, samples=None):
    """Check the arguments of augment_batch. Returns images, indices and samples in the form that kernels take, and a table.

    table[v, c] is the normalised value of byte v in channel c: (256, C), in out's dtype.
    """
    if images.ndim != 4 or out.ndim != 4 or out.shape[1:] != images.shape[1:] or indices.shape != out.shape[:1]:
        raise ShapeError(
            f"augment_batch: images {images.shape}, indices {indices.shape} and out {out.shape} do not fit: "
            "they are (N, H, W, C), (B,) and (B, H, W, C)"
        )
    if images.dtype != np.uint8 or indices.dtype.kind not in "iu" or out.dtype not in (np.float32, np.float64):
        raise DtypeError(
            f"augment_batch: images are uint8, indices integers and out is float32 or float64, "
            f"not {images.dtype}, {indices.dtype} and {out.dtype}"
        )
    if not out.flags.carray:
        raise ShapeError("augment_batch: out is a C-contiguous, writeable array")
    samples = indices if samples is None else samples
    if samples.shape != indices.shape or samples.dtype.kind not in "iu":
        raise ShapeError(f"augment_batch: samples {samples.shape} of {samples.dtype} are integers, as many as indices")
    N, H, W, C = images.shape
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if mean.shape != (C,) or std.shape != (C,):
        raise ShapeError(
            f"augment_batch: mean {mean.shape} and std {std.shape} of images with {C} channels: both are ({C},)"
        )
    if pad < 0 or cutout < 0:
        raise ConfigError(f"pad and cutout are 0 or more pixels, not {pad} and {cutout}")
    if not 0 <= jitter < 1:
        raise ConfigError(f"jitter is a number from 0 up and below 1, not {jitter}")
    if reflect and pad >= min(H, W):
        raise ConfigError(f"{pad} pixels cannot be mirrored from an image of {H}×{W}: pad is at most {min(H, W) - 1}")
    indices = contiguous(indices.astype(np.int64, copy=False))
    if len(indices) and not (0 <= indices.min() and indices.max() < N):
        wrong = indices[(indices < 0) | (indices >= N)][0]
        raise DataError(f"there is no sample {wrong} in a data set of {N} images")
    table = (np.arange(256)[:, None] / 255 - mean) / std
    samples = contiguous(samples.astype(np.int64, copy=False))
    return contiguous(images), indices, samples, table.astype(out.dtype)
