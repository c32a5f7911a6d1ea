"""Where a gradient goes wrong: the first operation, or the first module, whose own backward pass disagrees.

Each is checked by itself, on the inputs that it had. The search goes the way the backward pass goes, from the loss down,
so that everything which handed a gradient to what is found was right.
"""

import copy
from dataclasses import dataclass, field

from ..nn import Module
from ..nn.hooks import Pack, Unpack
from ..tensor import Op, Tensor
from . import kinks
from .engine import Settings, check_leaves
from .results import GradcheckResult

DRAWS = 3  # a mistake in a few numbers may hide behind one draw of cotangents
NO_OPERATION = (
    "Each recorded operation in it is right by itself: look at how gradients of several uses are summed, "
    "for values that left the graph (detach(), numpy()), and whether it passes under mr.fusion(False)"
)


def quick(settings):
    """Directions for all but the smallest arrays, up to the first that is wrong."""
    return Settings(settings.eps, settings.rtol, settings.atol, most_elements=16, directions=3, stop=True)


def fresh(x):
    """A leaf with a copy of a float Tensor's values; anything else as it is."""
    if isinstance(x, Tensor) and x.dtype.kind == "f":
        return Tensor(x.data.copy(order="K"), requires_grad=True)
    return x


def wrong_operation(outputs, state, settings, rng):
    """The name of the first operation above ``outputs`` that is wrong by itself, or None."""
    backwards = [op for op in reversed(kinks.operations(outputs)) if not isinstance(op, Pack | Unpack)]
    for _ in range(DRAWS):
        for op in backwards:
            if not _is_right(op, state, settings, rng):
                return op.name
    return None


def _is_right(op, state, settings, rng):
    inputs = [fresh(x) if need else x for x, need in zip(op.inputs, op.needs)]
    leaves = {f"input {i}": x for i, (x, need) in enumerate(zip(inputs, op.needs)) if need}
    checked, error = check_leaves(  # a copy has its settings, and forward keeps anew what backward needs
        lambda: Op.apply(copy.copy(op), *inputs), leaves, state, quick(settings), rng
    )
    return GradcheckResult(op.name, checked, error=error).passed


def name_operation(result, outputs, state, settings, rng):
    """Note in ``result`` which operation is wrong."""
    result.operation = wrong_operation(outputs, state, settings, rng)
    if result.operation:
        return f"The first wrong operation on the way back is {result.operation}"
    return NO_OPERATION


@dataclass
class Call:
    """One call of a module: what it was given, by position and by name, and the calls made within."""

    module: Module
    path: str
    inputs: tuple = ()
    options: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)


def record_calls(model, run):
    """The tree of module calls during ``run()``, one Call of the model. Hooks on every module make it run unfused."""
    names = {id(module): path for path, module in model.named_modules()}
    open_calls, handles = [Call(None, "")], []

    def before(module, inputs, options):
        call = Call(module, names[id(module)], inputs, options)
        open_calls[-1].calls.append(call)
        open_calls.append(call)

    def after(module, inputs, y):
        open_calls.pop()

    for module in model.modules():
        handles += [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return open_calls[0].calls[0]


def check_call(call, state, settings, rng):
    """Check a module by itself, on the inputs of one call: parameters first, then inputs."""
    module, path = call.module, call.path
    inputs = [fresh(x) for x in call.inputs]
    options = {name: fresh(x) for name, x in call.options.items()}
    leaves = {f"{path}.{name}".lstrip("."): p for name, p in module.named_parameters() if p.requires_grad}
    leaves |= {
        f"{path or type(module).__name__} input {key}": x
        for key, x in [*enumerate(inputs), *options.items()]
        if isinstance(x, Tensor) and x.requires_grad
    }

    def run():
        return module(*inputs, **options)

    checked, error = check_leaves(run, leaves, state, quick(settings), rng) if leaves else ([], "")
    return GradcheckResult(path, checked, error=error), run


def wrong_module(call, state, settings, rng):
    """Go down from a call that is wrong to the first one within, in the order of the backward pass, that is wrong while
    all that it calls is right. Returns (Call, GradcheckResult, run), or None where not even the call itself is."""
    for _ in range(DRAWS):
        result, run = check_call(call, state, settings, rng)
        if not result.passed:
            break
    else:
        return None
    while True:
        for inner in reversed(call.calls):
            found, inner_run = check_call(inner, state, settings, rng)
            if not found.passed:
                call, result, run = inner, found, inner_run
                break
        else:
            return call, result, run
