"""``minires explain``: what a network is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, plural
from .errors import Debug
from .options import check_picture
from .paths import nonempty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..nn import Module


def explain(
    model: Annotated[str, typer.Argument(help="A network by name, or the folder of a run.", show_default=False)],
    width: Annotated[
        int | None,
        typer.Option(help="Channels of the first stage of a CIFAR network; 16 by default.", show_default=False),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the images in pixels; by default 32, or 224 for ImageNet's networks.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images for the gradient.")] = 4,
    gradient: Annotated[
        bool, typer.Option("--gradient/--no-gradient", help="One backward pass, for the gradient norms.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the weights and images.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the network into this .png, .svg or .pdf.", show_default=False, parser=nonempty, metavar="PATH"
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """A table and a drawing of a network, block by block."""
    from ..figures import save_figure
    from ..lab import diagram
    from ..lab.explain import explain as explained
    from . import display
    from .tables import print_table

    if plot is not None:
        check_picture(plot)
    if not 1 <= batch_size <= 256:
        raise ConfigError(f"batch_size must be a whole number from 1 to 256, not {batch_size}")
    if image_size is not None and not 1 <= image_size <= 1024:
        raise ConfigError(f"image_size must be a whole number from 1 to 1024, not {image_size}")
    console = display.console()
    network, name, side, classes = _network(model, width, seed, image_size)
    with display.spinner(console, "one forward and backward pass"):
        found = explained(network, _batch(network, batch_size, side, classes, seed), gradient, name)
    size = f"{found.parameters:,} parameters, {found.macs:,} multiply-adds for an image of {side}×{side} pixels"
    console.print(f"{name}: {size}")
    console.print(f"a step with {plural(batch_size, 'image')}: {diagram.memory_text(found.bytes)} of values\n")
    print_table(console, *diagram.rows(found))
    console.print()
    console.print(diagram.text(found))
    console.print()
    for note in [*diagram.notes(found), "The images are noise."] if gradient else diagram.notes(found):
        console.print(note)
    if plot is not None:
        save_figure(diagram.draw(found), plot, dpi=150)
        console.print(f"drawn in {plot}")


def _network(model: str, width: int | None, seed: int, image_size: int | None) -> tuple[Module, str, int, int]:
    """(network, its name, the side of its images, the number of its classes)."""
    from .. import models, training
    from ..lab.setting import Setting

    if model not in models.names() and Path(model).exists():
        recipe, network, checkpoint = training.load_run(Path(model))
        usual: int = checkpoint.info.get("image_size", getattr(network, "image_size", 32))
        return network.train(), recipe.model, image_size or usual, checkpoint.info["num_classes"]
    network = Setting(model=model, width=width, seed=seed).network("float32")
    side: int = getattr(network, "image_size", 32)
    return network, model, image_size or side, 10


def _batch(network: Module, images: int, side: int, classes: int, seed: int) -> tuple[NDArray, NDArray]:
    import numpy as np

    from ..training.prediction import input_channels

    rng, shape = np.random.default_rng(seed), (images, input_channels(network), side, side)
    return rng.standard_normal(shape).astype(np.float32), rng.integers(0, classes, images)
