"""Averages of a network's weights along its training, which predict better than the last weights do.

They are of the parameters that are trained and of batch norm's running statistics, in their own dtype.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from ..errors import CheckpointError
from ..nn import Module

Arrays = dict[str, NDArray[Any]]


class WeightAverage:
    """Base class: ``arrays``, by the names of ``model.state_dict()``, and when they are moved towards the weights.

    step(share) is called after every step of training, when ``share`` of the run is done. predicts: whether the averages, and
    not the weights, are what the run is about; ``exchanged`` has the model hold them for a while.
    """

    predicts = False

    def __init__(self, model: Module) -> None:
        self.model = model
        self.steps = 0
        self.arrays = {name: array.copy() for name, array in self.own().items()}

    def own(self) -> Arrays:
        """The model's arrays that are averaged."""
        fixed = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        found: Arrays = {}
        seen: set[int] = set()  # an array that has two names is averaged once
        for name, array in self.model.state_dict().items():
            if array.dtype.kind == "f" and name not in fixed and id(array) not in seen:
                found[name] = array
                seen.add(id(array))
        return found

    def step(self, share: float) -> None:
        """Count a step, and move the averages."""
        raise NotImplementedError

    def average_of(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """The average of one of the model's arrays; of one that is trained from now on it begins here."""
        return self.arrays.setdefault(name, array.copy())

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """Inside, the model holds the averages, and ``arrays`` the weights."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def exchange(self) -> None:
        """Exchange the model's arrays with the averages."""
        for name, array in self.own().items():
            kept = array.copy()
            array[...] = self.average_of(name, array)
            self.arrays[name] = kept
        self._changed()

    def _changed(self) -> None:
        """Tell the tape that weights were changed in place."""
        for p in self.model.parameters():
            p.count_change()

    def state_dict(self) -> dict[str, Any]:
        """The number of steps so far, and the arrays, which are not copies."""
        return {"steps": self.steps, "arrays": dict(self.arrays)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned. Raises CheckpointError for arrays that are not those of the model."""
        if not state:
            raise CheckpointError("it has no average of the weights")
        own, arrays = self.own(), state["arrays"]
        for name, array in own.items():
            if name not in arrays or arrays[name].shape != array.shape or arrays[name].dtype != array.dtype:
                raise CheckpointError(
                    f"the average of {name} is missing, or not of the shape {array.shape} and {array.dtype}"
                )
        self.steps = int(state["steps"])
        self.arrays = {name: arrays[name].copy() for name in own}


class EMA(WeightAverage):
    """The exponential moving average φ ← dφ + (1 - d)w after every step, with d = min(decay, (1 + t)/(10 + t)) in step t.

    Polyak & Juditsky 1992; the smaller d of the first steps is TensorFlow's.
    """

    predicts = True

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        super().__init__(model)
        self.decay = decay

    def step(self, share: float) -> None:
        self.steps += 1
        move = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, array in self.own().items():
            average = self.average_of(name, array)
            average += array.dtype.type(move) * (array - average)


class Lookahead(WeightAverage):
    """Every ``every`` steps φ ← φ + α(w - φ) and then w ← φ, with α = 1 - decay^every · share³; at the end w ← φ.

    Early in a run φ follows w, late it averages. Zhang et al. 2019, "Lookahead Optimizer", with the growing weight of the
    averages of Jordan 2024 (arXiv:2404.00498).
    """

    def __init__(self, model: Module, decay: float = 0.95, every: int = 5) -> None:
        super().__init__(model)
        self.decay, self.every = decay, every

    def step(self, share: float) -> None:
        self.steps += 1
        last = share >= 1
        if self.steps % self.every and not last:
            return
        move = 0.0 if last else 1 - self.decay**self.every * share**3
        for name, array in self.own().items():
            average = self.average_of(name, array)
            average += array.dtype.type(move) * (array - average)
            array[...] = average
        self._changed()


AVERAGES: dict[str, type[WeightAverage] | None] = {"none": None, "ema": EMA, "lookahead": Lookahead}
