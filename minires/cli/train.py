"""``minires train``"""

import signal
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .errors import INTERRUPTED, Debug

WHAT, HOW, AUGMENTATION, RUN = "What to train", "How to train it", "Augmentation", "The run"


def _option(panel, help, *names, **more):
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def train(
    context: typer.Context,
    model: Annotated[str | None, _option(WHAT, "resnet20, preresnet20, plain20, resnet18, … by name.")] = None,
    model_option: Annotated[
        list[str] | None, _option(WHAT, "A setting of the model's constructor, such as option=B.", metavar="NAME=VALUE")
    ] = None,
    dataset: Annotated[str, _option(WHAT, "shapes (built in), cifar10 or cifar100.")] = "shapes",
    data_dir: Annotated[Path | None, _option(WHAT, "Where the files of CIFAR are, unpacked or as the archive.")] = None,
    val: Annotated[
        int | None, _option(WHAT, "Hold out so many training images; keep the epoch that is best on them.")
    ] = None,
    epochs: Annotated[int | None, _option(HOW, "Times that every training image is seen.")] = None,
    batch_size: Annotated[int | None, _option(HOW, "Images a step.")] = None,
    lr: Annotated[float | None, _option(HOW, "Learning rate at the peak of the schedule.")] = None,
    schedule: Annotated[str | None, _option(HOW, "one-cycle, cosine, linear, multi-step or constant.")] = None,
    warmup: Annotated[
        float | None, _option(HOW, "Part of the run in which the learning rate rises, such as 0.3.")
    ] = None,
    milestones: Annotated[
        str | None,
        _option(HOW, "multi-step: parts of the run after which lr falls, such as 0.5,0.75.", metavar="PARTS"),
    ] = None,
    gamma: Annotated[float | None, _option(HOW, "multi-step: what lr is multiplied by there.")] = None,
    momentum: Annotated[float | None, _option(HOW, "Momentum of SGD.")] = None,
    nesterov: Annotated[bool | None, _option(HOW, "Nesterov's momentum.", "--nesterov/--no-nesterov")] = None,
    weight_decay: Annotated[float | None, _option(HOW, "Decay of the weights.")] = None,
    decay_norms: Annotated[
        bool | None, _option(HOW, "Decay batch norms and biases too.", "--decay-norms/--no-decay-norms")
    ] = None,
    label_smoothing: Annotated[
        float | None, _option(HOW, "Share of each label that is spread over all classes.")
    ] = None,
    crop: Annotated[
        int | None, _option(AUGMENTATION, "Pad by so many pixels, then crop at random; 0 for no crop.")
    ] = None,
    reflect: Annotated[
        bool | None, _option(AUGMENTATION, "Pad by reflection, not with zeros.", "--reflect/--no-reflect")
    ] = None,
    flip: Annotated[bool | None, _option(AUGMENTATION, "Mirror every second image.", "--flip/--no-flip")] = None,
    cutout: Annotated[int | None, _option(AUGMENTATION, "Blank out a square of so many pixels a side.")] = None,
    augment: Annotated[
        bool | None, _option(AUGMENTATION, "Switch all of it off, but for what is asked for by name.", "--no-augment")
    ] = None,
    seed: Annotated[int | None, _option(RUN, "The same seed gives the same bits, on any number of threads.")] = None,
    threads: Annotated[int | None, _option(RUN, "By default the number of physical cores.")] = None,
    out: Annotated[Path | None, _option(RUN, "The run's folder; by default runs/MODEL-DATASET-N.")] = None,
    quiet: Annotated[bool, _option(RUN, "Print the last line only.", "--quiet", "-q")] = False,
    debug: Debug = False,
):
    """Train a network, evaluate it after every epoch, keep curves and weights in a folder.

    What is not asked for comes from the recipe of the dataset. All that was used stands in the run's `config.toml`.

    `minires train` trains a small ResNet on the built-in images

    `minires train --dataset cifar10 --data-dir ~/cifar --epochs 20`

    `minires train --model preresnet20 --schedule multi-step --milestones 0.5,0.75`

    `minires train --val 2000` keeps the best epoch too, in `best.safetensors`
    """
    from ..training import Recipe, Recorder, RunFolder, build_trainer
    from . import display

    recipe = _recipe(Recipe, context.params)
    console = display.console()
    with display.spinner(console, f"loading {recipe.dataset} …", quiet):
        trainer = build_trainer(recipe)
    folder = RunFolder.create(recipe, out)
    trainer.callbacks = (Recorder(folder, recipe),)
    if not quiet:
        display.print_header(console, trainer, recipe, folder)
        trainer.callbacks += (display.watch(console),)
    with _ctrl_c_stops(trainer):
        try:
            trainer.fit()
        finally:
            for callback in trainer.callbacks[1:]:
                callback.close()
    if not trainer.finished:
        console.print(_interrupted(trainer, folder))
        return INTERRUPTED
    display.print_result(console, trainer, folder, quiet)
    return 0


def _recipe(Recipe, params):
    """The recipe of the dataset, with the options that were given over it."""
    from dataclasses import fields

    names = {f.name for f in fields(Recipe)}
    given = {name: value for name, value in params.items() if name in names and value is not None}
    if params["data_dir"] is not None:
        given["data_dir"] = str(params["data_dir"].expanduser().absolute())  # for `minires eval` from elsewhere
    if params["augment"] is not None:
        given = {"crop": 0, "flip": False, "cutout": 0, **given}
    if params["milestones"] is not None:
        given["milestones"] = _numbers(params["milestones"])
    if params["model_option"]:
        given["model_options"] = dict(map(_name_and_value, params["model_option"]))
    return Recipe.for_dataset(**given)


def _numbers(text):
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--milestones takes numbers with commas between them, such as 0.5,0.75, not {text!r}"
        ) from None


def _name_and_value(text):
    """ "option=B" → ("option", "B"); numbers and true/false are read as such."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--model-option takes NAME=VALUE, such as option=B, not {text!r}")
    try:
        return name, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return name, value


@contextmanager
def _ctrl_c_stops(trainer):
    """Inside, the first Ctrl-C ends training after the step under way; a second one at once."""

    def stop(*_):
        trainer.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(trainer, folder):
    if not trainer.epoch:
        return f"Interrupted before the first epoch was complete: {folder} holds no weights."
    return f"Interrupted in epoch {trainer.epoch + 1}: the weights after epoch {trainer.epoch} are in {folder.last}."
