"""Finding the operation that made a NaN or an Inf, by running a batch again under ``detect_anomaly``."""

from dataclasses import dataclass

import numpy as np

from ..anomaly import all_finite, detect_anomaly, span
from ..errors import AnomalyError
from ..functional import cross_entropy
from ..random import get_rng_state, set_rng_state
from ..tensor import Tensor, no_grad


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
    rng_state = get_rng_state()
    set_rng_state(batch.random)
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
        set_rng_state(rng_state)
        for module, training in modes:
            module.training = training
