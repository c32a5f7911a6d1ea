"""Optimizers and learning-rate schedules."""

from .schedules import (
    CosineAnnealingLR,
    ErrorWarmup,
    LinearWarmup,
    LRSchedule,
    MultiStepLR,
    OneCycleLR,
    PiecewiseLinearLR,
)
from .sgd import SGD, split_decay

__all__ = [
    "SGD",
    "CosineAnnealingLR",
    "ErrorWarmup",
    "LRSchedule",
    "LinearWarmup",
    "MultiStepLR",
    "OneCycleLR",
    "PiecewiseLinearLR",
    "split_decay",
]
