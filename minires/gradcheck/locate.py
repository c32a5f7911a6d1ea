"""Where a gradient goes wrong: the first operation, or the first module, whose own backward pass disagrees.

Each is checked by itself, on the inputs that it had. The search goes in the order of the backward pass, from the loss down,
so that everything that passed a gradient to what is found was right.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..nn import Module
from ..nn.hooks import Pack, Unpack
from ..tensor import Op, Tensor
from . import kinks
from .engine import Settings, check_leaves
from .results import GradcheckResult
from .state import Snapshot

ATTEMPTS = 3  # one draw of cotangents may hide a mistake in a few numbers
NO_OPERATION = (
    "Each recorded operation in it is right by itself: look at how gradients of several uses are summed, "
    "for values that left the graph (detach(), numpy()), and whether it passes under mr.fusion(False)"
)


def quick_settings(settings: Settings) -> Settings:
    """Settings for a search: directions for all but the smallest arrays, and a stop at the first wrong leaf."""
    return Settings(settings.eps, settings.rtol, settings.atol, most_elements=16, directions=3, stop=True)


def as_leaf(x: Any) -> Any:
    """A leaf with a copy of a float Tensor's values; anything else is returned as it is."""
    if isinstance(x, Tensor) and x.dtype.kind == "f":
        return Tensor(x.data.copy(order="K"), requires_grad=True)
    return x


def wrong_operation(
    outputs: Sequence[Tensor], state: Snapshot, settings: Settings, rng: np.random.Generator
) -> str | None:
    """The name of the first operation on the way back from ``outputs`` that is wrong by itself, or None."""
    candidates = [op for op in reversed(kinks.operations(outputs)) if not isinstance(op, Pack | Unpack)]
    for _ in range(ATTEMPTS):
        for op in candidates:
            if not _is_right(op, state, settings, rng):
                return op.name
    return None


def _is_right(op: Op, state: Snapshot, settings: Settings, rng: np.random.Generator) -> bool:
    inputs = [as_leaf(x) if need else x for x, need in zip(op.inputs, op.needs)]
    leaves = {f"input {i}": x for i, (x, need) in enumerate(zip(inputs, op.needs)) if need}
    checked, error = check_leaves(  # a copy has the op's settings, and its forward saves anew what backward needs
        lambda: Op.apply(copy.copy(op), *inputs), leaves, state, quick_settings(settings), rng
    )
    return GradcheckResult(op.name, checked, error=error).passed


def name_operation(
    result: GradcheckResult,
    outputs: Sequence[Tensor],
    state: Snapshot,
    settings: Settings,
    rng: np.random.Generator,
) -> str:
    """Set ``result.operation`` to the wrong operation; returns a sentence about it."""
    result.operation = wrong_operation(outputs, state, settings, rng)
    if result.operation:
        return f"The first wrong operation on the way back is {result.operation}"
    return NO_OPERATION


@dataclass
class Call:
    """One call of a module: its positional and keyword arguments, and the calls of other modules inside it."""

    module: Module
    path: str
    inputs: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    calls: "list[Call]" = field(default_factory=list)


def record_calls(model: Module, run: Callable[[], object]) -> Call:
    """The Call of the model during ``run()``, with all calls inside it. Hooks on every module make it run op by op."""
    names = {id(module): path for path, module in model.named_modules()}
    open_calls, handles = [Call(model, "")], []  # the first is that of the caller

    def before(module: Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = Call(module, names[id(module)], inputs, kwargs)
        open_calls[-1].calls.append(call)
        open_calls.append(call)

    def after(module: Module, inputs: tuple[Any, ...], y: object) -> None:
        open_calls.pop()

    for module in model.modules():
        handles += [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return open_calls[0].calls[0]


def check_call(
    call: Call, state: Snapshot, settings: Settings, rng: np.random.Generator
) -> tuple[GradcheckResult, Callable[[], Any]]:
    """Check a module by itself on the inputs of one call, parameters first. Returns (GradcheckResult, run)."""
    module, path = call.module, call.path
    inputs = [as_leaf(x) for x in call.inputs]
    kwargs = {name: as_leaf(x) for name, x in call.kwargs.items()}
    leaves: dict[str, Tensor] = {
        f"{path}.{name}".lstrip("."): p for name, p in module.named_parameters() if p.requires_grad
    }
    leaves |= {
        f"{path or type(module).__name__} input {key}": x
        for key, x in [*enumerate(inputs), *kwargs.items()]
        if isinstance(x, Tensor) and x.requires_grad
    }

    def run() -> Any:
        return module(*inputs, **kwargs)

    checked, error = check_leaves(run, leaves, state, quick_settings(settings), rng) if leaves else ([], "")
    return GradcheckResult(path, checked, error=error), run


def wrong_module(
    call: Call, state: Snapshot, settings: Settings, rng: np.random.Generator
) -> tuple[Call, GradcheckResult, Callable[[], Any]] | None:
    """The first module, in the order of the backward pass, that is wrong while all modules that it calls are right.

    Descends from ``call``. Returns (Call, GradcheckResult, run), or None when ``call`` itself is right.
    """
    for _ in range(ATTEMPTS):
        result, run = check_call(call, state, settings, rng)
        if not result.passed:
            break
    else:
        return None
    while True:
        for inner in reversed(call.calls):
            inner_result, inner_run = check_call(inner, state, settings, rng)
            if not inner_result.passed:
                call, result, run = inner, inner_result, inner_run
                break
        else:
            return call, result, run
