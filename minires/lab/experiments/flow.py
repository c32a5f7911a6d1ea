"""The gradient's norm by depth, at initialisation and over the first steps of training.

Three statements are often confused. In plain networks without batch norm gradients vanish or explode with depth, as the scale
of the weights has it (Glorot & Bengio 2010; He et al. 2015, "Delving Deep into Rectifiers"). With batch norm "the backward
propagated gradients exhibit healthy norms": what troubles deep plain networks is optimisation, not vanishing gradients (He et
al. 2015, "Deep Residual Learning …", §4.1). But at initialisation batch norm itself makes them explode: after a ReLU it divides
by the standard deviation, which is smaller than the root mean square, and so multiplies gradients by √(π/(π−1)) = 1.21 in every
layer of a wide network (Yang et al. 2019, "A Mean Field Theory of Batch Normalization"). The first steps of training take most
of that away, so that both are right.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import models, nn, optim, random
from ...errors import ConfigError, DataError
from ...models.blocks import BasicBlock, Bottleneck, Norm, PreActBlock
from ...nn import Module
from ...tensor import Tensor
from ..graph import Graph, record
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict, norm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEALTHY = 100.0  # how far apart the gradient norms of the first and the last block may be, as a factor
CALMER = 3.0  # how much nearer to each other they are after the first step
LARGEST = 1e6  # that is drawn: a network about to diverge would hide the others
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")  # Okabe & Ito
MARKERS = "os^vDPX<>*"

Batch = tuple[NDArray[Any], NDArray[Any]]


@dataclass
class Flow(Result):
    """Gradient norms by depth of several networks, which are trained alike on the same batches.

    networks: names; additions, norms: their numbers of residual additions and of batch norms; steps: the numbers of steps of
    training done before each look. By name: signal, ‖∂L/∂x‖ at every block's output x, (steps, blocks) from input to output;
    weights, ‖∂L/∂W‖ of every convolution, (steps, convolutions); losses, the mean cross-entropy, (steps,). All of them NaN from
    the step on where one of them is not finite: the network has diverged.
    """

    networks: list[str]
    additions: list[int]
    norms: list[int]
    steps: list[int]
    signal: dict[str, NDArray[np.float64]]
    weights: dict[str, NDArray[np.float64]]
    losses: dict[str, NDArray[np.float64]]

    about = About(
        name="flow",
        summary="the gradient's norm by depth over the first steps: plain, residual, with and without batch norm",
        question="In a plain network of 56 layers with batch norm, does the gradient vanish on its way to the first layers, "
        "explode, or neither? At initialisation, and after one step?",
        claim="“We also verify that the backward propagated gradients exhibit healthy norms with BN. So neither forward nor "
        "backward signals vanish” in plain networks (He et al. 2015, §4.1); at initialisation “batch normalization itself is "
        "the cause of gradient explosion”, and “after a single step of optimization” gradients “have dramatically smaller "
        "dynamic range” (Yang et al. 2019, abstract)",
        rule="r is the gradient's norm at the first block divided by that at the last; far from 1 is below 1/100 or above "
        "100. Seen if in a plain network without batch norm r is far from 1 at some step, or it diverges, and in all with "
        "batch norm r is above 100 at initialisation, nearer to 1 by a factor of three at every later step, and not far from "
        "1 at the last; not seen if in one with batch norm it is far from 1 at the last step, or in none without at any; "
        "otherwise unclear, as without a step of training",
        scale="He et al. write of networks of 18 and 34 layers on ImageNet, Yang et al. of wide fully-connected ones; here it "
        "is CIFAR networks of 56 layers (or as many as --model has), trained by SGD at lr 0.1 from the first step on. Without "
        "--quick it takes about two minutes",
        examples=(
            ("", "looks at fourteen networks of 56 layers at steps 0, 1, 10 and 100"),
            ("--model resnet20", "looks at those of 20 layers"),
            ("--width 8 --image-size 16 --steps 1000", "looks at narrow ones for longer"),
            ("--run runs/plain56-cifar10-1", "trains a network on, and looks at that"),
        ),
        disputed_by="the two papers seem to contradict each other; they look at different times of training",
    )

    def ratio(self, name: str) -> NDArray[np.float64]:
        """‖∂L/∂x‖ at the first block, divided by that at the last, (steps,). NaN where both are 0, or it has diverged."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.signal[name][:, 0] / self.signal[name][:, -1]

    @property
    def verdict(self) -> Verdict:
        plain = [name for name, n in zip(self.networks, self.additions) if n == 0]
        normed = {name for name, n in zip(self.networks, self.norms) if n > 0}
        with_norm = np.array([self.ratio(name) for name in plain if name in normed])
        without = np.array([self.ratio(name) for name in plain if name not in normed])
        if not len(with_norm) or not len(without):
            return Verdict(UNCLEAR, "this takes plain networks both with and without batch norm")
        because = (
            f"plain networks with batch norm: r = {_range(with_norm[:, 0])} at step {self.steps[0]}, "
            f"{_range(with_norm[:, -1])} at step {self.steps[-1]}; without: {_range(without)}"
        )
        if self.steps[-1] == 0:
            return Verdict(UNCLEAR, f"{because}; no step of training was done")
        if _far(with_norm[:, -1]).any() or not _far(without).any():
            return Verdict(NOT_SEEN, because)
        first, later = with_norm[:, :1], with_norm[:, 1:]
        exploded = self.steps[0] == 0 and later.size > 0 and bool((first > HEALTHY).all())
        calmer = (later <= first / CALMER) & (later >= CALMER / first)
        return Verdict(SEEN if exploded and bool(calmer.all()) else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for name in self.networks:
            ratio, loss = self.ratio(name), self.losses[name]
            cells = ["diverged" if math.isnan(x) else f"{r:.2g}" for r, x in zip(ratio, loss)]
            rows.append([name, *cells, f"{loss[0]:.3g}", f"{loss[-1]:.3g}"])
        return ["r at step", *map(str, self.steps), "first loss", "last"], rows

    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(max(7.0, 1.5 + 2.2 * len(self.steps)), 6.0)
        sorts = [("plain", False), ("residual", True)]
        sorts = [(sort, residual) for sort, residual in sorts if residual in [n > 0 for n in self.additions]]
        axes = figure.subplots(len(sorts), len(self.steps), sharex="col", sharey="row", squeeze=False)
        for row, (sort, residual) in zip(axes, sorts):
            chosen = [i for i, n in enumerate(self.additions) if (n > 0) == residual]
            for look, (axis, step) in enumerate(zip(row, self.steps)):
                for k, i in enumerate(chosen):
                    self._curve(axis, i, look, k)
                axis.set_yscale("log")
                axis.set_title(f"{sort}, step {step}", fontsize=9)
                axis.set_xlabel("block, from input to output", fontsize=8)
                axis.tick_params(labelsize=7)
                axis.set_ylim(top=min(axis.get_ylim()[1], LARGEST))
            row[0].set_ylabel("norm of ∂L/∂x", fontsize=8)
            row[-1].legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))

    def _curve(self, axis: Any, network: int, look: int, k: int) -> None:
        """One network's gradient norms at one look; colour and marker by its number k of the panel's curves."""
        name = self.networks[network]
        values = self.signal[name][look]
        x = np.arange(1, len(values) + 1)
        axis.plot(
            x,
            np.where(values > 0, values, np.nan),  # no logarithm of 0
            label=name,
            color=COLOURS[k % len(COLOURS)],
            linestyle="-" if self.norms[network] else "--",
            marker=MARKERS[k % len(MARKERS)],
            markevery=max(1, len(values) // 6),
            markersize=3,
            linewidth=1.0,
        )


def flow(
    networks: Mapping[str, Module],
    batches: Sequence[Batch],
    steps: Sequence[int] = (0, 1, 10, 100),
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    places: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Flow:
    """The gradient's norm by depth after some steps of SGD, for every network on the same batches.

    networks: by name, such as ``flow_networks`` makes; copies of them are trained. batches: images (N, C, H, W) of the weights'
    dtype and labels (N,), one more than the largest of ``steps``: after n steps on the first n batches the gradient of the next
    one is looked at. places: names of modules, from input to output, at whose outputs it is looked at; by default all blocks of
    ``minires.models``, or in other networks the residual additions. A network that diverges has NaN from there on. Raises
    ConfigError for steps that do not ascend, too few batches, or a network without blocks and places, and DataError for weights
    that are not finite, and if all networks have gradients that are not finite from the start.
    """
    steps = list(steps)
    if not networks:
        raise ConfigError("flow: there are no networks to look at")
    if not steps or steps[0] < 0 or any(a >= b for a, b in pairwise(steps)):
        raise ConfigError(f"flow: steps are whole numbers from 0 up that ascend, not {steps}")
    if len(batches) <= steps[-1]:
        raise ConfigError(f"flow: to look after {steps[-1]} steps takes {steps[-1] + 1} batches, not {len(batches)}")
    report = progress or (lambda done, total, what: None)
    total = len(networks) * (steps[-1] + 1)
    settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "images": len(batches[0][0])}
    result = Flow(settings, list(networks), [], [], steps, {}, {}, {})
    copies = {name: copy.deepcopy(network).train() for name, network in networks.items()}
    for name, model in copies.items():
        _prepare(result, name, model, batches[0], places)
    for i, (name, model) in enumerate(copies.items()):
        optimizer = optim.SGD(model.parameters(), lr, momentum, weight_decay=weight_decay)
        for n in range(steps[-1] + 1):
            report(i * (steps[-1] + 1) + n, total, f"{name}, steps")
            if n in steps and not _look(result, name, model, batches[n], places, steps.index(n)):
                break
            if n < steps[-1]:
                _train_step(model, optimizer, batches[n])
    if all(math.isnan(losses[0]) for losses in result.losses.values()):
        raise DataError("the gradients of all networks are not finite from the start: look at the weights and images")
    return result


def flow_networks(depth: int = 56, seed: int = 0, **options: Any) -> dict[str, Module]:
    """Fourteen CIFAR networks of one depth by name: {plain, v1, v2} × {batch norm, none} × {He, Xavier}, and zero F.

    depth: 6n + 2; options: of their constructors, such as width. All are float32. Networks that differ in their initialisation
    alone have weights of the same random numbers: Xavier's are He's, scaled. Zero F: every residual function begins as zero
    (``zero_init_residual``), in v1 and v2 with batch norm and He's initialisation. Raises ConfigError for an unknown depth.
    """
    found: dict[str, Module] = {}

    def build(kind: str, option: Norm, **more: Any) -> Module:
        random.manual_seed(seed)
        return models.create(f"{FAMILIES[kind]}{depth}", norm=option, **options, **more)

    for kind in FAMILIES:
        for option, words in NORMS.items():
            found[f"{kind}, {words}, He"] = build(kind, option)
            found[f"{kind}, {words}, Xavier"] = _to_xavier(build(kind, option))
        if kind != "plain":
            found[f"{kind}, BN, He, zero F"] = build(kind, "batch", zero_init_residual=True)
    return found


FAMILIES = {"plain": "plain", "v1": "resnet", "v2": "preresnet"}  # kind: the models' names, without the depth
NORMS: dict[Norm, str] = {"batch": "BN", "none": "no BN"}


def _to_xavier(model: Module) -> Module:
    """Scale convolutions ~ N(0, 2 / fan_out) to N(0, 2 / (fan_in + fan_out)), Glorot & Bengio 2010, eq. 12."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in, fan_out = nn.init.fans(module.weight.shape)
            module.weight.data *= module.weight.dtype.type(math.sqrt(fan_out / (fan_in + fan_out)))
    return model


def _train_step(model: Module, optimizer: optim.SGD, batch: Batch) -> None:
    """One step of SGD on the mean cross-entropy. Overflow is no error: the next look finds it."""
    images, labels = batch
    with np.errstate(all="ignore"):
        optimizer.zero_grad()
        nn.classification_loss(model(Tensor(images)), labels).backward()
        optimizer.step()


def _prepare(result: Flow, name: str, model: Module, batch: Batch, places: Sequence[str] | None) -> None:
    """Count the network's parts, on black images, for which most networks that would diverge are finite."""
    graph = record(model, np.zeros_like(batch[0][:2]), batch[1][:2], training=True)
    result.additions.append(len(graph.additions))
    result.norms.append(sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()))
    looks = len(result.steps)
    result.signal[name] = np.full((looks, len(_outputs(model, graph, places))), math.nan)
    result.weights[name] = np.full((looks, len(_weights(model, graph))), math.nan)
    result.losses[name] = np.full(looks, math.nan)


def _look(result: Flow, name: str, model: Module, batch: Batch, places: Sequence[str] | None, look: int) -> bool:
    """Measure the gradient norms of look number ``look``; False, and nothing is kept, if one of them is not finite."""
    with np.errstate(all="ignore"):
        try:
            graph = record(model, *batch, training=True)
        except DataError:  # the loss is not finite
            return False
        outputs, weights = _outputs(model, graph, places), _weights(model, graph)
        found = np.array([norm(c[0]) if c else 0.0 for c in graph.backward([*outputs, *weights])])
    if not np.isfinite(found).all():
        return False
    result.signal[name][look], result.weights[name][look] = found[: len(outputs)], found[len(outputs) :]
    result.losses[name][look] = float(graph.output.data)
    return True


def _outputs(model: Module, graph: Graph, places: Sequence[str] | None) -> list[Tensor]:
    """The tensors of the places. Raises ConfigError for unknown ones, and for a network in which none are known."""
    if places is not None:
        found = [graph.place(name) for name in places]
    else:
        blocks = [path for path, m in model.named_modules() if isinstance(m, BasicBlock | Bottleneck | PreActBlock)]
        found = [graph.place(path) for path in blocks] or [a.output for a in graph.additions]
    if len(found) < 2:
        raise ConfigError(
            f"{type(model).__name__} has {len(found)} blocks or places: gradients are compared at two or more; in a network of "
            "your own give places=, the names of modules from input to output"
        )
    return found


def _weights(model: Module, graph: Graph) -> list[Tensor]:
    """The weights of all convolutions that the loss depends on, in the order of the model's modules."""
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and id(m.weight) in graph.index]


def _far(ratios: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which are below 1/HEALTHY or above HEALTHY. NaN is: the network has diverged, or has no gradient."""
    return ~((ratios >= 1 / HEALTHY) & (ratios <= HEALTHY))


def _range(ratios: NDArray[np.float64]) -> str:
    """The least and the largest, for people."""
    if np.isnan(ratios).all():
        return "none (diverged)"
    least, most = np.nanmin(ratios), np.nanmax(ratios)
    words = f"{least:.2g}" if f"{least:.2g}" == f"{most:.2g}" else f"{least:.2g} to {most:.2g}"
    return words + (" (or diverged)" if np.isnan(ratios).any() else "")
