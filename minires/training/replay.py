"""``anomaly.safetensors``: the batch whose loss or gradients were not finite, saved, loaded and run again."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, DataError
from ..nn import Module
from .build import restore_model
from .checkpoint import Checkpoint
from .diagnosis import Batch, diagnose
from .freezing import freeze
from .recipe import Recipe

NAME = "anomaly.safetensors"


def save_anomaly(path: Path | str, model: Module, batch: Batch, info: dict[str, Any]) -> None:
    """Write the batch and the model to a file for ``replay``. info: as in a Checkpoint."""
    Checkpoint(model.state_dict(), info=info, batch=asdict(batch)).save(path)


def load_anomaly(path: Path | str) -> tuple[Recipe, Module, Batch, dict[str, Any]]:
    """(recipe, model, Batch, info) from an ``anomaly.safetensors``, or from a run's folder that contains one.

    The model has the weights from before the step. Raises ConfigError when there is no such file, DataError when it is
    damaged or holds no batch.
    """
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
    checkpoint.require_batch(path)
    recipe, model = restore_model(checkpoint, path)
    try:
        freeze(model, recipe.freeze)  # whose batch norms do not compute what those of the others do
    except ConfigError as error:
        raise CheckpointError(f"{path}: its recipe does not fit its model: {error}") from error
    return recipe, model, Batch(**checkpoint.batch), checkpoint.info


def replay(path: Path | str) -> None:
    """Repeat the step of an ``anomaly.safetensors``, which raises its AnomalyError again, to be inspected in a debugger.

    The command `minires replay` prints a report instead. Errors as of ``load_anomaly``.

    >>> replay("runs/resnet8-shapes-1")                                  # doctest: +SKIP
    Traceback (most recent call last):
    minires.errors.AnomalyError: forward of conv2d in layer1.0.conv1: 12 NaN in the output (128, 16, 32, 32); …
    """
    recipe, model, batch, _ = load_anomaly(path)
    with recipe.switches():
        found = diagnose(model, batch)
    if found is not None:
        raise found
