"""``minires eval``"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import AnomalyError
from ..files import expand_user
from .errors import Debug
from .paths import DOWNLOADS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.table import Table

    from ..nn import Module

MANY = 20  # of data sets with more classes the ten hardest are shown


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or one of its checkpoints.", show_default=False)],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help=f"Where CIFAR's files are now; by default where they were, or where downloads go: {DOWNLOADS}.",
            show_default=False,
        ),
    ] = None,
    tta: Annotated[
        str,
        typer.Option(
            help="Test-time augmentation, beside the plain accuracy: flip, the image and its mirror image, or views6, moved "
            "by a pixel too.",
            show_default=False,
        ),
    ] = "none",
    threads: Annotated[
        int | None,
        typer.Option(
            help="By default the number of physical cores, or what a container's CPU quota allows.", show_default=False
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Test accuracy of a trained network, class by class, with the settings of fusion and Winograd that it was trained with."""
    from .. import kernels, training
    from . import display

    if threads is not None:
        kernels.set_num_threads(threads)
    console = display.console()
    recipe, model, checkpoint = training.load_run(run)
    recipe = recipe.with_settings(tta=tta)  # checks it
    _check_finite(run, model)
    if data_dir is not None:
        recipe = recipe.with_settings(data_dir=str(expand_user(data_dir).absolute()))
    _, test, _ = training.load_data(recipe)
    params = sum(p.size for p in model.parameters())
    progress = checkpoint.info.get("progress")
    steps = f" and {progress['batches']} steps" if progress else ""
    after = f"after epoch {checkpoint.info['epoch']}{steps}"
    console.print(f"{recipe.model}, {params:,} parameters, {after}, on {recipe.dataset}")
    loader = training.evaluation_loader(test, recipe)
    predicted = recipe.model_options.get("num_classes", checkpoint.info["num_classes"])
    result = training.Confusion(max(test.num_classes, predicted))
    with recipe.switches(), display.bar(console, "testing", len(loader)) as advance:
        views = training.evaluate(model, loader, on_batch=lambda mean: advance(), tta=tta, plain=result)
    if not math.isfinite(result.loss):
        raise AnomalyError(
            f"the weights of {run} are finite, and its loss on the {len(test):,} test images is {result.loss}: values in "
            "between overflow. Take an earlier checkpoint, or train again with a lower --lr"
        )
    console.print(display.accuracy_line(result.accuracy), f"  loss {result.loss:.4f}, {len(test):,} images")
    if tta != "none":
        console.print(display.tta_line(tta, views.accuracy), f" loss {views.loss:.4f}")
    console.print()
    console.print(_table(result.counts, test.classes))


def _check_finite(run: Path, model: Module) -> None:
    """Raise AnomalyError for a parameter or a running statistic that is not finite."""
    from ..anomaly import all_finite, describe

    for name, array in model.state_dict().items():
        if not all_finite(array):
            raise AnomalyError(
                f"the weights of {run} are not finite: {name} {describe(array)}. The accuracy of such a network means nothing: "
                "take an earlier checkpoint, or train again with a lower --lr"
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
    order = range(len(classes)) if len(classes) <= MANY else accuracy.argsort(kind="stable")[:10]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    table.add_column("class" if len(classes) <= MANY else "hardest classes")
    table.add_column("images", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("")
    table.add_column("most often taken for")
    for c in order:
        bar = Text(
            "━" * round(20 * accuracy[c]), "cyan"
        )  # nothing for the rest, which without colours would look the same
        wrong = counts[c].copy()
        wrong[c] = 0
        mistaken = f"{names[wrong.argmax()]} ({wrong.max()})" if wrong.any() else ""
        table.add_row(classes[c], f"{images[c]:,}", percent(accuracy[c]), bar, mistaken)
    return table
