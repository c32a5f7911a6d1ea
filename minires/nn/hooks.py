"""Full backward hooks: identity operations around a module, which pass its gradients to the hooks.

    inputs ──► Pack ──► Unpack ──► forward ──► Pack ──► Unpack ──► outputs

An operation has one output, so an identity on several tensors is two operations: Pack takes all of them and returns a token,
and one Unpack for each tensor takes the token and returns that tensor. In the backward pass every Unpack stores its gradient
in its Pack. The tape runs the Pack after all of its Unpacks, when the gradients are complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grad_mode import is_grad_enabled
from ..tensor import Op, Tensor

Gradients = tuple[NDArray | None, ...]  # one for each tensor, None where there is no gradient


class Pack(Op):
    """Tensors x₁, x₂, … to a token of one element. Backward: dxᵢ is the gradient that the i-th Unpack stored."""

    reads = ()
    aliases = True
    calls_hooks = True

    def __init__(self, on_gradients: Callable[[Gradients], Gradients]) -> None:
        self.on_gradients = on_gradients  # returns the gradients to continue with
        self.gradients: dict[int, NDArray] = {}

    def forward(self, *arrays: NDArray) -> NDArray:
        return np.zeros(1, arrays[0].dtype)

    def backward(self, dy: NDArray, needs: Sequence[bool]) -> Gradients:
        gradients = tuple(self.gradients.get(i) for i in range(len(needs)))
        self.gradients.clear()
        return self.on_gradients(gradients)


class Unpack(Op):
    """The token of a Pack to the i-th of its arrays: y = xᵢ, not copied. Backward: stores dy in the Pack."""

    def __init__(self, pack: Pack, i: int, array: NDArray) -> None:
        self.pack, self.i, self.array = pack, i, array

    def forward(self, token: NDArray) -> NDArray:
        y = self.array
        del self.array
        return y

    def backward(self, dy: NDArray, needs: Sequence[bool]) -> Gradients:
        self.pack.gradients[self.i] = dy
        return (np.zeros(1, dy.dtype),)


class BackwardHook:
    """Calls a module's full backward hooks for one call of the module, with the gradients of its inputs and outputs."""

    def __init__(self, module: object, hooks: list[Callable[..., Any]]) -> None:
        self.module, self.hooks = module, hooks
        self.grad_output: Gradients = ()

    def setup_input_hook(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs, passed through an identity that calls the hooks with their gradients."""
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        self.num_inputs = len(tensors)
        self.inputs_need_grad = is_grad_enabled() and any(x.requires_grad for x in tensors)
        return self._identity(inputs, self._call_hooks)

    def setup_output_hook(self, y: Any) -> Any:
        """The output (a tensor, or a tuple or list that holds tensors), passed through an identity that keeps its gradients."""
        if isinstance(y, Tensor):
            return self._identity((y,), self._keep_grad_output)[0]
        return self._identity(y, self._keep_grad_output) if isinstance(y, tuple | list) else y

    def _identity(self, values: Sequence[Any], on_gradients: Callable[[Gradients], Gradients]) -> Any:
        tensors = [x for x in values if isinstance(x, Tensor)]
        needing = [i for i, x in enumerate(tensors) if x.requires_grad]
        if not (needing and is_grad_enabled()):
            return values

        def of_needing(gradients: Gradients) -> Gradients:  # Pack has these tensors, the hooks are called for all
            known = dict(zip(needing, gradients))
            replaced = on_gradients(tuple(known.get(i) for i in range(len(tensors))))
            return tuple(replaced[i] for i in needing)

        pack = Pack(of_needing)
        token = pack.apply(*[tensors[i] for i in needing])
        passed = {id(tensors[i]): Unpack(pack, k, tensors[i].data).apply(token) for k, i in enumerate(needing)}
        return tuple(passed.get(id(x), x) for x in values)

    def _keep_grad_output(self, gradients: Gradients) -> Gradients:
        self.grad_output = gradients
        if not self.inputs_need_grad:  # the backward pass does not get to the inputs: it ends inside the module
            self._call_hooks((None,) * self.num_inputs)
        return gradients

    def _call_hooks(self, grad_input: Gradients) -> Gradients:
        for hook in self.hooks:
            replaced = hook(self.module, grad_input, self.grad_output)
            if replaced is not None:
                grad_input = replaced if isinstance(replaced, tuple) else (replaced,)
        return grad_input
