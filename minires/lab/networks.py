"""The trained networks that several experiments look at, and how they are trained: ``minires lab train``."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import ConfigError, nearest
from ..training import Recipe

EPOCHS = 10


class Network(NamedTuple):
    """A model by name, with the options of its constructor."""

    model: str
    options: dict[str, Any]


NETWORKS = {
    "resnet20": Network("resnet20", {}),
    "plain20": Network("plain20", {}),
    "resnet110-w8": Network("resnet110", {"width": 8}),
    "resnet56": Network("resnet56", {}),
    "plain56": Network("plain56", {}),
    "preresnet20": Network("preresnet20", {}),
    "plain110-w8": Network("plain110", {"width": 8}),
    "preresnet56": Network("preresnet56", {}),
    "plain56-aux": Network("plain56", {"aux_weight": 0.3}),
}


def recipe(name: str, dataset: str = "cifar10", epochs: int = EPOCHS, **settings: Any) -> Recipe:
    """How a network of NETWORKS is trained: by the data set's recipe, shorter. settings: of the Recipe.

    Raises ConfigError for an unknown network, data set or setting.
    """
    if name not in NETWORKS:
        raise ConfigError(f"unknown network {name!r}{nearest(name, NETWORKS)}: choose of {', '.join(NETWORKS)}")
    network = NETWORKS[name]
    options = {"model": network.model, "model_options": dict(network.options), "epochs": epochs}
    return Recipe.for_dataset(dataset, **options, **settings)
