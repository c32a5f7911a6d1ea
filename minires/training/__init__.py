"""Training: recipes, the trainer, run folders, checkpoints and replay.

>>> from minires.training import Recipe
>>> Recipe.for_dataset("cifar10", epochs=10).model
'resnet20'
"""

from .build import build_trainer, evaluation_loader, load_data
from .checkpoint import Checkpoint
from .curves import draw_curves
from .freezing import freeze
from .metrics import Confusion, Mean, read_metrics
from .prediction import Prediction, classify
from .recipe import Recipe, named_recipes
from .replay import replay
from .resume import Resumed
from .run import Recorder, RunFolder, load_run
from .trainer import Callback, Trainer, evaluate

__all__ = [
    "Callback",
    "Checkpoint",
    "Confusion",
    "Mean",
    "Prediction",
    "Recipe",
    "Recorder",
    "Resumed",
    "RunFolder",
    "Trainer",
    "build_trainer",
    "classify",
    "draw_curves",
    "evaluate",
    "evaluation_loader",
    "freeze",
    "load_data",
    "load_run",
    "named_recipes",
    "read_metrics",
    "replay",
]
