"""The optimizer and the learning-rate schedule of a recipe."""

from collections.abc import Iterable, Sequence
from typing import Any

from .. import optim
from ..errors import ConfigError
from ..nn import Linear, Module
from ..tensor import Tensor
from .recipe import Recipe

Group = dict[str, Any]


def build_optimizer(recipe: Recipe, model: Module) -> optim.Optimizer:
    """The optimizer of the parameters that are trained. With "muon" it is Muon for filters and SGD for the others.

    Each group's learning rate is ``recipe.lr`` times the factor of its role in ``recipe.lr_factors``. The biases of linear
    layers have the factor of the head, unless there is one of biases. Raises ConfigError for a model without trained
    parameters.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    factors = lr_factors(recipe, model)
    if recipe.optimizer == "adamw":
        return optim.AdamW(_groups(recipe, params, factors), recipe.lr, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return _sgd(recipe, params, factors)
    filters, others = ([p for p in params if (role(p) == "filters") is are] for are in (True, False))
    optimizers: list[optim.Optimizer] = []
    if filters:
        how: dict[str, Any] = {"nesterov": recipe.nesterov, "ns_steps": 3, "scale": "none", "normalize": True}
        groups = [{**group, "weight_decay": 0.0} for group in _groups(recipe, filters, factors)]
        optimizers.append(optim.Muon(groups, recipe.lr, recipe.muon_momentum, **how))
    if others:
        optimizers.append(_sgd(recipe, others, factors))
    return optim.MultiOptimizer(optimizers)


def _sgd(recipe: Recipe, params: Sequence[Tensor], factors: dict[Tensor, float]) -> optim.SGD:
    return optim.SGD(_groups(recipe, params, factors), recipe.lr, recipe.momentum, nesterov=recipe.nesterov)


def role(p: Tensor) -> str:
    """What a parameter is, by its number of axes: "filters", "head" (the weights of linear layers) or "biases"."""
    return "filters" if p.ndim > 2 else "head" if p.ndim == 2 else "biases"


def lr_factors(recipe: Recipe, model: Module) -> dict[Tensor, float]:
    """The factor on the learning rate of each parameter."""
    given = recipe.lr_factors
    factors: dict[Tensor, float] = {p: given.get(role(p), 1.0) for p in model.parameters()}
    if "biases" not in given:
        for layer in model.modules():
            if isinstance(layer, Linear) and layer.bias is not None:
                factors[layer.bias] = given.get("head", 1.0)
    return factors


def _groups(recipe: Recipe, params: Iterable[Tensor], factors: dict[Tensor, float]) -> list[Group]:
    """Parameter groups by weight decay and learning rate; those that decay first.

    Where a learning rate has a factor, the decay is divided by it: a step takes the same part of all weights that decay.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for p in sorted(params, key=lambda p: 0 if recipe.decay_norms else p.ndim <= 1):
        factor, decays = factors[p], recipe.decay_norms or p.ndim > 1
        decay = recipe.weight_decay / factor if decays and factor else 0.0
        groups.setdefault((decay, recipe.lr * factor), []).append(p)
    return [{"params": own, "weight_decay": decay, "lr": lr} for (decay, lr), own in groups.items()]


def build_schedule(recipe: Recipe, optimizer: optim.Optimizer, steps: int) -> optim.LRSchedule:
    """The learning-rate schedule of a run of so many steps; its peak is the learning rate of each of the optimizer's groups.

    Raises ConfigError for a warm-up or milestones that do not end before the run does.
    """
    schedule = _schedule(recipe, optimizer, steps)
    return schedule if recipe.error_warmup is None else optim.ErrorWarmup(schedule, recipe.error_warmup)


def _schedule(recipe: Recipe, optimizer: optim.Optimizer, steps: int) -> optim.LRSchedule:
    """The schedule without the warm-up by training error."""
    warmup, last = min(_position("warmup", recipe.warmup, steps), steps - 1), recipe.final_lr
    schedule: optim.LRSchedule
    match recipe.schedule:
        case "one-cycle":
            part = recipe.warmup if recipe.warmup < 1 else warmup / steps
            return optim.OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], steps, pct_start=part)
        case "linear":  # from step -1, where it is 0, so that the first step moves the weights
            points, factors = ([-1, warmup, steps], [0.0, 1.0, last]) if warmup else ([0, steps], [1.0, last])
            return optim.PiecewiseLinearLR(optimizer, points, factors)
        case "cosine":
            schedule = optim.CosineAnnealingLR(optimizer, steps - warmup)
        case "multi-step":
            milestones = [_position("milestones", m, steps) - warmup for m in recipe.milestones]
            schedule = optim.MultiStepLR(optimizer, milestones, recipe.gamma)
        case "constant":
            schedule = optim.MultiStepLR(optimizer, [])
    return optim.LinearWarmup(schedule, warmup) if warmup else schedule


def _position(name: str, given: float, steps: int) -> int:
    """The step of a point of the schedule that is given as a fraction of the run, or from 1 up as a step."""
    if given < 1:
        return round(given * steps)
    if given >= steps:
        raise ConfigError(
            f"{name} has step {given:g}, and the run ends at step {steps}: give fractions of the run, or a longer run"
        )
    return int(given)
