"""``explain``: what a network is made of, block by block, and where its shortcuts run.

The parts are found in a recorded forward pass (``graph.py``): the calls of modules that the network and its Sequentials hold,
in the order in which they are made; a module that is called twice is two parts. A shortcut goes from the part that made the
tensor which both sides of a residual addition follow from, to the part where they are added. ``diagram.py`` shows it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from ..nn import Module, Sequential
from ..ops.arithmetic import Add
from ..ops.convolution import Conv2d
from ..ops.linear import Linear, MatMul
from ..ops.shortcut import ZeroPadShortcut
from ..tensor import Op, Tensor
from .graph import Graph, record
from .result import norm


@dataclass
class Part:
    """One box of the drawing.

    name: of the module; kind: its class; shape: of its output for one image, (C, H, W) or (K,); parameters: their number, at
    the first call of a module; macs: multiply-adds of convolutions and matrix products for one image; bytes: of the values that
    its operations return for one image, in the network's dtype; gradient: ‖∂L/∂output‖ of the batch, or None before a backward
    pass; call: 1, 2 … of a module that is called several times, else 0; on_shortcut: whether it is a part of a shortcut.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    bytes: int
    gradient: float | None = None
    call: int = 0
    on_shortcut: bool = False

    def like(self, other: Part) -> bool:
        """Whether two parts are drawn as one."""
        return (self.kind, self.shape, self.parameters, self.macs, self.on_shortcut) == (
            *(other.kind, other.shape, other.parameters, other.macs, other.on_shortcut),
        )

    @property
    def title(self) -> str:
        """The name, with the number of the call if there are several."""
        return f"{self.name}, call {self.call}" if self.call else self.name


@dataclass
class Shortcut:
    """An arc of the drawing. first, last: numbers of parts: from the output of ``first`` (−1: the images) to that of ``last``.

    kind: "identity", "zero padding", "projection" or another module's class; gradient: the norm of the gradient that it passes
    back to where it begins, or None before a backward pass.
    """

    first: int
    last: int
    kind: str
    gradient: float | None = None


@dataclass
class Explanation:
    """The parts of a network in the order of the forward pass, and its shortcuts.

    input: the shape of an image; images: of the batch; unmarked: additions of two tensors that are not known as residual.
    """

    model: str
    input: tuple[int, ...]
    images: int
    parts: list[Part]
    shortcuts: list[Shortcut] = field(default_factory=list)
    unmarked: int = 0

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        return sum(part.macs for part in self.parts)

    @property
    def bytes(self) -> int:
        """Of the values of all parts, for the whole batch."""
        return self.images * sum(part.bytes for part in self.parts)

    def folded(self) -> list[tuple[int, int]]:
        """(first, number) of parts that are drawn as one box: equal ones in a row with equal shortcuts."""
        over = {s.last: (s.last - s.first, s.kind) for s in self.shortcuts}
        alone = {s.first + 1 for s in self.shortcuts if s.last - s.first > 1}
        found: list[tuple[int, int]] = []
        for i, part in enumerate(self.parts):
            if found:
                first, count = found[-1]
                same = part.like(self.parts[first]) and over.get(i) == over.get(first) and i not in alone
                if same and over.get(i, (1, ""))[0] == 1:
                    found[-1] = (first, count + 1)
                    continue
            found.append((i, 1))
        return found


def explain(
    model: Module,
    batch: tuple[NDArray[Any], NDArray[Any]],
    gradients: bool = True,
    name: str | None = None,
) -> Explanation:
    """The parts and shortcuts of a network, for the images (N, C, H, W) and labels (N,) of a batch.

    gradients: with one backward pass of the mean cross-entropy; without it gradients are None, never zero. name: of the
    network, by default its class's. The model is not changed. Raises ConfigError for a network whose forward pass calls no
    module.
    """
    paths = _part_paths(model)
    returned: dict[str, list[Any]] = {}
    handles = [
        module.register_forward_hook(lambda module, given, y, path=path: returned.setdefault(path, []).append(y))
        for path, module in model.named_modules()
        if path in paths
    ]
    try:
        graph = record(model, *batch)
    finally:
        for handle in handles:
            handle.remove()
    calls = _Calls(graph, paths, returned)
    if not calls.last:
        raise ConfigError(f"{type(model).__name__} calls no module: there is nothing to draw")
    modules, images = dict(model.named_modules()), len(batch[0])
    parts = [_part(key, modules[key[0]], calls, graph, images) for key in calls.last]
    explanation = Explanation(name or type(model).__name__, tuple(batch[0].shape[1:]), images, parts)
    for addition in graph.additions:
        fork = graph.fork(addition)
        begin = -1 if fork.op is None else calls.number(fork)
        inside = calls.of_op.get(id(addition.op))
        end = calls.order[inside] if inside is not None else calls.number(addition.branch)
        if inside is not None and begin == end:  # it begins within the same part
            begin = end - 1
        explanation.shortcuts.append(Shortcut(begin, end, _kind(addition.shortcut, fork)))
        only = graph._above(addition.shortcut) - graph._above(addition.branch)
        for i in {calls.number(graph.tensors[k]) for k in only} - {begin, end, -1}:
            parts[i].on_shortcut = True
    explanation.unmarked = sum(_is_unmarked(x.op, graph) for x in graph.tensors)
    if gradients:
        _add_gradients(explanation, graph, list(calls.last.values()))
    return explanation


class _Calls:
    """Which call of which part every operation belongs to.

    of_op: (path, number of the call) by the operation's id; last: the last tensor of each call, in the order of their first
    operations; order: their places in it.
    """

    def __init__(self, graph: Graph, paths: set[str], returned: dict[str, list[Any]]) -> None:
        when = {key: i for i, key in enumerate(graph.names)}
        ends = {
            path: sorted({when[id(y.op)] for y in outputs if isinstance(y, Tensor) and id(y.op) in when})
            for path, outputs in returned.items()
        }
        self.of_op: dict[int, tuple[str, int]] = {}
        self.last: dict[tuple[str, int], Tensor] = {}
        for x in sorted(graph.tensors, key=lambda x: when.get(id(x.op), -1)):
            path = None if x.op is None else _part_of(graph.names.get(id(x.op), ""), paths)
            if path is not None:
                found = ends.get(path, [])
                call = min(bisect_left(found, when[id(x.op)]), max(0, len(found) - 1))
                self.of_op[id(x.op)] = path, call
                self.last[path, call] = x  # the latest; a dict keeps the place of the first
        self.order = {key: i for i, key in enumerate(self.last)}

    def number(self, x: Tensor) -> int:
        """The number of the part that made x, or the last one that x follows from; −1 for the images."""
        while x.op is not None:
            key = self.of_op.get(id(x.op))
            if key is not None:
                return self.order[key]
            x = next((a for a in x.op.inputs if a.op is not None), x.op.inputs[0])
        return -1


def _is_unmarked(op: Op | None, graph: Graph) -> bool:
    """Whether it is an addition of two tensors of one shape that follow from the images or weights, but no residual one."""
    if not isinstance(op, Add) or op.residual is not None:
        return False
    a, b = op.inputs
    return a.shape == b.shape and all(x is graph.input or x.op is not None for x in (a, b))


def _part_paths(model: Module) -> set[str]:
    """The paths of the modules that are parts: what the network and its Sequentials hold."""
    found, stack = set(), [("", model)]
    while stack:
        path, module = stack.pop()
        for name, child in module.named_children():
            inner = f"{path}.{name}" if path else name
            if type(child) is Sequential:
                stack.append((inner, child))
            else:
                found.add(inner)
    return found


def _part_of(path: str, paths: set[str]) -> str | None:
    """The part that the module at ``path`` belongs to, or None for what the network computes itself."""
    words = path.split(".")
    return next((p for n in range(len(words), 0, -1) if (p := ".".join(words[:n])) in paths), None)


def _part(key: tuple[str, int], module: Module, calls: _Calls, graph: Graph, images: int) -> Part:
    (path, call), output = key, calls.last[key]
    ops = [x for x in graph.tensors if calls.of_op.get(id(x.op)) == key]
    return Part(
        path,
        type(module).__name__,
        tuple(output.shape[1:]),
        sum(p.size for p in module.parameters()) if call == 0 else 0,
        sum(_macs(x.op, x) for x in ops if x.op is not None) // images,
        sum(x.data.nbytes for x in ops) // images,
        call=call + 1 if (path, 1) in calls.last else 0,
    )


def _macs(op: Op, y: Tensor) -> int:
    """Multiply-adds of an operation, for the whole batch."""
    if isinstance(op, Conv2d):
        return y.size * math.prod(op.inputs[1].shape[1:])
    if isinstance(op, MatMul | Linear):
        return y.size * op.inputs[0].shape[-1]
    return 0


def _kind(shortcut: Tensor, fork: Tensor) -> str:
    """What a shortcut is."""
    if shortcut is fork:
        return "identity"
    x, ops = shortcut, []
    while x is not fork and x.op is not None:
        ops.append(x.op)
        x = x.op.inputs[0]
    if any(isinstance(op, Conv2d) for op in ops):
        return "projection"
    return "zero padding" if any(isinstance(op, ZeroPadShortcut) for op in ops) else ops[0].name


def _add_gradients(explanation: Explanation, graph: Graph, outputs: list[Tensor]) -> None:
    from .experiments.split import parts

    for part, channels in zip(explanation.parts, graph.backward(outputs)):
        part.gradient = norm(channels[0]) if channels else 0.0
    upstream = graph.backward([a.output for a in graph.additions])
    for shortcut, addition, channels in zip(explanation.shortcuts, graph.additions, upstream):
        identity, _, _ = parts(graph, addition, channels)
        shortcut.gradient = norm(identity) if identity is not None else 0.0
