"""Do gradients shatter? Balduzzi et al. 2017, "The Shattered Gradients Problem: If Resnets Are the Answer, Then What Is the …".

The gradient of a deep plain network with batch norm, as a function of the input, looks like white noise: two inputs share an
active unit with probability 1/4 where each has it active with probability 1/2, so that the correlation of their gradients
halves in every layer. A shortcut keeps the old gradient beside the new one: the factor is 3/4, and less loss still where batch
norm scales each residual function down against what it is added to.

Batch norm's statistics are held fixed when differentiating. With them as functions of the batch, and the sum of all outputs as
the loss, the gradients of the images would sum to zero in every unit, and be uncorrelated at any depth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ... import functional as F
from ...errors import ConfigError
from ...grad_mode import enable_grad
from ...tensor import Tensor
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["plain", "residual", "looks-linear"]

LAGS = 64  # of the autocorrelation, in steps of the grid
NEAR = 10  # the verdict is by the mean over the lags up to this one
EPSILON = 1e-5  # of batch norm
BARE = "plain without batch norm"
HALF, THREE_QUARTERS, ROOT = "plain", "residual without batch norm", "residual"


@dataclass
class Shatter(Result):
    """The gradients of random perceptrons with respect to their input, on a grid of scalars and on Gaussian vectors.

    depths: in layers; grid: the scalar inputs; examples: by network, ∂y/∂x of the first one at every point of the grid; curves:
    its autocorrelation at lags of 0 … 64 points, mean of the networks; levels: for every network, its mean over the lags from 1
    to 10; neighbours: correlation of the gradients of neighbouring points, in the deepest plain networks without batch norm and
    bias; layers: the depths of networks of Gaussian inputs; correlations, errors: by kind of network, the correlation of the
    gradients of two independent inputs, mean of the networks and its standard error.
    """

    depths: list[int]
    grid: NDArray[np.float64]
    examples: dict[str, NDArray[np.float64]]
    curves: dict[str, NDArray[np.float64]]
    levels: dict[str, NDArray[np.float64]]
    neighbours: float
    layers: list[int]
    correlations: dict[str, NDArray[np.float64]]
    errors: dict[str, NDArray[np.float64]]

    about = About(
        name="shatter",
        summary="whether gradients of neighbouring inputs resemble each other, or look like white noise",
        question="Two inputs lie close together. Do their gradients still resemble each other 50 layers down?",
        claim="“the correlation between gradients in standard feedforward networks decays exponentially with depth resulting "
        "in gradients that resemble white noise whereas, in contrast, the gradients in architectures with skip-connections "
        "are far more resistant to shattering, decaying sublinearly” (Balduzzi et al. 2017, abstract; Figs 1 and 2, Theorems "
        "1–3)",
        rule="the autocorrelation's mean over lags 1 to 10 is compared, a difference counting from two standard errors on: "
        "seen if that of the shallowest plain networks is above that of the deepest residual ones, and at every greater depth "
        "the residual networks' above the plain ones'; not seen if one of these is the other way round; otherwise unclear",
        scale="perceptrons of 200 units, 256 scalars from −2 to 2, depths 1, 24 and 50 as in the paper's Fig. 1, mean of 20 "
        "networks, in half a minute; residual functions are not scaled (β = 1; the paper shows β = 0.1 too). Predictions are "
        "for Gaussian inputs: the paper's 2^−L needs batch norm, since without it the activations of all inputs align, and "
        "(3/4)^L, which is for networks without it, is a lower bound for the same reason",
        examples=(
            ("", "compares plain and residual networks of 1, 24 and 50 layers"),
            ("--networks 100 --out shatter", "averages over more networks, and keeps result and picture"),
        ),
    )

    def level(self, network: str) -> tuple[float, float]:
        """The mean autocorrelation over lags 1 to 10 of a network in ``levels``, and its standard error."""
        values = self.levels[network]
        return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))

    @property
    def predictions(self) -> dict[str, NDArray[np.float64]]:
        """What Theorems 1 to 3 say of ``correlations``; with batch norm up to a constant factor. A linear network's is 1."""
        depth = np.array(self.layers, float)
        return {HALF: 0.5**depth, THREE_QUARTERS: 0.75**depth, ROOT: depth**-0.5, "looks-linear": depth**0}

    @property
    def verdict(self) -> Verdict:
        first, *deeper = self.depths
        pairs = [(_name("plain", first), _name("residual", deeper[-1]))]
        pairs += [(_name("residual", depth), _name("plain", depth)) for depth in deeper]
        signs = []
        for above, below in pairs:
            (high, error), (low, other) = self.level(above), self.level(below)
            difference, noise = high - low, 2 * math.hypot(error, other)
            signs.append(0 if abs(difference) <= noise or not math.isfinite(noise) else math.copysign(1, difference))
        order = (_name("plain", first), _name("residual", deeper[-1]), _name("plain", deeper[-1]))
        because = "autocorrelation at lags 1 to 10: " + "; ".join(
            f"{network} {mean:.2f} ± {error:.2f}" for network in order for mean, error in [self.level(network)]
        )
        return Verdict(NOT_SEEN if -1 in signs else SEEN if all(s == 1 for s in signs) else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for network in self.levels:
            (mean, error), (kind, _, depth) = self.level(network), network.partition(", ")
            rows.append(["scalars", kind, depth, f"{mean:+.3f} ± {error:.3f}", ""])
        rows.append(["neighbours", BARE, str(self.depths[-1]), f"{self.neighbours:+.4f}", ""])
        for kind, expected in self.predictions.items():
            measured = zip(self.layers, self.correlations[kind], self.errors[kind], expected)
            rows += [["Gaussian", kind, str(n), f"{c:+.4f} ± {e:.4f}", f"{p:.4f}"] for n, c, e, p in measured]
        return ["inputs", "network", "layers", "correlation", "predicted"], rows

    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(7.5, 6)
        axes = figure.subplot_mosaic("AABBCC;DDDEEE", height_ratios=(2, 3))
        deepest = self.depths[-1]
        shown = (_name("plain", self.depths[0]), _name("plain", deepest), _name("residual", deepest))
        for panel, name in zip("ABC", shown):
            axes[panel].plot(self.grid, self.examples[name], color="black", linewidth=0.6)
            axes[panel].set_title(f"{name} layer{'' if name.endswith(' 1') else 's'}", fontsize=8)
            axes[panel].set_xlabel("x", fontsize=8)
            axes[panel].set_yticks([0])
        axes["A"].set_ylabel("∂y/∂x", fontsize=8)
        spacing = float(self.grid[1] - self.grid[0])
        styles: dict[str, dict[str, Any]] = {
            _name("plain", self.depths[0]): {"color": "#56B4E9", "linestyle": "-"},
            _name("residual", deepest): {"color": "#0072B2", "linestyle": "-", "marker": "o", "markevery": 8},
            _name("plain", deepest): {"color": "#D55E00", "linestyle": "-", "marker": "s", "markevery": 8},
            _name(BARE, deepest): {"color": "#009E73", "linestyle": "-."},
            "brown noise": {"color": "0.4", "linestyle": "--"},
            "white noise": {"color": "0.4", "linestyle": ":"},
        }
        for name, style in styles.items():
            curve = self.curves[name]
            axes["D"].plot(spacing * np.arange(len(curve)), curve, label=name, markersize=3, linewidth=1.2, **style)
        axes["D"].set_xlabel("distance of the inputs")
        axes["D"].set_ylabel("autocorrelation of ∂y/∂x", fontsize=8)
        axes["D"].legend(fontsize=6)
        for (kind, expected), (color, marker) in zip(
            self.predictions.items(), (("#D55E00", "s"), ("#E69F00", "^"), ("#0072B2", "o"), ("#009E73", "D"))
        ):
            measured = np.where(self.correlations[kind] > 1e-3, self.correlations[kind], np.nan)
            axes["E"].plot(self.layers, measured, color=color, marker=marker, markersize=3, label=kind, linewidth=1)
            axes["E"].plot(self.layers, expected, color=color, linestyle=":", linewidth=1)
        axes["E"].set(xscale="log", yscale="log", ylim=(1e-5, 1.5), xlabel="layers (dotted: predicted)")
        axes["E"].set_ylabel("correlation of gradients, Gaussian x", fontsize=8)
        axes["E"].legend(fontsize=6, loc="lower left")


def shatter(
    depths: Sequence[int] = (1, 24, 50),
    networks: int = 20,
    units: int = 200,
    points: int = 256,
    layers: Sequence[int] = (1, 2, 3, 4, 6, 12, 24, 50),
    seed: int = 0,
    progress: Progress | None = None,
) -> Shatter:
    """The autocorrelation of ∂y/∂x for scalar inputs, and the correlation of the gradients of Gaussian inputs.

    depths: of networks of scalars, increasing, two at least; layers: of networks of Gaussian inputs, which are as wide as the
    layers; networks: new ones for each mean; units: of a layer; points: of the grid from −2 to 2, and Gaussian inputs. Computed
    in float64. Raises ConfigError for numbers that are too small.
    """
    depths, layers = list(depths), list(layers)
    if len(depths) < 2 or depths[0] < 1 or any(a >= b for a, b in itertools.pairwise(depths)):
        raise ConfigError(f"depths must be two whole numbers or more from 1 up, increasing, not {depths}")
    if not layers or min(layers) < 1:
        raise ConfigError(f"layers must be whole numbers from 1 up, not {layers}")
    for name, value, least in (("networks", networks, 2), ("units", units, 2), ("points", points, 2 * LAGS)):
        if value < least:
            raise ConfigError(f"{name} must be a whole number from {least} up, not {value}")
    report = progress or (lambda done, total, what: None)
    grid = np.linspace(-2, 2, points)
    found: dict[str, list[NDArray[np.float64]]] = {}
    correlations: dict[str, list[list[float]]] = {kind: [] for kind in (HALF, THREE_QUARTERS, ROOT, "looks-linear")}
    for n in range(networks):
        report(n, networks, "networks of scalars and of Gaussian inputs")
        rng = np.random.default_rng([seed, n])
        kinds: tuple[Kind, ...] = ("plain", "residual")
        for kind in kinds:
            for depth in depths:
                found.setdefault(_name(kind, depth), []).append(_on_grid(grid, kind, depth, units, rng))
        deepest = depths[-1]
        linear = _on_grid(grid, "looks-linear", deepest, units, rng)
        found.setdefault(_name("looks-linear", deepest), []).append(linear)
        found.setdefault(_name(BARE, deepest), []).append(_on_grid(grid, "plain", deepest, units, rng, False))
        white = rng.standard_normal(points)
        found.setdefault("brown noise", []).append(np.cumsum(white))
        found.setdefault("white noise", []).append(rng.standard_normal(points))
        for name, of in correlations.items():
            of.append([_of_gaussians(points, name, depth, units, rng) for depth in layers])
    curves = {name: np.array([autocorrelation(g) for g in gradients]) for name, gradients in found.items()}
    bare = [np.corrcoef(g[:-1], g[1:])[0, 1] for g in found[_name(BARE, depths[-1])]]
    return Shatter(
        settings={"networks": networks, "units": units, "points": points, "seed": seed},
        depths=depths,
        grid=grid,
        examples={name: gradients[0] for name, gradients in found.items()},
        curves={name: curve.mean(0) for name, curve in curves.items()},
        levels={name: curve[:, 1 : NEAR + 1].mean(1) for name, curve in curves.items()},
        neighbours=float(np.mean(bare)),
        layers=layers,
        correlations={name: np.array(of).mean(0) for name, of in correlations.items()},
        errors={name: np.array(of).std(0, ddof=1) / math.sqrt(networks) for name, of in correlations.items()},
    )


def input_gradients(
    x: NDArray[np.float64], kind: Kind, depth: int, units: int, norm: bool, bias: bool, rng: np.random.Generator
) -> NDArray[np.float64]:
    """∂y/∂x of a new network at every input, (N, inputs), with the statistics of batch norm held fixed.

    v_l = W ρ(BN(v_{l−1})), and v_{l−1} + W ρ(BN(v_{l−1})) in a residual network, with W ~ N(0, 2/units), ρ = relu and y = r·v.
    "looks-linear": [W, −W] on relu(v) and relu(−v), W ~ N(0, 1/units), which is W v. v_0 is x if it is as wide as a layer, else
    W_0 x. bias: N(0, 1) in the first layer, after batch norm (which would take it out): without it all units of scalar inputs
    switch at the same x.
    """
    inputs = Tensor(x.copy(), requires_grad=True)
    with enable_grad():
        v: Tensor = inputs
        if x.shape[1] != units:
            v = F.linear(v, Tensor(rng.standard_normal((units, x.shape[1]))))
        gain = 1 if kind == "looks-linear" else 2
        for layer in range(depth):
            weight = Tensor(rng.standard_normal((units, units)) * math.sqrt(gain / units))
            z = _normalised(v) if norm else v
            if bias and layer == 0:
                z = z + Tensor(rng.standard_normal((1, units)))
            y = F.linear(F.relu(z) - F.relu(-z) if kind == "looks-linear" else F.relu(z), weight)
            v = v + y if kind == "residual" else y
        F.linear(v, Tensor(rng.standard_normal((1, units)))).sum().backward()
    assert inputs.grad is not None
    return inputs.grad


def _normalised(v: Tensor) -> Tensor:
    """Batch norm with its statistics as constants."""
    mean, variance = v.data.mean(0, keepdims=True), v.data.var(0, keepdims=True)
    return (v - Tensor(mean)) * Tensor(1 / np.sqrt(variance + EPSILON))


def autocorrelation(signal: NDArray[np.float64], lags: int = LAGS) -> NDArray[np.float64]:
    """Σᵢ (sᵢ − s̄)(sᵢ₊ₖ − s̄) / Σᵢ (sᵢ − s̄)² for k = 0 … lags. 1 at every lag where s is constant up to rounding; NaN for 0."""
    deviation = signal - signal.mean()
    square, whole = float((deviation**2).sum()), float((signal**2).sum())
    if square <= 1e-18 * whole:
        return np.full(lags + 1, 1.0 if whole else math.nan)
    return np.array([(deviation[: len(signal) - k] * deviation[k:]).sum() for k in range(lags + 1)]) / square


def correlation(gradients: NDArray[np.float64]) -> float:
    """The mean of ⟨g_i, g_j⟩ over pairs i ≠ j of rows, relative to the mean of ‖g_i‖²; NaN where all are zero."""
    squares = float((gradients**2).sum()) or math.nan
    return (float((gradients.sum(0) ** 2).sum()) - squares) / ((len(gradients) - 1) * squares)


def _name(kind: str, depth: int) -> str:
    return f"{kind}, {depth}"


def _on_grid(
    grid: NDArray[np.float64], kind: Kind, depth: int, units: int, rng: np.random.Generator, norm: bool = True
) -> NDArray[np.float64]:
    """∂y/∂x at every point of the grid. With batch norm there is a bias in the first layer."""
    return input_gradients(grid[:, None], kind, depth, units, norm, norm, rng)[:, 0]


def _of_gaussians(points: int, name: str, depth: int, units: int, rng: np.random.Generator) -> float:
    kind: Kind = "looks-linear" if name == "looks-linear" else "plain" if name == HALF else "residual"
    return correlation(
        input_gradients(rng.standard_normal((points, units)), kind, depth, units, name != THREE_QUARTERS, False, rng)
    )
