"""``minires eval``"""

from __future__ import annotations

import math
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AnomalyError, ConfigError
from ..files import expand_user
from .errors import Debug
from .options import model_options, option, path_option
from .paths import DOWNLOADS
from .source import (
    Mean,
    Model,
    ModelOption,
    Normalize,
    NumClasses,
    Std,
    Weights,
    check_source,
    load_network,
    refuse_new_head,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.table import Table

    from ..training import Recipe
    from ..training.folders import Images
    from ..training.source import TrainedNetwork

HOW = "How to test it"
MANY = 20  # of data sets with more classes the ten hardest are shown


def evaluate(
    run: Annotated[
        Path | None, typer.Argument(help="The folder of a run, or one of its checkpoints.", show_default=False)
    ] = None,
    model: Model = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    model_option: ModelOption = None,
    normalize: Normalize = None,
    mean: Mean = None,
    std: Std = None,
    dataset: Annotated[
        str | None, option(HOW, "With --weights: the data set whose test images are taken, such as cifar10.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        path_option(HOW, f"Where the files are now; by default where they were, or where downloads go: {DOWNLOADS}."),
    ] = None,
    tta: Annotated[
        str,
        option(
            HOW,
            "Test-time augmentation, beside the plain accuracy: flip, the image and its mirror image, or views6, moved "
            "by a pixel too.",
        ),
    ] = "none",
    threads: Annotated[
        int | None, option(HOW, "By default the number of physical cores, or what a container's CPU quota allows.")
    ] = None,
    report: Annotated[
        bool,
        option(HOW, "With --weights: print what each name in the file was taken for.", "--report"),
    ] = False,
    json: Annotated[
        bool,
        option(
            HOW,
            "Print a line of JSON: test_acc (from 0 to 1), test_loss, images, and with --tta its accuracy.",
            "--json",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Test accuracy of a trained network, class by class."""
    from .. import kernels, training
    from . import display

    if threads is not None:
        kernels.set_num_threads(threads)
    check_source(run, model, weights)
    _check_dataset(run, weights, dataset)
    network = load_network(run, model, weights, num_classes, model_option, normalize, mean, std)
    refuse_new_head(network)
    recipe = _recipe(network, dataset, model_options(model_option or ())).with_settings(tta=tta)  # checks it
    console = display.console(stderr=json)
    _check_finite(network)
    if data_dir is not None:
        recipe = recipe.with_settings(data_dir=str(expand_user(data_dir).absolute()))
    test, notes = _test_images(network, recipe)
    if network.recipe is None and test.num_classes != network.num_classes:
        raise ConfigError(
            f"the weights in {network.source} are of {network.num_classes} classes, and {recipe.dataset} has "
            f"{test.num_classes}: they are of another data set, or its classes are to be learnt first (minires train --weights)"
        )
    params = sum(p.size for p in network.model.parameters())
    console.print(f"{network.name}, {params:,} parameters, {network.trained}, on {recipe.dataset}")
    for note in notes:
        console.print(note)
    if network.report is not None:
        console.print(network.report.table() if report else str(network.report))
    loader = training.evaluation_loader(test, recipe)
    result = training.Confusion(max(test.num_classes, network.num_classes))
    with recipe.switches(), display.bar(console, "testing", len(loader)) as advance:
        views = training.evaluate(network.model, loader, on_batch=lambda mean: advance(), tta=tta, plain=result)
    if not math.isfinite(result.loss):
        raise AnomalyError(
            f"the weights of {network.source} are finite, and its loss on the {len(test):,} test images is {result.loss}: "
            "values in between overflow. Take an earlier checkpoint, or train again with a lower --lr"
        )
    console.print(display.accuracy_line(result.accuracy), f"  loss {result.loss:.4f}, {len(test):,} images")
    if tta != "none":
        console.print(display.tta_line(tta, views.accuracy), f" loss {views.loss:.4f}")
    console.print()
    console.print(_table(result.counts, test.classes))
    if json:
        measured = {"test_acc": result.accuracy, "test_loss": result.loss, "images": len(test)}
        if tta != "none":
            measured |= {f"test_{tta}_acc": views.accuracy, f"test_{tta}_loss": views.loss}
        print(dumps(measured))


def _check_dataset(run: Path | None, weights: Path | None, dataset: str | None) -> None:
    """Raise ConfigError for a data set with a run, and for none with weights from elsewhere."""
    if run is not None and dataset is not None:
        raise ConfigError("a run is evaluated on its own data set: leave --dataset out, which goes with --weights")
    if weights is not None and dataset is None:
        raise ConfigError(
            "which test images? A file of weights does not say: name their data set, such as --dataset cifar10"
        )


def _recipe(network: TrainedNetwork, dataset: str | None, options: dict[str, Any]) -> Recipe:
    """The recipe of the network's run, or for weights from elsewhere one with their normalisation."""
    from ..training import Recipe

    if network.recipe is not None:
        return network.recipe
    assert dataset is not None
    normalization = network.normalization
    return Recipe.for_dataset(
        dataset,
        model=network.name,
        model_options=options,
        mean=() if normalization is None else normalization.mean,
        std=() if normalization is None else normalization.std,
    )


def _test_images(network: TrainedNetwork, recipe: Recipe) -> tuple[Images, list[str]]:
    """(the test images, what is to be said about them). Those of a folder are none that the network was trained on."""
    from .. import training
    from ..training.folders import load_test_images, read_listing

    if recipe.dataset != "folder":
        of = f"the colours of {recipe.dataset}'s training images"
        return training.load_data(recipe)[1], [] if network.recipe is not None or recipe.mean else [_normalised(of)]
    if network.recipe is None:
        images, notes = load_test_images(recipe, network.classes)
        if not recipe.mean:
            notes.append(_normalised("their own colours"))
        return images, notes
    if not recipe.mean and network.normalization is not None:
        recipe = recipe.with_settings(mean=network.normalization.mean, std=network.normalization.std)
    run = training.RunFolder(network.source if network.source.is_dir() else network.source.parent)
    checksum = None if network.checksums is None else network.checksums[1]
    return load_test_images(recipe, network.classes, read_listing(run.images), checksum)


def _normalised(how: str) -> str:
    """What is said when nothing is known of the images that the weights were trained with."""
    return f"Images are normalised by {how}: --normalize, or --mean and --std, if not so trained."


def _check_finite(network: TrainedNetwork) -> None:
    """Raise AnomalyError for a parameter or a running statistic that is not finite."""
    from ..anomaly import all_finite, describe

    for name, array in network.model.state_dict().items():
        if not all_finite(array):
            raise AnomalyError(
                f"the weights of {network.source} are not finite: {name} {describe(array)}. The accuracy of such "
                "a network means nothing: take an earlier checkpoint, or train again with a lower --lr"
            )


def _table(counts: NDArray, classes: Sequence[str]) -> Table:
    """A row for each class: its accuracy, and the class it is most often mistaken for."""
    from rich.table import Table
    from rich.text import Text

    from .display import DIM, percent

    names = [
        *classes,
        *(f"class {c}" for c in range(len(classes), len(counts))),
    ]  # a model may have more than the data set
    images, right = counts.sum(axis=1)[: len(classes)], counts.diagonal()[: len(classes)]
    accuracy = right / images.clip(1)
    hardest = [int(c) for c in accuracy.argsort(kind="stable") if images[c]][:10]
    order = range(len(classes)) if len(classes) <= MANY else hardest
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    table.add_column("class" if len(classes) <= MANY else "hardest classes")
    table.add_column("images", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("")
    table.add_column("most often taken for")
    for c in order:
        # nothing for the rest, which without colours would look the same
        bar = Text("━" * round(20 * accuracy[c]), "cyan")
        wrong = counts[c].copy()
        wrong[c] = 0
        mistaken = f"{names[wrong.argmax()]} ({wrong.max()})" if wrong.any() else ""
        table.add_row(classes[c], f"{images[c]:,}", percent(accuracy[c]) if images[c] else "", bar, mistaken)
    return table
