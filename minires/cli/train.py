"""``minires train``"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, nearest
from .errors import Debug
from .loading import loading
from .options import model_options, option, path_option
from .paths import DOWNLOADS, nonempty
from .runs import Start, fit, new_run, resumed_run
from .source import normalization_of, numbers

if TYPE_CHECKING:
    from ..training import Recipe
    from .display import PlainConsole

WHAT, HOW, AUGMENTATION, RUN = "What to train", "How to train it", "Augmentation", "The run"
FINE_TUNING, KERNELS = "Fine-tuning", "How it is computed"
TABLES = ("model_options", "lr_factors")  # settings of which options give some entries


def _named() -> str:
    """The recipes that have names, in words."""
    from ..training import named_recipes

    return "; ".join(f"{name}: {what.rstrip('.')}" for name, what in named_recipes().items())


def train(
    context: typer.Context,
    model: Annotated[str | None, option(WHAT, "resnet20, preresnet20, plain20, resnet18, … by name.")] = None,
    model_option: Annotated[
        list[str] | None, option(WHAT, "A setting of the model's constructor, such as option=B.", metavar="NAME=VALUE")
    ] = None,
    dataset: Annotated[
        str | None, option(WHAT, "shapes (built in), cifar10, cifar100, or folder: your own images.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        path_option(
            WHAT,
            f"Where CIFAR's files are, unpacked or as the archive; by default where downloads go: {DOWNLOADS}. Of folder: a "
            "folder of images for each class, or train/ and val/ or test/ with such folders inside.",
        ),
    ] = None,
    val: Annotated[
        float | None,
        option(
            WHAT,
            "Training images to hold out, a number or a fraction such as 0.1; the epoch that is best on them is kept. Of a "
            "folder that has no val/ or test/ inside: the part of every class that is its test set; nothing is chosen on it.",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        option(
            WHAT, "folder: the side in pixels that images are resized to; by default the one the network is made for."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        path_option(
            WHAT,
            "folder: where to keep decoded images, so that later epochs and runs are quicker. No result depends on it.",
        ),
    ] = None,
    normalize: Annotated[
        str | None,
        option(
            WHAT,
            "Normalise images as for imagenet, cifar10 or cifar100; by default by their own colours.",
            metavar="NAME",
        ),
    ] = None,
    mean: Annotated[
        str | None, option(WHAT, "In place of its name: the means, such as 0.485,0.456,0.406.", metavar="NUMBERS")
    ] = None,
    std: Annotated[
        str | None, option(WHAT, "And the standard deviations, such as 0.229,0.224,0.225.", metavar="NUMBERS")
    ] = None,
    weights: Annotated[
        Path | None,
        path_option(
            FINE_TUNING,
            "Begin from the weights of a file (.safetensors, .pth) or of another run, whose model and normalisation are taken "
            "over unless others are given.",
            metavar="FILE|RUN",
        ),
    ] = None,
    num_classes: Annotated[
        int | None,
        option(
            FINE_TUNING, "Replace the classifier of weights that are for another number of classes, by one for so many."
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        option(
            FINE_TUNING,
            "Parts that are not trained: stem (all before the first stage), layer1, layer2 … (the stages), or others by "
            "name.",
            metavar="NAMES",
        ),
    ] = None,
    epochs: Annotated[
        int | None, option(HOW, "Number of passes over the training images; with --resume a larger total.")
    ] = None,
    steps: Annotated[int | None, option(HOW, "The length of the run in steps, in place of epochs.")] = None,
    batch_size: Annotated[int | None, option(HOW, "Images in a step.")] = None,
    optimizer: Annotated[
        str | None, option(HOW, "sgd, adamw, or muon: Muon for filters and SGD for the others.")
    ] = None,
    lr: Annotated[
        float | None,
        option(HOW, "Learning rate at the peak of the schedule; with --weights by default a tenth of the dataset's."),
    ] = None,
    schedule: Annotated[str | None, option(HOW, "one-cycle, cosine, linear, multi-step or constant.")] = None,
    warmup: Annotated[
        float | None,
        option(HOW, "In which the learning rate rises: a fraction of the run, such as 0.3, or steps, such as 400."),
    ] = None,
    milestones: Annotated[
        str | None,
        option(
            HOW, "multi-step: after which lr falls: fractions of the run, such as 0.5,0.75, or steps.", metavar="PARTS"
        ),
    ] = None,
    gamma: Annotated[float | None, option(HOW, "multi-step: the factor on lr at each milestone.")] = None,
    final_lr: Annotated[float | None, option(HOW, "linear: the last learning rate, as a fraction of the peak.")] = None,
    error_warmup: Annotated[
        float | None, option(HOW, "The factor on lr until the training error is below 80 %, such as 0.1.")
    ] = None,
    momentum: Annotated[float | None, option(HOW, "Momentum of SGD.")] = None,
    nesterov: Annotated[bool | None, option(HOW, "Nesterov momentum.", "--nesterov/--no-nesterov")] = None,
    weight_decay: Annotated[float | None, option(HOW, "Weight decay.")] = None,
    decay_norms: Annotated[
        bool | None, option(HOW, "Apply weight decay to batch norms and biases too.", "--decay-norms/--no-decay-norms")
    ] = None,
    label_smoothing: Annotated[
        float | None, option(HOW, "Share of each label that is spread over all classes.")
    ] = None,
    lr_factor: Annotated[
        list[str] | None,
        option(
            HOW,
            "A factor on lr of filters, of the head (the classifier) or of biases (of norms too), such as head=10, which is "
            "the default with --weights and --num-classes.",
            metavar="ROLE=FACTOR",
        ),
    ] = None,
    muon_momentum: Annotated[float | None, option(HOW, "Momentum of Muon.")] = None,
    average: Annotated[
        str | None, option(HOW, "An average of the weights: ema, or lookahead, whose training goes on from it.")
    ] = None,
    eval_every: Annotated[
        int | None, option(HOW, "Epochs from one evaluation to the next; the last epoch always has one.")
    ] = None,
    tta: Annotated[
        str | None,
        option(HOW, "Test-time augmentation, after the last epoch and beside the plain accuracy: flip or views6."),
    ] = None,
    crop_scale: Annotated[
        str | None,
        option(
            AUGMENTATION,
            "folder: random resized crops, whose area is a part of the image's: from the least to the largest, such as 0.08,1.",
            metavar="PARTS",
        ),
    ] = None,
    crop: Annotated[int | None, option(AUGMENTATION, "Pixels of padding before a random crop; 0 for no crop.")] = None,
    reflect: Annotated[
        bool | None, option(AUGMENTATION, "Pad by reflection, not with zeros.", "--reflect/--no-reflect")
    ] = None,
    flip: Annotated[
        bool | None, option(AUGMENTATION, "Flip a random half of the images horizontally.", "--flip/--no-flip")
    ] = None,
    alternate: Annotated[
        bool | None,
        option(AUGMENTATION, "Flip each image in every other epoch, not at random.", "--alternate/--no-alternate"),
    ] = None,
    cutout: Annotated[
        int | None, option(AUGMENTATION, "Side of the square that is blanked out, in pixels; 0 for none.")
    ] = None,
    augment: Annotated[
        bool | None, option(AUGMENTATION, "Switch off all augmentation that is not asked for by name.", "--no-augment")
    ] = None,
    fusion: Annotated[
        bool | None,
        option(
            KERNELS,
            "Convolution, batch norm, ReLU and shortcut of a block in one go, which writes less to memory (default); "
            "off: op by op, as the code reads. The same up to rounding; hooks are called either way.",
            "--fusion/--no-fusion",
        ),
    ] = None,
    winograd: Annotated[
        bool | None,
        option(
            KERNELS,
            "Winograd F(4×4, 3×3) for 3×3 convolutions, with 4 times fewer multiplications, where it is faster (default); "
            "off: direct convolutions, with smaller rounding errors.",
            "--winograd/--no-winograd",
        ),
    ] = None,
    seed: Annotated[int | None, option(RUN, "The same seed gives the same bits, on any number of threads.")] = None,
    threads: Annotated[
        int | None, option(RUN, "By default the number of physical cores, or what a container's CPU quota allows.")
    ] = None,
    recipe: Annotated[
        str | None,
        option(
            RUN,
            f"{_named()}; or a TOML file of settings, such as a run's config.toml. Options override it.",
            metavar="NAME|FILE",
        ),
    ] = None,
    out: Annotated[Path | None, path_option(RUN, "The run's folder; by default runs/MODEL-DATASET-N.")] = None,
    resume: Annotated[Path | None, path_option(RUN, "Resume the run in this folder.", metavar="RUN")] = None,
    more_epochs: Annotated[int | None, option(RUN, "With --resume: number of epochs to add to a complete run.")] = None,
    dry_run: Annotated[
        bool,
        option(RUN, "Print what the run would cost (memory, minutes), from a few steps here, and stop.", "--dry-run"),
    ] = False,
    quiet: Annotated[bool, option(RUN, "Print only the last line.", "--quiet", "-q")] = False,
    debug: Debug = False,
) -> int:
    """Train a network, evaluate it after every epoch, and save curves and weights in a folder."""
    from . import display

    console = display.console()
    if resume is not None:
        if dry_run:
            raise ConfigError("--dry-run is of a new run: leave --resume out")
        return fit(_resumed(context.params, console), console, quiet)
    if more_epochs is not None:
        raise ConfigError("--more-epochs is for a run that is there already: name it with --resume, or say --epochs")
    wanted = recipe_of(recipe, _given(context.params), TABLES)
    if dry_run:
        from ..training import build_trainer
        from .cost import preview

        with loading(console, wanted.dataset, quiet) as on_read:
            trainer = build_trainer(wanted, on_read=on_read)
        preview(trainer, wanted, console)
        return 0
    return fit(new_run(wanted, out, console, quiet), console, quiet)


def _resumed(params: dict[str, Any], console: PlainConsole) -> Start:
    """The run of --resume. Raises ConfigError for options that do not go with it."""
    for name in ("out", "recipe"):
        if params[name] is not None:
            raise ConfigError(f"--resume goes on in the run's folder with the run's settings: leave --{name} out")
    more = params["more_epochs"]
    if more is not None and more < 1:
        raise ConfigError(f"--more-epochs is a whole number from 1 up, not {more}")
    return resumed_run(params["resume"], _given(params), console, params["quiet"], more or 0)


def recipe_of(name: str | None, given: dict[str, Any], tables: Collection[str] = ()) -> Recipe:
    """The recipe of --recipe, or that of the dataset if there is none, with the settings that were given.

    Weights that were given bring more settings along. tables: the settings of which some entries are given, and the recipe has
    the others.
    """
    tables = [table for table in tables if table in given]
    if tables:
        base = _recipe_of(name, {name: value for name, value in given.items() if name not in tables})
        given = given | {table: getattr(base, table) | given[table] for table in tables}
    recipe = _recipe_of(name, given)
    if given.get("weights") is None:
        return recipe
    from ..training.weights import fine_tuning_rates, inherited

    rates = fine_tuning_rates(recipe, given) if name is None else {}
    return _recipe_of(name, rates | inherited(recipe, given) | given)


def _recipe_of(name: str | None, given: dict[str, Any]) -> Recipe:
    from ..training import Recipe, named_recipes

    if name is None:
        return Recipe.for_dataset(**given)
    known = named_recipes()
    if name in known:
        return Recipe.named(name, **given)
    path = nonempty(name)
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        raise ConfigError(
            f"there is no recipe {name!r}{nearest(name, known)}: choose one of {', '.join(known)}, or give a TOML file"
        )
    recipe = Recipe.from_file(path)
    if given.get("dataset", recipe.dataset) != recipe.dataset:
        given = {"data_dir": None, **given}  # not that of the other data set
    if given.get("model", recipe.model) != recipe.model:
        given = {"model_options": {}, **given}  # not those of the other model
    return recipe.with_settings(**given)


def _given(params: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given as options."""
    from dataclasses import fields

    from ..training import Recipe

    names = {f.name for f in fields(Recipe)}
    given = {name: value for name, value in params.items() if name in names and value is not None}
    given = {name: value for name, value in given.items() if name not in ("mean", "std")}  # texts as yet
    if params["data_dir"] is not None:
        given["data_dir"] = str(params["data_dir"].absolute())  # for `minires eval` from elsewhere
    if params["weights"] is not None:
        given["weights"] = str(params["weights"].absolute())
    if params["augment"] is not None:
        given = {"crop": 0, "flip": False, "cutout": 0, "crop_scale": (), **given}
    if params["cache"] is not None:
        given["cache"] = str(params["cache"].absolute())
    if params["crop_scale"] is not None:
        given["crop_scale"] = numbers("--crop-scale", params["crop_scale"], "0.08,1")
    if params["milestones"] is not None:
        given["milestones"] = numbers("--milestones", params["milestones"], "0.5,0.75")
    if params["freeze"] is not None:
        given["freeze"] = [name.strip() for name in params["freeze"].split(",")]
    normalization = normalization_of(params["normalize"], params["mean"], params["std"])
    if normalization is not None:
        given |= {"mean": normalization.mean, "std": normalization.std}
    if params["model_option"]:
        given["model_options"] = model_options(params["model_option"])
    if params["lr_factor"]:
        given["lr_factors"] = model_options(params["lr_factor"], "--lr-factor")
    return given
