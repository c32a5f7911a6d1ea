"""One side of every residual addition without its gradient, the forward pass unchanged.

He et al. 2016 trace the trainability of deep residual networks to the additive term of the gradient, which the shortcuts hand
down. Taking the shortcuts away would change what the network computes. Here the network stays as it is and only the gradient is
stopped: at the shortcuts, so that it must pass through every residual function, or at the residual functions, which then are
not trained at all (as in ``truncate`` with K = 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...data import Augmentation, Dataset
from ...nn import Module
from ..fit import STEPS, smoothed, style, trained_copies
from ..graph import Graph, Rule, record, total
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict, norm
from ..rules import Cut
from ..setting import normalised
from .paths import needs_additions
from .truncate import PROBED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDES: dict[str, Rule | None] = {
    "nothing": None,
    "shortcuts": Cut("shortcut"),
    "residual functions": Cut("branch"),
}


@dataclass
class Cuts(Result):
    """Three trainings from the same weights with the same batches, in this order: nothing, shortcuts, residual functions cut.

    cuts: their names; losses: of every step, (3, steps), NaN after a divergence; train_loss, test_loss, accuracy: after the
    training, in evaluation mode, of the training and the test images; test_images: how many; chance: the accuracy of always
    naming the most frequent class. blocks: the residual additions' names; profile: before the training, the norm of the
    gradient of each block's input, (3, blocks).
    """

    cuts: list[str]
    losses: NDArray[np.float64]
    train_loss: NDArray[np.float64]
    test_loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    test_images: int
    chance: float
    blocks: list[str]
    profile: NDArray[np.float64]

    about = About(
        name="cut",
        summary="training without the gradient through the shortcuts, or through the residual functions",
        question="The forward pass keeps its shortcuts, but no gradient passes through them. Does the network still learn?",
        claim="the additive term of the gradient “ensures that information is directly propagated back to any shallower unit” "
        "(He et al. 2016, eq. 5 and the text below it)",
        rule="of what the whole gradient gains in test accuracy over naming the most frequent class, the fraction that is "
        "gained with the shortcuts cut: seen if it is less than 0.5, not seen if it is 0.9 or more, otherwise unclear; "
        "unclear too if the whole gradient gains less than three standard errors",
        scale="one training of each kind, of a few hundred steps. The paper is about networks of 110 to 1001 layers. With "
        "--run all trainings go on from the run's weights. About a minute for a ResNet-20 of width 8 on 16×16 pixels; with "
        "--quick 128 images are learnt by heart, and the accuracy is of these",
        examples=(
            ("--quick", "trains a ResNet-20 of width 4 in the three ways"),
            ("--model resnet56 --steps 1000", "looks at a deeper network"),
            ("--dataset cifar10 --out cut", "trains on CIFAR-10, and keeps result and picture"),
        ),
    )

    @property
    def kept(self) -> NDArray[np.float64]:
        """Of what nothing cut gains in accuracy over chance, the fraction that each training gains."""
        gain = self.accuracy - self.chance
        return gain / (gain[0] if gain[0] != 0 else math.nan)

    @property
    def verdict(self) -> Verdict:
        whole = self.accuracy[0]
        error = math.sqrt(whole * (1 - whole) / self.test_images)
        because = (
            f"accuracy {whole:.3f} ± {error:.3f} with nothing cut, {self.accuracy[1]:.3f} with the shortcuts cut, "
            f"{self.accuracy[2]:.3f} with the residual functions cut, {self.chance:.3f} by chance"
        )
        if not whole - self.chance >= 3 * error:
            return Verdict(UNCLEAR, because)
        word = SEEN if self.kept[1] < 0.5 else NOT_SEEN if self.kept[1] >= 0.9 else UNCLEAR
        return Verdict(word, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        heads = ["cut", "train loss", "test loss", "accuracy", "kept", "‖g‖ at block 1"]
        rows = [
            [
                *(name, f"{self.train_loss[i]:.4f}", f"{self.test_loss[i]:.4f}", f"{self.accuracy[i]:.2%}"),
                *(f"{self.kept[i]:+.2f}", f"{self.profile[i, 0]:.3e}"),
            ]
            for i, name in enumerate(self.cuts)
        ]
        return heads, rows

    def draw(self, figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        n = np.arange(len(self.blocks))
        for i, name in enumerate(self.cuts):
            left.plot(*smoothed(self.losses[i]), label=f"cut: {name}", **style(i))
            right.plot(n, np.where(self.profile[i] > 0, self.profile[i], math.nan), label=name, **style(i))
        left.set_xlabel("step")
        left.set_ylabel("training loss (nats)")
        left.legend(fontsize=8)
        right.set_yscale("log")
        right.set_xlabel("block, from input to output")
        right.set_ylabel("gradient norm of the block's input, before training")
        figure.suptitle(f"{self.settings.get('model', 'network')}: the gradient cut at residual additions", fontsize=10)


def cut(
    model: Module,
    train: Dataset,
    test: Dataset,
    steps: int = STEPS,
    batch_size: int = 32,
    lr: float = 0.1,
    seed: int = 0,
    augment: Augmentation | None = None,
    progress: Progress | None = None,
) -> Cuts:
    """Train copies of a network with the whole gradient, with none through shortcuts, and with none through residual functions.

    model: where every training starts, float32. steps, batch_size, lr, seed, augment: of the training, see ``fit.fit``. The
    model is not changed. Raises ConfigError for a network without residual additions, and for a number of steps or images
    that cannot be.
    """
    images = normalised(train, np.arange(min(PROBED, len(train))), np.float32)
    graph = record(model, *images, training=True)
    needs_additions(graph, model)
    how = {"steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed, "augment": augment}
    found = trained_copies(model, train, test, SIDES, progress, **how)
    return Cuts(
        settings={"model": type(model).__name__, "steps": steps, "seed": seed},
        cuts=list(SIDES),
        test_images=len(test),
        chance=float(np.bincount(test.labels).max() / len(test)),
        blocks=[a.name for a in graph.additions],
        profile=np.array([profile(graph, rule) for rule in SIDES.values()]),
        **found,
    )


def profile(graph: Graph, rule: Rule | None) -> NDArray[np.float64]:
    """The norm of the gradient of every block's input, by a rule."""
    forks = [graph.fork(a) for a in graph.additions]
    return np.array([norm(total(channels)) for channels in graph.backward(forks, rule)])
