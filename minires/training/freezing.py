"""Frozen parts of a network: their weights are not trained, and their batch norms keep the statistics that they have.

In fine-tuning the first layers, whose features are the most general, stay as they were trained on other images ("How
transferable are features in deep neural networks?", Yosinski et al. 2014).
"""

import re
from collections.abc import Iterable, Iterator

from ..errors import ConfigError, brief, nearest
from ..nn import Module

STAGE = re.compile(r"(.*\.)?((layer|stage|block|denseblock)\d+|stages\.\d+)")
CONTAINERS = ("stages", "features")  # whose children are parts of the network


def freeze(model: Module, names: Iterable[str]) -> None:
    """Freeze parts of a network, in place: no gradients for their parameters, evaluation mode also after ``train()``.

    names: "stem" is everything before the first stage, "layer1", "layer2" … are the stages in any family, DenseNet's with their
    transitions; every other module has its path ("fc", "stages.0", "layer1.0.conv1"), which counts where it is another stage's
    name too. Below the lowest part that is trained no gradients are computed. Raises ConfigError for a name that there is none
    of, and where nothing would be left to train; then nothing has changed.

    >>> import minires as mr
    >>> model = mr.models.resnet8()
    >>> freeze(model, ["stem", "layer1"])
    >>> [name for name, p in model.named_parameters() if p.requires_grad][0]
    'layer2.0.conv1.weight'
    """
    names = [names] if isinstance(names, str) else list(names)
    known, modules = parts(model), []
    paths = {path: module for path, module in model.named_modules() if path and any(True for _ in module.parameters())}
    for name in names:
        if name not in known and name not in paths:
            raise ConfigError(
                f"there is no part {brief(name)} to freeze{nearest(name, {**known, **paths})}: the network has "
                f"{', '.join(known)}"
            )
        found, own = known.get(name, []), paths.get(name)
        if own is not None and all(module is not own for module in found):  # "layer1" where stages are counted from 0
            found = [own]
        modules += found
    frozen = {id(p) for module in modules for p in module.parameters()}
    if modules and not any(p.requires_grad and id(p) not in frozen for p in model.parameters()):
        raise ConfigError(
            f"freezing {', '.join(names)} leaves nothing to train: leave out {names[-1]}, or another part that is to be trained"
        )
    for part in modules:
        part.requires_grad_(False)
        for module in part.modules():
            module.frozen, module.training = True, False


def parts(model: Module) -> dict[str, list[Module]]:
    """The parts of a network that have parameters, in order: "stem", "layer1" …, and by their names those after the stages."""
    found: dict[str, list[Module]] = {}
    top = [(path, module, bool(STAGE.fullmatch(path))) for path, module in _top(model)]
    last = max((i for i, (_, _, is_stage) in enumerate(top) if is_stage), default=-1)
    name, stages = "stem", 0
    for i, (path, module, is_stage) in enumerate(top):
        if is_stage:
            stages += 1
            name = f"layer{stages}"
        found.setdefault(name if i <= last else path, []).append(module)
    return found


def _top(model: Module) -> Iterator[tuple[str, Module]]:
    """(path, module) of the network's children that have parameters; of a container those of its own children."""
    for name, child in model.named_children():
        inner = child.named_children() if name in CONTAINERS else []
        for path, module in [(f"{name}.{part}", module) for part, module in inner] or [(name, child)]:
            if any(True for _ in module.parameters()):
                yield path, module
