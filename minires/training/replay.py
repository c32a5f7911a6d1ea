"""Batches that gave a NaN or an Inf: found out, kept in ``anomaly.safetensors``, and done again."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .. import random
from ..anomaly import all_finite, detect_anomaly, span
from ..errors import AnomalyError, ConfigError, DataError
from ..functional import cross_entropy
from ..tensor import Tensor, no_grad
from .checkpoint import Checkpoint
from .recipe import Recipe

NAME = "anomaly.safetensors"


@dataclass(eq=False)
class Batch:
    """All that a forward and a backward pass depend on, beside the model."""

    images: np.ndarray  # (N, C, H, W), normalised and augmented
    labels: np.ndarray  # (N,)
    random: dict  # the state of the generator behind dropout, before the pass
    label_smoothing: float = 0.0
    training: bool = True  # with a backward pass, or an evaluation


class Trace(detect_anomaly):
    """A detect_anomaly that keeps what every operation did, in order, as ``Step``s in ``steps``."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def forward(self, op, inputs, y):
        self.steps.append(Step("forward", op.name, self._path(), span(y.data)))
        super().forward(op, inputs, y)

    def backward(self, op, dy, gradients):
        largest = max((dx for dx in gradients if dx is not None), key=_weight, default=dy)
        self.steps.append(Step("backward", op.name, vars(op).get("place", ("",))[0], span(largest)))
        super().backward(op, dy, gradients)


@dataclass
class Step:
    """What an operation made: shape and range of its output, or of the largest of the gradients that it gave."""

    phase: str  # "forward" or "backward"
    op: str
    path: str  # of its module
    made: str


def _weight(array):
    """For the gradient that is worst: one that is not finite, else the largest."""
    return np.inf if not all_finite(array) else float(abs(array).max(initial=0))


def diagnose(model, batch, watch=None):
    """Run a batch through the model, watched: the AnomalyError that it comes to, or None. No weight changes.

    watch: the detect_anomaly that watches, such as a Trace.
    """
    modes = [(module, module.training) for module in model.modules()]
    dice = random.generator().bit_generator.state
    random.generator().bit_generator.state = batch.random
    if not batch.training:
        model.eval()
    try:
        with watch or detect_anomaly(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if batch.training:
                model.zero_grad()
                cross_entropy(
                    model(Tensor(batch.images)), batch.labels, label_smoothing=batch.label_smoothing
                ).backward()
            else:
                with no_grad():
                    cross_entropy(model(Tensor(batch.images)), batch.labels)
    except AnomalyError as error:
        return error
    finally:
        random.generator().bit_generator.state = dice
        for module, training in modes:
            module.training = training


def save_anomaly(path, model, batch, info):
    """Write the batch and the model to a file that ``replay`` reads. info: as in a Checkpoint."""
    Checkpoint(model.state_dict(), info=info, batch=asdict(batch)).save(path)


def load_anomaly(path):
    """(recipe, model, Batch, info) of an ``anomaly.safetensors``, or of a run's folder with one.

    The weights are those from before the step. Raises ConfigError or DataError when there is no batch.
    """
    from .build import build_model

    path = Path(path)
    if path.is_dir():
        if not (path / NAME).is_file():
            raise ConfigError(
                f"{path} holds no {NAME}: only a run that a NaN or Inf has ended leaves a batch to replay"
            )
        path = path / NAME
    elif not path.exists():
        raise ConfigError(f"there is no run {path}: give the folder of one that a NaN or Inf has ended")
    checkpoint = Checkpoint.load(path)
    if not checkpoint.batch:
        raise DataError(f"{path} holds no batch to replay: give the anomaly.safetensors of a run, or the run's folder")
    recipe = Recipe.from_settings(checkpoint.info["recipe"], path)
    model = build_model(recipe, checkpoint.info["num_classes"])
    model.load_state_dict(checkpoint.model)
    return recipe, model, Batch(**checkpoint.batch), checkpoint.info


def replay(path):
    """Do the step of an ``anomaly.safetensors`` again: raises the AnomalyError of then, for a debugger to look around.

    The command `minires replay` tells about it instead.

    >>> replay("runs/resnet8-shapes-1")                                  # doctest: +SKIP
    Traceback (most recent call last):
    minires.errors.AnomalyError: forward of conv2d in layer1.0.conv1: 12 NaN in the output (128, 16, 32, 32); …
    """
    recipe, model, batch, _ = load_anomaly(path)
    with recipe.switches():
        found = diagnose(model, batch)
    if found is not None:
        raise found
