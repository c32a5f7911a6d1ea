"""Losses as modules."""

from .. import functional as F
from .module import Module


class CrossEntropyLoss(Module):
    """-Σ_k q_k log softmax(x)_k for logits x (N, K) and integer targets (N,); q is the one-hot target, smoothed.

    With label_smoothing ε, q is 1 - ε + ε/K for the target and ε/K elsewhere. reduction: "mean", "sum" or "none".
    """

    def __init__(self, label_smoothing=0.0, reduction="mean"):
        self.label_smoothing, self.reduction = label_smoothing, reduction

    def forward(self, logits, target):
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing, reduction=self.reduction)


class MSELoss(Module):
    """(x - target)² for x and target of one shape. reduction: "mean", "sum" or "none"."""

    def __init__(self, reduction="mean"):
        self.reduction = reduction

    def forward(self, x, target):
        return F.mse_loss(x, target, reduction=self.reduction)
