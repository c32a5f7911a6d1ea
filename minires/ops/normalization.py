"""Batch normalisation (Ioffe & Szegedy 2015), with PyTorch's conventions for the running statistics."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import ConfigError, ShapeError
from ..kernels.memory_format import nchw, nhwc
from ..tensor import Op, Tensor
from .checks import needs_tensor, same_dtype


class BatchNorm(Op):
    """y = (x − μ)/√(σ² + ε)·γ + β.

        dβ = Σ dy    dγ = Σ dy·x̂    dx = γ/√(σ² + ε)·(dy − dβ/M − x̂·dγ/M)   with x̂ = (x − μ)/√(σ² + ε)

    over the M elements of a channel; the last two terms of dx are there only when μ and σ² are the batch's own.
    """

    reads = ((0,), (0,), ())

    def __init__(self, fixed, running, eps):
        self.fixed = fixed  # the mean and variance to use; (None, None) takes the batch's
        self.running = running  # (mean, variance, momentum) to move towards the batch's, or None
        self.eps = eps

    def forward(self, x, weight, bias):
        self.x = rows = nhwc(x) if x.ndim == 4 else x  # channels last
        self.mean, self.var = kernels.batch_norm_stats(rows) if self.fixed[0] is None else self.fixed
        if self.running is not None:
            kernels.also(update_running_stats, *self.running, self.mean, self.var, rows.size // rows.shape[-1])
        double = weight.shape, np.float64
        self.inv_std = kernels.computed(_inverse_deviation, *double, self.var, self.eps)
        self.weight = kernels.computed(np.asarray, *double, weight)
        y = kernels.batch_norm(rows, self.mean, kernels.computed(np.multiply, *double, self.weight, self.inv_std), bias)
        return nchw(y) if x.ndim == 4 else y

    def backward(self, dy, needs):
        rows = nhwc(dy) if dy.ndim == 4 else dy
        training = self.fixed[0] is None
        dx, dw, db = kernels.batch_norm_grad(rows, self.x, self.mean, self.inv_std, self.weight, training)
        dx = nchw(dx) if dy.ndim == 4 else dx
        return dx, *[kernels.computed(np.asarray, d.shape, dy.dtype, d) for d in (dw, db)]


def _inverse_deviation(var, eps):
    return 1 / np.sqrt(np.asarray(var, np.float64) + eps)


def update_running_stats(running_mean, running_var, momentum, mean, var, count):
    """running ← (1 − momentum)·running + momentum·batch, in place, with the unbiased variance σ²·M/(M − 1)."""
    running_mean[...] = (1 - momentum) * running_mean + momentum * mean
    running_var[...] = (1 - momentum) * running_var + momentum * var * (count / (count - 1))


def batch_norm(
    x: Tensor,
    running_mean: NDArray[Any] | None,
    running_var: NDArray[Any] | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of x (N, C, H, W) or (N, C) over the batch, or by the running statistics in evaluation.

    running_mean, running_var: ndarrays (C,), updated in place in training (the variance unbiased):
    running = (1 − momentum)·running + momentum·batch; both None to use the batch's always. weight, bias: Tensors (C,).
    Raises ShapeError when sizes differ or a channel has a single value in training.
    """
    needs_tensor("batch_norm", x, *[t for t in (weight, bias) if t is not None])
    if x.ndim not in (2, 4):
        raise ShapeError(f"batch_norm: needs shape (N, C, H, W) or (N, C), got shape {x.shape}")
    C = x.shape[1]
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in named.items():
        if value is not None and value.shape != (C,):
            raise ShapeError(f"batch_norm: {name} of shape {value.shape} for input of shape {x.shape}; it needs ({C},)")
    weight = Tensor(np.ones(C, x.dtype)) if weight is None else weight
    bias = Tensor(np.zeros(C, x.dtype)) if bias is None else bias
    same_dtype("batch_norm", x, weight, bias)
    if (running_mean is None) != (running_var is None):
        raise ConfigError("batch_norm: running_mean and running_var come together, or neither")
    use_batch = training or running_mean is None
    count = x.size // max(C, 1)
    if use_batch and count < 2:
        raise ShapeError(
            f"batch_norm: one value per channel has no variance, in training on shape {x.shape}: more images or eval() help"
        )
    fixed: tuple[Any, Any] = None, None
    if not use_batch and running_mean is not None and running_var is not None:
        fixed = kernels.copy(running_mean), kernels.copy(running_var)
    running = (running_mean, running_var, momentum) if training and running_mean is not None else None
    return BatchNorm(fixed, running, eps).apply(x, weight, bias)
