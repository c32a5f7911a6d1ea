"""Losses. Targets whose shape would merely broadcast are refused: (N,) against (N, 1) is an error, not an outer product."""

import numpy as np
from numpy.typing import ArrayLike

from .. import kernels
from ..errors import ConfigError, DtypeError, ShapeError
from ..kernels.checks import labels_in
from ..tensor import Op, Tensor
from . import arithmetic, reduction
from .checks import needs_tensor, same_dtype


class CrossEntropy(Op):
    """losses[n] = −Σ_k q_k·ln p_k, p = softmax(logits[n]), q = (1 − ε)·onehot + ε/K. dlogits = (p − q)·dlosses."""

    reads = ()

    def __init__(self, labels, smoothing):
        self.labels, self.smoothing = labels, smoothing

    def forward(self, logits):
        losses, self.p = kernels.cross_entropy(logits, self.labels, self.smoothing)
        return losses

    def backward(self, dy, needs):
        return (kernels.cross_entropy_grad(self.p, self.labels, self.smoothing, dy),)


def _reduce(op, losses, reduction_name):
    if reduction_name == "mean":
        return reduction.mean(losses)
    if reduction_name == "sum":
        return reduction.sum(losses)
    if reduction_name == "none":
        return losses
    raise ConfigError(f"{op}: reduction is 'mean', 'sum' or 'none', not {reduction_name!r}")


def cross_entropy(
    logits: Tensor, target: Tensor | ArrayLike, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Softmax cross-entropy of logits (N, K) with integer labels (N,): an ndarray or a Tensor.

    label_smoothing ε gives each wrong class ε/K (Szegedy et al. 2015, section 7). reduction: "mean", "sum" or "none".
    Raises ShapeError for labels of another shape, DtypeError for labels that are not integers, DataError for labels
    outside [0, K).

    >>> import numpy as np, minires as mr
    >>> round(mr.functional.cross_entropy(mr.tensor(np.zeros((2, 10))), np.array([3, 4])).item(), 4)
    2.3026
    """
    if hasattr(logits, "aux_logits"):
        raise DtypeError(
            "cross_entropy: takes Tensors, got AuxiliaryOutput; nn.classification_loss takes both its logits"
        )
    needs_tensor("cross_entropy", logits)
    same_dtype("cross_entropy", logits)
    labels = target.data if isinstance(target, Tensor) else np.asarray(target)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(
            f"cross_entropy: logits of shape {logits.shape} (N, K) need labels of shape (N,), got {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"cross_entropy: labels are integers, got {labels.dtype}; use labels.astype(np.int64)")
    if not len(labels):
        raise ShapeError(f"cross_entropy: an empty batch of shape {logits.shape} has no mean loss")
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"cross_entropy: label_smoothing is from 0 to 1, not {label_smoothing!r}")
    labels_in("cross_entropy", labels, logits.shape[1])
    own = np.empty(labels.shape, np.int64)
    kernels.also(np.copyto, own, labels, casting="same_kind")
    return _reduce("cross_entropy", CrossEntropy(own, label_smoothing).apply(logits), reduction)


def mse_loss(x: Tensor, target: Tensor | ArrayLike, *, reduction: str = "mean") -> Tensor:
    """(x − target)², reduced. x and target have the same shape, exactly; ShapeError names both when they do not."""
    needs_tensor("mse_loss", x)
    target = target if isinstance(target, Tensor) else Tensor(np.asarray(target))
    if x.shape != target.shape:
        raise ShapeError(f"mse_loss: input of shape {x.shape} and target of shape {target.shape} differ")
    difference = arithmetic.sub(x, target)
    return _reduce("mse_loss", arithmetic.mul(difference, difference), reduction)
