"""A forward pass, recorded operation by operation, whose residual additions are known by name.

At fixed forward values a backward pass is linear in the gradient that it starts with, so several gradients, *channels*, can be
carried through it side by side and told apart by what they have crossed. ``Graph.backward`` does that for any network: at every
residual addition a rule says what becomes of the channels that go on into the residual function. Everything else is the tape's
own: the operations' backward methods, and the sum over the uses of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, DtypeError
from ..grad_mode import enable_grad, set_watcher
from ..lazy import fusion
from ..nn import Module, classification_loss
from ..tensor import Op, Tensor, topological_order

Channels = list[NDArray[Any] | None]  # gradients of one tensor; None is zero


class Addition(NamedTuple):
    """A residual addition y = F(x) + S(x), perhaps followed by a ReLU. name: the module that it was called in."""

    name: str
    op: Op
    output: Tensor

    @property
    def branch(self) -> Tensor:
        """The residual function's output F(x)."""
        assert self.op.residual is not None
        return self.op.inputs[self.op.residual]

    @property
    def shortcut(self) -> Tensor:
        """The shortcut's output S(x)."""
        return self.op.inputs[_shortcut_of(self.op)]


def _shortcut_of(op: Op) -> int:
    """The input of an addition that is the shortcut: the last, or of two the other one."""
    return len(op.inputs) - 1 if op.residual == 0 else 0


class Rule:
    """What becomes of the channels of a residual addition's gradient. The base class is ordinary backpropagation."""

    def branch(self, addition: Addition, channels: Channels) -> Channels:
        """Those that go on into the residual function."""
        return channels

    def shortcut(self, addition: Addition, channels: Channels) -> Channels:
        """Those that go on into the shortcut."""
        return channels


class Graph:
    """The recorded operations of one forward pass.

    output: the Tensor that was differentiated, the loss; input: the images; names: the module in which each operation was
    called, by the operation's id, in the order of the forward pass; tensors: all that depend on the input or on parameters,
    inputs before outputs; additions: the residual ones, in that order; places: tensors by the name of the module that returned
    them, "input" and "stem" (what the first residual block reads).
    """

    def __init__(self, output: Tensor, input: Tensor, names: dict[int, str], places: dict[str, Tensor]) -> None:
        self.output, self.input, self.names = output, input, names
        self.tensors = topological_order([output])
        self.index = {id(x): i for i, x in enumerate(self.tensors)}
        self.additions = [
            Addition(names.get(id(x.op), ""), x.op, x)
            for x in self.tensors
            if x.op is not None and x.op.residual is not None
        ]
        self.additions = [a._replace(name=n) for a, n in zip(self.additions, _unique(a.name for a in self.additions))]
        self._addition_of = {id(a.op): a for a in self.additions}
        self.places = {"input": input, **{name: x for name, x in places.items() if id(x) in self.index}}
        if self.additions:
            self.places["stem"] = self.fork(self.additions[0])

    def place(self, name: str) -> Tensor:
        """The tensor of a place. Raises ConfigError for an unknown one."""
        if name not in self.places:
            from ..errors import nearest

            raise ConfigError(
                f"no place {name!r} in this network{nearest(name, self.places)}: a place is 'input', 'stem' or a module's "
                f"name, such as {next(reversed(list(self.places)), '')!r}"
            )
        return self.places[name]

    def fork(self, addition: Addition) -> Tensor:
        """x of y = F(x) + S(x): the last tensor that both the residual function and the shortcut follow from."""
        above = self._above(addition.branch) & self._above(addition.shortcut)
        if not above:
            raise ConfigError(f"the two sides of the residual addition in {addition.name} follow from no common tensor")
        return self.tensors[max(above)]

    def _above(self, x: Tensor) -> set[int]:
        """The indices of x and of all tensors that it follows from, parameters left out."""
        found, stack = set(), [x]
        while stack:
            tensor = stack.pop()
            i = self.index.get(id(tensor))
            if i is None or i in found or (tensor.is_leaf and tensor is not self.input):
                continue
            found.add(i)
            stack += tensor.op.inputs if tensor.op is not None else ()
        return found

    def _between(self, first: int, to: Iterable[Tensor]) -> dict[int, Tensor]:
        """Those of ``to`` and every tensor up to number ``first`` that follows from one of them, by id."""
        found = {id(x): x for x in to}
        for x in self.tensors[: first + 1]:
            if x.op is not None and any(id(a) in found for a in x.op.inputs):
                found[id(x)] = x
        return found

    # --- backward

    def backward(
        self,
        to: Sequence[Tensor],
        rule: Rule | None = None,
        start: dict[Tensor, Channels] | None = None,
    ) -> list[Channels]:
        """The channels of the gradients of ``to``, tensors of this graph.

        start: tensors and the channels of their gradients; by default the output with one channel, 1. The operations keep what
        they saved, so that this can be called again. Raises GraphError as ``Tensor.backward`` does.
        """
        rule = rule or Rule()
        start = {self.output: [np.ones_like(self.output.data)]} if start is None else start
        totals: dict[int, Channels] = {}
        for y, channels in start.items():
            totals[id(y)] = list(channels)
        first = max(self.index[id(y)] for y in start)
        needed, ends = self._between(first, to), {id(x) for x in to}
        for y in reversed(self.tensors[: first + 1]):
            if id(y) not in totals or id(y) not in needed:
                continue
            channels = totals[id(y)] if id(y) in ends else totals.pop(id(y))
            if y.op is not None and any(id(x) in needed for x in y.op.inputs):
                self._step(y.op, channels, rule, needed, totals)
        return [totals.get(id(x), []) for x in to]

    def _step(
        self, op: Op, channels: Channels, rule: Rule, needed: dict[int, Tensor], totals: dict[int, Channels]
    ) -> None:
        """Add the gradients of an operation's inputs to the totals."""
        op.check_versions()
        needs = tuple(id(x) in needed and x.requires_grad for x in op.inputs)
        with fusion(False):
            found = [None if dy is None else op.backward(dy, needs) for dy in channels]
        addition = self._addition_of.get(id(op))
        for i, x in enumerate(op.inputs):
            if not needs[i]:
                continue
            mine: Channels = [None if gradients is None else gradients[i] for gradients in found]
            if addition is not None:
                mine = (rule.branch if i == op.residual else rule.shortcut)(addition, mine)
            totals[id(x)] = _plus(totals[id(x)], mine) if id(x) in totals else mine

    def count_paths(self, to: Tensor) -> list[int]:
        """The number of paths from the output to a tensor, by the number of residual functions that they pass through."""
        first = len(self.tensors) - 1
        needed, counts = self._between(first, [to]), {id(self.output): [1]}
        for y in reversed(self.tensors):
            if id(y) not in counts or id(y) not in needed or y is to or y.op is None:
                continue
            mine = counts.pop(id(y))
            for i, x in enumerate(y.op.inputs):
                if id(x) in needed:
                    longer = [0, *mine] if i == y.op.residual else mine
                    counts[id(x)] = [a + b for a, b in _zip_longest(counts.get(id(x), []), longer)]
        return counts.get(id(to), [])


def _plus(a: Channels, b: Channels) -> Channels:
    """The sum of channels. The arrays may be shared with others, so none is added to in place."""
    total: Channels = list(a) + [None] * (len(b) - len(a))
    for k, more in enumerate(b):
        if more is not None:
            so_far = total[k]
            total[k] = more if so_far is None else so_far + more
    return total


def total(channels: Channels) -> NDArray[Any] | None:
    """The sum of channels; None where all are zero."""
    present = [g for g in channels if g is not None]
    return sum(present[1:], present[0]) if present else None


def _zip_longest(a: list[int], b: list[int]) -> Iterator[tuple[int, int]]:
    length = max(len(a), len(b))
    return zip(a + [0] * (length - len(a)), b + [0] * (length - len(b)))


def _unique(names: Iterable[str]) -> list[str]:
    """The names, with a number after one that has occurred before."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


# --- recording


class _Watch:
    """Notes in which module each operation was called. (The tape and modules call these methods.)"""

    def __init__(self, model: Module) -> None:
        self.paths = {id(m): path for path, m in model.named_modules()}
        self.modules: list[str] = []
        self.names: dict[int, str] = {}
        self.kept: list[Op] = []  # so that no two operations have the same id

    def enter(self, module: Module) -> None:
        self.modules.append(self.paths.get(id(module), ""))

    def leave(self) -> None:
        self.modules.pop()

    def forward(self, op: Op, inputs: Sequence[Tensor], y: Tensor) -> None:
        inner = next((path for path in reversed(self.modules) if path), "")
        self.names[id(op)] = inner or "the network"
        self.kept.append(op)

    def backward(self, op: Op, dy: NDArray[Any], gradients: Sequence[Any]) -> None:
        pass


@contextmanager
def untouched(model: Module) -> Iterator[None]:
    """Inside, a forward pass may change running statistics and modes; afterwards they are as they were."""
    buffers = [(m, name, array, array.copy()) for m in model.modules() for name, array in m._own_buffers()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for owner, name, array, before in buffers:
            array[...] = before
            if getattr(owner, name) is not array:  # a module of the user's, which put another in its place
                setattr(owner, name, array)
        for module, training in modes:
            module.training = training


def record(
    model: Module,
    images: NDArray[Any] | Tensor,
    labels: NDArray[Any] | Sequence[int] | None = None,
    training: bool | None = None,
    loss: Callable[[Tensor], Tensor] | None = None,
) -> Graph:
    """Run a classifier's forward pass and its loss, ``nn.classification_loss``, operation by operation.

    images: ndarray (N, C, H, W) of the weights' dtype; labels: ndarray (N,) of integers. loss: a function of the model's output
    in place of that. training: the mode of the model, by default the one it is in; mode and running statistics are
    restored. Raises what the model raises, DtypeError for images of another dtype than the weights, ConfigError for backward
    hooks on the model or neither labels nor a loss, and DataError for a loss that is not finite.
    """
    x = Tensor(np.array(images.data if isinstance(images, Tensor) else images, order="K"), requires_grad=True)
    if labels is None and loss is None:
        raise ConfigError("labels are missing: give the classes of the images, or a loss(output)")
    dtypes = {p.dtype for p in model.parameters()}
    if dtypes and x.dtype not in dtypes:
        raise DtypeError(
            f"the images are {x.dtype} and the model's weights {', '.join(map(str, dtypes))}: convert one of them"
        )
    places: dict[str, Tensor] = {}
    watch = _Watch(model)
    handles = [
        module.register_forward_hook(lambda module, inputs, y, path=path: _note(places, path, y))
        for path, module in model.named_modules()
        if path
    ]
    before = set_watcher(watch)
    try:
        with untouched(model), enable_grad(), fusion(False):
            if training is not None:
                model.train(training)
            y = model(x)
            total = classification_loss(y, np.asarray(labels)) if loss is None else loss(y)
    finally:
        set_watcher(before)
        for handle in handles:
            handle.remove()
    if any(op.calls_hooks for op in watch.kept):
        raise ConfigError(
            "the model has backward hooks, which may change gradients: remove them (handle.remove()) first"
        )
    if not np.isfinite(total.data).all():
        raise DataError(
            f"the loss is {float(total.data.max())}: no gradient can be followed from there; look at the weights and images"
        )
    return Graph(total, x, watch.names, places)


def _note(places: dict[str, Tensor], path: str, y: Any) -> None:
    if isinstance(y, Tensor):
        places[path] = y
