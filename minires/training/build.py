"""Build the objects that a Recipe describes."""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import data, kernels, models
from ..errors import CheckpointError, ConfigError, MiniresError
from ..grad_mode import no_grad
from ..nn import Module
from ..random import manual_seed
from ..tensor import Tensor
from .averaging import AVERAGES
from .checkpoint import Checkpoint
from .folders import Images, load_folder, normalization_of
from .freezing import freeze
from .optimization import build_optimizer, build_schedule
from .recipe import Recipe
from .trainer import Callback, Trainer
from .weights import begin_with_weights

DATA_SEED = 0  # the built-in images do not depend on a run's seed, so that runs can be compared


def build_trainer(
    recipe: Recipe,
    callbacks: Sequence[Callback] = (),
    weights: bool = True,
    on_read: Callable[[int, int], object] | None = None,
) -> Trainer:
    """The Trainer of a recipe, with data, model, optimizer and schedule. Sets the random seed and the number of threads.

    weights: whether to load those of the recipe, which a run that goes on from a checkpoint does not need. on_read: see
    ``load_data``. Raises ConfigError for settings that do not go together, DataError for data and weights that cannot be read.
    """
    if recipe.threads is not None:
        kernels.set_num_threads(recipe.threads)
    train, test, val = load_data(recipe, on_read)
    manual_seed(recipe.seed)
    model = build_model(recipe, train.num_classes)
    if hasattr(model, "whiten"):
        model.whiten(first_images(train))
    loaded = begin_with_weights(recipe, model, train) if weights else None
    freeze(model, recipe.freeze)
    augmentation = data.Augmentation(
        recipe.crop,
        recipe.reflect,
        recipe.flip,
        recipe.cutout,
        recipe.alternate,
        recipe.jitter,
        recipe.crop_scale or None,
    )
    train_loader = data.Loader(
        train,
        recipe.batch_size,
        shuffle=True,
        augment=augmentation,
        seed=recipe.seed,
        sizes=_sizes(recipe, model, train),
        same_statistics=bool(recipe.mean),
    )
    optimizer = build_optimizer(recipe, model)
    steps, average = recipe.total_steps(len(train_loader)), AVERAGES[recipe.average]
    return Trainer(
        model,
        train_loader,
        evaluation_loader(test, recipe),
        optimizer,
        build_schedule(recipe, optimizer, steps),
        epochs=recipe.epochs,
        steps=recipe.steps,
        label_smoothing=recipe.label_smoothing,
        val_loader=evaluation_loader(val, recipe) if val else None,
        callbacks=tuple(callbacks),
        switches=recipe.switches,
        average=None if average is None else average(model),
        tta=recipe.tta,
        eval_every=recipe.eval_every,
        loaded=loaded,
    )


def _sizes(recipe: Recipe, model: Module, train: Images) -> dict[int, int]:
    """{epoch: side} of images that are smaller at first. Raises ConfigError for a size that the network cannot take."""
    channels, of_epoch = train.image_shape[2], -(-len(train) // recipe.batch_size)
    epochs = -(-recipe.total_steps(of_epoch) // of_epoch)
    for side, _ in recipe.sizes:
        weight = next(p for p in model.parameters())
        try:
            with no_grad():
                copy.deepcopy(model).eval()(Tensor(np.zeros((1, channels, side, side), weight.dtype)))
        except MiniresError as error:
            raise ConfigError(
                f"sizes has images of {side}×{side} pixels, which {recipe.model} cannot take: {error}"
            ) from error
    return {min(round(start * epochs), epochs - 1): side for side, start in recipe.sizes}  # the last in any case


def first_images(train: Images, count: int = 5000) -> NDArray[np.float32]:
    """The first training images, normalised and not augmented, (N, C, H, W); fewer of large ones, for the sake of memory."""
    count = max(1, min(count, count * 32**2 * 3 // math.prod(train.image_shape)))
    few = train.take(np.arange(min(count, len(train))))
    return next(iter(data.Loader(few, len(few), shuffle=False, prefetch=0)))[0]


def load_data(
    recipe: Recipe, on_read: Callable[[int, int], object] | None = None
) -> tuple[Images, Images, Images | None]:
    """(training set, test set, validation set or None). All have the recipe's mean and std, or those of the training set.

    on_read(done, all) is called as the images of a folder are read. Raises ConfigError or DataError, as ``data.load`` and
    ``data.folder`` do, and ConfigError when ``val`` leaves no training images.
    """
    if recipe.dataset == "folder":
        return load_folder(recipe, on_read)
    for name in ("image_size", "crop_scale", "cache"):
        if getattr(recipe, name):
            raise ConfigError(
                f"{name} is of a folder of images, and those of {recipe.dataset} have one size, in memory: leave it out"
            )
    train, test = data.load(recipe.dataset, recipe.data_dir, seed=DATA_SEED)
    val = None
    if recipe.val:
        count = recipe.val if isinstance(recipe.val, int) else round(recipe.val * len(train))
        if not 0 < count < len(train):
            raise ConfigError(
                f"val = {recipe.val} leaves nothing of the {len(train)} training images of {recipe.dataset}: "
                f"hold out at most {len(train) - 1}"
                if count
                else f"val = {recipe.val} holds out none of the {len(train)} training images of {recipe.dataset}"
            )
        train, val = train.hold_out(count, recipe.seed)
    normalization = normalization_of(recipe, train)
    return normalization.applied(train), normalization.applied(test), normalization.applied(val) if val else None


def evaluation_loader(dataset: Images, recipe: Recipe) -> data.Loader:
    """A Loader of a data set in its own order, without augmentation."""
    return data.Loader(dataset, recipe.batch_size, shuffle=False)


def build_model(recipe: Recipe, num_classes: int) -> Module:
    """The model with newly initialised weights. Raises ConfigError for an unknown name or option, and for a backbone."""
    if recipe.model_options.get("features_only"):
        raise ConfigError("features_only makes a backbone, which returns feature maps: a run is of a classifier")
    try:
        return models.create(recipe.model, **{"num_classes": num_classes, **recipe.model_options})
    except MiniresError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:  # a value of a wrong type or out of range
        raise ConfigError(f"{recipe.model} cannot be made with the options {recipe.model_options}: {error}") from error


def restore_model(checkpoint: Checkpoint, path: Path) -> tuple[Recipe, Module]:
    """(recipe, model) of a checkpoint that was read from ``path``; the model has its weights.

    Raises CheckpointError when an entry is missing or the weights do not fit the recipe, ConfigError for a recipe that is
    out of range.
    """
    checkpoint.require(path, "recipe", "num_classes", "epoch", "step")
    recipe = Recipe.from_settings(checkpoint.info["recipe"], path)
    num_classes = checkpoint.info["num_classes"]
    largest = max((length for array in checkpoint.model.values() for length in array.shape), default=0)
    for name, value in {"num_classes": num_classes, **recipe.model_options}.items():
        if isinstance(value, int) and value > largest:  # before memory is allocated for it
            raise CheckpointError(f"{path}: {name} is {value}, and the longest axis of its weights has {largest}")
    try:
        model = build_model(recipe, num_classes)
        model.load_state_dict(checkpoint.model)
    except MiniresError as error:
        raise CheckpointError(f"{path}: its weights do not fit its recipe: {error}") from error
    return recipe, model
