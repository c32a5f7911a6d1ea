"""How strong the responses of layers are in trained networks (He et al. 2015, Fig. 7).

A layer's response is the output of a convolution after its batch norm, before the ReLU or the addition. If residual functions
are closer to zero than what layers of plain networks compute, their responses have smaller standard deviations.

With the batch's own statistics a response has in each channel the mean β and the variance γ², but for ε, whatever the layer's
input; with the stored ones it is nearly so: the standard deviation says what the network has learnt of γ and β.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ...nn import Module
from ...ops.convolution import Conv2d
from ...ops.normalization import BatchNorm
from ..fit import style
from ..graph import record
from ..result import NOT_SEEN, SEEN, UNCLEAR, About, Progress, Result, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN = 0.05


@dataclass
class Responses(Result):
    """Standard deviations over all images, channels and pixels of a layer's response, by network.

    layers: the names of the batch norms, by network, in the order of the forward pass; deviations: (layers,) of each network;
    smaller, larger: pairs of networks: those of ``smaller`` should have the smaller responses, by the paper.
    """

    layers: dict[str, Any]
    deviations: dict[str, NDArray[np.float64]]
    smaller: list[str]
    larger: list[str]

    about = About(
        name="responses",
        summary="the strength of each layer's response in trained networks, residual and plain, shallow and deep",
        question="Does a layer of a residual network respond more strongly than one of a plain network, or less? And in a "
        "deeper one?",
        claim="“ResNets have generally smaller responses than their plain counterparts”, and “the deeper ResNet has smaller "
        "magnitudes of responses” (He et al. 2015, §4.2, Fig. 7)",
        rule="for each pair of networks, the mean over the layers of the one that should respond less, divided by that of "
        "the other: seen if all ratios are below 0.95, not seen if one is above 1.05, otherwise unclear; without a pair too",
        scale="He et al. compared networks of 20, 56 and 110 layers, trained to the end on CIFAR-10; here of 20 and 56. "
        "Without --run all are trained for 1,000 steps, about eight minutes at full width, and with --quick for 150. In so few "
        "γ hardly moves from 1, so that all networks respond alike: give trained runs",
        examples=(
            ("--quick", "trains narrow networks for seconds"),
            ("--run runs/resnet20 --plain runs/plain20 --deeper runs/resnet56", "looks at trained networks"),
        ),
    )

    @property
    def ratios(self) -> list[float]:
        """For each pair, the mean deviation of the one in ``smaller`` divided by that of the one in ``larger``."""
        return [
            float(self.deviations[a].mean() / max(self.deviations[b].mean(), 1e-300))
            for a, b in zip(self.smaller, self.larger)
        ]

    @property
    def verdict(self) -> Verdict:
        if not self.smaller:
            return Verdict(UNCLEAR, f"{', '.join(self.deviations)} alone: there is nothing to compare with")
        ratios = self.ratios
        because = ", ".join(f"{a} / {b} {r:.3f}" for a, b, r in zip(self.smaller, self.larger, ratios))
        if max(ratios) > 1 + MARGIN:
            return Verdict(NOT_SEEN, because)
        return Verdict(SEEN if max(ratios) < 1 - MARGIN else UNCLEAR, because)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                *(name, str(len(d)), f"{d.mean():.4f}", f"{np.median(d):.4f}"),
                *(f"{self.layers[name][i]} {d[i]:.4f}" for i in (int(np.argmin(d)), int(np.argmax(d)))),
            ]
            for name, d in self.deviations.items()
        ]
        return ["network", "layers", "mean", "median", "least", "most"], rows

    def draw(self, figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True)
        for i, (name, d) in enumerate(self.deviations.items()):
            n = np.arange(1, len(d) + 1)
            top.plot(n, d, label=name, **style(i))
            bottom.plot(n, np.sort(d)[::-1], label=name, **style(i))
        top.set_ylabel("standard deviation")
        top.set_xlabel("layer, in the original order")
        top.legend(fontsize=8)
        bottom.set_ylabel("standard deviation")
        bottom.set_xlabel("layer, ranked by it")
        figure.suptitle("Responses after batch norm, before ReLU and addition", fontsize=10)


def responses(
    networks: Mapping[str, Module],
    batch: tuple[NDArray[Any], NDArray[Any]],
    pairs: Sequence[tuple[str, str]] = (),
    training: bool | None = None,
    progress: Progress | None = None,
) -> Responses:
    """The standard deviations of the responses of all layers but shortcuts of networks with batch norm after convolutions.

    networks: by name; batch: images (N, C, H, W) of the weights' dtype, and labels (N,). pairs: (which should have the smaller
    responses, than which), names. training: the mode of the networks, by default that which each is in. The networks are not
    changed. Raises ConfigError for a network with a convolution that no batch norm follows, such as a pre-activation network,
    and for a pair of unknown names; DataError for responses that are not finite.
    """
    for name in (name for pair in pairs for name in pair):
        if name not in networks:
            raise ConfigError(f"a pair with {name!r}, which is none of the networks {', '.join(networks)}")
    layers: dict[str, Any] = {}
    deviations: dict[str, NDArray[np.float64]] = {}
    for i, (name, model) in enumerate(networks.items()):
        if progress is not None:
            progress(i, len(networks), f"responses of {name}")
        found = _responses(name, model, batch, training)
        layers[name], deviations[name] = list(found), np.array(list(found.values()))
        if not np.isfinite(deviations[name]).all():
            raise DataError(f"the responses of {name} are not finite: the network has diverged")
    settings = {"images": len(batch[0])}
    return Responses(settings, layers, deviations, [a for a, _ in pairs], [b for _, b in pairs])


def _responses(
    name: str, model: Module, batch: tuple[NDArray[Any], NDArray[Any]], training: bool | None
) -> dict[str, float]:
    """The standard deviation of each layer's response, by the name of the batch norm."""
    graph = record(model, *batch, training=training)
    names = {id(x): place for place, x in graph.places.items() if place not in ("input", "stem")}
    normalised = {id(x.op.inputs[0]) for x in graph.tensors if x.op is not None and isinstance(x.op, BatchNorm)}
    convolved = [x for x in graph.tensors if x.op is not None and isinstance(x.op, Conv2d)]
    if not convolved or any(id(x) not in normalised for x in convolved):
        raise ConfigError(
            f"{name} has no batch norm right after each convolution, where responses are measured (without batch norm there is "
            "none, and pre-activation networks have it before): choose a network such as resnet20 or plain20"
        )
    found: dict[str, float] = {}
    for x in graph.tensors:
        if x.op is None or not isinstance(x.op, BatchNorm) or x.op.inputs[0].op is None:
            continue
        source = x.op.inputs[0].op
        if isinstance(source, Conv2d) and not _is_shortcut(graph.additions, x):
            found[names.get(id(x), f"layer {len(found) + 1}")] = float(np.std(x.data, dtype=np.float64))
    return found


def _is_shortcut(additions: Sequence[Any], x: Any) -> bool:
    """Whether a tensor is the shortcut of a residual addition."""
    return any(addition.shortcut is x for addition in additions)
