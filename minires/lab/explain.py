"""``explain``: what a network is made of, block by block, and where its shortcuts run.

The parts are found in a recorded forward pass (``graph.py``): the modules that the network and its Sequentials hold, in the
order in which they are called. A shortcut goes from the part that made the tensor which both sides of a residual addition
follow from, to the part where they are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..nn import Module, Sequential
from ..ops.convolution import Conv2d
from ..ops.linear import Linear, MatMul
from ..ops.shortcut import ZeroPadShortcut
from ..tensor import Op, Tensor
from .graph import Graph, record
from .result import norm

EDGE = 1.6  # where arcs begin, right of the boxes


@dataclass
class Part:
    """One box of the drawing.

    name: of the module; kind: its class; shape: of its output for one image, (C, H, W) or (K,); parameters: their number; macs:
    multiply-adds of convolutions and matrix products for one image; bytes: of the values that its operations return for one
    image, in the network's dtype; gradient: ‖∂L/∂output‖ of the batch, or None before a backward pass.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    bytes: int
    gradient: float | None = None

    def like(self, other: Part) -> bool:
        """Whether two parts are drawn as one."""
        return (self.kind, self.shape, self.parameters, self.macs) == (
            *(other.kind, other.shape, other.parameters, other.macs),
        )


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
    """The parts of a network in the order of the forward pass, and its shortcuts."""

    model: str
    input: tuple[int, ...]
    images: int
    parts: list[Part]
    shortcuts: list[Shortcut] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        return sum(part.macs for part in self.parts)

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
    graph = record(model, *batch)
    paths = _part_paths(model)
    of_op = {id(x.op): _part_of(graph.names.get(id(x.op), ""), paths) for x in graph.tensors if x.op is not None}
    when = {key: i for i, key in enumerate(graph.names)}
    order: list[str] = []  # the parts, by first call
    last: dict[str, Tensor] = {}
    for x in sorted(graph.tensors, key=lambda x: when.get(id(x.op), -1)):
        path = of_op.get(id(x.op)) if x.op is not None else None
        if path is not None:
            last[path] = x
            if path not in order:
                order.append(path)
    if not order:
        raise ConfigError(f"{type(model).__name__} calls no module: there is nothing to draw")
    modules, images = dict(model.named_modules()), len(batch[0])
    parts = [_part(path, modules[path], last[path], graph, of_op, images) for path in order]
    explanation = Explanation(name or type(model).__name__, tuple(batch[0].shape[1:]), images, parts)
    number = {path: i for i, path in enumerate(order)}
    for addition in graph.additions:
        fork = graph.fork(addition)
        begin = -1 if fork.op is None else _number(fork, of_op, number)
        inside = of_op.get(id(addition.op))
        end = number[inside] if inside is not None else _number(addition.branch, of_op, number)
        if inside is not None and begin == end:  # it begins within the same part
            begin = end - 1
        explanation.shortcuts.append(Shortcut(begin, end, _kind(addition.shortcut, fork, graph, modules)))
    if gradients:
        _add_gradients(explanation, graph, [last[path] for path in order])
    return explanation


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


def _part(path: str, module: Module, output: Tensor, graph: Graph, of_op: dict[int, str | None], images: int) -> Part:
    ops = [x for x in graph.tensors if x.op is not None and of_op[id(x.op)] == path]
    return Part(
        path,
        type(module).__name__,
        tuple(output.shape[1:]),
        sum(p.size for p in module.parameters()),
        sum(_macs(x.op, x) for x in ops if x.op is not None) // images,
        sum(x.data.nbytes for x in ops) // images,
    )


def _macs(op: Op, y: Tensor) -> int:
    """Multiply-adds of an operation, for the whole batch."""
    if isinstance(op, Conv2d):
        return y.size * math.prod(op.inputs[1].shape[1:])
    if isinstance(op, MatMul | Linear):
        return y.size * op.inputs[0].shape[-1]
    return 0


def _number(x: Tensor, of_op: dict[int, str | None], number: dict[str, int]) -> int:
    """The number of the part that made x, or the last one that x follows from."""
    while x.op is not None:
        path = of_op.get(id(x.op))
        if path is not None:
            return number[path]
        x = next((a for a in x.op.inputs if a.op is not None), x.op.inputs[0])
    return -1


def _kind(shortcut: Tensor, fork: Tensor, graph: Graph, modules: dict[str, Module]) -> str:
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
    from .split import parts

    for part, channels in zip(explanation.parts, graph.backward(outputs)):
        part.gradient = norm(channels[0]) if channels else 0.0
    upstream = graph.backward([a.output for a in graph.additions])
    for shortcut, addition, channels in zip(explanation.shortcuts, graph.additions, upstream):
        identity, _, _ = parts(graph, addition, channels)
        shortcut.gradient = norm(identity) if identity is not None else 0.0


def rows(explanation: Explanation) -> tuple[list[str], list[list[str]]]:
    """A table: the columns' headings, and a row for each box of the drawing."""
    heads = ["block", "kind", "output", "parameters", "MACs", "values", "‖gradient‖"]
    found = []
    for first, count in explanation.folded():
        part, end = explanation.parts[first], explanation.parts[first + count - 1]
        names = part.name if count == 1 else f"{part.name} … {end.name}"
        kind = part.kind if count == 1 else f"{count} × {part.kind}"
        shape = "×".join(map(str, part.shape))
        gradient = "no gradient yet" if end.gradient is None else f"{end.gradient:.3e}"
        sums = [
            sum(getattr(p, key) for p in explanation.parts[first : first + count])
            for key in ("parameters", "macs", "bytes")
        ]
        found.append([names, kind, shape, f"{sums[0]:,}", _short(sums[1]), f"{_short(sums[2])}B", gradient])
    return heads, found


def _short(number: int) -> str:
    """A number with a prefix: 1.5 M."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number} "


def text(explanation: Explanation) -> str:
    """The drawing for a terminal: a line for each box, and the shortcuts as arcs on the left, innermost next to the boxes."""
    boxes = explanation.folded()
    row = {first + k: i for i, (first, count) in enumerate(boxes) for k in range(count)}
    row[-1] = -1
    arcs = sorted({(row[s.first], row[s.last], s.kind) for s in explanation.shortcuts}, key=lambda a: a[1] - a[0])
    lanes: list[list[tuple[int, int, str]]] = []
    for arc in arcs:
        lane = next((lane for lane in lanes if all(arc[0] >= b or arc[1] <= a for a, b, _ in lane)), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(arc)
    lines = []
    for i, name in enumerate(["images", *(_label(explanation, *box) for box in boxes)], -1):
        left = "".join(_mark(lane, i) for lane in reversed(lanes))
        lines.append(f"{left} {name}")
    return "\n".join(lines)


def _label(explanation: Explanation, first: int, count: int) -> str:
    part = explanation.parts[first]
    return f"{part.name}{f' ×{count}' if count > 1 else ''}  {part.kind} {'×'.join(map(str, part.shape))}"


def _mark(lane: list[tuple[int, int, str]], i: int) -> str:
    begins, ends = any(a == i for a, _, _ in lane), any(b == i for _, b, _ in lane)
    if begins and ends:
        return "├"
    if begins:
        return "╭"
    if ends:
        return "╰"
    return "│" if any(a < i < b for a, b, _ in lane) else " "


def draw(explanation: Explanation) -> Any:
    """The drawing as a Matplotlib Figure: boxes from top to bottom, every shortcut an arc, lines as wide as the gradient."""
    from ..figures import new_figure

    boxes = explanation.folded()
    row = {first + k: i for i, (first, count) in enumerate(boxes) for k in range(count)} | {-1: -1}
    figure = new_figure(figsize=(6.5, 0.42 * (len(boxes) + 2) + 0.6), layout="constrained")
    axes = figure.add_subplot()
    known = [p.gradient for p in explanation.parts if p.gradient] + [
        s.gradient for s in explanation.shortcuts if s.gradient
    ]
    largest = max(known, default=1.0)

    def width(gradient: float | None) -> float:
        """In points: 5 for the largest gradient, and one less for every factor of 10."""
        return 0.8 if not gradient else max(0.5, 5 + math.log10(gradient / largest))

    axes.text(0, 1, f"images {'×'.join(map(str, explanation.input))}", ha="center", va="center", fontsize=8)
    for i, (first, count) in enumerate(boxes):
        part = explanation.parts[first + count - 1]
        axes.text(
            *(0, -i, f"{_label(explanation, first, count)}   {_short(part.macs)}MAC"),
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "#F0F0F0", "edgecolor": "black", "linewidth": 0.8},
        )
        above = explanation.parts[first - 1].gradient if first else None
        axes.plot(
            [0, 0], [-i + 1 - 0.3, -i + 0.3], color="#0072B2", linewidth=width(above), solid_capstyle="butt", zorder=0
        )
    styles = {"identity": "-", "zero padding": "--", "projection": "-."}
    drawn: set[tuple[int, int]] = set()
    for shortcut in explanation.shortcuts:
        begin, end = row[shortcut.first], row[shortcut.last]
        if begin == end or (begin, end) in drawn:  # of equal blocks in one box, the first one's
            continue
        drawn.add((begin, end))
        curve = np.linspace(-math.pi / 2, math.pi / 2, 60)
        x = EDGE + (0.45 + 0.14 * (end - begin)) * np.cos(curve)
        y = -(begin + end) / 2 - (end - begin) / 2 * np.sin(curve)
        style, new = styles.get(shortcut.kind, ":"), shortcut.kind not in axes.get_legend_handles_labels()[1]
        label = shortcut.kind if new else None
        axes.plot(x, y, style, color="#D55E00", linewidth=width(shortcut.gradient), label=label)
        axes.plot([0, EDGE], [y[0]] * 2, [0, EDGE], [y[-1]] * 2, color="#D55E00", linewidth=0.6, zorder=-1)
    if drawn:
        axes.legend(title="shortcuts", fontsize=7, title_fontsize=7, loc="upper right", frameon=False, handlelength=4)
    what = "line width: gradient (one point for each factor of 10)" if known else "no gradient yet"
    axes.set_title(
        f"{explanation.model}: {explanation.parameters:,} parameters, {_short(explanation.macs)}MACs\n{what}",
        fontsize=9,
    )
    axes.set_xlim(-2.5, 4)
    axes.set_ylim(-len(boxes) + 0.3, 1.5)
    axes.axis("off")
    return figure
