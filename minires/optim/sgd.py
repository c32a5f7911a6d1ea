"""Stochastic gradient descent with momentum, Nesterov momentum, weight decay and parameter groups."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..errors import ConfigError
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup, Params


class SGD(Optimizer):
    """g = dw + λw;  v ← μv + g;  w ← w - lr·v, or with Nesterov w ← w - lr·(g + μv). As in PyTorch, v does not contain lr.

    params: tensors, or parameter groups such as ``{"params": [...], "weight_decay": 0}``, whose settings override the
    defaults. Parameters without a gradient are skipped. Raises ConfigError for settings out of range.
    "On the importance of initialization and momentum in deep learning", Sutskever et al. 2013.

    >>> import numpy as np
    >>> w = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    >>> opt = SGD([w], lr=0.5)
    >>> w.grad = np.array([1.0, -2.0])
    >>> opt.step()
    >>> w.data
    array([0.5, 3. ])
    """

    arrays = ("momentum_buffer",)  # v; with v = 0 the first step gives v = g, as in PyTorch

    def __init__(
        self,
        params: Params,
        lr: float,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov})

    def update(self, group: ParamGroup, params: list[Tensor]) -> None:
        lr, momentum = float(group["lr"]), float(group["momentum"])
        by_dtype: dict[Any, list[Tensor]] = {}
        for p in params:
            by_dtype.setdefault(p.dtype, []).append(p)
        for alike in by_dtype.values():
            arrays, grads = [p.data for p in alike], [p.grad_to_read for p in alike]
            velocities = [self.array(p, "momentum_buffer") for p in alike] if momentum else None
            settings = lr, momentum, float(group["weight_decay"]), bool(group["nesterov"])
            kernels.sgd_step(arrays, grads, velocities, *settings)

    def check(self, group: ParamGroup) -> None:
        self.at_least(group, "momentum", 0)
        self.at_least(group, "weight_decay", 0)
        if group["nesterov"] and not group["momentum"]:
            raise ConfigError(f"{self.name}: nesterov needs a momentum above 0: give one, or leave nesterov off")
