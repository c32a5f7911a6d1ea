"""Does a block refine? Jastrzębski et al. 2018, "Residual Connections Encourage Iterative Inference".

If h + F(h) lowers the loss to first order, F(h) points against the gradient: cos(F(h), ∂L/∂h) < 0. How much a block changes is
‖F(h)‖/‖h‖.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ...nn import Module
from ..graph import record
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict
from .paths import needs_additions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Refine(Result):
    """For every block whose shape does not change, means over the images and their standard errors.

    blocks: names; cosine: of F(h) and ∂L/∂h, each image by itself; ratio: ‖F(h)‖/‖h‖; stage: the number of changes of shape
    before the block.
    """

    blocks: list[str]
    stage: list[int]
    cosine: NDArray[np.float64]
    cosine_error: NDArray[np.float64]
    ratio: NDArray[np.float64]
    ratio_error: NDArray[np.float64]

    about = About(
        name="refine",
        summary="whether residual functions point against the gradient, and how much they change what they are added to",
        question="A block adds F(h) to h. In a trained network, does F(h) point downhill on the loss?",
        claim="“residual connections naturally encourage features of residual blocks to move along the negative gradient of "
        "loss as we go from one block to the next”, and the higher blocks refine features, while the first ones learn "
        "representations (Jastrzębski et al. 2018, abstract; §4.1: the cosine is negative for all blocks, most so for the "
        "higher ones)",
        rule="the mean cosine over the blocks of the last stage that keep its shape: seen if it is negative by more than two "
        "of the blocks' mean standard errors, not seen if it is positive by as much, otherwise unclear",
        scale="the paper measured trained pre-activation networks on CIFAR-10 and CIFAR-100, a ResNet-110 and wider ones; "
        "here one batch, the weights at hand",
        examples=(
            ("", "looks at a new ResNet-20, where there is nothing to see yet"),
            ("--run runs/resnet20-cifar10-1 --eval", "looks at a trained one"),
        ),
    )

    @property
    def verdict(self) -> Verdict:
        if max(self.stage) < self.settings.get("stages", 0):
            return Verdict(UNCLEAR, "the last stage has no block that keeps its shape")
        last = [i for i, s in enumerate(self.stage) if s == max(self.stage)]
        mean = float(np.mean(self.cosine[last]))
        error = float(np.mean(self.cosine_error[last]))  # the same images in all blocks: errors do not average out
        because = f"mean cosine {mean:+.3f} ± {error:.3f} over {len(last)} blocks of the last stage"
        if mean + 2 * error < 0:
            return Verdict(SEEN, because)
        return Verdict(NOT_SEEN if mean - 2 * error > 0 else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                name,
                f"{self.cosine[i]:+.4f} ± {self.cosine_error[i]:.4f}",
                f"{self.ratio[i]:.3f} ± {self.ratio_error[i]:.3f}",
            ]
            for i, name in enumerate(self.blocks)
        ]
        return ["block", "cos(F(h), ∂L/∂h)", "‖F(h)‖ / ‖h‖"], rows

    def draw(self, figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True)
        n = np.arange(len(self.blocks))
        top.errorbar(n, self.cosine, 2 * self.cosine_error, color="#0072B2", marker="o", markersize=3, linewidth=1.2)
        top.axhline(0, color="black", linewidth=0.8)
        top.set_ylabel("cos(F(h), ∂L/∂h)")
        top.set_title(f"{self.settings.get('model', 'network')}: mean of the images ± 2 standard errors", fontsize=10)
        bottom.errorbar(n, self.ratio, 2 * self.ratio_error, color="#D55E00", marker="s", markersize=3, linewidth=1.2)
        bottom.set_ylabel("‖F(h)‖ / ‖h‖")
        bottom.set_ylim(bottom=0)
        bottom.set_xlabel("block, from input to output")
        step = max(1, len(n) // 12)
        bottom.set_xticks(n[::step], [self.blocks[i] for i in n[::step]], rotation=45, ha="right", fontsize=7)


def refine(
    model: Module,
    batch: tuple[NDArray[Any], NDArray[Any]],
    training: bool | None = None,
    progress: Progress | None = None,
) -> Refine:
    """cos(F(h), ∂L/∂h) and ‖F(h)‖/‖h‖ by block.

    batch: images (N, C, H, W) of the weights' dtype, two at least, and labels (N,). training: the model's mode, by default the
    one it is in. Blocks that change the shape are left out. Raises ConfigError for a network without residual additions or
    without a block that keeps its shape, and DataError for gradients that are not finite.
    """
    if len(batch[0]) < 2:
        raise ConfigError(f"a standard error needs two images at least, not {len(batch[0])}")
    graph = record(model, *batch, training=training)
    needs_additions(graph, model)
    forks = [graph.fork(a) for a in graph.additions]
    kept, stage, stages = [], [], 0
    for addition, h in zip(graph.additions, forks):
        if addition.branch.shape == h.shape:
            kept.append((addition, h))
            stage.append(stages)
        else:
            stages += 1
    if not kept:
        raise ConfigError(
            f"{type(model).__name__} has no block that keeps the shape of its input, which F(h) is compared with"
        )
    gradients = graph.backward([h for _, h in kept])
    rows = []
    for (addition, h), channels in zip(kept, gradients):
        gradient = channels[0] if channels else None
        if gradient is None or not np.isfinite(gradient).all():
            raise DataError(f"the gradient at {addition.name} is {'zero' if gradient is None else 'not finite'}")
        f, x, g = (a.reshape(len(a), -1) for a in (addition.branch.data, h.data, gradient))
        size = np.linalg.norm(f, axis=1)
        cosine = (f * g).sum(1) / np.maximum(size * np.linalg.norm(g, axis=1), 1e-300)
        ratio = size / np.maximum(np.linalg.norm(x, axis=1), 1e-300)
        rows.append([value for a in (cosine, ratio) for value in (a.mean(), a.std(ddof=1) / math.sqrt(len(a)))])
    columns = dict(zip(("cosine", "cosine_error", "ratio", "ratio_error"), map(np.array, zip(*rows))))
    settings = {"model": type(model).__name__, "images": len(batch[0]), "stages": stages}
    return Refine(settings, [a.name for a, _ in kept], stage, **columns)
