"""Stochastic gradient descent with momentum, Nesterov momentum, weight decay and parameter groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import ConfigError, DtypeError, ShapeError, nearest
from ..tensor import Tensor

if TYPE_CHECKING:
    from ..nn import Module

ParamGroup = dict[str, Any]  # {"params": [tensors], "lr": …}


class SGD:
    """g = dw + λw;  v ← μv + g;  w ← w - lr·v, or with Nesterov w ← w - lr·(g + μv). As in PyTorch, v does not contain lr.

    params: tensors, or parameter groups such as ``{"params": [...], "weight_decay": 0}``, whose settings override the
    defaults. Parameters without a gradient are skipped. Raises ConfigError for settings out of range.
    "On the importance of initialization and momentum in deep learning", Sutskever et al. 2013.

    >>> w = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    >>> opt = SGD([w], lr=0.5)
    >>> w.grad = np.array([1.0, -2.0])
    >>> opt.step()
    >>> w.data
    array([0.5, 3. ])
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[ParamGroup] | ParamGroup,
        lr: float,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        self.param_groups: list[ParamGroup] = []
        self.velocity: dict[Tensor, NDArray] = {}  # parameter -> v, an ndarray in the parameter's memory order
        given: list[Any] = [params] if isinstance(params, dict) else list(params)
        if not given:
            raise ConfigError("SGD: there are no parameters to optimise")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, group: ParamGroup) -> None:
        """Add a parameter group; settings that it lacks are the defaults. Raises ConfigError as the constructor does."""
        group = {**self.defaults, **group}
        params = group["params"]
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        _check(group, self.defaults)
        known = set(self._params())
        for p in group["params"]:
            if p in known:
                raise ConfigError(f"SGD: a parameter of shape {p.shape} is given twice; each may be in one group only")
            known.add(p)
        self.param_groups.append(group)

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Raises ShapeError or DtypeError for a gradient of another shape or dtype than its parameter's; then nothing has changed.
        """
        self._check_gradients()
        for group in self.param_groups:
            lr, momentum = float(group["lr"]), float(group["momentum"])
            params = [p for p in group["params"] if p.grad_to_read is not None]
            by_dtype: dict[Any, list[Tensor]] = {}
            for p in params:
                by_dtype.setdefault(p.dtype, []).append(p)
            for alike in by_dtype.values():
                arrays, grads = [p.data for p in alike], [p.grad_to_read for p in alike]
                velocities = [self._velocity(p) for p in alike] if momentum else None
                settings = lr, momentum, float(group["weight_decay"]), bool(group["nesterov"])
                kernels.sgd_step(arrays, grads, velocities, *settings)
            for p in params:
                p.count_change()

    def _velocity(self, p: Tensor) -> NDArray:
        v = self.velocity.get(p)
        if v is None:  # with v = 0 the first step gives v = g, as in PyTorch
            v = self.velocity[p] = np.zeros_like(p.data)
        return v

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _check_gradients(self) -> None:
        for i, p in enumerate(self._params()):
            grad = p.grad_to_read
            if grad is None or (grad.shape == p.shape and grad.dtype == p.dtype):
                continue
            error = ShapeError if grad.shape != p.shape else DtypeError
            raise error(
                f"SGD.step: the gradient of parameter {i} is {grad.dtype} of shape {grad.shape}, and the parameter "
                f"{p.dtype} of shape {p.shape}: call zero_grad() and backward() again, or assign a gradient that fits"
            )

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {i: {"momentum_buffer": v}}, "param_groups": [{"lr": …, "params": [i, …]}, …]}``, as in PyTorch.

        i counts the parameters in the order of the groups. The arrays are not copies.
        """
        params = self._params()
        index = {p: i for i, p in enumerate(params)}
        state = {i: {"momentum_buffer": self.velocity[p]} for i, p in enumerate(params) if p in self.velocity}
        groups = [{**group, "params": [index[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the settings and velocities that ``state_dict`` returned for the same parameters in the same groups.

        Velocities are copied. Raises ConfigError when the groups differ in number or size, ShapeError or DtypeError when a
        velocity does not have its parameter's shape or is not numeric; then nothing has changed.
        """
        sizes = [len(group["params"]) for group in self.param_groups]
        saved = [len(group["params"]) for group in state["param_groups"]]
        if sizes != saved:
            raise ConfigError(
                f"SGD.load_state_dict: the state has groups of {saved} parameters, and this optimizer has {sizes}: "
                "build it with the groups that the state was saved from"
            )
        params, velocity = self._params(), {}
        for i, entry in state["state"].items():
            if not 0 <= int(i) < len(params):
                raise ConfigError(f"SGD.load_state_dict: a velocity for parameter {i}, and there are {len(params)}")
            if entry.get("momentum_buffer") is not None:  # PyTorch saves None, or nothing, where there is no momentum
                p = params[int(i)]
                velocity[p] = _velocity_like(p, np.asarray(entry["momentum_buffer"]), i)
        groups = [{**new, "params": old["params"]} for new, old in zip(state["param_groups"], self.param_groups)]
        for group in groups:
            _check(group, self.defaults)
        self.velocity = velocity
        for old, new in zip(self.param_groups, groups):
            old.update(new)


def _velocity_like(p: Tensor, v: NDArray, i: Any) -> NDArray:
    """A copy of the velocity v of the i-th parameter p, in p's dtype and memory order."""
    if v.shape != p.shape:
        raise ShapeError(f"SGD.load_state_dict: velocity of shape {v.shape} for parameter {i} of shape {p.shape}")
    if v.dtype.kind not in "fiu":
        raise DtypeError(
            f"SGD.load_state_dict: the velocity of parameter {i} is of dtype {v.dtype}; it must be an array of numbers"
        )
    copy = np.empty_like(p.data)
    copy[...] = v
    return copy


def _check(group: ParamGroup, defaults: dict[str, Any]) -> None:
    known = {*defaults, "params", "initial_lr"}  # schedules add initial_lr
    for name in group:
        if name not in known:
            raise ConfigError(f"SGD: unknown setting {name!r}{nearest(name, known)} of a parameter group")
    for name, least in (("lr", 0), ("momentum", 0), ("weight_decay", 0)):
        if not group[name] >= least:
            raise ConfigError(f"SGD: {name} must be {least} or more, not {group[name]}")
    if group["nesterov"] and not group["momentum"]:
        raise ConfigError("SGD: nesterov needs a momentum above 0: give one, or leave nesterov off")
    for p in group["params"]:
        if not isinstance(p, Tensor) or p.op is not None:
            raise ConfigError(f"SGD: optimises leaf tensors, such as model.parameters(), not {type(p).__name__}")


def split_decay(model: Module, weight_decay: float) -> list[ParamGroup]:
    """Two parameter groups: weights of convolutions and linear layers decay, weights of norms and all biases do not.

    Parameters with more than one dimension decay. A vector with one number for each channel only scales or shifts, and
    its decay does not regularise ("Bag of Tricks for Image Classification", He et al. 2018, §3.1).

        SGD(split_decay(model, 5e-4), lr=0.1, momentum=0.9)
    """
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
