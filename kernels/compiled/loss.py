"""Softmax cross-entropy with label smoothing (Szegedy et al. 2015, section 7)."""

import numpy as np

from ..checks import fits, labels_in, one_dtype
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.parallel import on_threads
from ..runtime.threads import serial


@njit()
def _cross_entropy(share, shares, thread, logits, labels, smoothing, losses, p):
    if share < 0:
        return on_threads(share, shares)
    N, K = logits.shape
    for n in range(N):
        top = logits[n, 0]
        for k in range(1, K):
            top = max(top, logits[n, k])
        total = spread = smoothing * 0  # in the logits' dtype
        for k in range(K):
            p[n, k] = np.exp(logits[n, k] - top)
            total += p[n, k]
            spread += logits[n, k] - top
        log_total = np.log(total)
        losses[n] = log_total - (1 - smoothing) * (logits[n, labels[n]] - top)
        if smoothing > 0:  # without it, logits may be −∞, and 0·∞ is not 0
            losses[n] -= smoothing * spread / K
        for k in range(K):
            p[n, k] /= total
    return 0


def cross_entropy(logits: Array, labels: Array, smoothing: float) -> tuple[Array, Array]:
    """−Σ_k q_k·log p_k, with p = softmax(logits) and q = (1 − smoothing)·onehot + smoothing/K.

    logits: (N, K); labels: (N,) int64 in [0, K). Returns losses (N,) and p (N, K), in the logits' dtype. Raises ShapeError,
    DtypeError and DataError (a label out of range).
    """
    one_dtype("cross_entropy", logits)
    fits("cross_entropy", logits.ndim == 2 and labels.shape == logits.shape[:1], logits, labels)
    labels_in("cross_entropy", labels, logits.shape[1])
    losses, p = np.empty(len(logits), logits.dtype), np.empty(logits.shape, logits.dtype)
    serial(_cross_entropy, contiguous(logits), contiguous(labels), logits.dtype.type(smoothing), losses, p)
    return losses, p


@njit()
def _cross_entropy_grad(share, shares, thread, p, labels, smoothing, dlosses, dlogits):
    if share < 0:
        return on_threads(share, shares)
    N, K = p.shape
    for n in range(N):
        for k in range(K):
            dlogits[n, k] = (p[n, k] - smoothing / K) * dlosses[n]
        dlogits[n, labels[n]] -= (1 - smoothing) * dlosses[n]
    return 0


def cross_entropy_grad(p: Array, labels: Array, smoothing: float, dlosses: Array) -> Array:
    """dlogits (N, K) = (p − q)·dlosses, with dlosses (N,)."""
    one_dtype("cross_entropy_grad", p, dlosses)
    fits("cross_entropy_grad", labels.shape == dlosses.shape == p.shape[:1], p, labels, dlosses)
    labels_in("cross_entropy_grad", labels, p.shape[1])
    dlogits = np.empty(p.shape, p.dtype)
    serial(
        _cross_entropy_grad, contiguous(p), contiguous(labels), p.dtype.type(smoothing), contiguous(dlosses), dlogits
    )
    return dlogits
