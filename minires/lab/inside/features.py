"""What a network's layers make of an image, and the filters of its first layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ...grad_mode import no_grad
from ...lazy import fusion
from ...nn import Conv2d, Module, ModuleList, Sequential
from ...tensor import Tensor
from ..graph import untouched
from .cam import batch_of, check_layer, feature_map, is_map

STEM = "stem"  # what the first stage reads


def feature_maps(
    model: Module, image: Any, layers: str | Sequence[str] | None = None
) -> dict[str, NDArray[np.floating]]:
    """The outputs of layers for an image, by the layers' names, in the order of the forward pass.

    image: (C, H, W) or (N, C, H, W), as of ``grad_cam``. layers: dotted names of modules; by default "stem", the input of the
    first stage, and every stage. A map is (K, h, w), or (N, K, h, w) for a batch. The model computes in evaluation mode and is
    left as it was. Raises ConfigError for a layer that there is none of or that returns no feature map, and what ``grad_cam``
    raises for an image.

    >>> import minires as mr
    >>> maps = feature_maps(mr.models.resnet8(), np.zeros((3, 32, 32)))
    >>> [(name, found.shape) for name, found in maps.items()]
    [('stem', (16, 32, 32)), ('layer1', (16, 32, 32)), ('layer2', (32, 16, 16)), ('layer3', (64, 8, 8))]
    """
    batch, is_single = batch_of(model, image)
    if layers is None:
        found = _of_stages(model, batch)
    else:
        wanted = [layers] if isinstance(layers, str) else list(layers)
        modules = {name: module for name, module in model.named_modules() if name}
        for layer in wanted:
            check_layer(modules, layer)
        returned = _returned(model, batch, wanted)
        order = [*returned, *wanted]  # those that returned nothing last, for feature_map to say so
        found = {layer: feature_map(layer, returned.get(layer, [])) for layer in order}
    return {name: y.data[0] if is_single else y.data for name, y in found.items()}


def _of_stages(model: Module, batch: NDArray[Any]) -> dict[str, Tensor]:
    wanted, read = stages(model), []
    if wanted:
        first = dict(model.named_modules())[wanted[0]]
        with first.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0])):
            returned = _returned(model, batch, wanted)
    else:
        returned = _returned(model, batch, [name for name, part in model.named_children() if _convolves(part)])
    found = {name: y[-1] for name, y in [(STEM, read), *returned.items()] if y}
    maps = {name: y for name, y in found.items() if isinstance(y, Tensor) and is_map(y)}
    if not maps:
        raise ConfigError("this network makes no feature map of more than one pixel: give it a larger image")
    return maps


def _returned(model: Module, batch: NDArray[Any], layers: Sequence[str]) -> dict[str, list[Any]]:
    """What layers return in a forward pass in evaluation mode, in its order."""
    found: dict[str, list[Any]] = {}
    modules = dict(model.named_modules())
    handles = [
        modules[layer].register_forward_hook(
            lambda module, inputs, y, layer=layer: found.setdefault(layer, []).append(y)
        )
        for layer in layers
    ]
    try:
        with untouched(model), no_grad(), fusion(False):
            model.eval()(Tensor(batch))
    finally:
        for handle in handles:
            handle.remove()
    return found


def stages(model: Module) -> list[str]:
    """The names of a network's stages: its parts that hold blocks, modules made of convolutions. There may be none.

    >>> import minires as mr
    >>> stages(mr.models.resnet18()), stages(mr.models.preresnet20())
    (['layer1', 'layer2', 'layer3', 'layer4'], ['stages.0', 'stages.1', 'stages.2'])
    """
    found, stack = [], list(reversed(model.named_children()))
    while stack:
        name, part = stack.pop()
        children = part.named_children()
        if isinstance(part, Sequential) and len(children) > 1 and not all(_is_block(child) for _, child in children):
            stack += [(f"{name}.{inner}", child) for inner, child in reversed(children)]
        elif any(_is_block(module) for module in part.modules()):
            found.append(name)
    return found


def _is_block(module: Module) -> bool:
    """Whether a module, other than a list of modules, holds convolutions itself."""
    return not isinstance(module, ModuleList) and any(isinstance(child, Conv2d) for child in module.children())


def _convolves(module: Module) -> bool:
    return any(isinstance(inner, Conv2d) for inner in module.modules())


def first_convolution(model: Module) -> tuple[str, Conv2d]:
    """(name, module) of a network's first convolution. Raises ConfigError for a network without one."""
    for name, module in model.named_modules():
        if isinstance(module, Conv2d):
            return name, module
    raise ConfigError(f"{type(model).__name__} has no convolution, whose filters could be shown")


def first_filters(model: Module) -> NDArray[np.floating]:
    """A copy of the weights of a network's first convolution, (filters, channels, KH, KW).

    Raises ConfigError for a network without a convolution.

    >>> import minires as mr
    >>> first_filters(mr.models.resnet18()).shape
    (64, 3, 7, 7)
    """
    _, convolution = first_convolution(model)
    return np.array(convolution.weight.data, order="C")
