"""``curves.png``: loss and accuracy by epoch, from the rows of ``metrics.jsonl``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..figures import new_figure, save_figure
from .metrics import known

INK, GRID = "#22272e", "#e3e6ea"
SPLITS: dict[str, dict[str, Any]] = {  # colours that colour-blind readers can tell apart; drawn in this order
    "train": {"color": "#8a94a3", "linewidth": 1.6},
    "test": {"color": "#0b6bcb", "linewidth": 2.2},
    "val": {"color": "#e07b00", "linewidth": 1.6, "linestyle": "--"},
}


def draw_curves(rows: Sequence[dict[str, Any]], path: Path | str, title: str = "") -> None:
    """Write a PNG with two panels, loss and accuracy in percent. Each curve is labelled with its name and last value.

    rows: as ``read_metrics`` returns them. Raises OSError when the file cannot be written.
    """
    figure = new_figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "acc")):
        _panel(axes, rows, quantity)
    figure.suptitle(title, x=0.012, ha="left", color=INK, fontsize=11, fontweight="bold")
    save_figure(figure, path)


def _panel(axes: Any, rows: Sequence[dict[str, Any]], quantity: str) -> None:
    """Draw the curves of one quantity, "loss" or "acc"."""
    scale = 100 if quantity == "acc" else 1
    ends = []
    for split, style in SPLITS.items():
        epochs, values = known(rows, f"{split}_{quantity}")
        if not values:
            continue
        values = [scale * value for value in values]
        axes.plot(epochs, values, marker="o" if len(rows) <= 30 else "", markersize=3.5, label=split, **style)
        text = f"{split} {values[-1]:.2f} %" if quantity == "acc" else f"{split} {values[-1]:.3f}"
        ends.append((values[-1], text, style["color"]))
    axes.set_title("accuracy, %" if quantity == "acc" else "loss", loc="left", fontsize=10, color=INK)
    axes.set_xlabel("epoch", color=INK, fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.margins(x=0.03)
    _label_ends(axes, ends)


def _label_ends(axes: Any, ends: list[tuple[float, str, str]]) -> None:
    """Label each curve to the right of its last point; labels that would overlap are moved down."""
    ends = sorted((end for end in ends if math.isfinite(end[0])), reverse=True)
    low, high = axes.get_ylim()
    apart = (high - low) / 16
    top = math.inf
    for value, text, color in ends:
        top = min(value, top - apart)
        axes.annotate(
            text,
            (1.015, top),
            xycoords=axes.get_yaxis_transform(),
            color=color,
            fontsize=9,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
