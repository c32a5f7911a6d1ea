"""Several optimizers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from .optimizer import Optimizer, ParamGroup


class MultiOptimizer(Optimizer):
    """Several optimizers, each with parameters of its own, that step together: Muon for filters, SGD for the rest.

    Its parameter groups are theirs, in order, and so schedules and state dicts are as of one optimizer. Raises ConfigError for
    no optimizers, and for a parameter that two of them have.

        MultiOptimizer([Muon(filters, lr=0.24), SGD(others, lr=0.1, momentum=0.9)])
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        if not optimizers:
            raise ConfigError("MultiOptimizer: there are no optimizers")
        self.optimizers = list(optimizers)
        known: set[Any] = set()
        for p in self.parameters():
            if p in known:
                raise ConfigError(
                    f"MultiOptimizer: a parameter of shape {p.shape} is given to two optimizers, or twice"
                )
            known.add(p)

    @property
    def param_groups(self) -> list[ParamGroup]:  # type: ignore[override]
        """The groups of all optimizers, in their order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def add_param_group(self, group: ParamGroup) -> None:
        """Refused: add it to one of ``optimizers``."""
        raise ConfigError("MultiOptimizer: add a parameter group to one of its optimizers")

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.check_gradients()  # of all, before one has changed anything
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """As of one optimizer with all the groups."""
        state: dict[int, Any] = {}
        groups: list[ParamGroup] = []
        start = 0
        for optimizer in self.optimizers:
            own = optimizer.state_dict()
            state |= {start + i: entry for i, entry in own["state"].items()}
            groups += [{**group, "params": [start + i for i in group["params"]]} for group in own["param_groups"]]
            start += len(list(optimizer.parameters()))
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        counts = [len(optimizer.param_groups) for optimizer in self.optimizers]
        if len(state["param_groups"]) != sum(counts):
            raise ConfigError(
                f"MultiOptimizer.load_state_dict: the state has {len(state['param_groups'])} groups of parameters, and the "
                f"optimizers have {counts}"
            )
        start, found, groups = 0, [], list(state["param_groups"])
        total = len(list(self.parameters()))
        for i in state["state"]:
            if not 0 <= int(i) < total:
                raise ConfigError(
                    f"MultiOptimizer.load_state_dict: a state of parameter {i}, and there are {total} parameters"
                )
        for optimizer, count in zip(self.optimizers, counts):
            size = len(list(optimizer.parameters()))
            own = {int(i) - start: entry for i, entry in state["state"].items() if start <= int(i) < start + size}
            found.append(optimizer.checked_state({"state": own, "param_groups": groups[:count]}))
            start, groups = start + size, groups[count:]
        for optimizer, checked in zip(self.optimizers, found):  # when all of them fit
            optimizer.take_over(*checked)
