"""Error against step size: why the step of a difference must be neither large nor small."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..figures import new_figure, save_figure
from .results import WRONG, Checked, GradcheckResult

INK, GRID, WRONG_COLOR = "#22272e", "#e3e6ea", "#d1242f"
COLORS = ("#0b6bcb", "#e07b00", "#1a7f37", "#8250df", "#8a94a3", "#0f8b8d")
MAX_LEGEND = 12  # curves that a legend can name
FORMATS = ("png", "svg", "pdf")


def draw_sweeps(results: Sequence[GradcheckResult], path: Path | str, title: str = "") -> None:
    """Plot every sweep of ``results`` into a file: |numeric − backward| / the largest gradient, against h.

    A point is hollow where kinks lie between x − h and x + h. Towards small h curves fall while curvature dominates (∝ h²)
    and rise again where rounding does (∝ 1/h); that of a wrong gradient stays up. The format is that of the suffix:
    png, svg or pdf.
    """
    figure = new_figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    curves = [(result, checked) for result in results for checked in result.checked if checked.sweep]
    for i, (result, checked) in enumerate(curves):
        color = WRONG_COLOR if checked.status == WRONG else COLORS[i % len(COLORS) if len(curves) <= MAX_LEGEND else 0]
        _curve(axes, checked, color, checked.name if len(results) == 1 else f"{result.name}, {checked.name}")
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("step h", color=INK, fontsize=9)
    axes.set_ylabel("|difference − backward| / largest gradient", color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=9, length=0, which="both")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    if 0 < len(curves) <= MAX_LEGEND:
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, x=0.012, ha="left", color=INK, fontsize=11, fontweight="bold")
    save_figure(figure, path)


def _curve(axes: Any, checked: Checked, color: str, label: str) -> None:
    """Plot one sweep."""
    h, error, flips = (np.array(column, float) for column in zip(*checked.sweep))
    error = np.abs(error) / (checked.scale or 1)
    shown = error > 0  # an exact difference has no place on a logarithmic axis
    axes.plot(h[shown], error[shown], color=color, linewidth=1, alpha=0.7, label=label)
    for corner, fill in ((flips == 0, color), (flips > 0, "white")):
        at = shown & corner
        axes.scatter(h[at], error[at], s=12, facecolor=fill, edgecolor=color, linewidth=0.8, zorder=3)
