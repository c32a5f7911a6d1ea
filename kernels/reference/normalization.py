"""Batch normalisation over the last axis (Ioffe & Szegedy 2015, Algorithm 1)."""

import numpy as np

from ..memory_format import Array


def batch_norm_stats(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance over all axes but the last: two float64 arrays (C,)."""
    x = x.reshape(-1, x.shape[-1]).astype(np.float64)
    return x.mean(0), x.var(0)


def batch_norm(x: Array, mean: Array, scale: Array, shift: Array) -> Array:
    """(x − mean)·scale + shift."""
    mean, scale, shift = (np.asarray(v, x.dtype) for v in (mean, scale, shift))
    return (x - mean) * scale + shift


def batch_norm_grad(
    dy: Array, x: Array, mean: Array, inv_std: Array, weight: Array, training: bool
) -> tuple[Array, Array, Array]:
    """dx (…, C), and dweight and dbias (C,) float64, of y = x̂·weight + bias with x̂ = (x − mean)·inv_std.

    dbias = Σ dy,  dweight = Σ dy·x̂,  dx = weight·inv_std·(dy − (dbias + x̂·dweight)/M) over the M values of a channel; with
    fixed statistics (``training`` False) dx = weight·inv_std·dy.
    """
    axes = tuple(range(x.ndim - 1))
    x_hat = (x - mean) * inv_std  # float64, as mean is
    dbias = dy.sum(axes, dtype=np.float64)
    dweight = (dy * x_hat).sum(axes)
    M = x.size // x.shape[-1]
    dx = weight * inv_std * (dy - (dbias / M + x_hat * dweight / M if training else 0))
    return dx.astype(x.dtype), dweight, dbias


def update_running_stats(
    running_mean: Array, running_var: Array, batches: Array, momentum: float, mean: Array, var: Array, count: int
) -> None:
    """running ← (1 − momentum)·running + momentum·batch, with the unbiased variance σ²·M/(M − 1); batches ← batches + 1."""
    running_mean[...] = (1 - momentum) * running_mean + momentum * mean
    running_var[...] = (1 - momentum) * running_var + momentum * var * (count / (count - 1))
    batches += 1
