"""Batch normalisation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from .. import kernels
from ..errors import ConfigError, ShapeError
from ..handle import structure
from ..tensor import Tensor
from .module import Module, Parameter


class BatchNorm2d(Module):
    """y = γ·(x - μ)/√(σ² + ε) + β for each channel of x (N, C, H, W). weight is γ, bias is β, both (C,).

    In training μ and σ² are the batch's mean and biased variance, and the running statistics are updated with the mean and
    the unbiased variance: r ← (1 - momentum)·r + momentum·new; momentum=None averages over all batches. In evaluation μ and
    σ² are the running statistics, or with track_running_stats=False the batch's. Raises ConfigError for fewer than one
    channel. "Batch Normalization", Ioffe & Szegedy 2015, algorithms 1 and 2.
    """

    running_mean: Any  # an ndarray (C,), or None with track_running_stats=False; so are the next two
    running_var: Any
    num_batches_tracked: Any  # a 0-d ndarray

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        if num_features < 1:
            raise ConfigError(f"BatchNorm2d: needs one channel or more, not {num_features}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        self.register_buffer("running_mean", np.zeros(num_features, np.float32) if track_running_stats else None)
        self.register_buffer("running_var", np.ones(num_features, np.float32) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", np.array(0, np.int64) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Reset the running statistics: mean 0, variance 1, no batches."""
        if self.track_running_stats:
            self.running_mean[...], self.running_var[...], self.num_batches_tracked[...] = 0, 1, 0
            structure.count_change()  # recorded predictions hold what follows from them

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ShapeError(f"BatchNorm2d: takes (N, C, H, W), not shape {x.shape}")
        update = self.training and self.track_running_stats
        y = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training or not self.track_running_stats,
            momentum=self._current_momentum() if update else 0.0,
            eps=self.eps,
        )
        if update:
            kernels.also(np.add, self.num_batches_tracked, 1, out=self.num_batches_tracked)
        return y

    def _current_momentum(self) -> float:
        return 1.0 / (int(self.num_batches_tracked) + 1) if self.momentum is None else self.momentum

    def update_running_stats(self, mean: NDArray[Any], var: NDArray[Any], count: int) -> None:
        """Move the running statistics as a training step does, towards mean and biased variance of ``count`` values."""
        running = self.running_mean, self.running_var, self.num_batches_tracked
        kernels.update_running_stats(*running, self._current_momentum(), mean, var, count)

    @property
    def fusable(self) -> bool:
        """Whether a fused operation may replace a call of this module: the usual settings, no hooks, no forward of its own."""
        return self.is_plain(_BATCH_NORM) and self.affine and self.track_running_stats

    @property
    def recordable(self) -> bool:
        """Whether every call launches the same kernels: a momentum that depends on the number of batches is no constant."""
        return self.fusable and not (self.training and self.momentum is None)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


_BATCH_NORM = {name: getattr(BatchNorm2d, name) for name in ("__call__", "forward", "update_running_stats")}
