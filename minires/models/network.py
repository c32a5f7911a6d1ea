"""What the families share: the auxiliary classifier, and networks without a classifier, as the backbones of others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from .. import functional as F
from .. import nn
from ..errors import ConfigError
from ..nn import AuxiliaryOutput
from ..tensor import Tensor
from .blocks import Norm
from .parts import auxiliary_classifier

Output = Tensor | AuxiliaryOutput | list[Tensor]


class Feature(NamedTuple):
    """A feature map of a backbone: the module that it is the output of, its channels, and its stride in pixels of the image."""

    name: str
    channels: int
    stride: int


class Network(nn.Module):
    """A classifier, in training mode with an auxiliary one on request; or a backbone, which returns feature maps.

    A backbone (features_only) has the modules of the classifier but the last ones, and so a part of its state dict.
    feature_info: a Feature for each stage. image_size: the side of the images that the network was designed for, in pixels.
    """

    image_size = 32
    features_only = False
    feature_info: list[Feature]
    aux: nn.Sequential | None = None
    aux_weight = 0.0

    def prepare(self, features_only: bool, aux_weight: float, features: Iterable[tuple[str, int, int]]) -> None:
        """Note what there is to be. Raises ConfigError for options that cannot be, or not together."""
        if not isinstance(features_only, bool):
            raise ConfigError(f"features_only is true or false, not {features_only!r}")
        if checked_aux_weight(aux_weight) and features_only:
            raise ConfigError(
                "features_only leaves the classifiers out, and aux_weight is of one: leave one of them out"
            )
        self.features_only, self.feature_info = features_only, [Feature(*feature) for feature in features]

    def add_auxiliary(self, weight: float, num_classes: int, norm: Norm | None = None) -> None:
        """An auxiliary classifier of the second stage's output, if its loss has a weight above 0.

        To be added last, so that the other weights are those of the same network without it.
        """
        self.aux_weight = float(weight)
        self.aux = auxiliary_classifier(self.feature_info[1].channels, num_classes, norm) if weight else None

    def auxiliary(self, x: Tensor) -> Tensor | None:
        """Its logits, in training mode."""
        return self.aux(x) if self.aux is not None and self.training else None

    def output(self, logits: Tensor, aux_logits: Tensor | None) -> Tensor | AuxiliaryOutput:
        """What the classifier returns."""
        return logits if aux_logits is None else AuxiliaryOutput(logits, aux_logits, self.aux_weight)


class PreActNetwork(Network):
    """A stem, ``stages`` of pre-activation blocks, their last ``norm`` with a ReLU, and a ``head``."""

    stem: nn.Module
    stages: nn.Sequential
    norm: nn.Module
    head: nn.Module

    recordable = True

    def forward(self, x: Tensor) -> Output:
        x = self.stem(x)
        if self.features_only:
            *maps, x = outputs(self.stages, x)
            return [*maps, F.bn_relu(x, self.norm)]
        aux_logits = None
        if self.aux is not None and self.training:
            for i, stage in enumerate(self.stages):
                x = stage(x)
                aux_logits = self.aux(x) if i == 1 else aux_logits
        else:
            x = self.stages(x)
        return self.output(self.head(F.bn_relu(x, self.norm)), aux_logits)


def outputs(modules: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """The output of each of a chain of modules."""
    found = []
    for module in modules:
        x = module(x)
        found.append(x)
    return found


def checked_aux_weight(weight: float) -> float:
    """The weight of an auxiliary classifier's loss, or ConfigError for one that cannot be."""
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < math.inf:
        raise ConfigError(
            f"aux_weight is the weight of the auxiliary classifier's loss, a finite number from 0 up, not {weight!r}"
        )
    return float(weight)


def classifier(model: nn.Module) -> tuple[str, nn.Linear]:
    """(dotted name, module) of a network's classifier: its last linear layer, that of an auxiliary classifier not counted.

    Raises ConfigError for a network without one, such as a backbone.

    >>> from minires import models
    >>> classifier(models.create("preresnet8"))
    ('head.fc', Linear(in_features=64, out_features=10, bias=True))
    """
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.partition(".")[0] != "aux"
    ]
    if not layers:
        why = (
            "features_only leaves it out"
            if getattr(model, "features_only", False)
            else "there is no linear layer in it"
        )
        raise ConfigError(f"this {type(model).__name__} has no classifier: {why}")
    return layers[-1]
