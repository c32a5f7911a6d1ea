"""The gradient of a residual network by path length (Veit et al. 2016, "Residual Networks Behave Like Ensembles …").

With masks and statistics frozen a network of L residual blocks is a sum of 2^L paths: each block is passed through its residual
function or along its shortcut. A path's length is the number of residual functions on it. Veit et al. sampled paths; here the
backward pass carries L + 1 channels, and channel k is exactly the sum over all paths of length k.

What single paths weigh is another matter, since they cancel in that sum. If every residual function's gradient gets an
independent random sign, the expectation of ‖g_k‖² is Σ_p ‖g_p‖² over the paths p of length k: their energy. None is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ...nn import Module
from ...tensor import Tensor
from ..graph import Graph, record, total
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict, inner, norm
from ..rules import ByLength, MeanLength, OnePath

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Paths(Result):
    """The gradient by path length k = 0 … L, at one place of a network.

    place: where; gradient_norm: ‖g‖ of the whole gradient; norms: ‖g_k‖; shares: ⟨g_k, g⟩/‖g‖², which sum to 1 and may be
    negative; counts: numbers of paths; energy: Σ_p ‖g_p‖² over the paths of length k, with standard errors, from ``draws``
    random signs; length_error: the standard error of the mean length weighted by energy; mean_length: ⟨Σ k·g_k, g⟩/‖g‖², from
    two channels of their own; error: ‖Σ g_k − g‖ relative to Σ ‖g_k‖. sampled: the mean norm of single paths of length k, from
    ``samples`` paths each, with standard errors; empty if samples = 0.
    """

    place: str
    gradient_norm: float
    norms: NDArray[np.float64]
    shares: NDArray[np.float64]
    counts: list[int]
    energy: NDArray[np.float64]
    energy_error: NDArray[np.float64]
    length_error: float
    draws: int
    mean_length: float
    error: float
    sampled: NDArray[np.float64]
    sampled_error: NDArray[np.float64]
    samples: int

    about = About(
        name="paths",
        summary="the exact gradient by the number of residual functions that its paths pass through",
        question="Of all paths, half pass through at least half of the blocks. Do those carry the gradient?",
        claim="“most of the gradient in a residual network with 110 layers comes from paths that are only 10-34 layers deep” "
        "(Veit et al. 2016, abstract; §5, Fig. 6: the effective paths cross 5 to 17 of 54 modules, 95 % of all paths 19 to "
        "35)",
        rule="the mean length of paths, weighted by their energy, is compared with the mean length of all paths: seen if it "
        "is smaller by more than two standard errors, not seen if it is larger by as much, otherwise unclear",
        scale="Veit et al. measured a trained ResNet-110 on CIFAR-10 by sampled paths; here it is exact, on the network "
        "given, at the weights it has. 2^L paths are those of the function with its masks and statistics frozen",
        examples=(
            ("", "looks at a new ResNet-20"),
            ("--model preresnet20 --at stem", "looks at what the first block reads"),
            ("--run runs/resnet20-cifar10-1 --out paths", "looks at a trained network, and keeps result and picture"),
            ("--model resnet110 --width 8 --image-size 16 --samples 50", "compares with sampled paths"),
        ),
    )

    @property
    def length_by_energy(self) -> tuple[float, float]:
        """The mean length of paths weighted by their energy, and its standard error."""
        return _mean_length(self.energy), self.length_error

    @property
    def length_of_all(self) -> float:
        """The mean length of all paths, each counted once."""
        return sum(k * n for k, n in enumerate(self.counts)) / sum(self.counts)

    @property
    def effective(self) -> NDArray[np.float64]:
        """By length, the number of paths times the mean norm of those that were sampled (Veit et al. 2016, Fig. 6, right)."""
        return np.array([float(n) for n in self.counts[: len(self.sampled)]]) * self.sampled

    @property
    def verdict(self) -> Verdict:
        (mean, error), usual = self.length_by_energy, self.length_of_all
        because = (
            f"mean length {mean:.2f} ± {error:.2f} by energy, {usual:.2f} of all {sum(self.counts):.3g} paths, "
            f"{self.mean_length:.2f} by share; the channels sum to the gradient to within {self.error:.1g} of their norms"
        )
        if self.samples and self.effective.sum() > 0:
            all_of_them, by_norm = (middle(np.array(w, float)) for w in (self.counts, self.effective))
            because += (
                f"; 95 % of all paths cross {all_of_them[0]} to {all_of_them[1]} residual functions, and 95 % of the number of "
                f"paths times the mean norm of {self.samples} sampled ones {by_norm[0]} to {by_norm[1]}"
            )
        if mean + 2 * error < usual:
            return Verdict(SEEN, because)
        return Verdict(NOT_SEEN if mean - 2 * error > usual else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        largest = max(self.energy.sum(), 1e-300)
        rows = [
            [str(k), f"{n:.3g}", f"{self.norms[k]:.3e}", f"{self.shares[k]:+.4f}", f"{self.energy[k] / largest:.4f}"]
            for k, n in enumerate(self.counts)
        ]
        if not self.samples:
            return ["length", "paths", "‖g_k‖", "share", "energy"], rows
        for k, row in enumerate(rows):
            row.append(f"{self.sampled[k]:.3e} ± {self.sampled_error[k]:.0e}")
        return ["length", "paths", "‖g_k‖", "share", "energy", "mean ‖g_p‖"], rows

    def draw(self, figure: Figure) -> None:
        top, bottom, *single = figure.subplots(3 if self.samples else 2, 1, sharex=True)
        k = np.arange(len(self.counts))
        top.bar(k, self.shares, color=np.where(self.shares < 0, "#D55E00", "#0072B2"), width=0.8)
        top.axhline(0, color="black", linewidth=0.8)
        top.set_ylabel("share ⟨g_k, g⟩ / ‖g‖²")
        top.set_title(f"{self.settings.get('model', 'network')}: gradient at {self.place} by path length", fontsize=10)
        curves = [
            (np.array(self.counts, float), "of all paths", {"color": "0.6", "linestyle": "--"}),
            (self.norms, "of Σ ‖g_k‖", {"color": "#0072B2", "marker": "o"}),
            (self.energy, "of the energy Σ ‖g_p‖²", {"color": "#E69F00", "marker": "s"}),
        ]
        if single:
            curves.append((self.effective, "of paths × mean ‖g_p‖", {"color": "#009E73", "marker": "^"}))
            single[0].errorbar(
                k, self.sampled, self.sampled_error, color="#009E73", marker="^", markersize=3, linewidth=1
            )
            single[0].set_yscale("log")
            single[0].set_ylabel("mean ‖g_p‖")
            figure.set_size_inches(7, 6.5)
        for values, label, style in curves:
            bottom.plot(k, values / max(values.sum(), 1e-300), label=label, markersize=3, linewidth=1.2, **style)
        (single[0] if single else bottom).set_xlabel("path length k (residual functions passed through)")
        bottom.set_ylabel("fraction")
        bottom.legend(fontsize=8)


def middle(weights: NDArray[np.float64], share: float = 0.95) -> tuple[int, int]:
    """(first, last) length of the middle ``share`` of weights by length: at most half of the rest is on either side."""
    below = np.cumsum(weights) / weights.sum()
    rest = (1 - share) / 2
    return int(np.searchsorted(below, rest, side="right")), int(np.searchsorted(below, 1 - rest))


def paths(
    model: Module,
    batch: tuple[NDArray[Any], NDArray[Any]],
    at: str = "input",
    training: bool | None = None,
    draws: int = 32,
    samples: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Paths:
    """The gradient of the mean cross-entropy by path length.

    batch: images (N, C, H, W) of the weights' dtype (float64 for exact sums) and labels (N,). at: "input", "stem" (what the
    first residual block reads) or a module's name, for its output. training: the model's mode, by default the one it is in.
    draws: of random signs, 2 at least, for the energy. samples: of single paths of each length, for comparison with Veit et al.
    The model is not changed. Raises ConfigError for a network without residual additions or an unknown place, and DataError for
    gradients that are not finite.
    """
    if draws < 2:
        raise ConfigError(f"draws must be a whole number from 2 up, not {draws}")
    if samples < 0:
        raise ConfigError(f"samples must be a whole number from 0 up, not {samples}")
    graph = record(model, *batch, training=training)
    needs_additions(graph, model)
    x, report = graph.place(at), progress or (lambda done, total, what: None)
    counts = graph.count_paths(x)
    if not counts:
        raise ConfigError(f"the loss does not follow from {at!r}: it has no gradient there")
    rng, names, steps = (
        np.random.default_rng(seed),
        [a.name for a in graph.additions],
        draws + 2 + samples * len(counts),
    )
    report(0, steps, "the gradient")
    [[whole]] = graph.backward([x])
    assert whole is not None  # one channel goes in, and x is on a path
    by_length = _padded(graph.backward([x], ByLength())[0], len(counts))
    [means] = graph.backward([x], MeanLength())
    size = norm(whole)
    if not math.isfinite(size):
        raise DataError(f"the gradient at {at} is not finite: the network has diverged, or its weights are too large")
    norms = np.array([norm(g) for g in by_length])
    found = np.zeros((draws, len(counts)))
    for draw in range(draws):
        report(2 + draw, steps, "random signs")
        signs = dict(zip(names, rng.choice([-1.0, 1.0], len(names))))
        found[draw] = [norm(g) ** 2 for g in _padded(graph.backward([x], ByLength(signs=signs))[0], len(counts))]
    sampled, sampled_error = _sample(
        graph, x, counts, samples, rng, lambda n: report(2 + draws + n, steps, "single paths")
    )
    square = max(size**2, 1e-300)
    return Paths(
        settings={"model": type(model).__name__, "seed": seed, "images": len(batch[0])},
        place=at,
        gradient_norm=size,
        norms=norms,
        shares=np.array([inner(g, whole) / square for g in by_length]),
        counts=counts,
        energy=found.mean(0),
        energy_error=found.std(0, ddof=1) / math.sqrt(draws),
        length_error=_length_error(found),
        draws=draws,
        mean_length=inner(means[1] if len(means) > 1 else None, whole) / square,
        error=norm(total([*by_length, -whole])) / max(norms.sum(), 1e-300),
        sampled=sampled,
        sampled_error=sampled_error,
        samples=samples,
    )


def mean_path_length(model: Module, batch: tuple[NDArray[Any], NDArray[Any]], at: str = "input") -> float:
    """⟨Σ k·g_k, g⟩/‖g‖², the mean path length weighted by signed shares, from one backward pass with two channels.

    It may lie outside [0, L]. Arguments and errors as of ``paths``.
    """
    graph = record(model, *batch)
    needs_additions(graph, model)
    return mean_length_by_shares(graph, at)


def mean_length_by_shares(graph: Graph, at: str = "input") -> float:
    """The mean path length of a recorded network, weighted by signed shares; see ``mean_path_length``."""
    [[gradient, *weighted]] = graph.backward([graph.place(at)], MeanLength())
    return inner(weighted[0] if weighted else None, gradient) / max(norm(gradient) ** 2, 1e-300)


def mean_length_by_energy(
    graph: Graph,
    at: str = "input",
    draws: int = 32,
    rng: np.random.Generator | None = None,
    report: Callable[[int], None] = lambda draw: None,
) -> tuple[float, float]:
    """The mean path length weighted by energy, and its standard error; NaN without a gradient.

    With random signs E⟨Σ k·g_k, g⟩ = Σ_p k_p‖g_p‖² over the paths p of lengths k_p, and E‖g‖² = Σ_p ‖g_p‖²: the mean is the
    ratio of the two, from two channels instead of L + 1. Raises DataError for gradients that are not finite.
    """
    names, x, rng = [a.name for a in graph.additions], graph.place(at), rng or np.random.default_rng(0)
    found = np.zeros((draws, 2))
    for draw in range(draws):
        report(draw)
        signs = dict(zip(names, rng.choice([-1.0, 1.0], len(names))))
        gradient, weighted = [*graph.backward([x], MeanLength(signs))[0], None, None][:2]
        found[draw] = inner(weighted, gradient), norm(gradient) ** 2
    if not np.isfinite(found).all():
        raise DataError(f"the gradient at {at} is not finite: the network has diverged, or its weights are too large")
    lengths, energies = found.T
    if not energies.sum() > 0:
        return math.nan, math.nan
    mean = lengths.sum() / energies.sum()
    rest = lengths - mean * energies
    return float(mean), float(rest.std(ddof=1) / math.sqrt(draws) / energies.mean())


def needs_additions(graph: Graph, model: Module) -> None:
    """ConfigError for a network without residual additions."""
    if not graph.additions:
        raise ConfigError(
            f"{type(model).__name__} has no residual addition that is known as one: plain networks have none, and in a network "
            "of your own F.add_relu(branch, shortcut) and F.residual_add(branch, shortcut) are, but a + b is not"
        )


def _sample(
    graph: Graph,
    x: Tensor,
    counts: Sequence[int],
    samples: int,
    rng: np.random.Generator,
    report: Callable[[int], None],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean norm of single paths of each length, and its standard error."""
    if not samples:
        return np.zeros(0), np.zeros(0)
    names = [a.name for a in graph.additions]
    norms = np.zeros((len(counts), samples))
    for k in range(len(counts)):
        for n in range(samples):
            report(k * samples + n)
            chosen = rng.permutation(names)[:k]
            [channels] = graph.backward([x], OnePath(chosen))
            norms[k, n] = norm(channels[0]) if channels else 0.0
    return norms.mean(1), norms.std(1, ddof=1) / math.sqrt(samples) if samples > 1 else np.zeros(len(counts))


def _mean_length(energy: NDArray[np.float64]) -> float:
    """The mean of the lengths 0, 1, … weighted by energy; NaN where all is zero."""
    total = float(energy.sum())
    return float((np.arange(len(energy)) * energy).sum()) / total if total > 0 else math.nan


def _length_error(found: NDArray[np.float64]) -> float:
    """The standard error of the mean length. found: ‖g_k‖² of every draw, (draws, lengths), whose columns are correlated."""
    mean, energies = _mean_length(found.mean(0)), found.sum(1)
    if math.isnan(mean):
        return math.nan
    rest = found @ np.arange(found.shape[1]) - mean * energies  # of a ratio of two means
    return float(rest.std(ddof=1)) / math.sqrt(len(found)) / float(energies.mean())


def _padded(channels: list[Any], length: int) -> list[Any]:
    return channels + [None] * (length - len(channels))
