"""Mistakes in the backward pass of batch norm. The right one, over the M values of a channel, is

    dβ = Σ dy    dγ = Σ dy·x̂    dx = γ/√(σ² + ε)·(dy − dβ/M − x̂·dγ/M)    with x̂ = (x − μ)/√(σ² + ε),

whose last two terms are there because μ and σ² follow from x too. With a = γ/√(σ² + ε) it is dx = a·dy + b·(x − μ) + d, and
each mistake changes these coefficients, on the unfused path and on the fused one, where a convolution computes dx from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....kernels.memory_format import nchw, nhwc
from ....lazy import NormGradient
from ....ops import fused
from ....ops.fused import BatchNormReLU
from ....ops.normalization import BatchNorm
from .injection import Mistake, Patch

Row = NDArray[np.float64]  # one number a channel, (C,)


@dataclass(frozen=True)
class Terms:
    """What dx follows from: dx = a·dy + b·(x − mean) + d, and dγ; all (C,) float64.

    running: the running mean and variance, or None where there are none; count: M.
    """

    mean: Row
    inv_std: Row
    weight: Row
    dweight: Row
    dbias: Row
    count: int
    eps: float
    running: tuple[Any, ...] | None
    a: Row
    b: Row
    d: Row


def _terms(
    mean: Row, inv_std: Row, weight: Row, dweight: Row, dbias: Row, count: int, eps: float, running: Any
) -> Terms:
    """The right ones."""
    weight, dweight, dbias = (np.asarray(v, np.float64) for v in (weight, dweight, dbias))
    a = weight * inv_std
    b, d = -a * inv_std * dweight / count, -a * dbias / count
    return Terms(mean, inv_std, weight, dweight, dbias, count, eps, running, a, b, d)


def _without_mean(t: Terms) -> Terms:
    return replace(t, d=np.zeros_like(t.d))


def _without_variance(t: Terms) -> Terms:
    return replace(t, b=np.zeros_like(t.b))


def _without_both(t: Terms) -> Terms:
    return _without_mean(_without_variance(t))


def _unnormalised(t: Terms) -> Terms:
    """dγ = Σ dy·x."""
    return replace(t, dweight=t.dweight / t.inv_std + t.mean * t.dbias)


def _stale(t: Terms) -> Terms:
    """Everything from the running statistics, where the forward pass took the batch's."""
    if t.running is None:
        return t
    mean, var = (np.asarray(v, np.float64) for v in t.running[:2])
    inv_std = 1 / np.sqrt(var + t.eps)
    dweight = inv_std * (t.dweight / t.inv_std + (t.mean - mean) * t.dbias)  # Σ dy·(x − running mean)·inv_std
    a = t.weight * inv_std
    b = -a * inv_std * dweight / t.count
    return replace(t, dweight=dweight, a=a, b=b, d=-a * t.dbias / t.count + b * (t.mean - mean))


def _patches(change: Callable[[Terms], Terms], *more: Patch) -> tuple[Patch, ...]:
    """Batch norm's backward pass with changed terms, unfused and fused."""

    def unfused(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        dx, dweight, dbias = original(op, dy, needs)
        if op.fixed[0] is not None:  # evaluation: the statistics are constants
            return dx, dweight, dbias
        rows = nhwc(dy) if dy.ndim == 4 else dy
        count = rows.size // rows.shape[-1]
        t = change(_terms(op.mean, op.inv_std, op.weight, dweight, dbias, count, op.eps, op.running))
        wrong = (t.a * rows + t.b * (op.x - t.mean) + t.d).astype(dy.dtype)
        return nchw(wrong) if dy.ndim == 4 else wrong, t.dweight.astype(dy.dtype), dbias

    def in_fused(original: Any, op: Any, dy: Any) -> tuple[Any, ...]:
        g, gradient, dweight, dbias = original(op, dy)
        near, running = gradient.operand.parameters[0], vars(op).get("running")
        count = g.size // g.shape[-1]
        t = change(_terms(op.mean, op.terms[3], op.weight, dweight, dbias, count, op.eps, running))
        parameters = np.stack([near, t.a, t.b, t.d - t.b * (t.mean - near)])  # the kernel subtracts the rounded mean
        return g, NormGradient(gradient.operand._replace(parameters=parameters)), t.dweight.astype(g.dtype), dbias

    return Patch(BatchNorm, "backward", unfused), Patch(BatchNormReLU, "gradients", in_fused), *more


def _remember_running(original: Any, c: Any, bn: Any, shortcut: Any = None, factor: float = 1.0) -> Any:
    """The fused operation does not know the running statistics: give it them."""
    y = original(c, bn, shortcut, factor)
    if y.op is not None:
        vars(y.op)["running"] = bn.running_mean, bn.running_var
    return y


NORM = (
    Mistake(
        "norm-mean-dropped",
        "batch norm",
        "dx without the term of the mean, dβ/M",
        "μ follows from every x of the channel, so each x gets a share of every gradient. Without it dx no longer sums to 0.",
        "fused",
        _patches(_without_mean),
    ),
    Mistake(
        "norm-variance-dropped",
        "batch norm",
        "dx without the term of the variance, x̂·dγ/M",
        "σ² follows from every x too. Without it dx has a component along x̂, a direction in which the output cannot change.",
        "fused",
        _patches(_without_variance),
    ),
    Mistake(
        "norm-statistics-constant",
        "batch norm",
        "dx = dy·γ/√(σ² + ε): mean and variance taken for constants, as they are in evaluation",
        "the formula of evaluation in training. The weights of the convolution before grow, since nothing keeps dw ⊥ w.",
        "fused",
        _patches(_without_both),
    ),
    Mistake(
        "norm-stale-statistics",
        "batch norm",
        "backward normalises by the running statistics, forward by the batch's",
        "the running statistics lag behind, at the first step by everything: they begin at 0 and 1.",
        "fused",
        _patches(_stale, Patch(fused, "_norm_relu", _remember_running)),
    ),
    Mistake(
        "norm-scale-of-input",
        "batch norm",
        "dγ = Σ dy·x, with the input in place of the normalised input x̂",
        "only γ is affected, and γ matters little here: such a mistake can stay for years.",
        "fused",
        _patches(_unnormalised),
    ),
)
