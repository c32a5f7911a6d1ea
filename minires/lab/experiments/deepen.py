"""Does the ensemble of paths become deeper during training? (Littwin & Wolf 2016, "The Loss Surface of Residual Networks …")

A residual network is a sum over paths (see ``paths``). Littwin & Wolf describe it by a spin glass whose terms are the paths of
each length, weighted by powers of the scales that batch norms give to the residual functions. These scales grow, they say, and
so the weight moves from short paths to longer ones. Here nothing is modelled: at some steps of a training the mean length of
paths is measured in the gradient of fixed batches, by the backward pass in two channels. Each path counts by its share of the
gradient, which may be negative, or by its energy (its squared norm), which random signs give without sampling a path.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import nn
from ...data import Augmentation, Dataset
from ...errors import ConfigError, DataError
from ...nn import Module
from ..fit import Gradients, fit, style, whole_gradient, within
from ..graph import record
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict
from .paths import mean_length_by_energy, mean_length_by_shares, needs_additions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = (0, 1, 3, 10, 30, 100, 300, 1000)  # steps
DRAWS = 16

Batch = tuple[NDArray[Any], NDArray[Any]]


@dataclass
class Deepen(Result):
    """The mean path length at some steps of one or several trainings, on the same batches each time.

    place: where the gradient is looked at; usual: the mean length of all paths, each counted once, L/2 for a chain of L blocks;
    looks: the numbers of steps of training done before each look. by_share, by_energy: mean path lengths (numbers of residual
    functions) weighted by signed shares, which may lie outside [0, L], and by energy, each (trainings, looks, batches), NaN
    from a divergence on; energy_error: the standard error of the latter from ``draws`` random signs, likewise. scale: the mean
    of |γ| over all batch norms, NaN without any, and losses: the mean cross-entropy over the batches, both (trainings, looks).
    """

    place: str
    usual: float
    looks: list[int]
    by_share: NDArray[np.float64]
    by_energy: NDArray[np.float64]
    energy_error: NDArray[np.float64]
    draws: int
    scale: NDArray[np.float64]
    losses: NDArray[np.float64]

    about = About(
        name="deepen",
        summary="the mean length of the paths that carry the gradient, over a training",
        question="Before training, do the paths that carry the gradient pass through more or fewer than half of the residual "
        "functions? And do they become longer or shorter while the network learns?",
        claim="“these ensembles are dynamic: while initially the virtual ensemble is mostly at depths lower than half the "
        "network's depth, as training progresses, it becomes deeper and deeper” (Littwin & Wolf 2016, abstract)",
        rule="of the mean path length weighted by energy: seen if at the first look it is below that of all paths and at the "
        "last above that at the first, each by more than two standard errors; not seen if one of the two is the other way "
        "round by as much; otherwise unclear. Standard errors are those between trainings or, of one training, between batches",
        scale="Littwin & Wolf derive this from a spin-glass model; here it is the gradient of a ResNet-20 of width 8 on 16×16 "
        "pixels in its first thousand steps, three trainings, a few minutes. With --quick it is 40 steps on 128 images, too "
        "few for more than the beginning. With --run two points are measured, the run's new weights and its trained ones, and "
        "standard errors are those between batches of this one training",
        examples=(
            ("--quick", "looks at three short trainings"),
            ("--model preresnet20 --steps 3000", "looks at a pre-activation network for longer"),
            ("--run runs/resnet20-cifar10-1 --out deepen", "compares a trained network with its beginning"),
        ),
    )

    def samples(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """One row for each training or, if there is only one, for each batch, (samples, looks)."""
        return values.mean(2) if len(values) > 1 else values[0].T

    @property
    def verdict(self) -> Verdict:
        found = self.samples(self.by_energy)
        if len(self.looks) < 2:
            return Verdict(UNCLEAR, f"one look, at step {self.looks[0]}, shows no change")
        if not np.isfinite(found[:, [0, -1]]).all():
            return Verdict(UNCLEAR, "a training has diverged, or there was no gradient")
        below, below_error = _mean(self.usual - found[:, 0])
        change, change_error = _mean(found[:, -1] - found[:, 0])
        because = (
            f"mean length by energy {self.usual - below:.2f} ± {below_error:.2f} at step {self.looks[0]}, {self.usual:.2f} of "
            f"all paths; changed by {change:+.2f} ± {change_error:.2f} up to step {self.looks[-1]}"
        )
        if below > 2 * below_error and change > 2 * change_error:
            return Verdict(SEEN, because)
        other = below < -2 * below_error or change < -2 * change_error
        return Verdict(NOT_SEEN if other else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        heads = ["step", "length by energy", "±", "by shares", "±", "mean |γ|", "loss"]
        columns = [_mean(self.samples(values)) for values in (self.by_energy, self.by_share)]
        cells = [column for pair in columns for column in pair]
        rows = [
            [
                *(str(step), *(f"{column[i]:.2f}" for column in cells)),
                *(f"{self.scale[:, i].mean():.3f}", f"{self.losses[:, i].mean():.4f}"),
            ]
            for i, step in enumerate(self.looks)
        ]
        return heads, rows

    def draw(self, figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for i, (values, label) in enumerate(((self.by_energy, "by energy"), (self.by_share, "by signed shares"))):
            mean, error = _mean(self.samples(values))
            top.errorbar(self.looks, mean, 2 * error, label=f"weighted {label}", capsize=2, **style(i + 1))
        top.axhline(self.usual, color="0.5", linestyle=":", linewidth=1, label="all paths, each counted once")
        top.set_ylabel("mean path length\n(residual functions)")
        top.legend(fontsize=8)
        top.set_title(
            f"{self.settings.get('model', 'network')}: paths over a training, ± 2 standard errors", fontsize=10
        )
        bottom.plot(self.looks, self.losses.mean(0), **style(0))
        bottom.set_ylabel("loss (nats)")
        bottom.set_xlabel("steps of training")
        bottom.set_xscale("symlog", linthresh=1)
        bottom.set_xticks(self.looks, [str(n) for n in self.looks], fontsize=8)
        bottom.minorticks_off()


def _mean(values: NDArray[np.float64]) -> tuple[Any, Any]:
    """The mean over samples, the first axis, and its standard error."""
    return values.mean(0), values.std(0, ddof=1) / math.sqrt(len(values))


def deepen(
    networks: Sequence[Module],
    train: Dataset,
    batches: Sequence[Batch],
    looks: Sequence[int] = LOOKS,
    at: str = "input",
    draws: int = DRAWS,
    batch_size: int = 32,
    lr: float = 0.1,
    seed: int = 0,
    augment: Augmentation | None = None,
    progress: Progress | None = None,
) -> Deepen:
    """The mean path length on fixed batches at some steps of a training, for one training or several.

    networks: where each training starts, alike but for their weights, float32. batches: two or more, of images (N, C, H, W)
    float32 and labels (N,). looks: numbers of steps, ascending; the last is the length of the training. at: where the gradient
    is looked at, see ``paths``; draws: of random signs, 2 at least. batch_size, lr, augment: of the training, see ``fit.fit``;
    seed: of its batches, in the first training, and of the signs, which are the same at every look. Gradients are looked at in
    training mode. The networks are not changed. Raises ConfigError for a network without residual additions, an unknown place,
    too few networks, batches or draws, and looks that do not ascend, and DataError for gradients that are not finite at the
    first look.
    """
    looks = list(looks)
    if not looks or looks[0] < 0 or any(a >= b for a, b in pairwise(looks)):
        raise ConfigError(f"looks are whole numbers of steps from 0 up that ascend, not {looks}")
    result = _empty(networks, batches, looks, at, draws, seed)
    for i, network in enumerate(networks):
        model = copy.deepcopy(network)
        look = partial(_look, result, i, model=model, batches=batches, seed=seed)
        if looks[-1] == 0:
            look(0)
            continue
        gradients, report = _looking(whole_gradient(model), looks, look), within(progress, i, len(networks), "training")
        losses = fit(model, train, looks[-1], batch_size, lr, seed + i, gradients, augment, report)
        if math.isfinite(losses[-1]):
            with suppress(DataError), np.errstate(all="ignore"):  # diverged by the last step
                look(len(looks) - 1)
    return result


def _looking(gradients: Gradients, looks: list[int], look: Callable[[int], None]) -> Gradients:
    """The gradients, with a look ahead of those of the steps in ``looks``."""
    steps = count()

    def with_looks(images: NDArray[Any], labels: NDArray[Any]) -> float:
        step = next(steps)
        if step in looks:
            look(looks.index(step))
        return gradients(images, labels)

    return with_looks


def deepened(
    snapshots: Mapping[int, Module],
    batches: Sequence[Batch],
    at: str = "input",
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Deepen:
    """The mean path length of one network at several times of its training.

    snapshots: by the number of steps done, ascending. Other arguments, and what is raised, as of ``deepen``.
    """
    result = _empty(list(snapshots.values())[:1], batches, list(snapshots), at, draws, seed)
    for look, model in enumerate(snapshots.values()):
        if progress is not None:
            progress(look, len(snapshots), f"step {result.looks[look]}")
        _look(result, 0, look, model, batches, seed)
    return result


def _empty(
    networks: Sequence[Module], batches: Sequence[Batch], looks: list[int], at: str, draws: int, seed: int
) -> Deepen:
    """A result with no look taken yet."""
    if not networks:
        raise ConfigError("deepen: there are no networks to look at")
    if len(batches) < 2:
        raise ConfigError(f"batches must be two or more, so that their means have standard errors, not {len(batches)}")
    if draws < 2:
        raise ConfigError(f"draws must be a whole number from 2 up, not {draws}")
    for network in networks:
        graph = record(network, *batches[0], training=True)
        needs_additions(graph, network)
        counts = graph.count_paths(graph.place(at))
        if not counts:
            raise ConfigError(f"the loss does not follow from {at!r}: it has no gradient there")
    shape = len(networks), len(looks), len(batches)
    by_share, by_energy, energy_error = (np.full(shape, math.nan) for _ in range(3))
    scale, losses = (np.full(shape[:2], math.nan) for _ in range(2))
    usual = sum(k * n for k, n in enumerate(counts)) / sum(counts)
    settings = {"model": type(networks[0]).__name__, "images": len(batches[0][0]), "seed": seed}
    return Deepen(settings, at, usual, looks, by_share, by_energy, energy_error, draws, scale, losses)


def _look(result: Deepen, training: int, look: int, model: Module, batches: Sequence[Batch], seed: int) -> None:
    """Take one look at a network."""
    losses = []
    for j, batch in enumerate(batches):
        graph = record(model, *batch, training=True)
        rng = np.random.default_rng([seed, j])
        where = training, look, j
        result.by_share[where] = mean_length_by_shares(graph, result.place)
        result.by_energy[where], result.energy_error[where] = mean_length_by_energy(
            graph, result.place, result.draws, rng
        )
        losses.append(float(graph.output.data))
    result.losses[training, look] = np.mean(losses)
    scales = [m.weight.data for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.weight is not None]
    if scales:
        result.scale[training, look] = np.mean(np.abs(np.concatenate(scales)), dtype=np.float64)
