"""What a check must leave as it found it, and what must be the same in each of its evaluations."""

import functools
import types
from contextlib import contextmanager

import numpy as np

from ..nn import Module
from ..random import get_rng_state, set_rng_state
from ..tensor import Tensor


class Frozen:
    """Buffers, arrays and gradients that a function can reach, and the random generator.

    ``restore()`` before an evaluation makes it the same function every time: running statistics stand where they stood,
    and dropout draws the same mask. Leaving the context puts ``.grad`` of the tensors back too.
    """

    def __init__(self, *roots):
        arrays, tensors, self.modules = reach(roots)
        self.arrays = [(a, a.copy(order="K")) for a in arrays]
        self.grads = [(t, t.grad) for t in tensors]
        self.rng_state = get_rng_state()

    def restore(self):
        for array, saved in self.arrays:
            array[...] = saved
        set_rng_state(self.rng_state)

    def keep_moved(self):
        """After an evaluation: forget the arrays that it did not change. A data set is not copied 800 times."""
        self.arrays = [(a, saved) for a, saved in self.arrays if a.tobytes() != saved.tobytes()]

    @contextmanager
    def watched(self):
        """A hook that does nothing on every module: what watches a module makes it run operation by operation."""
        handles = [module.register_forward_pre_hook(lambda module, inputs: None) for module in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.restore()
        for tensor, grad in self.grads:
            tensor.grad = grad


def reach(roots, depth=5):
    """(writeable arrays, Tensors, modules) that the functions, modules and containers ``roots`` can get at, each once."""
    arrays, tensors, modules, seen = [], [], [], set()
    stack = [(root, depth) for root in roots]
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


def _parts(value):
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        names = set(_names(value.__code__))
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


def _names(code):
    """The global names that a code object uses, those of the functions written inside it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_filled(cell):
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
