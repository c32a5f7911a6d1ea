"""A picture with images of a data set in a grid, one row for each class."""

import io

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..figures import new_figure
from ..kernels.keyed_random import permutation
from .dataset import Dataset
from .map_dataset import MapDataset

GAP = 2  # pixels between two images
ROWS = 25  # classes in a column; more need several columns


def choose(dataset: Dataset | MapDataset, per_class: int, seed: int = 0) -> NDArray[np.int64]:
    """Indices of ``per_class`` random images of every class, (classes, per_class); -1 where a class has fewer."""
    order = permutation(len(dataset), "show", seed)
    indices = np.full((dataset.num_classes, per_class), -1)
    for c in range(dataset.num_classes):
        found = order[dataset.labels[order] == c][:per_class]
        indices[c, : len(found)] = found
    return indices


def mosaic(dataset: Dataset, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """One image, (height, width, C) uint8, of the images at these indices (rows, columns) with white gaps; none at -1."""
    _, H, W, C = dataset.images.shape
    rows, columns = indices.shape
    canvas = np.full((rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, C), 255, np.uint8)
    for (row, column), index in np.ndenumerate(indices):
        if index >= 0:
            y, x = row * (H + GAP), column * (W + GAP)
            canvas[y : y + H, x : x + W] = dataset.images[index]
    return canvas


def draw_grid(dataset: Dataset, per_class: int = 10, seed: int = 0, title: str = "") -> bytes:
    """The bytes of a PNG: for each class a row with its name and ``per_class`` images chosen by the seed, not smoothed.

    Raises ConfigError for fewer than 1 or more than 50 images in a row.
    """
    if not 1 <= per_class <= 50:
        raise ConfigError(f"a row of the grid has 1 to 50 images, not {per_class}")
    indices = choose(dataset, per_class, seed)
    blocks = [slice(start, start + ROWS) for start in range(0, len(indices), ROWS)]
    pictures = [mosaic(dataset, indices[block]) for block in blocks]
    height, width, _ = pictures[0].shape
    inch = 80  # pixels of the data set, so that each takes 2 × 2 of the figure
    figure = new_figure(
        figsize=((width / inch + 1.3) * len(blocks), height / inch + 0.6), dpi=160, layout="constrained"
    )
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
