"""Module: a function that owns parameters, buffers and other modules, all of them plain attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..errors import ConfigError, DtypeError, ShapeError, nearest
from ..grad_mode import watcher
from ..handle import Handle, structure
from ..tensor import Tensor
from .hooks import BackwardHook


class Parameter(Tensor):
    """A tensor that a module owns and an optimizer updates: a leaf that requires a gradient.

    data: ndarray (or Tensor) of floats, not copied, in any memory order (a convolution's is stored (KH, KW, I, O)).
    Raises DtypeError for data that cannot be differentiated.
    """

    __slots__ = ()

    def __init__(self, data: NDArray | Tensor, requires_grad: bool = True) -> None:
        super().__init__(data.data if isinstance(data, Tensor) else data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class IncompatibleKeys(NamedTuple):
    """The keys that ``load_state_dict`` did not find in the state, and those that the module does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """The base class of layers, blocks and networks. A subclass assigns its parts in ``__init__`` and defines ``forward``.

    Attributes that are Parameters or Modules are found by ``parameters()``, ``modules()``, ``state_dict()`` …, under their
    names. An ndarray that is part of the state but not trained is a buffer: ``register_buffer``. There is no need to call
    ``super().__init__()``.

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.weight = Parameter(np.array([2.0]))
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> Scale().state_dict()
    {'weight': array([2.])}
    """

    training = True
    frozen: Any = False  # True: it stays in evaluation mode whatever train() says (anything else is the user's own)
    recordable: Any = False  # does every call launch the same kernels? Each class says so for itself (``recorded.py``)
    _buffers: set[str]  # names
    _forward_pre_hooks: dict[object, tuple[Callable[..., Any], bool]]
    _forward_hooks: dict[object, tuple[Callable[..., Any], bool]]
    _backward_hooks: dict[object, Callable[..., Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)  # not in __init__, which a subclass could forget to call
        self._buffers = set()
        self._forward_pre_hooks, self._forward_hooks, self._backward_hooks = {}, {}, {}
        return self

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Compute the output. Call ``module(x)`` instead, which runs the hooks too."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        watch = watcher()
        if watch is not None:
            watch.enter(self)
        try:
            if not self.is_hooked:
                return self.forward(*inputs, **kwargs)
            return self._call_with_hooks(inputs, kwargs)
        except ShapeError as error:
            self._locate(error)
            raise
        finally:
            if watch is not None:
                watch.leave()

    # --- hooks

    @property
    def is_hooked(self) -> bool:
        """Whether any hook is registered on this module, so that a fused operation must not replace its call."""
        return bool(self._forward_pre_hooks or self._forward_hooks or self._backward_hooks)

    def is_plain(self, defined: Mapping[str, object]) -> bool:
        """Whether a call does what the library's class does: no hooks, no forward of its own, and its class still has the
        attributes ``defined``, whether it is a subclass or somebody has replaced them."""
        if self.is_hooked or "forward" in vars(self):
            return False
        return all(getattr(type(self), name) is attribute for name, attribute in defined.items())

    def register_forward_pre_hook(self, hook: Callable[..., Any], *, with_kwargs: bool = False) -> Handle:
        """Call ``hook(module, inputs)`` before forward. If it returns something, that replaces the inputs.

        with_kwargs: call ``hook(module, inputs, kwargs)``, which returns None or (inputs, kwargs).
        Returns a handle; ``handle.remove()`` removes the hook.
        """
        return Handle(self._forward_pre_hooks, (hook, with_kwargs))

    def register_forward_hook(self, hook: Callable[..., Any], *, with_kwargs: bool = False) -> Handle:
        """Call ``hook(module, inputs, output)`` after forward. If it returns something, that replaces the output.

        with_kwargs: call ``hook(module, inputs, kwargs, output)``. Returns a handle.
        """
        return Handle(self._forward_hooks, (hook, with_kwargs))

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of the inputs are known.

        Both are tuples of ndarrays, one for each tensor that forward takes as a positional argument or returns, by itself or
        in tuples, lists and dicts; None where there is no gradient. If the hook returns something, that replaces grad_input:
        ShapeError if it does not fit. Calling the module raises DtypeError for an output of another kind. Returns a handle.
        """
        return Handle(self._backward_hooks, hook)

    def _call_with_hooks(self, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook, with_kwargs in list(self._forward_pre_hooks.values()):
            replaced = hook(self, inputs, kwargs) if with_kwargs else hook(self, inputs)
            if replaced is not None:
                inputs, kwargs = replaced if with_kwargs else (replaced, kwargs)
                inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        backward_hook = BackwardHook(self, list(self._backward_hooks.values())) if self._backward_hooks else None
        if backward_hook:
            inputs = backward_hook.setup_input_hook(inputs)
        y = self.forward(*inputs, **kwargs)
        for hook, with_kwargs in list(self._forward_hooks.values()):
            replaced = hook(self, inputs, kwargs, y) if with_kwargs else hook(self, inputs, y)
            y = y if replaced is None else replaced
        return backward_hook.setup_output_hook(y) if backward_hook else y

    def _locate(self, error: ShapeError) -> None:
        """Set the path of a ShapeError in this module. The outermost module does so last, and knows the full path."""
        if error.module is None:
            error.module, error.path = self, type(self).__name__
        for name, module in self.named_modules():
            if module is error.module and name:
                error.path = name

    # --- parameters, buffers and modules

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign an attribute. A Parameter, a Module or a buffer can be replaced only by one of the same kind, or by None.

        Raises ConfigError otherwise.
        """
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
        if before is not value:
            structure.count_change()
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        structure.count_change()

    def register_buffer(self, name: str, array: NDArray | None) -> None:
        """Make ``self.name`` an ndarray (or None) that is saved and loaded with the parameters.

        Raises DtypeError for anything else.
        """
        if not (array is None or isinstance(array, np.ndarray)):
            raise DtypeError(f"register_buffer: {name} must be an ndarray, not {type(array).__name__}")
        self._buffers.add(name)
        setattr(self, name, array)

    def add_module(self, name: str, module: Module) -> None:
        """``self.name = module``, for names that are not Python identifiers: ``add_module("0", …)``.

        Raises ConfigError for a module that is not a Module, and for a name that is empty or has a dot.
        """
        if not isinstance(module, Module):
            raise ConfigError(f"{type(self).__name__}: {name!r} is not a Module but a {type(module).__name__}")
        if not name or "." in name:
            raise ConfigError(f"{type(self).__name__}: a module's name is a text without dots, not {name!r}")
        setattr(self, name, module)

    def named_children(self) -> list[tuple[str, Module]]:
        """[(name, module)] of the modules that are attributes of this one."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def children(self) -> list[Module]:
        """The modules that are attributes of this one."""
        return [module for _, module in self.named_children()]

    def named_modules(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module, whose path is "", and for all inside it, outer ones first."""
        seen, stack = set(), [("", self)]
        while stack:
            path, module = stack.pop()
            if remove_duplicate and id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            stack += reversed([(_join(path, name), child) for name, child in module.named_children()])

    def modules(self) -> Iterator[Module]:
        """Yield this module and all inside it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, *, recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter) for every parameter of this module and, unless recurse=False, of all inside it, each once."""
        seen = set()
        for path, module in self.named_modules() if recurse else [("", self)]:
            for name, value in module._own_parameters():
                if id(value) not in seen:
                    seen.add(id(value))
                    yield _join(path, name), value

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters of ``named_parameters``."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, *, recurse: bool = True) -> Iterator[tuple[str, NDArray]]:
        """Yield (path, ndarray) for every buffer of this module and, unless recurse=False, of all inside it."""
        for path, module in self.named_modules() if recurse else [("", self)]:
            for name, value in module._own_buffers():
                yield _join(path, name), value

    def buffers(self, recurse: bool = True) -> Iterator[NDArray]:
        """Yield the buffers of ``named_buffers``."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _own_parameters(self) -> list[tuple[str, Parameter]]:
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Parameter)]

    def _own_buffers(self) -> list[tuple[str, NDArray]]:
        return [(name, v) for name, v in vars(self).items() if name in self._buffers and v is not None]

    # --- operations on all modules inside

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Call ``function(module)`` for every module inside and then for this one; returns self."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training mode (batch norm uses the batch's statistics, dropout is active) or evaluation mode; returns self.

        Modules that are ``frozen`` stay in evaluation mode.
        """
        for module in self.modules():
            module.training = bool(mode) and module.frozen is not True
        return self

    def eval(self) -> Self:
        """Set evaluation mode; returns self."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set ``requires_grad`` of all parameters; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype: DTypeLike) -> Self:
        """Convert parameters and floating-point buffers to float32 or float64, keeping their memory order; returns self.

        Gradients are set to None. Create the optimizer afterwards. Raises DtypeError for any other dtype.
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

    def double(self) -> Self:
        """Convert to float64, for gradient checks; returns self."""
        return self.to(np.float64)

    def float(self) -> Self:
        """Convert to float32; returns self."""
        return self.to(np.float32)

    # --- saving and loading

    def state_dict(self) -> dict[str, NDArray]:
        """{path: ndarray} of every parameter and buffer, in PyTorch's order. The arrays are not copies."""
        state: dict[str, NDArray] = {}
        for path, module in self.named_modules(remove_duplicate=False):
            state |= {_join(path, name): parameter.data for name, parameter in module._own_parameters()}
            state |= {_join(path, name): buffer for name, buffer in module._own_buffers()}
        return state

    def load_state_dict(self, state: Mapping[str, ArrayLike | Tensor], strict: bool = True) -> IncompatibleKeys:
        """Copy arrays (ndarrays, Tensors, anything NumPy reads) into the parameters and buffers with the same paths.

        Parameters and buffers keep their dtypes and memory orders. Returns (missing_keys, unexpected_keys). Raises
        ConfigError, which lists the paths, when a shape differs or, if strict, when a key is missing or unexpected, and
        DtypeError for what are not numbers; then nothing has been copied.
        """
        own = self.state_dict()
        given = {name: _numbers(name, value) for name, value in state.items() if name in own}
        missing = [name for name in own if name not in given]
        unexpected = [name for name in state if name not in own]
        misshapen = [name for name in own if name in given and given[name].shape != own[name].shape]
        if misshapen or (strict and (missing or unexpected)):
            raise ConfigError(self._misfit(own, given, missing, unexpected, misshapen, strict))
        for name, array in own.items():
            if name in given:
                array[...] = given[name]
        structure.count_change()
        for parameter in self.parameters():
            parameter.count_change()
        return IncompatibleKeys(missing, unexpected)

    def _misfit(
        self,
        own: dict[str, NDArray],
        given: dict[str, NDArray],
        missing: list[str],
        unexpected: list[str],
        misshapen: list[str],
        strict: bool,
    ) -> str:
        kinds = {
            "misshapen": [f"{n} is {given[n].shape} in the state and {own[n].shape} in the model" for n in misshapen],
            "missing": missing if strict else [],
            "unexpected": [n + nearest(n, missing) for n in unexpected] if strict else [],
        }
        found = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names)
        way_out = "" if misshapen else " (strict=False loads what fits)"
        return f"load_state_dict: the state does not fit this {type(self).__name__}. {found}{way_out}"

    # --- printing

    def extra_repr(self) -> str:
        """The settings, which ``repr`` prints between the parentheses."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        parts = [f"({name}): {child!r}" for name, child in self.named_children()]
        if not parts:
            return f"{type(self).__name__}({extra})"
        lines = "\n".join([extra] * bool(extra) + parts).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n)"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _numbers(name: str, value: ArrayLike | Tensor) -> NDArray:
    """A value of a state as an array of numbers, or DtypeError."""
    try:
        array = value.data if isinstance(value, Tensor) else np.asarray(value)
    except ValueError as error:
        raise DtypeError(f"load_state_dict: {name} is no array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"load_state_dict: {name} is no array of numbers, but of {array.dtype}; nothing was loaded")
    return array


def _listed(names: list[str], most: int = 20) -> str:
    """The first ``most`` names in a list, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
