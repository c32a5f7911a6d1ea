"""Adam with decoupled weight decay."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ConfigError
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup, Params


class AdamW(Optimizer):
    """w ← w - lr·(λw + m̂ / (√v̂ + ε)), with the means m ← β₁m + (1 - β₁)g and v ← β₂v + (1 - β₂)g², without bias.

    m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) in step t. params: as of ``SGD``. Raises ConfigError for settings out of range.
    "Decoupled Weight Decay Regularization", Loshchilov & Hutter 2019, Algorithm 2.
    """

    arrays = ("exp_avg", "exp_avg_sq")  # m and v, as PyTorch calls them
    counts = ("step",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        *,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(self, group: ParamGroup, params: list[Tensor]) -> None:
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
        for p in params:
            m, v, g = self.array(p, "exp_avg"), self.array(p, "exp_avg_sq"), p.grad_to_read
            assert g is not None
            t = self.state[p]["step"] = self.state[p].get("step", 0) + 1
            p.data *= 1 - lr * group["weight_decay"]
            m += (1 - beta1) * (g - m)
            v *= beta2
            v += (1 - beta2) * (g * g)
            step = np.sqrt(v, out=np.empty_like(v))  # an array, of 0-d ones too
            step /= math.sqrt(1 - beta2**t)
            step += eps
            np.divide(m, step, out=step)
            step *= lr / (1 - beta1**t)
            p.data -= step

    def check(self, group: ParamGroup) -> None:
        self.at_least(group, "eps", 0)
        self.at_least(group, "weight_decay", 0)
        betas = group["betas"] = tuple(group["betas"])
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"{self.name}: betas are two numbers from 0 up and below 1, not {betas}")
