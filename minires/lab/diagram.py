"""What ``explain`` has found, shown: a table, a drawing for a terminal, and one with Matplotlib."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import plural
from .explain import Explanation

EDGE = 1.6  # where arcs begin, right of the boxes


def rows(explanation: Explanation) -> tuple[list[str], list[list[str]]]:
    """A table: the columns' headings, and a row for each box of the drawing."""
    heads = ["block", "kind", "output", "parameters", "MACs", "memory", "‖gradient‖"]
    found = []
    for first, count in explanation.folded():
        part, end = explanation.parts[first], explanation.parts[first + count - 1]
        names = part.title if count == 1 else _range(part.title, end.title)
        kind = f"{f'{count} × ' if count > 1 else ''}{part.kind}{' (shortcut)' if part.on_shortcut else ''}"
        shape = "×".join(map(str, part.shape))
        gradient = "no gradient yet" if end.gradient is None else f"{end.gradient:.3e}"
        sums = [
            sum(getattr(p, key) for p in explanation.parts[first : first + count])
            for key in ("parameters", "macs", "bytes")
        ]
        memory = memory_text(explanation.images * sums[2])
        found.append([names, kind, shape, f"{sums[0]:,}", _short(sums[1]), memory, gradient])
    return heads, found


def notes(explanation: Explanation) -> list[str]:
    """What the columns of the table and the arcs of the drawing mean, in sentences."""
    images = plural(explanation.images, "image")
    found = [
        "MACs: multiply-adds of convolutions and matrix products, for one image.",
        f"memory: of all values that the operations return in a step with {images}, unfused; weights are not counted.",
    ]
    if any(part.gradient is not None for part in explanation.parts):
        found.append(f"‖gradient‖: of the mean loss of {images}, at the output (of the last of several blocks).")
    if any(part.call > 1 for part in explanation.parts):
        found.append("call 1, call 2 …: of one module; its parameters are counted once.")
    if explanation.shortcuts:
        found.append("Arcs at the left are shortcuts: ╭ one begins, ╰ one ends, ├ one ends and another begins.")
        if any(count > 1 for _, count in explanation.folded()):
            found.append("×3: three equal blocks in a row, each with a shortcut of its own.")
    if explanation.unmarked:
        found.append(
            f"{plural(explanation.unmarked, 'addition')} of two tensors: not known as residual, and without an arc; "
            "F.residual_add(branch, shortcut) marks one."
        )
    return found


def _range(first: str, last: str) -> str:
    """Two names as a range: "layer1.0 … 2" of layer1.0 and layer1.2."""
    parent, _, number = last.rpartition(".")
    return f"{first} … {number if parent and parent == first.rpartition('.')[0] else last}"


def memory_text(size: int) -> str:
    """A number of bytes in units of 1,024.

    >>> memory_text(40), memory_text(262144), memory_text(5_000_000)
    ('40 B', '256 KiB', '4.8 MiB')
    """
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= factor:
            return f"{size / factor:.0f} {unit}" if size >= 10 * factor else f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _short(number: int) -> str:
    """A number with a prefix: 1.5 M."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return str(number)


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
        kinds = list(dict.fromkeys(kind for _, end, kind in arcs if end == i))
        lines.append(f"{left} {name}{'   shortcut: ' if kinds else ''}{', '.join(kinds)}")
    return "\n".join(lines)


def _label(explanation: Explanation, first: int, count: int) -> str:
    part = explanation.parts[first]
    where = "   (on a shortcut)" if part.on_shortcut else ""
    return f"{part.title}{f' ×{count}' if count > 1 else ''}  {part.kind} {'×'.join(map(str, part.shape))}{where}"


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
    above: tuple[int, float | None] = (-1, None)  # the box before, and the gradient at its output
    for i, (first, count) in enumerate(boxes):
        part, aside = explanation.parts[first + count - 1], explanation.parts[first].on_shortcut
        macs = f"   {_short(part.macs)} MACs" if part.macs else ""
        face, edge = ("white", "#D55E00") if aside else ("#F0F0F0", "black")
        axes.text(
            *(0.2 if aside else 0, -i, f"{_label(explanation, first, count)}{macs}"),
            ha="left" if aside else "center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": face, "edgecolor": edge, "linewidth": 0.8},
        )
        if aside:  # the line goes past it
            continue
        ends = [-above[0] - 0.3, -i + 0.3]
        axes.plot([0, 0], ends, color="#0072B2", linewidth=width(above[1]), solid_capstyle="butt", zorder=0)
        above = i, part.gradient
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
        f"{explanation.model}: {explanation.parameters:,} parameters, {_short(explanation.macs)} MACs\n{what}",
        fontsize=9,
    )
    axes.set_xlim(-2.5, 4)
    axes.set_ylim(-len(boxes) + 0.3, 1.5)
    axes.axis("off")
    return figure
