"""Losses as modules."""

from typing import Literal

from numpy.typing import NDArray

from .. import functional as F
from ..tensor import Tensor
from .module import Module

Reduction = Literal["mean", "sum", "none"]


class CrossEntropyLoss(Module):
    """-Σ_k q_k log softmax(x)_k for logits x (N, K) and integer targets (N,); q is the one-hot target, smoothed.

    With label_smoothing ε, q is 1 - ε + ε/K for the target and ε/K elsewhere. reduction: "mean", "sum" or "none".
    """

    def __init__(self, label_smoothing: float = 0.0, reduction: Reduction = "mean") -> None:
        self.label_smoothing, self.reduction = label_smoothing, reduction

    def forward(self, logits: Tensor, target: NDArray | Tensor) -> Tensor:
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing, reduction=self.reduction)


class MSELoss(Module):
    """(x - target)² for x and target of one shape. reduction: "mean", "sum" or "none"."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = reduction

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(x, target, reduction=self.reduction)
