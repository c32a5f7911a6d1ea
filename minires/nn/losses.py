"""Losses as modules, and the loss of a classifier that has an auxiliary one."""

from typing import Any, Literal, NamedTuple

from numpy.typing import ArrayLike, NDArray

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


# --- auxiliary classifiers


class AuxiliaryOutput(NamedTuple):
    """What a network with an auxiliary classifier returns in training mode. In evaluation mode it returns the logits alone.

    logits, aux_logits: (N, K), of the network and of the auxiliary classifier; aux_weight: of the latter's loss.
    """

    logits: Tensor
    aux_logits: Tensor
    aux_weight: float


def main_logits(output: Any) -> Tensor:
    """The logits of a classifier's output, without those of an auxiliary classifier."""
    return output.logits if isinstance(output, AuxiliaryOutput) else output


def classification_loss(output: Any, target: ArrayLike | Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The loss that a classifier is trained with: the mean cross-entropy of its logits (N, K) with integer labels (N,).

    For an AuxiliaryOutput CE(logits) + aux_weight · CE(aux_logits): "Going Deeper with Convolutions", Szegedy et al. 2015, §5.
    Raises what ``F.cross_entropy`` raises.
    """
    main = F.cross_entropy(main_logits(output), target, label_smoothing=label_smoothing)
    return with_auxiliary(main, output, target, label_smoothing)


def with_auxiliary(main: Tensor, output: Any, target: ArrayLike | Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The loss ``main`` of a classifier's logits, plus the weighted one of its auxiliary classifier if it has one."""
    if not isinstance(output, AuxiliaryOutput):
        return main
    auxiliary = F.cross_entropy(output.aux_logits, target, label_smoothing=label_smoothing)
    return main + output.aux_weight * auxiliary
