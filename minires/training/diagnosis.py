"""Find the operation that made a NaN or an Inf, by running a batch again under ``detect_anomaly``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..anomaly import all_finite, describe, detect_anomaly, recorded_path
from ..errors import AnomalyError
from ..grad_mode import no_grad
from ..nn import Module, classification_loss
from ..random import get_rng_state, set_rng_state
from ..tensor import Op, Tensor

# for np.errstate: AnomalyError says more than NumPy's warnings
QUIET: dict[str, Any] = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}


@dataclass(eq=False)
class Batch:
    """All that a forward and a backward pass depend on besides the model."""

    images: NDArray[np.floating]  # (N, C, H, W), normalised and augmented
    labels: NDArray[np.integer]  # (N,)
    random: Mapping[str, Any]  # the state of the generator behind dropout, before the pass
    label_smoothing: float = 0.0
    training: bool = True  # False for a batch of an evaluation, which has no backward pass


@dataclass
class TracedOperation:
    """One operation in one pass. result: shape and range of its output, or of the worst of the gradients it computed."""

    phase: str  # "forward" or "backward"
    name: str
    path: str  # of its module
    result: str


class Trace(detect_anomaly):
    """A detect_anomaly that keeps a TracedOperation for each operation, in order, in ``operations``.

    largest: the largest absolute value in all outputs and gradients that are finite.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[TracedOperation] = []
        self.largest = 0.0

    def forward(self, op: Op, inputs: Sequence[Tensor], y: Tensor) -> None:
        self.operations.append(TracedOperation("forward", op.name, self.module_path(), describe(y.data)))
        self._measure(y.data)
        super().forward(op, inputs, y)

    def backward(self, op: Op, dy: NDArray, gradients: Sequence[NDArray | None]) -> None:
        worst = max((dx for dx in gradients if dx is not None), key=_magnitude, default=dy)
        self.operations.append(TracedOperation("backward", op.name, recorded_path(op), describe(worst)))
        self._measure(worst)
        super().backward(op, dy, gradients)

    def _measure(self, array: NDArray) -> None:
        magnitude = _magnitude(array)
        self.largest = max(self.largest, magnitude if np.isfinite(magnitude) else 0.0)


def _magnitude(array: NDArray) -> float:
    """The largest absolute value; infinity for an array that is not finite."""
    return np.inf if not all_finite(array) else float(abs(array).max(initial=0))


def diagnose(model: Module, batch: Batch, watch: detect_anomaly | None = None) -> AnomalyError | None:
    """Run a batch through the model under detect_anomaly; return the AnomalyError that this raises, or None.

    watch: the detect_anomaly to use, such as a Trace. Weights, buffers, modes and the random generator are as before
    afterwards; the parameters' gradients are not.
    """
    buffers = [(buffer, buffer.copy()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    rng_state = get_rng_state()
    set_rng_state(batch.random)
    if not batch.training:
        model.eval()
    try:
        with watch or detect_anomaly(), np.errstate(**QUIET):
            if batch.training:
                model.zero_grad()
                output = model(Tensor(batch.images))
                classification_loss(output, batch.labels, batch.label_smoothing).backward()
            else:
                with no_grad():
                    classification_loss(model(Tensor(batch.images)), batch.labels)
    except AnomalyError as error:
        return error
    finally:
        set_rng_state(rng_state)
        for buffer, before in buffers:
            buffer[...] = before
        for module, training in modes:
            module.training = training
    return None
