"""A trained network to be used: that of a run, or of a file of weights from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data import LAYOUTS, NORMALIZATIONS, Normalization
from ..data.builtin import CLASSES
from ..errors import plural
from ..files import expand_user
from ..interop import create_model
from ..models import classifier
from ..nn import Module
from .recipe import Recipe
from .run import load_run
from .weights import checkpoint_of

if TYPE_CHECKING:
    from ..interop import LoadReport

CIFAR = 32  # side of images: of networks for smaller ones


@dataclass
class TrainedNetwork:
    """A network in evaluation mode, and what is known of the images that it was trained on.

    name           of its model
    source         where it is from: the path of the run or of the weights
    classes        their names, or None; fewer than num_classes of a network with more outputs than its data have classes
    normalization  of its images, or None
    image_size     the side of its images in pixels
    trained        how far, in words
    recipe         that of its run, or None
    report         how the names of a file of weights were understood, or None
    checksums      those of its training and its test images (``data_checksums``), or None
    """

    model: Module
    name: str
    source: Path
    num_classes: int
    classes: tuple[str, ...] | None
    normalization: Normalization | None
    image_size: int
    trained: str
    recipe: Recipe | None = None
    report: LoadReport | None = None
    checksums: list[int] | None = None


def network_of_run(path: Path | str) -> TrainedNetwork:
    """The network of a run's folder or of one of its checkpoints. Raises what ``load_run`` raises.

    Checkpoints of earlier versions do not say what images they were trained on: with them the names and the published colour
    statistics of the data set are taken.
    """
    recipe, model, checkpoint = load_run(path)
    info = checkpoint.info
    classes, normalization = info.get("classes"), None
    if "mean" in info and "std" in info:
        normalization = Normalization(info["mean"], info["std"])
    elif recipe.dataset in NORMALIZATIONS:
        normalization = Normalization.named(recipe.dataset)
    if classes is None and recipe.dataset in LAYOUTS:
        classes = LAYOUTS[recipe.dataset].classes
    elif classes is None and recipe.dataset == "shapes":
        classes = CLASSES
    size = info.get("image_size", CIFAR)
    count = recipe.model_options.get("num_classes", info["num_classes"])
    named = tuple(classes) if classes is not None and len(classes) <= count else None
    progress = info.get("progress")
    steps = f" and {plural(progress['batches'], 'step')}" if progress else ""
    trained = f"after epoch {info['epoch']}{steps}"
    return TrainedNetwork(
        model, recipe.model, Path(path), count, named, normalization, size, trained, recipe, None, info.get("data")
    )


def network_of_weights(
    name: str,
    path: Path | str,
    num_classes: int | None = None,
    model_options: dict[str, Any] | None = None,
    normalization: Normalization | None = None,
) -> TrainedNetwork:
    """The network called ``name`` with the weights of a file; see ``interop.create_model``, whose errors it raises.

    normalization: by default that of a checkpoint of minires's, or of ImageNet for a network of its family, else None. Of a
    checkpoint are the names of the classes too.
    """
    path = expand_user(path)
    model, report = create_model(name, path, num_classes=num_classes, model_options=model_options)
    checkpoint = checkpoint_of(path)
    info = checkpoint.info if checkpoint is not None else {}
    if normalization is None and {"mean", "std"} <= info.keys():
        normalization = Normalization(info["mean"], info["std"])
    size = info.get("image_size", getattr(model, "image_size", CIFAR))
    if normalization is None and size != CIFAR:
        normalization = Normalization.named("imagenet")
    _, head = classifier(model)
    count = head.weight.shape[0]
    named = tuple(info["classes"]) if "classes" in info and len(info["classes"]) <= count else None
    trained = f"with the weights of {path}"
    return TrainedNetwork(model, name, path, count, named, normalization, size, trained, None, report)
