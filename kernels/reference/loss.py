"""Softmax cross-entropy with label smoothing (Szegedy et al. 2015, section 7)."""

import numpy as np

from ..memory_format import Array


def _target(labels, smoothing, like):
    """q = (1 − smoothing)·onehot + smoothing/K, (N, K)."""
    N, K = like.shape
    q = np.full((N, K), smoothing / K, like.dtype)
    q[np.arange(N), labels] += 1 - smoothing
    return q


def cross_entropy(logits: Array, labels: Array, smoothing: float) -> tuple[Array, Array]:
    """−Σ_k q_k·log p_k for p = softmax(logits): losses (N,) and p (N, K)."""
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    losses = -(1 - smoothing) * log_p[np.arange(len(labels)), labels]
    if smoothing:  # without it, logits may be −∞, and 0·∞ is not 0
        losses -= smoothing * log_p.mean(1)
    return losses, np.exp(log_p)


def cross_entropy_grad(p: Array, labels: Array, smoothing: float, dlosses: Array) -> Array:
    """dlogits = (p − q)·dlosses."""
    return (p - _target(labels, smoothing, p)) * dlosses[:, None]
