"""Muon: momentum whose matrices are orthogonalised, for the filters of convolutions and the weights of linear layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import ConfigError
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup, Params

A, B, C = 3.4445, -4.7750, 2.0315  # of the polynomial ax + bx³ + cx⁵, which takes all of (0, 1] near to 1
AT_ONCE = 3  # iterations
SCALES = ("none", "original", "match_rms_adamw")
MOST_STEPS = 99


class Muon(Optimizer):
    """v ← μv + (1 - μ)g;  u = v, or with Nesterov (1 - μ)g + μv;  w ← w - lr·λw - lr·s·orthogonalize(u).

    params: as of ``SGD``, each with at least two axes; (O, I, KH, KW) is taken as a matrix of O rows. ns_steps: of the
    Newton–Schulz iteration. scale: of the step, s = 1 ("none"), √max(1, O/I) ("original") or 0.2·√max(O, I) ("match_rms_adamw",
    with which learning rates and decays of AdamW can be taken), where O × I is the matrix. normalize: before every step
    w ← w·√O / ‖w‖, which is for filters that a batch norm follows. Raises ConfigError for settings out of range.
    K. Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon); with
    normalize=True and scale="none" the variant of its CIFAR-10 trainings.
    """

    arrays = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.95,
        *,
        weight_decay: float = 0.1,
        nesterov: bool = True,
        ns_steps: int = 5,
        scale: str = "original",
        normalize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {**defaults, "ns_steps": ns_steps, "scale": scale, "normalize": normalize})

    def update(self, group: ParamGroup, params: list[Tensor]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        for p in params:
            v, g = self.array(p, "momentum_buffer"), p.grad_to_read
            assert g is not None
            v += (1 - momentum) * (g - v)
            u = g + momentum * (v - g) if group["nesterov"] else v
            if group["normalize"]:
                p.data *= math.sqrt(len(p.data)) / max(_norm(p.data), 1e-30)
            step = orthogonalize(u, group["ns_steps"])
            step *= lr * _scale(group["scale"], p.shape)
            p.data *= 1 - lr * group["weight_decay"]
            p.data -= step

    def check(self, group: ParamGroup) -> None:
        self.at_least(group, "weight_decay", 0)
        if not 0 <= group["momentum"] < 1:
            raise ConfigError(f"{self.name}: momentum is a number from 0 up and below 1, not {group['momentum']}")
        steps = group["ns_steps"]
        if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= MOST_STEPS:
            raise ConfigError(f"{self.name}: ns_steps is a whole number from 1 to {MOST_STEPS}, not {steps!r}")
        if group["scale"] not in SCALES:
            raise ConfigError(f"{self.name}: scale is one of {', '.join(SCALES)}, not {group['scale']!r}")
        for p in group["params"]:
            if isinstance(p, Tensor) and p.ndim < 2:
                raise ConfigError(
                    f"{self.name}: a parameter of shape {p.shape} is no matrix: give it to another optimizer, such as SGD "
                    "(optim.MultiOptimizer has several)"
                )


def orthogonalize(g: NDArray[Any], steps: int = 5) -> NDArray[Any]:
    """An array (O, …) of the singular vectors of g, as a matrix of O rows, with singular values near 1 (0.7 to 1.2).

    By ``steps`` iterations X ← aX + b(XXᵀ)X + c(XXᵀ)²X from g / ‖g‖. With the longer side of X down, an iteration is X ← XP,
    where P = aI + bG + cG² and G = XᵀX, and it makes G to PGP: so the iterations are of G, which is small, and the product of a
    few is applied to X. (Not of many: rounding errors of G grow by a² in each.) The result has g's memory order, and the same
    bits for any number of threads. Muon, K. Jordan et al. 2024.
    """
    rows = np.moveaxis(g, 0, -1)  # filters are stored with O last: no copy
    x = np.ascontiguousarray(rows.reshape(-1, len(g)))  # (I, O)
    tall = len(x) >= x.shape[1]
    x = x / max(_norm(x), 1e-7) if tall else np.ascontiguousarray(x.T) / max(_norm(x), 1e-7)
    for start in range(0, steps, AT_ONCE):
        x = kernels.matmul(x, _product(kernels.matmul(x.T, x), min(AT_ONCE, steps - start)))
    found = x if tall else x.T
    out = np.empty_like(g)
    np.moveaxis(out, 0, -1)[...] = found.reshape(rows.shape)
    return out


def _product(gram: NDArray[Any], steps: int) -> NDArray[Any]:
    """The product of the P of some iterations, the first of which has this G."""
    product = None
    for step in range(steps):
        p = C * kernels.matmul(gram, gram)
        p += B * gram
        np.fill_diagonal(p, p.diagonal() + A)
        product = p if product is None else kernels.matmul(product, p)
        if step + 1 < steps:
            gram = kernels.matmul(kernels.matmul(p, gram), p)
    assert product is not None
    return product


def _norm(x: NDArray[Any]) -> float:
    """The Euclidean norm, with the same bits whatever the number of BLAS threads."""
    flat = x.ravel(order="K")
    return math.sqrt(float(np.sum(np.square(flat, dtype=np.float64))))


def _scale(name: str, shape: tuple[int, ...]) -> float:
    """The factor on a step for a matrix of shape[0] rows."""
    rows, columns = shape[0], math.prod(shape[1:])
    if name == "original":
        return math.sqrt(max(1.0, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns)) if name == "match_rms_adamw" else 1.0
