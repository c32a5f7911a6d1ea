"""Shortcuts other than the identity: what becomes of the gradient, and of the training (He et al. 2016, §3, Table 1).

With a factor λ on each of L shortcuts, what comes down the shortcuts alone is multiplied by λ^L ("Identity Mappings in Deep
Residual Networks", eq. 8): it vanishes or explodes. That is one path of 2^L. The others need not follow it: a residual function
that ends in a batch norm has an output of the same size for an input of any size, so that its Jacobian grows as its input
shrinks. With λ < 1 the inputs are smaller, and what the shortcuts lose comes back through the residual functions. Both are
measured here before training, exactly: the whole gradient of the first block's input, and the part that has passed through no
residual function. Then each kind of shortcut is trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import random
from ...data import Augmentation, Dataset
from ...errors import ConfigError, DataError
from ...models.shortcuts import GATE_BIAS, Scaled, Shortcut, checked_shortcut, replace_shortcuts
from ...nn import Module
from ..fit import STEPS, estimate_statistics, evaluated, fit, smoothed, style, within
from ..graph import Addition, Channels, record
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict, norm
from ..rules import OnePath
from ..setting import normalised
from .paths import needs_additions
from .truncate import PROBED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS: tuple[Shortcut, ...] = (1.0, 0.5, "exclusive-gating", "shortcut-only-gating", "conv1x1", "dropout")
PUBLISHED = {  # [He et al. 2016, Table 1], test error of a ResNet-110 on CIFAR-10 in %; they call more than 20 % a failure
    "identity": "6.61",
    "0.5 · S": "fails",
    "exclusive-gating": "8.70",
    "shortcut-only-gating": "6.91",
    "conv1x1": "12.22",
    "dropout": "fails",
}
WORSE = ("0.5 · S", "exclusive-gating", "conv1x1", "dropout")  # by two points or more, in the paper
FACTORS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
MARGIN = 0.02  # of accuracy: the least difference between these and the identity in the paper


@dataclass
class Shortcuts(Result):
    """The gradient for several factors λ on all shortcuts, and several kinds of shortcuts, trained from the same weights.

    Before training, x the first block's input and y the last block's output, of one batch: shortcuts: L, how many there are;
    factors: λ, (F,); whole: ‖∂loss/∂x‖ / ‖∂loss/∂y‖ for each λ, (F,); direct: the same of the part that passes through no
    residual function; unscaled: the same again, without the factors λ in this backward pass; error: the largest
    |direct − |λ|^L · unscaled| relative to direct. kinds: names; kind_whole, kind_direct: the same two for each kind, (kinds,);
    what comes down a gated shortcut includes what comes through its gate.

    Of the trainings: losses of every step, (kinds, trainings, steps), NaN after a divergence; train_loss, test_loss, accuracy:
    in evaluation mode, of the training and the test images, (kinds, trainings); test_images: how many.
    """

    shortcuts: int
    factors: NDArray[np.float64]
    whole: NDArray[np.float64]
    direct: NDArray[np.float64]
    unscaled: NDArray[np.float64]
    error: float
    kinds: list[str]
    kind_whole: NDArray[np.float64]
    kind_direct: NDArray[np.float64]
    losses: NDArray[np.float64]
    train_loss: NDArray[np.float64]
    test_loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    test_images: int

    about = About(
        name="shortcuts",
        summary="shortcuts that are scaled, gated, convolved or dropped out: the gradient and the training",
        question="Every shortcut of a residual network is multiplied by 1/2. What reaches the first block by the shortcuts "
        "alone is multiplied by 2^−L. Is the whole gradient, too?",
        claim="“for an extremely deep network (L is large), if λ_i > 1 for all i, this factor can be exponentially large; if "
        "λ_i < 1 for all i, this factor can be exponentially small and vanish” (He et al. 2016, §3, below eq. 8); Table 1: a "
        "ResNet-110 has 6.61 % test error with identity shortcuts, 8.70 with exclusive and 6.91 with shortcut-only gating, "
        "12.22 with 1×1 convolutions, and fails with the factor 0.5 and with dropout",
        rule="the test accuracy with the identity, less that with the factor 0.5, exclusive gating, 1×1 convolutions and "
        "dropout, the kinds that are worse by two points or more in the paper: seen if all four differences are above two "
        "standard errors, not seen if one is below minus two or if all are less than two points by two standard errors, "
        "otherwise unclear; standard errors are those of the test images and, if larger, those between trainings",
        scale="the paper trains networks of 110 layers on CIFAR-10 for 64,000 steps, here it is a ResNet-20 of width 8 on "
        "16×16 pixels for a thousand, one training of each kind: about three minutes. Deeper (--model resnet56) is nearer to "
        "the paper. With --quick 128 images are learnt by heart, and the accuracy is of these. With --run all kinds begin with "
        "the run's weights, which suit its own. Dropout keeps the expectation, as usual now: half of the elements, times two",
        examples=(
            ("--quick", "trains a ResNet-20 of width 4 with six kinds of shortcuts"),
            ("--model resnet56 --trainings 3", "takes a deeper network, each three times"),
            ("--gate-bias 0", "begins with gates that are half open"),
            ("--dataset cifar10 --steps 5000 --out shortcuts", "trains on CIFAR-10, and keeps result and picture"),
        ),
        disputed_by="Srivastava 2025, “Weighted Skip Connections are Not Harmful for Deep Nets”: the comparison with gated "
        "shortcuts has mistakes of design, and deep networks with gated shortcuts can be trained",
    )

    def lead(self, kind: str) -> tuple[float, float]:
        """By how much the identity's mean accuracy is above that of a kind, and the standard error of this."""
        first, other = self.accuracy[self.kinds.index("identity")], self.accuracy[self.kinds.index(kind)]
        error = math.hypot(self._sampling_error(first), self._sampling_error(other))
        if len(first) > 1:
            error = max(error, float((first - other).std(ddof=1)) / math.sqrt(len(first)))
        return float(np.mean(first - other)), error

    def _sampling_error(self, accuracy: NDArray[np.float64]) -> float:
        """The standard error of an accuracy from so many images, not 0 for all or none (Agresti & Coull 1998)."""
        n = self.test_images
        p = (float(accuracy.mean()) * n + 2) / (n + 4)
        return math.sqrt(p * (1 - p) / (n + 4))

    @property
    def verdict(self) -> Verdict:
        missing = [kind for kind in ("identity", *WORSE) if kind not in self.kinds]
        if missing:
            return Verdict(UNCLEAR, f"{', '.join(missing)} would have to be trained too")
        leads = {kind: self.lead(kind) for kind in WORSE}
        because = "the identity's accuracy, less that of the others: " + ", ".join(
            f"{difference:+.3f} ± {error:.3f} for {kind}" for kind, (difference, error) in leads.items()
        )
        found = leads.values()
        if all(difference > 2 * error for difference, error in found):
            return Verdict(SEEN, because)
        better = any(difference < -2 * error for difference, error in found)
        alike = all(difference + 2 * error < MARGIN for difference, error in found)
        return Verdict(NOT_SEEN if better or alike else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        heads = [
            "shortcut",
            "whole gradient",
            "by shortcuts alone",
            "train loss",
            "test loss",
            "accuracy",
            "paper's error",
        ]
        rows = [
            [f"λ = {factor:g}", f"{self.whole[i]:.3e}", f"{self.direct[i]:.3e}", "", "", "", ""]
            for i, factor in enumerate(self.factors)
        ]
        for i, kind in enumerate(self.kinds):
            trained = (f"{self.train_loss[i].mean():.4f}", f"{self.test_loss[i].mean():.4f}")
            accuracy, published = f"{self.accuracy[i].mean():.2%}", PUBLISHED.get(kind, "")
            rows.append(
                [kind, f"{self.kind_whole[i]:.3e}", f"{self.kind_direct[i]:.3e}", *trained, accuracy, published]
            )
        return heads, rows

    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(9.0, 4.5)
        left, right = figure.subplots(1, 2)
        shown = np.flatnonzero(self.factors > 0)
        factors = self.factors[shown]
        left.plot(factors, _positive(self.whole[shown]), label="the whole gradient", **style(1))
        left.plot(factors, _positive(self.direct[shown]), label="by the shortcuts alone", **style(2))
        at_one = self.direct[np.flatnonzero(self.factors == 1)]
        if len(at_one):
            law = at_one[0] * factors**self.shortcuts
            left.plot(factors, law, color="0.5", linestyle=":", linewidth=1, label=f"λ^{self.shortcuts}, from λ = 1")
        left.set_yscale("log")
        left.set_xlabel("factor λ on every shortcut")
        left.set_ylabel("gradient norm, first block / last block")
        left.set_title("before training", fontsize=10)
        left.legend(fontsize=8)
        for i, kind in enumerate(self.kinds):
            right.plot(*smoothed(self.losses[i].mean(0)), label=kind, **style(i))
        right.set_xlabel("step")
        right.set_ylabel("training loss (nats)")
        right.legend(fontsize=8)
        figure.suptitle(f"{self.settings.get('model', 'network')}: kinds of shortcuts", fontsize=10)


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values > 0, values, math.nan)  # no logarithm of 0


def shortcuts(
    model: Module,
    train: Dataset,
    test: Dataset,
    kinds: Sequence[Shortcut] = KINDS,
    factors: Sequence[float] = FACTORS,
    steps: int = STEPS,
    batch_size: int = 32,
    lr: float = 0.1,
    seed: int = 0,
    trainings: int = 1,
    gate_bias: float = GATE_BIAS,
    augment: Augmentation | None = None,
    progress: Progress | None = None,
) -> Shortcuts:
    """The gradient and the training of copies of a network whose shortcuts are replaced.

    model: a float32 residual network of basic blocks, such as resnet20. kinds: of ``models.replace_shortcuts``; 1 is the
    network as it is; factors: λ, for the gradient before training alone. steps, batch_size, lr, augment: of each training, see
    ``fit.fit``; trainings: how many of each kind, from the same weights (those of gates and of convolutions in shortcuts are
    drawn anew) with batches by the seeds from ``seed`` on. The gradients are those of the first 64 images in training mode, in
    float64. The model is not changed. Raises ConfigError for a network without such blocks, and for kinds, factors, numbers of
    trainings, steps or images that cannot be, and DataError for gradients that are not finite.
    """
    if not 1 <= trainings <= 100:
        raise ConfigError(f"trainings must be a whole number from 1 to 100, not {trainings}")
    if not kinds or not factors:
        raise ConfigError("shortcuts: there are no kinds, or no factors, to look at")
    for factor in (*kinds, *factors):
        checked_shortcut(factor)
    batch = normalised(train, np.arange(min(PROBED, len(train))), np.float64)
    state = random.get_rng_state()
    try:
        found = [_first_gradient(with_shortcuts(model, factor, seed, gate_bias), batch) for factor in factors]
        of_kinds = [_first_gradient(with_shortcuts(model, kind, seed, gate_bias), batch) for kind in kinds]
        rows = []
        for i in range(len(kinds) * trainings):
            kind, own_seed = kinds[i // trainings], seed + i % trainings
            report = within(progress, i, len(kinds) * trainings, _name(kind))
            trained = with_shortcuts(model, kind, own_seed, gate_bias)
            losses = fit(trained, train, steps, batch_size, lr, own_seed, augment=augment, progress=report)
            estimate_statistics(trained, train)
            rows.append((losses, evaluated(trained, train)[0], *evaluated(trained, test)))
    finally:
        random.set_rng_state(state)
    whole, direct, unscaled, counts = np.array(found).T
    expected = np.abs(np.array(factors)) ** counts * unscaled
    shape = len(kinds), trainings
    return Shortcuts(
        settings={"model": type(model).__name__, "steps": steps, "seed": seed},
        shortcuts=int(counts[0]),
        factors=np.array(factors, np.float64),
        whole=whole,
        direct=direct,
        unscaled=unscaled,
        error=float((np.abs(direct - expected) / np.maximum(direct, 1e-300)).max()),
        kinds=[_name(kind) for kind in kinds],
        kind_whole=np.array([row[0] for row in of_kinds]),
        kind_direct=np.array([row[1] for row in of_kinds]),
        losses=np.array([row[0] for row in rows]).reshape(*shape, steps),
        **{name: np.array([row[i] for row in rows]).reshape(shape) for i, name in enumerate(_MEASURED, 1)},
        test_images=len(test),
    )


_MEASURED = ("train_loss", "test_loss", "accuracy")


def with_shortcuts(model: Module, kind: Shortcut, seed: int = 0, gate_bias: float = GATE_BIAS) -> Module:
    """A copy of a network whose shortcuts are replaced; the new weights are drawn by the seed."""
    changed = copy.deepcopy(model)
    random.manual_seed(seed)
    if kind == 1:
        replace_shortcuts(copy.deepcopy(model), kind)  # which refuses the networks that it cannot change
    else:
        replace_shortcuts(changed, kind, gate_bias)
    return changed


def _name(kind: Shortcut) -> str:
    return kind if isinstance(kind, str) else "identity" if kind == 1 else f"{kind:g} · S"


class Unscaled(OnePath):
    """The gradient along the shortcuts alone, without the factors that they are multiplied by."""

    def __init__(self, factor: float) -> None:
        super().__init__(())
        self.factor = factor

    def shortcut(self, addition: Addition, channels: Channels) -> Channels:
        return [None if g is None else g / self.factor for g in super().shortcut(addition, channels)]


def _first_gradient(model: Module, batch: tuple[NDArray[Any], NDArray[Any]]) -> tuple[float, float, float, int]:
    """(‖∂loss/∂x‖, that by shortcuts alone, and the last without the factors of ``Scaled``) / ‖∂loss/∂y‖, and their number."""
    graph = record(model.double(), *batch, training=True)
    needs_additions(graph, model)
    x, y = graph.place("stem"), graph.additions[-1].output
    [[whole], [upstream]] = graph.backward([x, y])
    [direct] = graph.backward([x], OnePath(()))
    scaled = [m.factor for m in model.modules() if isinstance(m, Scaled)]
    [unscaled] = graph.backward([x], Unscaled(scaled[0])) if scaled and scaled[0] != 0 else [direct]
    sizes = norm(whole), *(norm(channels[0]) if channels else 0.0 for channels in (direct, unscaled))
    if not all(map(math.isfinite, sizes)):
        raise DataError("the gradient of the first block's input is not finite: look at the weights and the factors")
    scale = max(norm(upstream), 1e-300)
    return sizes[0] / scale, sizes[1] / scale, sizes[2] / scale, len(graph.additions)
