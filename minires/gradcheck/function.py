"""``gradcheck``: the gradients of a function of arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..lazy import fusion
from ..tensor import Tensor
from .engine import Settings, check_leaves, make_rng
from .locate import name_operation
from .results import GradcheckResult
from .state import Snapshot


def promote(inputs: Any, notes: list[str]) -> list[Tensor | NDArray]:
    """Copies of the float inputs as float64 leaves; other inputs (labels) as they are. Adds a note for each promotion."""
    leaves = []
    for i, x in enumerate(inputs if isinstance(inputs, (tuple, list)) else [inputs]):
        array = np.array(x.data if isinstance(x, Tensor) else x, order="K")
        if array.dtype.kind != "f":
            leaves.append(Tensor(array) if isinstance(x, Tensor) else array)
            continue
        if array.dtype != np.float64:
            notes.append(f"input {i} is {array.dtype} and was checked as float64: {array.dtype} has too few digits")
        leaves.append(Tensor(array.astype(np.float64, order="K"), requires_grad=True))
    return leaves


def gradcheck(
    f: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Any,
    *,
    eps: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    most_elements: int = 400,
    directions: int = 8,
    sweep_points: int = 8,
    seed: int = 0,
    name: str = "gradcheck",
    raise_exception: bool = True,
) -> GradcheckResult:
    """Check the gradients of ``f`` at ``inputs`` by central differences in float64. Returns a GradcheckResult.

    f: Tensors → a Tensor or a tuple of them. What it draws from minires' generator (dropout) is the same in every
    evaluation, and the buffers that it can reach (running statistics) keep their values.
    inputs: ndarrays or Tensors, or a single one; float ones are checked, as float64; others (labels) are passed as they are.
    Inputs of up to ``most_elements`` are checked element by element, larger ones along ``directions`` random unit vectors.
    |analytic − numeric| may be at most atol + rtol·(the largest of the input's gradients). eps: the step; by default a
    sweep over ``sweep_points`` steps chooses it. A kink between x − h and x + h (relu at 0) is reported as such, and is a
    failure only if backward's slope lies outside the slopes of its two sides.
    Raises GradcheckError when a gradient is wrong, or with raise_exception=False returns a result that is false;
    ConfigError when no input holds floats.

    >>> gradcheck(lambda x: x * x, [np.array([1.0, -2.0])])
    <gradcheck passed: 2 numbers compared>
    >>> gradcheck(lambda x: x.relu(), [np.array([0.0, 1.0])])
    <gradcheck passed: 2 numbers compared, 1 at a kink>
    """
    rng = make_rng(seed)
    settings = Settings(eps, rtol, atol, most_elements, directions, sweep_points)
    result = GradcheckResult(name)
    arguments = promote(inputs, result.notes)
    leaves = {f"input {i}": x for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad}

    if arguments and not leaves:
        kinds = ", ".join(str(np.asarray(getattr(x, "data", x)).dtype) for x in arguments)
        raise ConfigError(f"gradcheck: needs an input of floats, got {kinds}: give one as float64")

    def run() -> Tensor | tuple[Tensor, ...]:
        return f(*[x if name is None else leaves[name] for x, name in zip(arguments, names)])

    names = [f"input {i}" if f"input {i}" in leaves else None for i in range(len(arguments))]
    with Snapshot(f) as state:
        result.checked, result.error = check_leaves(run, leaves, state, settings, rng)
        if not result.passed and (result.checked or "raised" in result.error):
            state.restore()
            with fusion(False):
                y = run()
            result.location = name_operation(result, y if isinstance(y, (tuple, list)) else (y,), state, settings, rng)
    return result.raise_if_wrong() if raise_exception else result
