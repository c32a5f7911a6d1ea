"""Batches that gave a NaN or an Inf: found out, kept in ``anomaly.safetensors``, and done again."""

from dataclasses import asdict, dataclass

import numpy as np

from .. import random
from ..anomaly import detect_anomaly
from ..errors import AnomalyError, DataError
from ..functional import cross_entropy
from ..tensor import Tensor, no_grad
from .checkpoint import Checkpoint
from .recipe import Recipe


@dataclass(eq=False)
class Batch:
    """All that a forward and a backward pass depend on, beside the model."""

    images: np.ndarray  # (N, C, H, W), normalised and augmented
    labels: np.ndarray  # (N,)
    random: dict  # the state of the generator behind dropout, before the pass
    label_smoothing: float = 0.0
    training: bool = True  # with a backward pass, or an evaluation


def diagnose(model, batch):
    """Run a batch through the model, watched: the AnomalyError that it comes to, or None. No weight changes."""
    modes = [(module, module.training) for module in model.modules()]
    dice = random.generator().bit_generator.state
    random.generator().bit_generator.state = batch.random
    if not batch.training:
        model.eval()
    try:
        with detect_anomaly(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
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
    """(model, Batch, info) of an ``anomaly.safetensors``. The weights are those from before the step."""
    from .build import build_model

    checkpoint = Checkpoint.load(path)
    if not checkpoint.batch:
        raise DataError(f"{path} is a checkpoint and holds no batch to replay: give the anomaly.safetensors of a run")
    recipe = Recipe.from_settings(checkpoint.info["recipe"], path)
    model = build_model(recipe, checkpoint.info["num_classes"])
    model.load_state_dict(checkpoint.model)
    return model, Batch(**checkpoint.batch), checkpoint.info


def replay(path):
    """Do the step of an ``anomaly.safetensors`` again: raises the AnomalyError of then, for a debugger to look around.

    >>> replay("runs/resnet8-shapes-1/anomaly.safetensors")              # doctest: +SKIP
    Traceback (most recent call last):
    minires.errors.AnomalyError: forward of conv2d in layer1.0.conv1: 12 NaN in the output (128, 16, 32, 32); …
    """
    model, batch, _ = load_anomaly(path)
    found = diagnose(model, batch)
    if found is not None:
        raise found
