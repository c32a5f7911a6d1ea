"""What all optimizers share: parameter groups with settings of their own, and a state that can be saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DtypeError, ShapeError, nearest
from ..tensor import Tensor

if TYPE_CHECKING:
    from ..nn import Module

ParamGroup = dict[str, Any]  # {"params": [tensors], "lr": …}
Params = Iterable[Tensor] | Iterable[ParamGroup] | ParamGroup


class Optimizer:
    """Base class: parameter groups, their settings, and the state of every parameter.

    Subclasses define ``arrays``, the names of the arrays that they keep for a parameter, each of its shape and dtype;
    ``counts``, those of whole numbers; ``update`` and, for settings of their own, ``check``.
    """

    arrays: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self.state: dict[Tensor, dict[str, Any]] = {}  # arrays are in the parameter's memory order
        given: list[Any] = [params] if isinstance(params, dict) else list(params)
        if not given:
            raise ConfigError(f"{self.name}: there are no parameters to optimise")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    @property
    def name(self) -> str:
        return type(self).__name__

    def update(self, group: ParamGroup, params: list[Tensor]) -> None:
        """Update parameters of a group, which have gradients, in place."""
        raise NotImplementedError

    def check(self, group: ParamGroup) -> None:
        """Raise ConfigError for settings of a complete group that cannot be."""

    def at_least(self, group: ParamGroup, name: str, least: float) -> None:
        """Raise ConfigError unless a setting is a number from ``least`` up."""
        if not group[name] >= least:
            raise ConfigError(f"{self.name}: {name} must be {least} or more, not {group[name]}")

    def add_param_group(self, group: ParamGroup) -> None:
        """Add a parameter group; settings that it lacks are the defaults. Raises ConfigError as the constructor does."""
        group = {**self.defaults, **group}
        if "params" not in group:
            raise ConfigError(f"{self.name}: a parameter group without 'params', the list of its parameters")
        params = group["params"]
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        self._check(group)
        known = set(self.parameters())
        for p in group["params"]:
            if p in known:
                raise ConfigError(
                    f"{self.name}: a parameter of shape {p.shape} is given twice; each may be in one group only"
                )
            known.add(p)
        self.param_groups.append(group)

    def parameters(self) -> Iterator[Tensor]:
        """All parameters, in the order of the groups."""
        return (p for group in self.param_groups for p in group["params"])

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for p in self.parameters():
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Raises ShapeError or DtypeError for a gradient of another shape or dtype than its parameter's; then nothing has changed.
        """
        self.check_gradients()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad_to_read is not None]
            self.update(group, params)
            for p in params:
                p.count_change()

    def array(self, p: Tensor, name: str) -> NDArray[Any]:
        """An array of a parameter's state: zeros before the first step."""
        entry = self.state.setdefault(p, {})
        if name not in entry:
            entry[name] = np.zeros_like(p.data)
        return entry[name]

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {i: {"momentum_buffer": v}}, "param_groups": [{"lr": …, "params": [i, …]}, …]}``, as in PyTorch.

        i counts the parameters in the order of the groups. The arrays are not copies.
        """
        index = {p: i for i, p in enumerate(self.parameters())}
        state = {i: dict(self.state[p]) for p, i in index.items() if p in self.state}
        groups = [{**group, "params": [index[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the settings and the state that ``state_dict`` returned for the same parameters in the same groups.

        Arrays are copied. Raises ConfigError when the groups differ in number, size or settings, ShapeError or DtypeError when
        an array does not have its parameter's shape or is not numeric; then nothing has changed.
        """
        self.take_over(*self.checked_state(state))

    def checked_state(self, state: dict[str, Any]) -> tuple[dict[Tensor, dict[str, Any]], list[ParamGroup]]:
        """(the state by parameter, the groups) of a state dict, as copies. Raises what ``load_state_dict`` raises."""
        sizes = [len(group["params"]) for group in self.param_groups]
        saved = [len(group["params"]) for group in state["param_groups"]]
        if sizes != saved:
            raise ConfigError(
                f"{self.name}.load_state_dict: the state has groups of {saved} parameters, and this optimizer has {sizes}: "
                "build it with the groups that the state was saved from"
            )
        params, loaded = list(self.parameters()), {}
        for i, entry in state["state"].items():
            if not 0 <= int(i) < len(params):
                raise ConfigError(
                    f"{self.name}.load_state_dict: a state of parameter {i}, and there are {len(params)} parameters"
                )
            loaded[params[int(i)]] = self._entry(params[int(i)], entry, i)
        groups = [{**new, "params": old["params"]} for new, old in zip(state["param_groups"], self.param_groups)]
        for group in groups:
            for setting in self.defaults:
                if setting not in group:
                    raise ConfigError(f"{self.name}.load_state_dict: a parameter group without {setting!r}")
            self._check(group)
        return {p: entry for p, entry in loaded.items() if entry}, groups

    def take_over(self, state: dict[Tensor, dict[str, Any]], groups: list[ParamGroup]) -> None:
        """Go on from what ``checked_state`` returned."""
        self.state = state
        for old, new in zip(self.param_groups, groups):
            old.update(new)

    def _entry(self, p: Tensor, entry: dict[str, Any], i: Any) -> dict[str, Any]:
        """A copy of the saved state of the i-th parameter p."""
        copy: dict[str, Any] = {}
        for name, value in entry.items():
            if name not in (*self.arrays, *self.counts):
                raise ConfigError(f"{self.name}.load_state_dict: {name!r} of parameter {i} is of another optimizer")
            if value is None:  # PyTorch saves None, or nothing, for a velocity where there is no momentum
                continue
            if name in self.counts:
                copy[name] = int(value)
                continue
            copy[name] = np.empty_like(p.data)
            copy[name][...] = self._fitting(p, np.asarray(value), name, i)
        return copy

    def _fitting(self, p: Tensor, array: NDArray[Any], name: str, i: Any) -> NDArray[Any]:
        """The array. Raises ShapeError or DtypeError unless it fits the i-th parameter p."""
        if array.shape != p.shape:
            raise ShapeError(
                f"{self.name}.load_state_dict: {name} of shape {array.shape} for parameter {i} of shape {p.shape}"
            )
        if array.dtype.kind not in "fiu":
            raise DtypeError(
                f"{self.name}.load_state_dict: {name} of parameter {i} is of dtype {array.dtype}; it must be an array "
                "of numbers"
            )
        return array

    def check_gradients(self) -> None:
        """Raise ShapeError or DtypeError for a gradient that does not fit its parameter."""
        for i, p in enumerate(self.parameters()):
            grad = p.grad_to_read
            if grad is None or (grad.shape == p.shape and grad.dtype == p.dtype):
                continue
            error = ShapeError if grad.shape != p.shape else DtypeError
            raise error(
                f"{self.name}.step: the gradient of parameter {i} is {grad.dtype} of shape {grad.shape}, and the parameter "
                f"{p.dtype} of shape {p.shape}: call zero_grad() and backward() again, or assign a gradient that fits"
            )

    def _check(self, group: ParamGroup) -> None:
        known = {*self.defaults, "params", "initial_lr"}  # schedules add initial_lr
        for name in group:
            if name not in known:
                raise ConfigError(
                    f"{self.name}: unknown setting {name!r}{nearest(name, known)} of a parameter group; there are "
                    f"{', '.join(self.defaults)}"
                )
        self.at_least(group, "lr", 0)
        self.check(group)
        for p in group["params"]:
            if not isinstance(p, Tensor) or p.op is not None:
                raise ConfigError(
                    f"{self.name}: optimises leaf tensors, such as model.parameters(), not {type(p).__name__}"
                )


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
