"""``gradcheck_model``: the gradients of a whole network, parameter by parameter."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..lazy import fusion
from ..nn import Module
from ..tensor import Tensor
from .engine import Settings, check_leaves, make_rng
from .function import promote
from .locate import name_operation, record_calls, wrong_module
from .results import GradcheckResult
from .state import Snapshot


@contextmanager
def in_float64(model: Module, notes: list[str]) -> Iterator[None]:
    """Inside the block the model is in float64; afterwards it has its own arrays again, with their dtypes and values."""
    parameters = [(p, p.data, p.grad) for p in model.parameters()]
    buffers = [(m, name, value) for m in model.modules() for name, value in m.named_buffers(recurse=False)]
    dtypes = sorted({str(a.dtype) for _, a, _ in parameters if a.dtype != np.float64})
    if dtypes:
        notes.append(f"the model is {' and '.join(dtypes)} and was checked as float64: {dtypes[0]} has too few digits")
    try:
        for p, data, _ in parameters:
            p.data, p.grad = data.astype(np.float64, order="K"), None
        for module, name, value in buffers:
            setattr(module, name, value.astype(np.float64) if value.dtype.kind == "f" else value.copy())
        yield
    finally:
        for p, data, grad in parameters:
            p.data, p.grad = data, grad
        for module, name, value in buffers:
            setattr(module, name, value)


def gradcheck_model(
    model: Module,
    inputs: Any,
    *,
    loss: Callable[[Any], Tensor] | None = None,
    directions: int = 2,
    eps: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    sweep_points: int = 8,
    seed: int = 0,
    name: str | None = None,
    on_parameter: Callable[[str], object] | None = None,
    raise_exception: bool = True,
) -> GradcheckResult:
    """Check a network's gradients with respect to every parameter and float input, along random directions, in float64.

    model: an nn.Module, checked in the mode (training or evaluation) that it is in. It is left as it was, buffers and
    gradients included. inputs: an array or Tensor, or a list of them. loss: output → Tensor; by default a random weighted
    sum of the outputs. on_parameter(name) is called before each parameter. Other settings as in ``gradcheck``.
    When a gradient is wrong, the modules are checked by themselves, in the order of the backward pass, to find the first
    wrong one, its wrong element and its wrong operation. GradcheckError names them, or with raise_exception=False the
    result's ``explain()``, ``module`` and ``operation``.

    >>> import minires as mr
    >>> model = mr.nn.Sequential(mr.nn.Linear(3, 4), mr.nn.Tanh(), mr.nn.Linear(4, 2))
    >>> gradcheck_model(model, np.random.default_rng(0).standard_normal((5, 3)))
    <Sequential passed: 12 numbers compared>
    """
    rng = make_rng(seed)
    settings = Settings(eps, rtol, atol, 2 * directions, directions, sweep_points)  # tiny arrays: every element
    result = GradcheckResult(name or type(model).__name__)
    with in_float64(model, result.notes), Snapshot(model, loss) as state:
        arguments = promote(inputs, result.notes)
        leaves: dict[str, Tensor] = {path: p for path, p in model.named_parameters() if p.requires_grad}
        leaves |= {f"input {i}": x for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad}

        def run() -> Any:
            y = model(*arguments)
            return y if loss is None else loss(y)

        result.checked, result.error = check_leaves(run, leaves, state, settings, rng, on_parameter)
        if not result.passed and (result.checked or "raised" in result.error):
            _locate(result, model, run, state, settings, rng)
    return result.raise_if_wrong() if raise_exception else result


def _locate(
    result: GradcheckResult,
    model: Module,
    run: Callable[[], Any],
    state: Snapshot,
    settings: Settings,
    rng: np.random.Generator,
) -> None:
    """Set the location, module, operation and finding of a result that has failed."""
    state.restore()
    found = wrong_module(record_calls(model, run), state, settings, rng)
    if found is None:
        result.location = (
            "Every module is right by itself: the mistake is in the loss, or in what comes before the model"
        )
        return
    call, local, again = found
    result.module = call.path
    state.restore()
    with fusion(False):
        y = again()
    operation = name_operation(result, y if isinstance(y, (tuple, list)) else (y,), state, settings, rng)
    kind = type(call.module).__name__
    where = f"{call.path} ({kind})" if call.path else f"the {kind} itself"
    inner = ", and every module in it is right by itself" if call.calls else ""
    result.location = f"The first wrong module on the way back is {where}{inner}. {operation}"
    result.finding = f"{call.path or kind}: {local.error}" if local.error else local.wrong[0].finding
