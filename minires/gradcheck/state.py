"""The state that a check must leave as it found it, and that must be the same in each of its evaluations."""

import copy
import functools
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..nn import Module
from ..random import get_rng_state, set_rng_state
from ..tensor import Tensor


class Snapshot:
    """Copies of the buffers, arrays and gradients that a function can reach, and of the random generator's state.

    ``restore()`` before an evaluation makes it the same function every time: running statistics have their old values, and
    dropout draws the same mask. Leaving the context restores ``.grad`` of the tensors too.
    """

    def __init__(self, *roots: object) -> None:
        arrays, tensors, self.modules = reachable(roots)
        self.arrays = [(a, a.copy(order="K")) for a in arrays]
        self.grads = [(t, t.grad) for t in tensors]
        self.rng_state = get_rng_state()

    def restore(self) -> None:
        """Restore the arrays and the random generator."""
        for array, saved in self.arrays:
            array[...] = saved
        set_rng_state(self.rng_state)

    def of_changed(self) -> Self:
        """After an evaluation: the Snapshot of the arrays that it has changed. A data set is not copied 800 times."""
        part = copy.copy(self)
        part.arrays = [(a, saved) for a, saved in self.arrays if a.tobytes() != saved.tobytes()]
        return part

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Put a hook that does nothing on every module inside the block: a module with a hook runs op by op."""
        handles = [module.register_forward_pre_hook(lambda module, inputs: None) for module in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.restore()
        for tensor, grad in self.grads:
            tensor.grad = grad


def reachable(roots: Iterable[object], depth: int = 5) -> tuple[list[NDArray], list[Tensor], list[Module]]:
    """(writeable arrays, Tensors, modules) that the functions, modules and containers ``roots`` refer to, each once."""
    arrays: list[NDArray] = []
    tensors: list[Tensor] = []
    modules: list[Module] = []
    seen: set[int] = set()
    stack: list[tuple[Any, int]] = [(root, depth) for root in roots]
    while stack:
        value, left = stack.pop()
        if id(value) in seen or left < 0:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            if value.flags.writeable and value.dtype.kind in "biuf":
                arrays.append(value)
        elif isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, Module):
            modules.append(value)
            stack += [(part, left) for part in vars(value).values() if isinstance(part, (np.ndarray, Tensor, Module))]
            stack += [(part, left - 1) for part in vars(value).values()]
        else:
            stack += [(part, left - 1) for part in _parts(value)]
    return arrays, tensors, modules


def _parts(value: Any) -> list[Any]:
    """The objects that a value refers to."""
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        names = set(_global_names(value.__code__))
        return [
            *cells,
            *(value.__defaults__ or ()),
            *[v for name, v in value.__globals__.items() if name in names and not isinstance(v, types.ModuleType)],
        ]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, (list, tuple, set)):
        return list(value)[:1000]
    if isinstance(value, dict):
        return list(value.values())[:1000]
    if isinstance(value, (type, types.ModuleType)) or not hasattr(value, "__dict__"):
        return []
    return list(vars(value).values())


def _global_names(code: types.CodeType) -> Iterator[str]:
    """The global names that a code object uses, including those of the functions defined inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
