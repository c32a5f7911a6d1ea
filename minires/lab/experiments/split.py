"""The branch ledger: how a block's gradient divides between the shortcut and the residual function.

y = F(x) + S(x), so ∂L/∂x = Sᵀh + J_Fᵀh, where h is the gradient at the addition, masked by the ReLU after it in networks of He
et al. 2015. The identity part is not scaled, but nothing keeps the residual part from pointing against it: "the shortcut makes
the gradient at least 1" is wrong where J_F has eigenvalues near −1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...nn import Module
from ..graph import Addition, Channels, Graph, record
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict, inner, norm
from ..rules import Cut
from .paths import needs_additions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase


@dataclass
class Split(Result):
    """For every residual addition, in the order of the forward pass, the two parts of the gradient of its block's input.

    blocks: names; upstream: ‖h‖ at the addition; identity, residual: ‖Sᵀh‖ and ‖J_Fᵀh‖; total: the norm of their sum; cosine:
    of the angle between them; worst_cosine: the lowest of any image; sparsity: the fraction of the identity part's elements
    that are exactly 0, by the ReLU's mask or a stride; shortcuts: "identity", or "other" where S is something else; error:
    ‖Sᵀh + J_Fᵀh − g‖ relative to the norms of the parts, where g is what backpropagation through the block gives. pixels: the
    norm over images and channels of the identity part at every pixel, (H, W), of the first block that changes height and
    width; (0, 0) without one.
    """

    blocks: list[str]
    upstream: NDArray[np.float64]
    identity: NDArray[np.float64]
    residual: NDArray[np.float64]
    total: NDArray[np.float64]
    cosine: NDArray[np.float64]
    worst_cosine: NDArray[np.float64]
    sparsity: NDArray[np.float64]
    shortcuts: list[str]
    error: NDArray[np.float64]
    pixels: NDArray[np.float64]

    about = About(
        name="split",
        summary="the branch ledger: what of a block's gradient comes by the shortcut and what through the residual function",
        question="The shortcut hands the gradient on unchanged. Is the gradient below a block then never smaller than above?",
        claim="“the gradient of a layer does not vanish even when the weights are arbitrarily small”, since the derivative of "
        "the residual functions' sum in general cannot be −1 for all samples of a mini-batch (He et al. 2016, eq. 5 and the "
        "text below it)",
        rule="seen if in every block with an identity shortcut, and a gradient, the whole gradient is at least a tenth of its "
        "identity part; not seen if it is less than a hundredth in one; otherwise unclear",
        scale="exact, for one batch and the weights at hand",
        examples=(
            ("", "looks at a new ResNet-20"),
            ("--model preresnet20", "looks at blocks without a ReLU after the addition"),
            ("--run runs/resnet20-cifar10-1 --eval --json", "looks at a trained network with its running statistics"),
        ),
        disputed_by="“at least 1”, as often taught, does not follow: a block whose residual function has the Jacobian −1 "
        "passes nothing (tests/lab/test_split.py has one)",
    )

    @property
    def verdict(self) -> Verdict:
        kept = self.total / np.maximum(self.identity, 1e-300)
        whole = np.flatnonzero([kind == "identity" and size > 0 for kind, size in zip(self.shortcuts, self.identity)])
        if not len(whole):
            return Verdict(UNCLEAR, "no block with an identity shortcut and a gradient")
        worst = whole[int(np.argmin(kept[whole]))]
        because = f"the least is {kept[worst]:.3g} of the identity part, in {self.blocks[worst]}"
        because += f"; the parts sum to the gradient to within {np.max(self.error):.1g} of their norms"
        word = SEEN if kept[worst] >= 0.1 else NOT_SEEN if kept[worst] < 0.01 else UNCLEAR
        return Verdict(word, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        heads = ["block", "‖h‖", "identity", "residual", "sum", "cosine", "worst", "zeros"]
        columns = (self.upstream, self.identity, self.residual, self.total)
        rows = [
            [
                *(name, *(f"{c[i]:.3e}" for c in columns)),
                *(f"{self.cosine[i]:+.3f}", f"{self.worst_cosine[i]:+.3f}", f"{self.sparsity[i]:.0%}"),
            ]
            for i, name in enumerate(self.blocks)
        ]
        return heads, rows

    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(9 if self.pixels.size else 7, 4.5)
        left: FigureBase = figure
        if self.pixels.size:
            halves: Any = figure.subfigures(1, 2, width_ratios=(7, 2))
            left = halves[0]
            self._draw_pixels(halves[1].subplots())
        top, bottom = left.subplots(2, 1, sharex=True)
        n = np.arange(len(self.blocks))
        for values, label, style in (
            (self.identity, "identity part ‖Sᵀh‖", {"color": "#0072B2", "marker": "o"}),
            (self.residual, "residual part ‖J_Fᵀh‖", {"color": "#D55E00", "marker": "s"}),
            (self.total, "their sum ‖∂L/∂x‖", {"color": "black", "linestyle": "--"}),
        ):
            top.plot(n, values, label=label, markersize=3, linewidth=1.2, **style)
        top.set_yscale("log")
        top.set_ylabel("norm")
        top.legend(fontsize=8)
        top.set_title(f"{self.settings.get('model', 'network')}: the gradient of each block's input", fontsize=10)
        bottom.plot(n, self.cosine, color="#0072B2", marker="o", markersize=3, label="all images")
        bottom.plot(n, self.worst_cosine, color="0.5", linestyle=":", label="the worst image")
        bottom.axhline(0, color="black", linewidth=0.8)
        bottom.set_ylim(-1.05, 1.05)
        bottom.set_ylabel("cosine of the parts")
        bottom.set_xlabel("block, from input to output")
        bottom.legend(fontsize=8)
        step = max(1, len(n) // 12)
        bottom.set_xticks(n[::step], [self.blocks[i] for i in n[::step]], rotation=45, ha="right", fontsize=7)

    def _draw_pixels(self, axes: Axes) -> None:
        size = self.pixels / max(float(self.pixels.max()), 1e-300)
        image = axes.imshow(size[:8, :8], cmap="Greys", vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title("identity part below the first\nstride-2 shortcut, 8×8 pixels", fontsize=8)
        axes.figure.colorbar(image, ax=axes, orientation="horizontal", label="norm / largest norm")


def split(
    model: Module,
    batch: tuple[NDArray[Any], NDArray[Any]],
    training: bool | None = None,
    progress: Progress | None = None,
) -> Split:
    """The two parts of the gradient at every block's input.

    batch: images (N, C, H, W) of the weights' dtype, and labels (N,). training: the model's mode, by default the one it is in.
    The model is not changed. Raises ConfigError for a network without residual additions, and DataError for gradients that are
    not finite.
    """
    graph = record(model, *batch, training=training)
    needs_additions(graph, model)
    report = progress or (lambda done, total, what: None)
    upstream = graph.backward([a.output for a in graph.additions])
    rows = []
    for i, (addition, channels) in enumerate(zip(graph.additions, upstream)):
        report(i, len(graph.additions), addition.name)
        rows.append(_ledger(graph, addition, channels))
    shapes = [(a.branch.shape, graph.fork(a).shape) for a in graph.additions]
    strided = [i for i, (y, x) in enumerate(shapes) if len(x) == 4 and y[2:] != x[2:]]
    pixels = np.zeros((0, 0))
    if strided:
        first = graph.additions[strided[0]]
        identity, _, _ = parts(graph, first, upstream[strided[0]])
        pixels = np.zeros(graph.fork(first).shape[2:]) if identity is None else np.sqrt((identity**2).sum((0, 1)))
    names = ("upstream", "identity", "residual", "total", "cosine", "worst_cosine", "sparsity", "error")
    return Split(
        settings={"model": type(model).__name__, "images": len(batch[0])},
        blocks=[a.name for a in graph.additions],
        shortcuts=["identity" if a.shortcut is graph.fork(a) else "other" for a in graph.additions],
        **{name: np.array(column) for name, column in zip(names, zip(*rows))},
        pixels=np.array(pixels, np.float64),
    )


def parts(graph: Graph, addition: Addition, upstream: Channels) -> tuple[Any, Any, Any]:
    """(identity part, residual part, what backpropagation through the block gives) of the gradient at the addition's fork.

    upstream: one channel, the gradient of the addition's output. A part may be None, which is zero.
    """
    x, start = graph.fork(addition), {addition.output: upstream}
    found = [
        graph.backward([x], rule, start)[0]
        for rule in (Cut("branch", addition.name), Cut("shortcut", addition.name), None)
    ]
    identity, residual, whole = ((channels or [None])[0] for channels in found)
    return identity, residual, whole


def _ledger(graph: Graph, addition: Addition, upstream: Channels) -> tuple[float, ...]:
    identity, residual, whole = parts(graph, addition, upstream)
    size, scale = norm(whole), norm(identity) + norm(residual)
    if not math.isfinite(size):
        raise DataError(
            f"the gradient at {addition.name} is not finite: the network has diverged, or its weights are too large"
        )
    zeros = 1.0 if identity is None else float((identity == 0).mean())
    rest = whole - sum(part for part in (identity, residual) if part is not None)
    at_addition = graph.backward([addition.branch], start={addition.output: upstream})[0]
    cosines = [_cosine(a, b) for a, b in zip(_images(identity), _images(residual))]
    return (
        norm(at_addition[0] if at_addition else None), norm(identity), norm(residual), size, _cosine(identity, residual),
        min(cosines, default=math.nan), zeros, norm(rest) / max(scale, 1e-300),
    )  # fmt: skip


def _images(gradient: NDArray[Any] | None) -> Any:
    return () if gradient is None else gradient


def _cosine(a: NDArray[Any] | None, b: NDArray[Any] | None) -> float:
    """The cosine of the angle between two gradients; NaN where one is zero."""
    sizes = norm(a) * norm(b)
    return inner(a, b) / sizes if sizes > 0 else math.nan
