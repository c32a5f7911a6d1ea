"""Module: a function with parameters, buffers and modules inside it, all of them plain attributes."""

from typing import NamedTuple

import numpy as np

from ..errors import ConfigError, DtypeError, ShapeError, nearest
from ..tensor import Handle, Tensor, watcher
from .hooks import BackwardHook


class Parameter(Tensor):
    """A tensor that a module owns and an optimizer changes: a leaf that requires a gradient.

    data: ndarray of floats, shared, in whatever memory order (a convolution's is stored (KH, KW, I, O)).
    """

    __slots__ = ()

    def __init__(self, data, requires_grad=True):
        super().__init__(data.data if isinstance(data, Tensor) else data, requires_grad)

    def __repr__(self):
        return f"Parameter containing:\n{super().__repr__()}"


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` did not find in the state, and what it found there and has no use for."""

    missing_keys: list
    unexpected_keys: list


class Module:
    """Base of every layer, block and network. A subclass makes its parts in ``__init__`` and writes ``forward``.

    An attribute that is a Parameter or a Module is found by ``parameters()``, ``modules()``, ``state_dict()`` …, under
    its name. An ndarray that belongs to the state and not to the training is a buffer: ``register_buffer``.

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.weight = Parameter(np.array([2.0]))
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> Scale().state_dict()
    {'weight': array([2.])}
    """

    training = True

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)  # not in __init__: there is nothing that a subclass could forget to call
        self._buffers = set()  # names
        self._forward_pre_hooks, self._forward_hooks, self._backward_hooks = {}, {}, {}
        return self

    def forward(self, *inputs):
        """What the module computes. Called through ``module(x)``, so that hooks run."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *inputs, **options):
        watch = watcher()
        if watch is not None:
            watch.enter(self)
        try:
            if not self.is_hooked:
                return self.forward(*inputs, **options)
            return self._call_with_hooks(inputs, options)
        except ShapeError as error:
            self._locate(error)
            raise
        finally:
            if watch is not None:
                watch.leave()

    # --- hooks

    @property
    def is_hooked(self):
        """Whether any hook is registered on this module: then it must be called, and not merely computed."""
        return bool(self._forward_pre_hooks or self._forward_hooks or self._backward_hooks)

    def is_plain(self, kind):
        """Whether calling this module does what calling a ``kind`` does: no hooks, and no forward of its own."""
        return type(self).forward is kind.forward and "forward" not in vars(self) and not self.is_hooked

    def register_forward_pre_hook(self, hook, *, with_kwargs=False):
        """Call ``hook(module, inputs)`` before forward; what it returns, if anything, replaces the inputs.

        with_kwargs: ``hook(module, inputs, options)``, with the keyword arguments, returns None or (inputs, options).
        """
        return Handle(self._forward_pre_hooks, (hook, with_kwargs))

    def register_forward_hook(self, hook, *, with_kwargs=False):
        """Call ``hook(module, inputs, output)`` after forward; what it returns, if anything, replaces the output.

        with_kwargs: ``hook(module, inputs, options, output)``, with the keyword arguments.
        """
        return Handle(self._forward_hooks, (hook, with_kwargs))

    def register_full_backward_hook(self, hook):
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of the inputs are known.

        Both are tuples of ndarrays, one for each tensor given to, and returned by, forward (None where there is no
        gradient). What the hook returns, if anything, replaces grad_input.
        """
        return Handle(self._backward_hooks, hook)

    def _call_with_hooks(self, inputs, options):
        for hook, with_kwargs in list(self._forward_pre_hooks.values()):
            replaced = hook(self, inputs, options) if with_kwargs else hook(self, inputs)
            if replaced is not None:
                inputs, options = replaced if with_kwargs else (replaced, options)
                inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        backward_hook = BackwardHook(self, list(self._backward_hooks.values())) if self._backward_hooks else None
        if backward_hook:
            inputs = backward_hook.setup_input_hook(inputs)
        y = self.forward(*inputs, **options)
        for hook, with_kwargs in list(self._forward_hooks.values()):
            replaced = hook(self, inputs, options, y) if with_kwargs else hook(self, inputs, y)
            y = y if replaced is None else replaced
        return backward_hook.setup_output_hook(y) if backward_hook else y

    def _locate(self, error):
        """Note where in this module a ShapeError happened. The outermost module, the last to do so, has the full path."""
        if error.module is None:
            error.module, error.path = self, type(self).__name__
        for name, module in self.named_modules():
            if module is error.module and name:
                error.path = name

    # --- what is inside

    def __setattr__(self, name, value):
        """A plain assignment; but what a Parameter, a Module or a buffer stood for stays of that kind, or becomes None."""
        before = vars(self).get(name)
        for kind in (Parameter, Module):
            if isinstance(before, kind) and not (value is None or isinstance(value, kind)):
                raise ConfigError(
                    f"{type(self).__name__}.{name} is a {kind.__name__} and cannot become a {type(value).__name__}: "
                    f"assign a {kind.__name__}, or change its data in place"
                )
        if name in vars(self).get("_buffers", ()) and not (value is None or isinstance(value, np.ndarray)):
            raise ConfigError(
                f"{type(self).__name__}.{name} is a buffer, an ndarray, and cannot become a {type(value).__name__}"
            )
        super().__setattr__(name, value)

    def register_buffer(self, name, array):
        """Make ``self.name`` an ndarray (or None) that is saved and loaded with the parameters."""
        if not (array is None or isinstance(array, np.ndarray)):
            raise DtypeError(f"register_buffer: {name} must be an ndarray, not {type(array).__name__}")
        self._buffers.add(name)
        setattr(self, name, array)

    def add_module(self, name, module):
        """The same as ``self.name = module``, for names that are no Python names: ``add_module("0", …)``."""
        if not isinstance(module, Module):
            raise ConfigError(f"{type(self).__name__}: {name!r} is no Module but a {type(module).__name__}")
        if not name or "." in name:
            raise ConfigError(f"{type(self).__name__}: a module's name is a text without dots, not {name!r}")
        setattr(self, name, module)

    def named_children(self):
        """(name, module) for each module directly inside."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def children(self):
        """Each module directly inside."""
        return [module for _, module in self.named_children()]

    def named_modules(self, remove_duplicate=True):
        """(path, module) for this module, whose path is "", and for all inside it, from the outside in."""
        seen, stack = set(), [("", self)]
        while stack:
            path, module = stack.pop()
            if remove_duplicate and id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            stack += reversed([(_join(path, name), child) for name, child in module.named_children()])

    def modules(self):
        """This module and all inside it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, *, recurse=True):
        """Yield (path, parameter) for every parameter of this module and, unless recurse=False, of all inside it, each once."""
        seen = set()
        for path, module in self.named_modules() if recurse else [("", self)]:
            for name, value in module._own_parameters():
                if id(value) not in seen:
                    seen.add(id(value))
                    yield _join(path, name), value

    def parameters(self, recurse=True):
        """Yield the parameters of ``named_parameters``."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, *, recurse=True):
        """Yield (path, ndarray) for every buffer of this module and, unless recurse=False, of all inside it."""
        for path, module in self.named_modules() if recurse else [("", self)]:
            for name, value in module._own_buffers():
                yield _join(path, name), value

    def buffers(self, recurse=True):
        """Yield the buffers of ``named_buffers``."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _own_parameters(self):
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Parameter)]

    def _own_buffers(self):
        return [(name, v) for name, v in vars(self).items() if name in self._buffers and v is not None]

    # --- what can be done to all of it

    def apply(self, function):
        """Call ``function(module)`` for every module inside, then for this one; returns self."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def train(self, mode=True):
        """Training mode (batch norm uses the batch's statistics, dropout drops), or evaluation mode; returns self."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self):
        """Evaluation mode; returns self."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Switch gradients of all parameters on or off; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self):
        """Forget the gradients of all parameters (``.grad`` becomes None)."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype):
        """Convert parameters and floating-point buffers to float32 or float64, keeping their memory order; returns self.

        Gradients are forgotten. Make the optimizer afterwards.
        """
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise DtypeError(f"a module computes in float32 or float64, not in {dtype}")
        for module in self.modules():
            for _, parameter in module._own_parameters():
                parameter.data, parameter.grad = parameter.data.astype(dtype, order="K", copy=False), None
            for name, buffer in module._own_buffers():
                if buffer.dtype.kind == "f":
                    setattr(module, name, buffer.astype(dtype, copy=False))
        return self

    def double(self):
        """Everything in float64: for gradient checks."""
        return self.to(np.float64)

    def float(self):
        """Everything in float32."""
        return self.to(np.float32)

    # --- saving and loading

    def state_dict(self):
        """Path → ndarray, of every parameter and buffer, in PyTorch's order. The arrays are those in use, not copies."""
        state = {}
        for path, module in self.named_modules(remove_duplicate=False):
            state |= {_join(path, name): parameter.data for name, parameter in module._own_parameters()}
            state |= {_join(path, name): buffer for name, buffer in module._own_buffers()}
        return state

    def load_state_dict(self, state, strict=True):
        """Copy arrays (ndarrays, Tensors, anything NumPy reads) into the parameters and buffers of the same paths.

        Each keeps its own dtype and memory order. Raises ConfigError, naming every path, when a shape differs and, if
        strict, when any is missing or unexpected; then nothing has changed. Returns (missing_keys, unexpected_keys).
        """
        own = self.state_dict()
        state = {name: value.data if isinstance(value, Tensor) else np.asarray(value) for name, value in state.items()}
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        misshapen = [name for name in own if name in state and state[name].shape != own[name].shape]
        if misshapen or (strict and (missing or unexpected)):
            raise ConfigError(self._misfit(own, state, missing, unexpected, misshapen, strict))
        for name, array in own.items():
            if name in state:
                array[...] = state[name]
        return IncompatibleKeys(missing, unexpected)

    def _misfit(self, own, state, missing, unexpected, misshapen, strict):
        kinds = {
            "misshapen": [f"{n} is {state[n].shape} in the state and {own[n].shape} in the model" for n in misshapen],
            "missing": missing if strict else [],
            "unexpected": [n + nearest(n, missing) for n in unexpected] if strict else [],
        }
        found = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names)
        way_out = "" if misshapen else " (strict=False loads what fits)"
        return f"load_state_dict: the state does not fit this {type(self).__name__}. {found}{way_out}"

    # --- printing

    def extra_repr(self):
        """What to print between the parentheses: the settings."""
        return ""

    def __repr__(self):
        extra = self.extra_repr()
        parts = [f"({name}): {child!r}" for name, child in self.named_children()]
        if not parts:
            return f"{type(self).__name__}({extra})"
        lines = "\n".join([extra] * bool(extra) + parts).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n)"


def _join(path, name):
    return f"{path}.{name}" if path else name


def _listed(names, most=20):
    """The names, the first ``most`` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
