"""A grid of the images of a data set, class by class."""

import io

import numpy as np

from ..errors import ConfigError
from ..kernels.keyed_random import permutation

GAP = 2  # pixels between two images
ROWS = 25  # classes below each other; more stand side by side


def choose(dataset, per_class, seed=0):
    """Places in the data set of ``per_class`` images of every class, (classes, per_class); -1 where there are fewer."""
    order = permutation(len(dataset), "show", seed)
    places = np.full((dataset.num_classes, per_class), -1)
    for c in range(dataset.num_classes):
        found = order[dataset.labels[order] == c][:per_class]
        places[c, : len(found)] = found
    return places


def mosaic(dataset, places):
    """One image of the images at (rows, columns) places, white between them: (height, width, 3) uint8."""
    _, H, W, C = dataset.images.shape
    rows, columns = places.shape
    canvas = np.full((rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, C), 255, np.uint8)
    for (row, column), place in np.ndenumerate(places):
        if place >= 0:
            y, x = row * (H + GAP), column * (W + GAP)
            canvas[y : y + H, x : x + W] = dataset.images[place]
    return canvas


def draw_grid(dataset, per_class=10, seed=0, title=""):
    """A PNG, as bytes: a row a class with its name, ``per_class`` images chosen by the seed, no pixel smoothed.

    Raises ConfigError for less than one image a class, or more than can be told apart.
    """
    if not 1 <= per_class <= 50:
        raise ConfigError(f"a row of the grid has 1 to 50 images, not {per_class}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported only when something is drawn
    from matplotlib.figure import Figure

    places = choose(dataset, per_class, seed)
    blocks = [slice(start, start + ROWS) for start in range(0, len(places), ROWS)]
    pictures = [mosaic(dataset, places[block]) for block in blocks]
    height, width, _ = pictures[0].shape
    inch = 80  # pixels of the data set, so that each takes 2 × 2 of the figure
    figure = Figure(figsize=((width / inch + 1.3) * len(blocks), height / inch + 0.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: no global state, no display needed
    for axes, block, picture in zip(figure.subplots(1, len(blocks), squeeze=False)[0], blocks, pictures):
        side = dataset.images.shape[1] + GAP
        # nearest: the pixels that the network sees; anchored at the top, since the last block may be shorter
        axes.imshow(picture, interpolation="nearest")
        axes.set_anchor("NW")
        names = dataset.classes[block]
        axes.set_yticks([row * side + (side - GAP) / 2 - 0.5 for row in range(len(names))], names, fontsize=9)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
