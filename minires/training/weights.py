"""The weights that a run begins from: those of a file, or of another run.

A run that goes on has its weights in its checkpoint. Until there is one it needs the file again, whose sum is in the recipe.
"""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import data, models
from ..errors import ConfigError, WeightsError
from ..files import expand_user
from ..interop import LoadReport, inferred_options, load_weights
from ..interop.checkpoint_layout import may_be_checkpoint
from ..nn import Linear, Module
from .checkpoint import Checkpoint
from .folders import Images
from .recipe import Recipe

IMAGENET_SIZE = 224  # of the images that networks for ImageNet are trained on
OF_THE_NETWORK = ("option", "small_images")  # what a file tells of it; classes and channels are the images' matter
SLOWER = 10.0  # by which the learning rate of new weights is divided for those that are trained already


def weights_file(path: Path | str) -> Path:
    """The file of weights: of a run's folder, its last checkpoint. Raises ConfigError when there is none."""
    path = expand_user(path)
    if path.is_dir():
        file = path / "last.safetensors"
        if file.is_file():
            return file
        raise ConfigError(f"{path} holds no {file.name} to begin from: give a run that has one, or a file of weights")
    if not path.is_file():
        raise ConfigError(f"there are no weights {path}: give a file of weights (.safetensors, .pth) or a run's folder")
    return path


def pinned(recipe: Recipe) -> Recipe:
    """The recipe with the sum of its weights, and their path from the root. Raises ConfigError when there are none."""
    if recipe.weights is None:
        return recipe
    path = expand_user(recipe.weights).absolute()
    return replace(recipe, weights=str(path), weights_sha256=recipe.weights_sha256 or _sum(weights_file(path)))


def begin_with_weights(recipe: Recipe, model: Module, images: Images) -> LoadReport | None:
    """Load the recipe's weights, if it has some, into its newly initialised model. images: those to be trained on.

    Raises ConfigError when the file has changed since its sum was taken, or does not fit the classes; WeightsError, which is a
    DataError, when it is damaged or of another network. Then the model is as it was.
    """
    if recipe.num_classes not in (None, images.num_classes):
        raise ConfigError(
            f"num_classes is {recipe.num_classes}, and the images of {images.name} are of {images.num_classes} classes: say "
            f"{images.num_classes}, or leave it out"
        )
    if recipe.weights is None:
        return None
    file = weights_file(recipe.weights)
    if recipe.weights_sha256 is not None and _sum(file) != recipe.weights_sha256:
        raise ConfigError(
            f"{file} has changed since the recipe was written, which has another SHA-256 sum of it: to begin from what it is "
            f"now, say --weights {recipe.weights}"
        )
    checkpoint = checkpoint_of(file)  # which notices any byte that has changed
    try:
        return load_weights(model, file, replace_head=recipe.num_classes is not None)
    except WeightsError as error:
        if error.report is None:
            raise
        if _lacks_classifier(error.report, model):
            raise ConfigError(
                f"the weights {file} have no classifier: --num-classes {images.num_classes} begins with a new one"
            ) from error
        classes = _other_classes(error.report, model)
        if classes is not None:
            raise ConfigError(
                f"the weights {file} are for {classes} classes, and the images of {images.name} are of {images.num_classes}: "
                f"--num-classes {images.num_classes} begins with a new classifier"
            ) from error
        raise WeightsError(f"{error.args[0]}. {_way_out(recipe, file, checkpoint)}", error.report) from error


def _way_out(recipe: Recipe, file: Path, checkpoint: Checkpoint | None) -> str:
    """What to do about weights of another network."""
    if checkpoint is None:
        return f"Are they of a {recipe.model}? Name their network with --model, and its options with --model-option"
    saved = Recipe.from_settings(checkpoint.info["recipe"], file)
    network = " ".join([saved.model, *(f"{name}={value}" for name, value in saved.model_options.items())])
    return f"The run is one of {network}: leave --model and --model-option out to begin from it"


def _lacks_classifier(report: LoadReport, model: Module) -> bool:
    """Whether the last layer is all that weights lack, as those of a backbone do."""
    path, _ = models.classifier(model)
    lacking = {*report.missing} <= {f"{path}.weight", f"{path}.bias"}
    return bool(report.missing) and lacking and not (report.misshapen or report.unexpected)


def _other_classes(report: LoadReport, model: Module) -> int | None:
    """The number of classes of weights that fit but for that, or None of those that do not fit in other ways."""
    if report.missing or report.unexpected:
        return None
    linear = {
        f"{path}.{name}" for path, m in model.named_modules() if isinstance(m, Linear) for name in ("weight", "bias")
    }
    if not all(m.in_model in linear and m.found[1:] == m.wanted[1:] for m in report.misshapen):
        return None
    return report.misshapen[0].found[0] if report.misshapen else None


def checkpoint_of(file: Path) -> Checkpoint | None:
    """The checkpoint in a file, or None for weights of another kind, of which the header alone is read.

    Raises ConfigError for a file that cannot be read, DataError for a damaged checkpoint.
    """
    try:
        with file.open("rb") as opened:
            header = opened.read(9)
            if header[8:] != b"{":
                return None
            header += opened.read(min(int.from_bytes(header[:8], "little"), file.stat().st_size))
    except OSError as error:
        raise _unreadable(file, error) from error
    if not may_be_checkpoint(header):  # other programs' files have dtypes that checkpoints have not
        return None
    checkpoint = Checkpoint.load(file)
    if not checkpoint.info:
        return None
    checkpoint.require(file, "recipe")
    return checkpoint


def inherited(recipe: Recipe, given: Collection[str]) -> dict[str, Any]:
    """The settings that follow from a recipe's weights, but for those that are given.

    Of another run: its model, with its options, its normalisation, and the size of its images for a folder. Of a file: the
    option of the shortcuts, the stem for small images, and for networks of ImageNet's size ImageNet's normalisation. Raises
    ConfigError when there is no file, DataError for a damaged checkpoint.
    """
    assert recipe.weights is not None
    file = weights_file(recipe.weights)
    checkpoint = checkpoint_of(file)
    free = {"mean", "std"}.isdisjoint(given)
    if checkpoint is None:
        return _inherited_from_file(recipe, file, free)
    saved = Recipe.from_settings(checkpoint.info["recipe"], file)
    found: dict[str, Any] = {}
    if "model" not in given:
        found["model"] = saved.model
    if "model_options" not in given and found.get("model", recipe.model) == saved.model:
        found["model_options"] = {name: v for name, v in saved.model_options.items() if name != "num_classes"}
    if recipe.dataset == "folder" and "image_size" not in given and saved.image_size is not None:
        found["image_size"] = saved.image_size
    if free and "mean" in checkpoint.info:
        found |= {name: tuple(checkpoint.info[name]) for name in ("mean", "std")}
    return found


def fine_tuning_rates(recipe: Recipe, given: Collection[str]) -> dict[str, Any]:
    """The learning rates of fine-tuning with the recipe of a data set, which is for new weights; {} when lr is given.

    A tenth of the recipe's, and for a classifier that is new all of it.
    """
    if "lr" in given:
        return {}
    rates: dict[str, Any] = {"lr": recipe.lr / SLOWER}
    if "num_classes" in given and "lr_factors" not in given:
        rates["lr_factors"] = recipe.lr_factors | {"head": recipe.lr_factors.get("head", 1.0) * SLOWER}
    return rates


def _inherited_from_file(recipe: Recipe, file: Path, free: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    options = recipe.model_options
    try:
        inferred = inferred_options(recipe.model, file, options)
        network = {name: value for name, value in inferred.items() if name in OF_THE_NETWORK}
        if network:
            found["model_options"] = options = {**options, **network}
        if free and getattr(models.create(recipe.model, **options), "image_size", 0) >= IMAGENET_SIZE:
            normalization = data.Normalization.named("imagenet")
            found |= {"mean": normalization.mean, "std": normalization.std}
    except (TypeError, ValueError, ArithmeticError):
        pass  # options that no network has, or a damaged file: build_trainer says so
    return found


def _sum(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read the weights {file}: {error.strerror or error}")
