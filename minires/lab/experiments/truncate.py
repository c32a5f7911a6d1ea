"""Do long paths matter for training? The gradient of all paths through at most K residual functions, and no others.

Veit et al. 2016 concluded from sampled paths that "only the short paths are needed during training". To train with short paths
alone they had to leave out modules in the forward pass too, which makes another network. Here the forward pass, with its masks
and statistics, is the whole network's, and only the backward pass is truncated: of the channels by path length, the first K + 1
are carried and summed.

A weight inside a residual function is reached by paths that pass through at least that one. With K = 0 the residual functions
are therefore not trained at all; with K = 1 each is trained by what comes down the shortcuts alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...data import Augmentation, Dataset
from ...errors import ConfigError
from ...nn import Module
from ..fit import STEPS, smoothed, style, trained_copies
from ..graph import Channels, Graph, Rule, record, total
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict, inner, norm
from ..rules import ByLength
from ..setting import normalised
from .paths import needs_additions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TRAININGS = 100
PROBED = 64  # images of the first gradient


@dataclass
class Truncate(Result):
    """One training for each K, from the same weights with the same batches.

    longest: K of each training, ascending; the last is L, the length of the longest path: the whole gradient. losses: of every
    step, (trainings, steps), NaN after a divergence; train_loss, test_loss, accuracy: after the training, in evaluation mode,
    of the training and the test images; test_images: how many. cosine, size: before the training, of the truncated gradient of
    all weights with the whole one: the cosine of their angle, and the ratio of their norms.
    """

    longest: list[int]
    losses: NDArray[np.float64]
    train_loss: NDArray[np.float64]
    test_loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    test_images: int
    cosine: NDArray[np.float64]
    size: NDArray[np.float64]

    about = About(
        name="truncate",
        summary="training with the exact gradient of short paths only, the forward pass unchanged",
        question="A residual network is trained with the gradient of its short paths alone. How short may they be?",
        claim="“only the short paths are needed during training, as longer paths do not contribute any gradient” (Veit et al. "
        "2016, abstract; §5: a ResNet-110 that saw the effective paths alone in training had 5.96 % error, the full 6.10 %)",
        rule="of the test accuracy that the whole gradient adds to K = 0, where no residual function is trained, the fraction "
        "that the largest K up to a third of L adds: seen if it is 0.9 or more, not seen if it is less than 0.5, otherwise "
        "unclear; unclear too if the whole gradient adds less than three standard errors, or no such K above 0 was tried",
        scale="one training for each K, of a few hundred steps: differences of a few points are within the noise of such "
        "trainings. Veit et al. trained a ResNet-110 on CIFAR-10 to the end, with 23 of its 54 modules, drawn anew for each "
        "batch, in the forward pass too. With --run all trainings go on from the run's weights. About two minutes for a "
        "ResNet-20 of width 8 on 16×16 pixels; with --quick 128 images are learnt by heart, and the accuracy is of these",
        examples=(
            ("--quick", "trains a ResNet-20 of width 4 with K = 0, 1, 3 and 9"),
            ("--longest 0,1,2 --steps 1000", "chooses K, besides the whole gradient, and trains for longer"),
            (
                "--dataset cifar10 --model preresnet20 --out truncate",
                "trains on CIFAR-10, and keeps result and picture",
            ),
        ),
    )

    @property
    def recovered(self) -> NDArray[np.float64]:
        """Of the accuracy that the whole gradient adds to K = 0, the fraction that each K adds; NaN without K = 0."""
        base = self.accuracy[0] if self.longest[0] == 0 else math.nan
        added = self.accuracy[-1] - base
        return (self.accuracy - base) / (added if added != 0 else math.nan)

    @property
    def verdict(self) -> Verdict:
        depth = self.longest[-1]
        short = [i for i, k in enumerate(self.longest) if 0 < k <= depth / 3]
        if self.longest[0] != 0 or not short:
            return Verdict(
                UNCLEAR, f"K = 0 and a K from 1 to {depth / 3:.3g} are needed, and tried were {self.longest}"
            )
        (base, whole), i = self.accuracy[[0, -1]], short[-1]
        error = math.sqrt((base * (1 - base) + whole * (1 - whole)) / self.test_images)
        because = (
            f"accuracy {base:.3f} with K = 0, {self.accuracy[i]:.3f} with K = {self.longest[i]}, {whole:.3f} with the whole "
            f"gradient (± {error:.3f})"
        )
        if not whole - base >= 3 * error:
            return Verdict(UNCLEAR, because)
        word = SEEN if self.recovered[i] >= 0.9 else NOT_SEEN if self.recovered[i] < 0.5 else UNCLEAR
        return Verdict(word, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        heads = ["K", "train loss", "test loss", "accuracy", "recovered", "cosine", "size"]
        rows = [
            [
                *(self.label(i), f"{self.train_loss[i]:.4f}", f"{self.test_loss[i]:.4f}", f"{self.accuracy[i]:.2%}"),
                *(f"{self.recovered[i]:+.2f}", f"{self.cosine[i]:+.4f}", f"{self.size[i]:.4f}"),
            ]
            for i in range(len(self.longest))
        ]
        return heads, rows

    def label(self, i: int) -> str:
        """The name of a training."""
        return "whole" if i == len(self.longest) - 1 else str(self.longest[i])

    def draw(self, figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for i in range(len(self.longest)):
            steps, losses = smoothed(self.losses[i])
            name = "whole gradient" if self.label(i) == "whole" else f"paths ≤ {self.longest[i]}"
            left.plot(steps, losses, label=name, **style(i))
        left.set_xlabel("step")
        left.set_ylabel("training loss (nats)")
        left.legend(fontsize=8)
        right.plot(self.longest, 100 * self.accuracy, color="#0072B2", marker="o", markersize=4)
        right.axhline(100 * self.accuracy[-1], color="0.5", linestyle="--", linewidth=0.8)
        right.set_xlabel("longest path K (residual functions)")
        right.set_ylabel("test accuracy (%)")
        figure.suptitle(f"{self.settings.get('model', 'network')}: trained by its short paths", fontsize=10)


def truncate(
    model: Module,
    train: Dataset,
    test: Dataset,
    longest: Sequence[int] | None = None,
    steps: int = STEPS,
    batch_size: int = 32,
    lr: float = 0.1,
    seed: int = 0,
    augment: Augmentation | None = None,
    progress: Progress | None = None,
) -> Truncate:
    """Train copies of a network with the gradient of paths of length K at most, for several K and for all paths.

    model: where every training starts, float32 or float64 as ``Loader`` gives the images: float32. longest: the K, by default
    0, 1, 2, 3 and a third of L; the whole gradient is added. steps, batch_size, lr, seed, augment: of the training, see
    ``fit.fit``. The model is not changed. Raises ConfigError for a network without residual additions, and for a K, a number
    of steps or a number of images that cannot be.
    """
    graph = record(model, *_first_images(train), training=True)
    needs_additions(graph, model)
    depth = len(graph.count_paths(graph.input)) - 1
    lengths = _lengths(longest, depth)
    cosine, size = first_gradients(graph, model, lengths)
    rules: dict[str, Rule | None] = {f"paths of length ≤ {k}": ByLength(longest=k) for k in lengths[:-1]}
    rules["the whole gradient"] = None
    how = {"steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed, "augment": augment}
    found = trained_copies(model, train, test, rules, progress, **how)
    return Truncate(
        settings={"model": type(model).__name__, "steps": steps, "seed": seed},
        longest=lengths,
        test_images=len(test),
        cosine=cosine,
        size=size,
        **found,
    )


def first_gradients(
    graph: Graph, model: Module, lengths: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each K, of all weights' gradient of paths ≤ K with the whole: the cosine of their angle, the ratio of their norms."""
    weights = list(model.parameters())
    by_length = graph.backward(weights, ByLength())
    whole = [total(channels) for channels in by_length]
    size = math.sqrt(sum(norm(g) ** 2 for g in whole))
    cosines, sizes = np.full(len(lengths), math.nan), np.zeros(len(lengths))
    for i, k in enumerate(lengths):
        part: Channels = [total(channels[: k + 1]) for channels in by_length]
        mine = math.sqrt(sum(norm(g) ** 2 for g in part))
        sizes[i] = mine / max(size, 1e-300)
        if mine * size > 0:
            cosines[i] = sum(inner(a, b) for a, b in zip(part, whole)) / (mine * size)
    return cosines, sizes


def _first_images(train: Dataset) -> tuple[NDArray[Any], NDArray[np.int64]]:
    return normalised(train, np.arange(min(PROBED, len(train))), np.float32)


def _lengths(longest: Sequence[int] | None, depth: int) -> list[int]:
    """The K in order, with L, the length of the longest path, as the last."""
    given = [0, 1, 2, 3, depth // 3] if longest is None else list(longest)
    if not given or min(given) < 0 or len(given) > MOST_TRAININGS:
        raise ConfigError(f"longest is up to {MOST_TRAININGS} path lengths from 0 up, not {given}")
    return [*sorted({k for k in given if k < depth}), depth]
