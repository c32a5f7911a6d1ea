"""Optimizers and learning-rate schedules."""

from .adamw import AdamW
from .multi import MultiOptimizer
from .muon import Muon, orthogonalize
from .optimizer import Optimizer, split_decay
from .schedules import (
    CosineAnnealingLR,
    ErrorWarmup,
    LinearWarmup,
    LRSchedule,
    MultiStepLR,
    OneCycleLR,
    PiecewiseLinearLR,
)
from .sgd import SGD

__all__ = [
    "SGD",
    "AdamW",
    "CosineAnnealingLR",
    "ErrorWarmup",
    "LRSchedule",
    "LinearWarmup",
    "MultiOptimizer",
    "MultiStepLR",
    "Muon",
    "OneCycleLR",
    "Optimizer",
    "PiecewiseLinearLR",
    "orthogonalize",
    "split_decay",
]
