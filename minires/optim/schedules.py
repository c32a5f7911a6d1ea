"""Learning-rate schedules, each a formula in the step number.

The caller of ``step()`` decides whether a step is an iteration or an epoch. The learning rate is a function of the position
alone: a schedule resumes from one number, ``lr_at(t)`` can be plotted in advance, and schedules can be composed.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError
from .optimizer import Optimizer


class LRSchedule:
    """Base class: sets ``group["lr"]`` of an optimizer's groups to ``formula(t, lr₀)``, where lr₀ is the group's initial lr.

    Subclasses define the formula. ``step()`` goes from position t to t + 1.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.position = 0
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._set_lrs()

    def formula(self, t: float, base: float) -> float:
        """The learning rate at position t of a group with the initial learning rate ``base``."""
        raise NotImplementedError

    def lr_at(self, t: float, group: int = 0) -> float:
        """The learning rate of a parameter group at any position t."""
        return float(self.formula(t, self.base_lrs[group]))

    def get_last_lr(self) -> list[float]:
        """The present learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self, error: float | None = None) -> None:
        """Go to the next position and set the learning rates. error: of the step's training images, for ``ErrorWarmup``."""
        self.position += 1
        self._set_lrs()

    def _set_lrs(self) -> None:
        groups = len(self.optimizer.param_groups)
        if groups != len(self.base_lrs):
            raise ConfigError(
                f"{type(self).__name__}: the optimizer has {groups} parameter groups, and had {len(self.base_lrs)} when this "
                "schedule was made: add groups first"
            )
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.lr_at(self.position, i)

    def state_dict(self) -> dict[str, Any]:
        """The position and the initial learning rates, as plain values."""
        return {"position": self.position, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position of a saved state and set its learning rates.

        Raises ConfigError when the number of parameter groups differs.
        """
        if len(state["base_lrs"]) != len(self.base_lrs):
            raise ConfigError(
                f"{type(self).__name__}.load_state_dict: the state is of {len(state['base_lrs'])} parameter groups, and "
                f"the optimizer has {len(self.base_lrs)}"
            )
        self.position, self.base_lrs = int(state["position"]), list(state["base_lrs"])
        self._set_lrs()


class MultiStepLR(LRSchedule):
    """lr₀ · γᵏ, where k is the number of milestones reached. Raises ConfigError when γᵏ is too large for a float."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[float], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        try:
            float(gamma) ** len(self.milestones)
        except OverflowError:
            raise ConfigError(
                f"MultiStepLR: gamma = {gamma} to the power of {len(self.milestones)}, the number of milestones, is too large "
                "for a float: choose a smaller gamma, such as 0.1"
            ) from None
        super().__init__(optimizer)

    def formula(self, t: float, base: float) -> float:
        return base * self.gamma ** bisect_right(self.milestones, t)


class CosineAnnealingLR(LRSchedule):
    """η + (lr₀ - η)(1 + cos(πt/T))/2, from lr₀ to η = eta_min in T = T_max steps.

    "SGDR", Loshchilov & Hutter 2017, eq. 5. Raises ConfigError unless T_max > 0.
    """

    def __init__(self, optimizer: Optimizer, T_max: float, eta_min: float = 0.0) -> None:
        _check_positive("CosineAnnealingLR", "T_max", T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def formula(self, t: float, base: float) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * t / self.T_max)) / 2


class OneCycleLR(LRSchedule):
    """From max_lr / div_factor up to max_lr, then down to the final value in total_steps, and constant from there on.

    pct_start is the fraction of the steps that go up. The final value is max_lr / div_factor / final_div_factor, reached at
    position total_steps - 1. Both parts are cosines, or straight lines with anneal_strategy="linear". Equals PyTorch's with
    cycle_momentum=False. max_lr may be a list with one value for each group. Raises ConfigError for settings out of range.
    "Super-Convergence", Smith & Topin 2017.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ConfigError(f"OneCycleLR: anneal_strategy is 'cos' or 'linear', not {anneal_strategy!r}")
        if not 0 <= pct_start <= 1:
            raise ConfigError(f"OneCycleLR: pct_start is a part of the cycle from 0 to 1, not {pct_start}")
        groups = optimizer.param_groups
        peaks = list(max_lr) if isinstance(max_lr, Sequence) else [max_lr] * len(groups)
        if len(peaks) != len(groups):
            raise ConfigError(f"OneCycleLR: {len(peaks)} values of max_lr for {len(groups)} parameter groups")
        _check_positive("OneCycleLR", "total_steps", total_steps)
        self.total_steps = total_steps
        self.peak = pct_start * total_steps - 1  # its position
        self.anneal_strategy, self.div_factor, self.final_div_factor = anneal_strategy, div_factor, final_div_factor
        for group, peak in zip(groups, peaks):
            group["initial_lr"] = peak / div_factor
        super().__init__(optimizer)

    def formula(self, t: float, base: float) -> float:
        highest, final, down = base * self.div_factor, base / self.final_div_factor, self.total_steps - 1 - self.peak
        if t <= self.peak:
            return self._anneal(base, highest, t / self.peak if self.peak else 1.0)
        return self._anneal(highest, final, min((t - self.peak) / down, 1.0) if down else 1.0)

    def _anneal(self, start: float, end: float, fraction: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * fraction
        return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


class PiecewiseLinearLR(LRSchedule):
    """lr₀ times a piecewise linear factor: factors[i] at position milestones[i], constant before the first and after the last.

    ``PiecewiseLinearLR(opt, [0, 5, 24], [0, 1, 0])`` goes up to the optimizer's lr in 5 steps and down to 0 at the 24th.
    Raises ConfigError unless the milestones rise and each has a factor.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[float], factors: Sequence[float]) -> None:
        self.milestones, self.factors = list(milestones), list(factors)
        if len(self.milestones) != len(self.factors) or not self.milestones:
            raise ConfigError(
                f"PiecewiseLinearLR: one factor a milestone, not {len(self.factors)} for {len(self.milestones)}"
            )
        if not all(a < b for a, b in pairwise(self.milestones)):
            raise ConfigError(f"PiecewiseLinearLR: milestones must rise, not {self.milestones}")
        super().__init__(optimizer)

    def formula(self, t: float, base: float) -> float:
        return base * float(np.interp(t, self.milestones, self.factors))


class LinearWarmup(LRSchedule):
    """Another schedule, delayed by ``steps`` steps in which lr rises linearly to the value that the schedule begins with.

    The rise starts at start_factor times that value. Call ``step()`` of this schedule, not of the inner one. Raises
    ConfigError for a negative number of steps. "Accurate, Large Minibatch SGD", Goyal et al. 2017, §2.2.

        schedule = LinearWarmup(CosineAnnealingLR(opt, T_max=95), steps=5)
    """

    def __init__(self, schedule: LRSchedule, steps: int, start_factor: float = 0.1) -> None:
        self.schedule, self.steps, self.start_factor = schedule, steps, start_factor
        if steps < 0:
            raise ConfigError(f"LinearWarmup: steps must be 0 or more, not {steps}")
        _check_inner("LinearWarmup", schedule)
        super().__init__(schedule.optimizer)

    def formula(self, t: float, base: float) -> float:
        if t >= self.steps:
            return self.schedule.formula(t - self.steps, base)
        factor = self.start_factor + (1 - self.start_factor) * t / self.steps
        return factor * self.schedule.formula(0, base)


class ErrorWarmup(LRSchedule):
    """Another schedule, times a factor until the network has begun to learn.

    That is when the mean training error of the last ``window`` steps is below ``error``, a fraction of the images; from then on
    it is the schedule, at its present position. Call ``step(error)`` of this schedule, with the error of the step's images.
    Raises ConfigError for settings out of range. He et al. 2015, §4.2, of the network with 110 layers:
    "we use 0.01 to warm up the training until the training error is below 80% …, and then go back to 0.1".

        schedule = ErrorWarmup(MultiStepLR(opt, [32_000, 48_000]), factor=0.1)
    """

    def __init__(self, schedule: LRSchedule, factor: float, error: float = 0.8, window: int = 50) -> None:
        _check_positive("ErrorWarmup", "factor", factor)
        _check_positive("ErrorWarmup", "window", window)
        if not 0 < error <= 1:
            raise ConfigError(f"ErrorWarmup: error is a fraction of the images above 0 and up to 1, not {error}")
        _check_inner("ErrorWarmup", schedule)
        self.schedule, self.factor, self.error, self.window = schedule, factor, error, window
        self.recent: list[float] = []  # errors of the last steps
        self.warm = False  # whether the factor is a thing of the past
        super().__init__(schedule.optimizer)

    def step(self, error: float | None = None) -> None:
        if not self.warm:
            if error is None:
                raise ConfigError("ErrorWarmup.step takes the training error of the step, a fraction of its images")
            self.recent = [*self.recent, float(error)][-self.window :]
            self.warm = len(self.recent) == self.window and sum(self.recent) / self.window < self.error
        super().step(error)

    def formula(self, t: float, base: float) -> float:
        return self.schedule.formula(t, base) * (1 if self.warm else self.factor)

    def state_dict(self) -> dict[str, Any]:
        """The position, the initial learning rates, and what tells whether the network has begun to learn."""
        return {**super().state_dict(), "warm": self.warm, "recent": [] if self.warm else list(self.recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "warm" not in state:
            raise ConfigError("ErrorWarmup.load_state_dict: the state is that of another schedule")
        self.warm, self.recent = bool(state["warm"]), list(state["recent"])
        super().load_state_dict(state)


def _check_inner(where: str, schedule: LRSchedule) -> None:
    """Raise ConfigError for a schedule that learns of errors in its own step(), which nobody would call."""
    if isinstance(schedule, ErrorWarmup):
        raise ConfigError(f"{where} of an ErrorWarmup would not tell it the errors: put the ErrorWarmup outside")


def _check_positive(where: str, name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{where}: {name} must be above 0, not {value}")
