"""Batch norm biases residual blocks towards the identity (De & Smith 2020).

In a pre-activation network x + F(x) every residual function begins with a batch norm, so that at initialisation its output has
about the same variance in every block, while that of x grows by as much from block to block. After l blocks the residual
function contributes 1/(l+1) of the variance, since its batch norm has divided x by about √l. Without batch norm it contributes
about half in every block, and variances grow exponentially. SkipInit and Fixup get the same bias by a factor or by zeros, and
γ = 0 by batch norm's own parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import functional as F
from ... import nn, random
from ...errors import ConfigError
from ...models import CifarPreResNet, PreActBasicBlock
from ...models.blocks import Norm, Option
from ...nn import Module
from ...tensor import Tensor
from ..graph import Graph, record
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict
from .paths import mean_length_by_energy, needs_additions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = (  # of curves, from Okabe & Ito
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
    {"color": "#E69F00", "marker": "v", "linestyle": "-"},
    {"color": "black", "marker": "x", "linestyle": "--"},
)


@dataclass
class Identity(Result):
    """How much of the variance each block's residual function contributes, in several networks with the same blocks.

    networks: names; norms: their numbers of batch norms; blocks: names; position: l, the number of blocks since the last
    transition (a change of shape), which has 0; the first block of a network has 1, since the stem takes the transition's
    place. By name of the network: share, Var(F)/(Var(S) + Var(F)) of the residual function's and the shortcut's outputs,
    (blocks,), where Var is taken over images and pixels and then averaged over channels; variance, Var(S), (blocks,). For every
    network: length, the mean path length at the stem weighted by the energy of paths, with its standard error, from ``draws``
    random signs; NaN where there is no gradient.
    """

    networks: list[str]
    norms: list[int]
    blocks: list[str]
    position: list[int]
    share: dict[str, NDArray[np.float64]]
    variance: dict[str, NDArray[np.float64]]
    length: NDArray[np.float64]
    length_error: NDArray[np.float64]
    draws: int

    about = About(
        name="identity",
        summary="how much of the variance each residual function contributes: batch norm against other initialisations",
        question="Every residual function of a new pre-activation network ends with the same kind of convolution. Do the "
        "first and the last block of a stage contribute the same share of the variance?",
        claim="“at initialization, batch normalization downscales the residual branch relative to the skip connection, by a "
        "normalizing factor on the order of the square root of the network depth” (De & Smith 2020, abstract; by their "
        "analysis it contributes 1/(l+1) of the variance in block l)",
        rule="the mean of share · (l+1) over the blocks in the deeper half of each stage (l above half of the largest), in "
        "networks with batch norm whose shares are not all 0: seen if it is between 2/3 and 3/2 in all of them, not seen if "
        "it is below 1/2 or above 2 in one, otherwise unclear; also unclear if no stage has an l of 3, and for a trained "
        "network",
        scale="De & Smith look at fully-connected networks and Wide-ResNets; here it is pre-activation networks of 56 layers "
        "for CIFAR (or as many as --model has), one batch. Without --quick it takes about half a minute",
        examples=(
            ("", "compares six networks of 56 layers"),
            ("--model preresnet110 --width 8 --image-size 16", "compares deeper ones"),
            ("--run runs/preresnet20-cifar10-1", "looks at a trained network, whose γ have changed"),
        ),
    )

    @property
    def deeper(self) -> NDArray[np.int64]:
        """The numbers of the blocks whose l is above half of the largest."""
        return np.flatnonzero(np.array(self.position) > max(self.position) / 2)

    def times_depth(self, name: str) -> float:
        """The mean of share · (l+1) over the deeper blocks of a network; 1 if batch norm does what De & Smith say."""
        l = np.array(self.position)[self.deeper]
        return float(np.mean(self.share[name][self.deeper] * (l + 1)))

    @property
    def verdict(self) -> Verdict:
        normed = [name for name, n in zip(self.networks, self.norms) if n and np.any(self.share[name] > 0)]
        if not normed or max(self.position) < 3:
            return Verdict(UNCLEAR, "this takes a network with batch norm and at least three blocks after a transition")
        because = "share · (l+1) in the deeper half: " + ", ".join(
            f"{self.times_depth(name):.2f} with {name}" for name in self.networks
        )
        if "run" in self.settings:
            return Verdict(
                UNCLEAR, f"{because}; the claim is about networks at initialisation, and this one is trained"
            )
        found = [self.times_depth(name) for name in normed]
        if any(x < 1 / 2 or x > 2 for x in found):
            return Verdict(NOT_SEEN, because)
        return Verdict(SEEN if all(2 / 3 <= x <= 3 / 2 for x in found) else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [name, str(l), f"{1 / (l + 1):.3f}", *(f"{self.share[network][i]:.3f}" for network in self.networks)]
            for i, (name, l) in enumerate(zip(self.blocks, self.position))
        ]
        rows.append(["mean path length", "", "", *(f"{x:.2f}" for x in self.length)])
        return ["share by block", "l", "1/(l+1)", *self.networks], rows

    def draw(self, figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, height_ratios=(3, 2))
        n, position = np.arange(len(self.blocks)), np.array(self.position)
        top.plot(n, 1 / (position + 1), color="0.6", linewidth=4, label="1/(l+1)")
        for i, (name, length) in enumerate(zip(self.networks, self.length)):
            style = STYLES[i % len(STYLES)]
            top.plot(n, self.share[name], label=name, markersize=3, linewidth=1.0, **style)
            bottom.errorbar([i], [length], [2 * self.length_error[i]], color=style["color"], marker=style["marker"])
            if math.isnan(length):
                bottom.text(i, 0.0, "no gradient", ha="center", fontsize=7)
        top.set_ylabel("share of the variance")
        top.set_xlabel("block, from input to output")
        top.set_ylim(-0.03, 1.4)  # with room for the legend
        top.legend(fontsize=7, ncols=4, loc="upper center")
        step = max(1, len(n) // 12)
        top.set_xticks(n[::step], [f"{i + 1}" for i in n[::step]], fontsize=7)
        bottom.set_xticks(range(len(self.networks)), self.networks, fontsize=7)
        bottom.set_ylabel("mean path length")
        bottom.set_xlabel("residual functions passed through, weighted by energy, ± 2 standard errors", fontsize=8)


def identity(
    networks: Mapping[str, Module],
    batch: tuple[NDArray[Any], NDArray[Any]],
    training: bool | None = None,
    draws: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Identity:
    """How much of the variance each block's residual function contributes, and the mean path length.

    networks: by name, with the same blocks, such as ``identity_networks`` makes. batch: images (N, C, H, W) of the weights'
    dtype and labels (N,). training: the networks' mode, by default the one they are in; a new network's running statistics say
    nothing, so that only training mode shows what batch norm does. draws: of random signs, 2 at least. The networks are not
    changed. Raises ConfigError for a network without residual additions or with other blocks, and DataError for gradients that
    are not finite.
    """
    if draws < 2:
        raise ConfigError(f"draws must be a whole number from 2 up, not {draws}")
    if not networks:
        raise ConfigError("identity: there are no networks to look at")
    report = progress or (lambda done, total, what: None)
    settings = {"images": len(batch[0]), "seed": seed}
    result = Identity(settings, list(networks), [], [], [], {}, {}, np.zeros(0), np.zeros(0), draws)
    lengths = []
    for i, (name, model) in enumerate(networks.items()):
        report(i * draws, len(networks) * draws, name)
        graph = record(model, *batch, training=training)
        needs_additions(graph, model)
        position = _position(graph)
        if result.position and position != result.position:
            raise ConfigError(
                f"identity compares networks with the same blocks: {name} has others than {result.networks[0]}"
            )
        result.position, result.blocks = position, result.blocks or [a.name for a in graph.additions]
        result.norms.append(sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()))
        branch, shortcut = (
            np.array([_variance(x) for x in sides])
            for sides in ([a.branch for a in graph.additions], [a.shortcut for a in graph.additions])
        )
        result.share[name], result.variance[name] = branch / np.maximum(branch + shortcut, 1e-300), shortcut
        rng = np.random.default_rng(seed)  # the same signs for all

        def drawn(n: int, i: int = i, name: str = name) -> None:
            report(i * draws + n, len(networks) * draws, name)

        lengths.append(mean_length_by_energy(graph, "stem", draws, rng, drawn))
    result.length, result.length_error = np.array(lengths).T
    return result


def _position(graph: Graph) -> list[int]:
    """l of every block: 0 where the shape changes, and 1 more than before elsewhere; the first has 1."""
    found, l = [], 0
    for addition in graph.additions:
        l = l + 1 if addition.branch.shape == graph.fork(addition).shape else 0
        found.append(l)
    return found


def _variance(x: Tensor) -> float:
    """The variance over images and pixels, averaged over channels. x: (N, C, H, W)."""
    return float(x.data.var(axis=(0, *range(2, x.ndim)), dtype=np.float64).mean())


# --- networks without batch norm


class ScaledBlock(PreActBasicBlock):
    """x + α·F(x) with a factor α that is trained, as in SkipInit and Fixup."""

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, option: Option = "B", norm: Norm = "none"
    ) -> None:
        super().__init__(in_channels, channels, stride, option, norm)
        self.alpha = nn.Parameter(np.ones(1, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        assert self.downsample is not None
        x, y = self.fork(x)
        y = F.bn_relu_conv(y, self.norm2, self.conv2)
        return F.residual_add(y * self.alpha, self.downsample(x))


def identity_networks(depth: int = 56, seed: int = 0, **options: Any) -> dict[str, Module]:
    """Six pre-activation CIFAR networks of one depth by name, with the same random numbers, in float32 and training mode.

    "BN": batch norm; "no BN"; "α = 0" and "α = 1/√L": SkipInit (De & Smith 2020), no batch norm and a factor α on each of the L
    residual functions; "Fixup" (Zhang et al. 2019): no batch norm, the last convolution of each residual function and the
    classifier 0, the first times 1/√L, and a factor 1, with one bias a channel in place of Fixup's scalars; "γ = 0": batch norm
    whose last γ in each residual function is 0 (Goyal et al. 2017). That γ is learnt where no ReLU follows, unlike here: so
    ``zero_init_residual`` of these networks is Fixup's zero instead. options: of the constructor, such as width.
    """

    def build(block: type[PreActBasicBlock] = PreActBasicBlock, norm: Norm = "none", **more: Any) -> CifarPreResNet:
        random.manual_seed(seed)
        return CifarPreResNet(depth, block, norm=norm, **options, **more)

    scaled = {name: build(ScaledBlock) for name in ("α = 0", "α = 1/√L", "Fixup")}
    blocks = {name: [m for m in model.modules() if isinstance(m, ScaledBlock)] for name, model in scaled.items()}
    root = math.sqrt(len(blocks["Fixup"]))
    for block in blocks["α = 0"]:
        nn.init.zeros_(block.alpha)
    for block in blocks["α = 1/√L"]:
        nn.init.constant_(block.alpha, 1 / root)
    for block in blocks["Fixup"]:
        block.conv1.weight.data /= block.conv1.weight.dtype.type(root)  # L^(−1/(2m−2)), m = 2 convolutions
        nn.init.zeros_(block.conv2.weight)
    for module in scaled["Fixup"].head.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
    zero = build(norm="batch")
    for norm in (m.norm2 for m in zero.modules() if isinstance(m, PreActBasicBlock)):
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.weight is not None
        nn.init.zeros_(norm.weight)
    return {"BN": build(norm="batch"), "no BN": build(), **scaled, "γ = 0": zero}
