"""Full backward hooks: identity operations around a module that hear the gradients as the walk passes them.

    x ──► Gate ──► Pass ──► forward ──► Gate ──► Pass ──► y

Several tensors enter one Gate, which stands for all of them, and each leaves by its own Pass. On the way back every Pass
leaves its gradient with its Gate. The walk reaches the Gate after all of its Passes, when the gradients are complete.
"""

import numpy as np

from ..tensor import Op, Tensor, is_grad_enabled


class Gate(Op):
    """Inputs to a token of one element. Its backward hands out the gradients that the Passes brought: dx_i = dy_i."""

    aliases = True
    calls_hooks = True

    def __init__(self, on_gradients):
        self.on_gradients = on_gradients  # called with the gradients, one an input or None; returns those to go on with
        self.gradients = {}

    def forward(self, *arrays):
        return np.zeros(1, arrays[0].dtype)

    def backward(self, dy, needs):
        gradients = tuple(self.gradients.get(i) for i in range(len(needs)))
        self.gradients.clear()
        return self.on_gradients(gradients)


class Pass(Op):
    """The token of a Gate to the i-th array that went in: y = x_i, unchanged and uncopied."""

    def __init__(self, gate, i, array):
        self.gate, self.i, self.array = gate, i, array

    def forward(self, token):
        y, self.array = self.array, None
        return y

    def backward(self, dy, needs):
        self.gate.gradients[self.i] = dy
        return (np.zeros(1, dy.dtype),)


class BackwardWatch:
    """Watches one call of a module: gathers the gradients of its outputs and of its inputs, then calls the hooks."""

    def __init__(self, module, hooks):
        self.module, self.hooks = module, hooks
        self.grad_output = ()

    def enter(self, inputs):
        """The inputs, watched."""
        self.inputs = [x for x in inputs if isinstance(x, Tensor)]
        self.watched = [i for i, x in enumerate(self.inputs) if x.requires_grad] if is_grad_enabled() else []
        return self._gated(inputs, self._call_hooks)

    def leave(self, y):
        """The output (a tensor, or a tuple or list with tensors), watched."""
        if isinstance(y, Tensor):
            return self._gated((y,), self._keep_grad_output)[0]
        return self._gated(y, self._keep_grad_output) if isinstance(y, tuple | list) else y

    def _gated(self, values, on_gradients):
        tensors = [x for x in values if isinstance(x, Tensor)]
        open_to = [i for i, x in enumerate(tensors) if x.requires_grad]
        if not (open_to and is_grad_enabled()):
            return values

        def of_open(gradients):  # the Gate knows of the tensors that have a gradient, the hooks of all tensors
            spread = dict(zip(open_to, gradients))
            replaced = on_gradients(tuple(spread.get(i) for i in range(len(tensors))))
            return tuple(replaced[i] for i in open_to)

        gate = Gate(of_open)
        token = gate.apply(*[tensors[i] for i in open_to])
        passed = {id(tensors[i]): Pass(gate, k, tensors[i].data).apply(token) for k, i in enumerate(open_to)}
        return tuple(passed.get(id(x), x) for x in values)

    def _keep_grad_output(self, gradients):
        self.grad_output = gradients
        if not self.watched:  # nothing goes on to the inputs: the walk ends in here
            self._call_hooks((None,) * len(self.inputs))
        return gradients

    def _call_hooks(self, grad_input):
        for hook in self.hooks:
            replaced = hook(self.module, grad_input, self.grad_output)
            if replaced is not None:
                grad_input = replaced if isinstance(replaced, tuple) else (replaced,)
        return grad_input
