"""Full backward hooks: identity operations around a module, which pass its gradients to the hooks.

    inputs ──► Pack ──► Unpack ──► forward ──► Pack ──► Unpack ──► outputs

An operation has one output, so an identity on several tensors is two operations: Pack takes all of them and returns a token,
and one Unpack for each tensor takes the token and returns that tensor. In the backward pass every Unpack stores its gradient
in its Pack. The tape runs the Pack after all of its Unpacks, when the gradients are complete.

The token has one element for each tensor. Its gradient is 1 for those whose Unpack was in this walk over the graph: what a
walk stored that an error broke off is not taken for a gradient of the next.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DtypeError, ShapeError
from ..grad_mode import is_grad_enabled
from ..tensor import Op, Tensor

Gradients = tuple[NDArray | None, ...]  # one for each tensor, None where there is no gradient
WITHOUT_GRADIENT = tuple, list, dict, np.ndarray, np.generic, int, float, str, type(None)  # where no Tensor is inside


class Pack(Op):
    """Tensors x₁, x₂, … to a token. Backward: dxᵢ is the gradient that the i-th Unpack stored."""

    reads = ()
    aliases = True
    calls_hooks = True

    def __init__(self, on_gradients: Callable[[Gradients], Gradients]) -> None:
        self.on_gradients = on_gradients  # returns the gradients to continue with
        self.gradients: defaultdict[int, list[NDArray]] = defaultdict(list)  # stacks: a hook may call backward()

    def forward(self, *arrays: NDArray) -> NDArray:
        return np.zeros(len(arrays), arrays[0].dtype)

    def backward(self, dy: NDArray, needs: Sequence[bool]) -> Gradients:
        return self.on_gradients(tuple(self.gradients[i].pop() if dy[i] else None for i in range(len(dy))))


class Unpack(Op):
    """The token of a Pack to the i-th of its arrays: y = xᵢ, not copied. Backward: stores dy in the Pack."""

    def __init__(self, pack: Pack, i: int, array: NDArray) -> None:
        self.pack, self.i, self.array = pack, i, array

    def forward(self, token: NDArray) -> NDArray:
        self.token, y = token, self.array
        del self.array
        return y

    def backward(self, dy: NDArray, needs: Sequence[bool]) -> Gradients:
        self.pack.gradients[self.i].append(dy.copy(order="K"))  # a hook may keep it, and others may have dy
        dtoken = np.zeros_like(self.token)
        dtoken[self.i] = 1
        return (dtoken,)


class BackwardHook:
    """Calls a module's full backward hooks for one call of the module, with the gradients of its inputs and outputs."""

    def __init__(self, module: object, hooks: list[Callable[..., Any]]) -> None:
        self.module, self.hooks = module, hooks
        self.grad_output: Gradients = ()

    def setup_input_hook(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs, passed through an identity that calls the hooks with their gradients."""
        tensors = list(tensors_in(inputs))
        self.inputs = [(x.shape, x.dtype) for x in tensors]
        self.inputs_need_grad = is_grad_enabled() and any(x.requires_grad for x in tensors)
        return self._identity(inputs, self._call_hooks)

    def setup_output_hook(self, y: Any) -> Any:
        """The output, its tensors passed through an identity that keeps their gradients.

        y: a Tensor, or tuples, lists and dicts, nested or not, that hold Tensors. Raises DtypeError for any other object.
        """
        self.num_outputs = sum(1 for _ in tensors_in(y))
        if is_grad_enabled() and not self.num_outputs and not isinstance(y, WITHOUT_GRADIENT):
            raise DtypeError(
                f"a backward hook on {type(self.module).__name__} cannot follow the {type(y).__name__} that its forward "
                "returns: return Tensors, or tuples, lists or dicts of them"
            )
        return self._identity(y, self._keep_grad_output)

    def _identity(self, values: Any, on_gradients: Callable[[Gradients], Gradients]) -> Any:
        tensors = list(tensors_in(values))
        needing = [i for i, x in enumerate(tensors) if x.requires_grad]
        if not (needing and is_grad_enabled()):
            return values

        def of_needing(gradients: Gradients) -> Gradients:  # Pack has these tensors, the hooks are called for all
            known = dict(zip(needing, gradients))
            replaced = on_gradients(tuple(known.get(i) for i in range(len(tensors))))
            return tuple(replaced[i] for i in needing)

        pack = Pack(of_needing)
        token = pack.apply(*[tensors[i] for i in needing])
        for k, i in enumerate(needing):
            tensors[i] = Unpack(pack, k, tensors[i].data).apply(token)
        return with_tensors(values, iter(tensors))

    def _keep_grad_output(self, gradients: Gradients) -> Gradients:
        self.grad_output = gradients
        if not self.inputs_need_grad:  # the backward pass does not get to the inputs: it ends inside the module
            self._call_hooks((None,) * len(self.inputs))
        return gradients

    def _call_hooks(self, grad_input: Gradients) -> Gradients:
        grad_output, self.grad_output = self.grad_output or (None,) * self.num_outputs, ()
        for hook in self.hooks:
            replaced = hook(self.module, grad_input, grad_output)
            if replaced is not None:
                grad_input = self._replacement(replaced)
        return grad_input

    def _replacement(self, replaced: Any) -> Gradients:
        """What a hook returned, as a tuple of arrays (or None) of the inputs' shapes and dtypes."""
        gradients = replaced if isinstance(replaced, (tuple, list)) else (replaced,)
        given, needed = [None if g is None else np.shape(g) for g in gradients], [shape for shape, _ in self.inputs]
        if len(given) != len(needed) or any(new not in (None, shape) for new, shape in zip(given, needed)):
            raise ShapeError(
                f"a backward hook on {type(self.module).__name__} returned gradients of shapes {given} for inputs of shapes "
                f"{needed}: return one gradient for each, or None"
            )
        return tuple(None if g is None else np.asarray(g, dtype) for g, (_, dtype) in zip(gradients, self.inputs))


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The Tensors in tuples, lists and dicts, nested or not, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list, dict)):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors_in(value)


def with_tensors(values: Any, tensors: Iterator[Tensor]) -> Any:
    """A copy of tuples, lists and dicts with other Tensors in the places that ``tensors_in`` yields."""
    if isinstance(values, Tensor):
        return next(tensors)
    if isinstance(values, dict):
        filled = copy.copy(values)
        filled.update((key, with_tensors(value, tensors)) for key, value in values.items())
        return filled
    if isinstance(values, list):
        return [with_tensors(value, tensors) for value in values]
    if isinstance(values, tuple):
        parts = [with_tensors(value, tensors) for value in values]
        return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)
    return values
