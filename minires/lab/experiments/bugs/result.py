"""What the experiment ``bugs`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...result import NOT_SEEN, SEEN, UNCLEAR, About, Result, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOUND, SECOND, PASSED, WITHOUT_EFFECT = "found", "second depth", "passed", "no effect"
COLOURS = {FOUND: ("#0072B2", "o"), SECOND: ("#009E73", "s"), PASSED: ("#D55E00", "^"), WITHOUT_EFFECT: ("0.6", "x")}


@dataclass
class Bugs(Result):
    """What becomes of a network with each of several mistakes, and of the right one.

    names: of the mistakes, or a single "mystery N"; kinds: "backward" or "both passes"; fused: how each runs in the fused
    operations that training uses (``Mistake.fused``); forward: the largest relative difference of logits and loss from the
    right network's, same weights and images; cosine: of the gradient of all parameters and the right one; gradcheck: "found",
    "second depth" (found in the deeper network only), "passed" or "no effect" (the gradient is right in spite of it);
    location: where gradcheck says that it is; second: the deeper network's name, or "".

    loss: at each step (mistakes, steps), in nats, NaN once it is not finite; accuracy: of the predictions made in the last
    epoch of training, of the training images, 0 … 1, or 0 if the loss is not finite; right_loss (steps,) and right_accuracy:
    of the right network; chance: the accuracy of the best constant answer. answer, grade: to a mystery, or "".
    """

    names: list[str]
    kinds: list[str]
    fused: list[str]
    forward: NDArray[np.float64]
    cosine: NDArray[np.float64]
    gradcheck: list[str]
    location: list[str]
    second: str
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    right_loss: NDArray[np.float64]
    right_accuracy: float
    chance: float
    answer: str
    grade: str

    about = About(
        name="bugs",
        summary="the bug zoo: mistakes in the backward pass, put in on purpose; what gradcheck and training make of them",
        question="The loss falls and the accuracy rises. Is the backward pass right, then?",
        claim="a misconfigured network raises an error only with luck: “Most of the time it will train but silently work a "
        "bit worse” (Karpathy 2019, “A Recipe for Training Neural Networks”, “2) Neural net training fails silently”; no "
        "figure)",
        rule="a network trains if its training accuracy in the last epoch rises at least half as far above chance as that of "
        "the right network; seen if at least half of those that a mistake affects train, not seen if fewer than a tenth do, "
        "otherwise unclear, as when the right network stays below twice chance",
        scale="a statement from experience, with no experiment behind it; here a narrow ResNet-8 and a few seconds of "
        "training for each mistake, about four minutes for all. --quick takes six of the mistakes, and 64 images to learn by "
        "heart; with --run all trainings go on from the run's weights. Training runs fused, and the fused operations have "
        "each mistake too",
        examples=(
            ("", "trains and checks a network with each mistake"),
            ("--inject skip-dropped", "takes one"),
            ("--mystery 7", "takes one without saying which"),
            ("--mystery 7 --answer norm-mean-dropped", "grades an answer"),
        ),
        disputed_by="that it trains does not make it right: a wrong gradient with a positive cosine to the right one still "
        "points downhill (Lillicrap et al. 2016 train with random feedback weights)",
    )

    @property
    def trains(self) -> NDArray[np.bool_]:
        """Whether each network with a mistake trains, by the verdict's rule."""
        return self.accuracy - self.chance >= (self.right_accuracy - self.chance) / 2

    @property
    def verdict(self) -> Verdict:
        affected = np.array([status in (FOUND, PASSED) for status in self.gradcheck], bool)
        trained, of = int(np.sum(self.trains & affected)), int(np.sum(affected))
        found = [
            status
            for status, kind in zip(self.gradcheck, self.kinds)
            if kind == "backward" and status != WITHOUT_EFFECT
        ]
        because = f"{trained} of {of} networks with a mistake train; "
        because += f"gradcheck finds {sum(s != PASSED for s in found)} of {len(found)} mistakes in the backward pass"
        others = sum(kind != "backward" and a for kind, a in zip(self.kinds, affected))
        because += f", and cannot find {others} in both passes" if others else ""
        if len(self.names) == 1:
            because = "; ".join(text for text in (self.grade, because, self.location[0]) if text)
        if self.right_accuracy < 2 * self.chance:
            return Verdict(UNCLEAR, f"{because}; but the right network reaches {self.right_accuracy:.0%} only")
        if not of:
            return Verdict(UNCLEAR, f"{because}; no mistake affects this network")
        word = SEEN if 2 * trained >= of else NOT_SEEN if 10 * trained < of else UNCLEAR
        return Verdict(word, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        if len(self.names) == 1:
            return self._single()
        heads = ["mistake (* in both passes)", "gradcheck", "cosine", "train loss", "train accuracy", "fused"]
        rows = [["none", "", "", f"{_last(self.right_loss):.3f}", f"{self.right_accuracy:.1%}", ""]]
        for i, name in enumerate(self._marked):
            numbers = f"{self.cosine[i]:+.3f}", f"{_last(self.loss[i]):.3f}", f"{self.accuracy[i]:.1%}"
            rows.append([name, self.gradcheck[i], *numbers, self.fused[i]])
        return heads, rows

    def _single(self) -> tuple[list[str], list[list[str]]]:
        """The table of one mistake, with a column for it and one for the right network."""
        return ["", "right", self._marked[0]], [
            ["training loss, last steps", f"{_last(self.right_loss):.3f}", f"{_last(self.loss[0]):.3f}"],
            ["training accuracy, last epoch", f"{self.right_accuracy:.1%}", f"{self.accuracy[0]:.1%}"],
            ["outputs, relative difference", "0", f"{self.forward[0]:.1e}"],
            ["gradient, cosine to the right one", "1", f"{self.cosine[0]:+.3f}"],
            ["gradcheck", "passed", self.gradcheck[0]],
            ["in fused operations", "", self.fused[0]],
        ]

    @property
    def _marked(self) -> list[str]:
        return [name + ("" if kind == "backward" else " *") for name, kind in zip(self.names, self.kinds)]

    def draw(self, figure: Figure) -> None:
        if len(self.names) == 1:
            self._draw_curves(figure.subplots())
            return
        axes, order = figure.subplots(), np.argsort(self.accuracy, kind="stable")
        for status, (colour, marker) in COLOURS.items():
            at = [k for k, i in enumerate(order) if self.gradcheck[i] == status]
            if at:
                values = 100 * self.accuracy[order[at]]
                axes.plot(
                    values, at, color=colour, marker=marker, linestyle="", markersize=5, label=f"gradcheck: {status}"
                )
        axes.axvline(100 * self.right_accuracy, color="black", linewidth=0.8, label="the right network")
        axes.axvline(100 * self.chance, color="0.5", linestyle=":", linewidth=0.8, label="chance")
        axes.set_yticks(range(len(order)), [self._marked[i] for i in order], fontsize=6)
        axes.set_xlabel("training accuracy in the last epoch (%)")
        axes.set_title(f"{self.settings.get('model', 'network')} with a mistake (* in both passes)", fontsize=10)
        axes.legend(fontsize=7, loc="lower right")

    def _draw_curves(self, axes: Axes) -> None:
        axes.plot(_smooth(self.right_loss), color="black", linestyle="--", linewidth=1.2, label="none")
        axes.plot(_smooth(self.loss[0]), color="#D55E00", linewidth=1.2, label=self.names[0])
        axes.set_xlabel("step")
        axes.set_ylabel("training loss, mean of 10 steps (nats)")
        axes.set_ylim(bottom=0)
        axes.set_title(f"{self.settings.get('model', 'network')}, gradcheck: {self.gradcheck[0]}", fontsize=10)
        axes.legend(title="mistake", fontsize=8)


def _last(loss: NDArray[np.float64]) -> float:
    """The mean of the last tenth of the steps, so that one batch does not decide."""
    return float(np.mean(loss[-max(1, len(loss) // 10) :]))


def _smooth(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each step and up to nine before it."""
    return np.array([np.mean(loss[max(0, i - 9) : i + 1]) for i in range(len(loss))])
