"""What a trained network loses when blocks are deleted or exchanged at test time (Veit et al. 2016, §4).

Deleting a residual block sets its residual function to zero: the shortcut remains, and what follows a transition still has its
shape. From a plain network a block is deleted by handing on its input; where it changes the shape, every second pixel with
channels of zeros (the shortcut of option A), as its residual twin has it. So both lose the same two layers.

The running statistics of the batch norms behind a deleted block no longer fit. Everything is measured twice: with the
statistics of the whole network, as Veit et al. did, and with statistics that are estimated again on training images. What the
second measurement does not repair is lost with the block's weights, and not by a shift of mean and variance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import functional as F
from ...data import Dataset
from ...errors import ConfigError
from ...models.blocks import BasicBlock, Bottleneck, LinearProjection, PreActBlock, ZeroPad
from ...nn import Identity, Module
from ...tensor import Tensor
from ..fit import estimate_statistics, evaluated
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict
from ..runs import has_shortcuts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCKS = BasicBlock | Bottleneck | PreActBlock
STATISTICS = ("stored", "estimated again")
MOST_DRAWS = 1000


@dataclass
class Lesion(Result):
    """Errors, fractions of the test images, of one network or of a residual network and its plain twin, in this order.

    The second axis of all arrays of errors is 2 long: with the stored statistics, and with statistics estimated again.
    networks: names; chance: the error of always naming the most frequent class; whole: with all blocks, (networks, 2); blocks:
    names; changes_shape: 1 for a block that does, else 0; single: with one block deleted, (networks, 2, blocks); deleted:
    numbers of blocks deleted together; many: (networks, 2, numbers, draws), of random choices among all blocks; swaps: numbers
    of random pairs of blocks of the same shape that are exchanged one after another; tau: Kendall's τ of the new order with
    the old one, (numbers, draws); shuffled: (networks, 2, numbers, draws).
    """

    networks: list[str]
    chance: float
    whole: NDArray[np.float64]
    blocks: list[str]
    changes_shape: list[int]
    single: NDArray[np.float64]
    deleted: list[int]
    many: NDArray[np.float64]
    swaps: list[int]
    tau: NDArray[np.float64]
    shuffled: NDArray[np.float64]

    about = About(
        name="lesion",
        summary="deleting and exchanging blocks of a trained network at test time, with a plain network as control",
        question="A trained network loses one of its blocks. Does it still classify, if it is residual? And if it is plain?",
        claim="deleting a layer of a plain network (VGG) reduces its performance to chance, while in a residual network, but "
        "for the blocks that change the shape, it has hardly any effect (Veit et al. 2016, §4.1, Fig. 3); the error grows "
        "smoothly with the number of blocks deleted or exchanged (§4.2 and 4.3, Fig. 5)",
        rule="the damage of a block is how far its deletion takes the error from the whole network's to chance, with stored "
        "statistics. By its median over the blocks that keep the shape: seen if it is below 0.25 in the residual network and "
        "above 0.5 in the plain one, not seen if it is above 0.5 in the residual network or no smaller than in the plain one, "
        "otherwise unclear; unclear too without a control, or if a whole network's error is above half of chance",
        scale="Veit et al. deleted from a ResNet-110 of 54 blocks, trained to the end on CIFAR-10; of few blocks each matters "
        "more. Their control was a VGG network, here the plain twin. Without --run both are trained for 1,000 steps, about "
        "five minutes for a ResNet-20; with --quick they learn 128 images by heart, and the errors are of these",
        examples=(
            ("--quick", "trains a ResNet-20 of width 8 and its plain twin for seconds"),
            (
                "--run runs/resnet56 --plain runs/plain56 --out lesion",
                "looks at trained networks, and keeps the result",
            ),
        ),
    )

    @property
    def damage(self) -> NDArray[np.float64]:
        """How far deleting each block takes the error from the whole network's (0) to chance (1), (networks, 2, blocks)."""
        whole = self.whole[:, :, None]
        return (self.single - whole) / np.where(self.chance > whole, self.chance - whole, math.nan)

    @property
    def verdict(self) -> Verdict:
        kept = np.flatnonzero(np.array(self.changes_shape) == 0)
        if len(self.networks) < 2 or not len(kept):
            return Verdict(
                UNCLEAR, "no plain network as control (--plain)" if len(kept) else "every block changes the shape"
            )
        errors = ", ".join(f"{name} {e:.3f}" for name, e in zip(self.networks, self.whole[:, 0]))
        if not (self.whole[:, 0] <= self.chance / 2).all():
            return Verdict(UNCLEAR, f"a network has not learnt enough: error {errors}, by chance {self.chance:.3f}")
        residual, plain = (float(np.median(d)) for d in self.damage[:2, 0, kept])
        because = f"median damage {residual:.3f} of {self.networks[0]}, {plain:.3f} of {self.networks[1]}"
        if residual > 0.5 or residual >= plain:
            return Verdict(NOT_SEEN, because)
        return Verdict(SEEN if residual < 0.25 and plain > 0.5 else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        columns = [(n, s) for n in range(len(self.networks)) for s in (0, 1)]
        heads = ["without", *(f"{self.networks[n]}{'' if s == 0 else ', est.'}" for n, s in columns)]
        rows = [["nothing", *(f"{self.whole[n, s]:.1%}" for n, s in columns)]]
        rows += [
            [name + (" *" if self.changes_shape[i] else ""), *(f"{self.single[n, s, i]:.1%}" for n, s in columns)]
            for i, name in enumerate(self.blocks)
        ]
        rows += [
            [
                f"{count} random block{'s' if count > 1 else ''}",
                *(f"{self.many[n, s, i].mean():.1%}" for n, s in columns),
            ]
            for i, count in enumerate(self.deleted)
        ]
        rows += [
            [
                f"{count} exchanged, τ {self.tau[i].mean():+.2f}",
                *(f"{self.shuffled[n, s, i].mean():.1%}" for n, s in columns),
            ]
            for i, count in enumerate(self.swaps)
        ]
        return heads, rows

    def draw(self, figure: Figure) -> None:
        grid = figure.add_gridspec(2, 2)
        top, left, right = (
            figure.add_subplot(grid[0, :]),
            figure.add_subplot(grid[1, 0]),
            figure.add_subplot(grid[1, 1]),
        )
        n = np.arange(len(self.blocks))
        for i, name in enumerate(self.networks):
            for s, line in ((0, "-"), (1, ":")):
                look: dict[str, Any] = {"color": COLOURS[i % 2], "linestyle": line, "markersize": 3, "linewidth": 1.2}
                look |= {"marker": "os"[i % 2], "markerfacecolor": COLOURS[i % 2] if s == 0 else "white"}
                top.plot(n, 100 * self.single[i, s], label=f"{name}, statistics {STATISTICS[s]}", **look)
                left.plot([0, *self.deleted], 100 * np.append(self.whole[i, s], self.many[i, s].mean(-1)), **look)
                if self.swaps:
                    order = np.argsort(-self.tau.ravel())
                    right.plot(
                        self.tau.ravel()[order], 100 * self.shuffled[i, s].ravel()[order], **look | {"linestyle": ""}
                    )
        for axes in (top, left, right):
            axes.axhline(100 * self.chance, color="0.5", linestyle="--", linewidth=0.8)
            axes.set_ylabel("test error (%)")
        marks = [name + (" *" if self.changes_shape[i] else "") for i, name in enumerate(self.blocks)]
        step = max(1, len(n) // 12)
        top.set_xticks(n[::step], marks[::step], rotation=30, ha="right", fontsize=6)
        top.set_xlabel("block deleted (* changes the shape; dashed line: chance)")
        top.legend(fontsize=6)
        left.set_xlabel("random blocks deleted")
        right.set_xlabel("Kendall's τ of the order of blocks")


COLOURS = ("#0072B2", "#D55E00")


def lesion(
    model: Module,
    test: Dataset,
    train: Dataset,
    plain: Module | None = None,
    names: tuple[str, str] = ("residual", "plain"),
    draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Lesion:
    """The errors of a trained network, and of its plain twin as control, without some of their blocks or in another order.

    model: of blocks of ``minires.models``, as residual networks there are; plain: of as many. test: what the errors are
    measured on; train: what the statistics are estimated on; a thousand images do. names: of the networks in the result. draws:
    random choices of several blocks, and random orders. Neither network is changed. Raises ConfigError for a network without
    such blocks or without shortcuts, for a control with shortcuts, and for two networks whose blocks are not as many.
    """
    if not 1 <= draws <= MOST_DRAWS:
        raise ConfigError(f"draws must be a whole number from 1 to {MOST_DRAWS}, not {draws}")
    networks = [model] if plain is None else [model, plain]
    patients = [_Patient(network) for network in networks]
    first = patients[0]
    if not has_shortcuts(model):
        raise ConfigError(
            "the network has no shortcuts: lesion looks at a residual network, and at a plain one as control"
        )
    if plain is not None and has_shortcuts(plain):
        raise ConfigError("the control has shortcuts: give a plain network of the same depth, such as plain20")
    if any(len(p.blocks) != len(first.blocks) for p in patients):
        raise ConfigError(
            f"the control has {len(patients[1].blocks)} blocks and the network {len(first.blocks)}: compare networks of the "
            "same depth"
        )
    rng, n = np.random.default_rng(seed), len(first.blocks)
    deleted = sorted({max(1, round(n * part)) for part in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)})
    sets = [[tuple(map(int, rng.permutation(n)[:count])) for _ in range(draws)] for count in deleted]
    pairs = first.exchangeable()
    swaps = [1, 2, 4, 8, 16][: max(1, len(pairs).bit_length())] if pairs else []
    orders = [[_order(n, pairs, count, rng) for _ in range(draws)] for count in swaps]

    plan: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((), ())
    ]  # (blocks to delete, order), of which () is the old one
    plan += [((i,), ()) for i in range(n)]
    plan += [(chosen, ()) for row in sets for chosen in row]
    plan += [((), order) for row in orders for order in row]
    errors = np.zeros((len(networks), 2, len(plan)))
    for k, patient in enumerate(patients):
        for i, (gone, order) in enumerate(plan):
            if progress is not None:
                progress(k * len(plan) + i, len(networks) * len(plan), "networks without some of their blocks")
            errors[k, :, i] = patient.errors(gone, order, test, train)
    shape = len(networks), 2
    whole, single, rest = errors[..., 0], errors[..., 1 : n + 1], errors[..., n + 1 :]
    many, shuffled = rest[..., : len(deleted) * draws], rest[..., len(deleted) * draws :]
    return Lesion(
        settings={"model": type(model).__name__, "seed": seed, "draws": draws, "test_images": len(test)},
        networks=list(names[: len(networks)]),
        chance=1 - float(np.bincount(test.labels).max() / len(test)),
        whole=whole,
        blocks=first.names,
        changes_shape=[int(not keeps_shape(b)) for b in first.blocks],
        single=single,
        deleted=deleted,
        many=many.reshape(*shape, len(deleted), draws),
        swaps=swaps,
        tau=np.array([[kendall(order) for order in row] for row in orders]).reshape(len(swaps), draws),
        shuffled=shuffled.reshape(*shape, len(swaps), draws),
    )


class _Patient:
    """A copy of a network whose blocks can be replaced."""

    def __init__(self, model: Module) -> None:
        self.model = copy.deepcopy(model).eval()
        found = [(path, m) for path, m in self.model.named_modules() if isinstance(m, BLOCKS)]
        if not found:
            raise ConfigError(
                f"{type(model).__name__} has none of the blocks that can be deleted, those of minires.models: choose a network "
                "such as resnet20, preresnet20 or resnet50"
            )
        self.names, self.blocks = [path for path, _ in found], [block for _, block in found]
        modules = dict(self.model.named_modules())
        self.places = [(modules[path.rpartition(".")[0]], path.rpartition(".")[2]) for path in self.names]
        self.buffers = [(array, array.copy()) for array in self.model.buffers()]

    def exchangeable(self) -> list[tuple[int, int]]:
        """The pairs of blocks that have inputs and outputs of the same shape, by number."""
        shapes: Mapping[int, Any] = {
            i: (path.rpartition(".")[0], channels(block))
            for i, (path, block) in enumerate(zip(self.names, self.blocks))
            if keeps_shape(block)
        }
        return [(i, j) for i, j in combinations(shapes, 2) if shapes[i] == shapes[j]]

    def errors(
        self, gone: tuple[int, ...], order: tuple[int, ...], test: Dataset, train: Dataset
    ) -> tuple[float, float]:
        """(error with stored statistics, with estimated ones) without some blocks, in an order: that of place i is order[i]."""
        for i, (parent, name) in enumerate(self.places):
            block = self.blocks[order[i] if order else i]
            setattr(parent, name, Deleted(block) if i in gone else block)
        try:
            stored = 1 - evaluated(self.model, test)[1]
            estimate_statistics(self.model, train)
            return stored, 1 - evaluated(self.model, test)[1]
        finally:
            for array, before in self.buffers:
                array[...] = before


class Deleted(Module):
    """What is left of a block whose residual function is zero: its shortcut, and what comes before and after both sides.

    Of a plain block, its input, or where it changes the shape every stride-th pixel with channels of zeros.
    """

    def __init__(self, block: BLOCKS) -> None:
        self.block, shortcut = block, block.downsample
        if shortcut is None:
            inside, outside, stride = channels(block)
            shortcut = Identity() if keeps_shape(block) else ZeroPad(inside, outside, stride)
        self.shortcut = shortcut
        self.activates = not isinstance(block, PreActBlock)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.block, PreActBlock) and isinstance(self.block.downsample, ZeroPad | LinearProjection):
            x = F.bn_relu(x, self.block.norm1)  # before the fork: it is the shortcut's too
        y = self.shortcut(x)
        return F.relu(y) if self.activates else y


def channels(block: Module) -> tuple[int, int, int]:
    """(channels of the input, channels of the output, stride) of a block."""
    convolutions = [getattr(block, name) for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    stride = math.prod(c.stride[0] if isinstance(c.stride, tuple) else c.stride for c in convolutions)
    return convolutions[0].in_channels, convolutions[-1].out_channels, stride


def keeps_shape(block: Module) -> bool:
    """Whether a block's output has the shape of its input."""
    inside, outside, stride = channels(block)
    return inside == outside and stride == 1


def kendall(order: tuple[int, ...]) -> float:
    """Kendall's τ of an order of 0 … n − 1 with the ascending one: 1 for the same, −1 for the reverse."""
    signs = [1 if a < b else -1 for a, b in combinations(order, 2)]
    return sum(signs) / len(signs) if signs else 1.0


def _order(n: int, pairs: list[tuple[int, int]], count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """The order of n blocks after ``count`` random exchanges of two."""
    order = list(range(n))
    for k in rng.integers(len(pairs), size=count):
        i, j = pairs[k]
        order[i], order[j] = order[j], order[i]
    return tuple(order)
