"""Pictures of heat maps, feature maps and filters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import printable
from ...figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "inferno"  # of rising lightness, so that it can be read in grey and with any colour vision
SMOOTH = 100  # pixels along a side, from which on photographs are smoothed where they are enlarged
SIDE = 1.9  # inches of a photograph
FAINT: dict[str, Any] = {"fontsize": 7.5, "color": "0.35"}
LUMA = (0.299, 0.587, 0.114)  # the grey of a colour
MOST_FILTERS = 256  # in a picture


@dataclass(frozen=True)
class Explained:
    """A row: a photograph (H, W, 3) uint8 as the network sees it, its name, and (title, heat map (H, W)) for some classes."""

    name: str
    photograph: NDArray[np.uint8]
    maps: Sequence[tuple[str, NDArray[np.floating]]]


def overlay(photograph: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.floating]:
    """A heat map's colours over a photograph that has become grey, (H, W, 3) in [0, 1]: the hotter, the less of it shows."""
    from matplotlib import colormaps

    grey = photograph.astype(np.float64) / 255 @ LUMA
    colours = colormaps[COLOURS](heat)[..., :3]
    opacity = 0.25 + 0.4 * heat[..., None]
    return (1 - opacity) * grey[..., None] + opacity * colours


def draw_cams(rows: Sequence[Explained], title: str, note: str = "") -> Figure:
    """A row for each image: the photograph, and the heat maps over it."""
    from matplotlib.cm import ScalarMappable

    columns = 1 + max(len(row.maps) for row in rows)
    size = (SIDE + 0.06) * columns + 0.7, (SIDE + 0.26) * len(rows) + (0.62 if note else 0.42)
    figure = new_figure(figsize=size, dpi=160, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for places, row in zip(grid, rows):
        _photograph(places[0], row.photograph, row.name, weight="bold")
        for axes, (name, heat) in zip(places[1:], row.maps):
            _photograph(axes, overlay(row.photograph, heat), name)
    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=grid, aspect=20 * len(rows), pad=0.01)
    bar.set_ticks([0, 1], labels=["none", "most"], fontsize=7.5, color="0.35")
    bar.set_label("evidence for the class", **FAINT)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    return _titled(figure, title, note)


def _photograph(axes: Axes, picture: NDArray[Any], name: str, **font: Any) -> None:
    smooth = "bilinear" if picture.shape[0] >= SMOOTH else "nearest"
    axes.imshow(picture, interpolation=smooth, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1)
    axes.set_title(shortened(name), fontsize=9, loc="left", pad=3, **font)


def draw_features(
    photograph: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.floating]],
    title: str,
    columns: int = 10,
    note: str = "",
) -> Figure:
    """A row for each layer: its strongest channels, strongest first, each from its smallest value (dark) to its largest.

    maps: {layer: (K, h, w)}, as of ``feature_maps``. The number of a channel stands above it.
    """
    gap, pitch, left = 0.05, 1.17, 1.25  # in tiles
    width, height = left + (columns + 1) * (1 + gap), len(maps) * pitch + (0.85 if note else 0.6)
    figure = new_figure(figsize=(width * 0.95, height * 0.95), dpi=160)
    axes = figure.add_axes((0, 0, 1, 1))  # one for all: a hundred axes would take seconds

    def show(picture: NDArray[Any], row: int, column: int, **options: Any) -> None:
        x, y = left + column * (1 + gap), 0.6 + row * pitch
        axes.imshow(picture, extent=(x, x + 1, y + 1, y), interpolation="nearest", **options)

    show(photograph, 0, 0)
    for row, (layer, found) in enumerate(maps.items()):
        size = "×".join(map(str, found.shape))
        text = f"{shortened(layer, 16)}\n{size}"
        axes.text(left - 0.12, 1.1 + row * pitch, text, ha="right", va="center", fontsize=9)
        for column, k in enumerate(strongest(found)[:columns], start=1):
            low, high = float(found[k].min()), float(found[k].max())
            show(found[k], row, column, cmap=COLOURS, vmin=low, vmax=high if high > low else low + 1)
            x = left + column * (1 + gap) + 0.5
            axes.text(x, 0.58 + row * pitch, str(k), ha="center", va="bottom", fontsize=6.5, color="0.45")
    axes.text(0.1, 0.2, plain(title), fontsize=11, fontweight="bold", va="center")
    axes.text(0.1, height - 0.15, plain(note), va="center", **FAINT)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    return figure


def strongest(maps: NDArray[np.floating]) -> NDArray[np.int64]:
    """The channels of (K, h, w) in the order of their mean absolute value, largest first."""
    return np.argsort(-np.abs(maps).mean(axis=(1, 2), dtype=np.float64), kind="stable")


def draw_filters(filters: NDArray[np.floating], title: str, note: str = "") -> Figure:
    """Tiles of filters (O, C, KH, KW): with 3 channels a tile each in colour, otherwise a tile for each channel in grey.

    All are scaled by the largest weight: mid-grey is 0.
    """
    tiles = filter_tiles(filters)
    columns = math.ceil(math.sqrt(len(tiles) * 1.6))
    canvas = mosaic(tiles, columns)
    height, width = canvas.shape[:2]
    inches = min(9.0, max(4.5, columns * 0.55))
    figure = new_figure(figsize=(inches, inches * height / width + 0.65), dpi=160, layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    return _titled(figure, title, note)


def filter_tiles(filters: NDArray[np.floating]) -> NDArray[np.floating]:
    """Filters (O, C, KH, KW) as tiles (n, KH, KW, 3) in [0, 1], 0.5 where a weight is 0."""
    O, C, KH, KW = filters.shape
    tiles = filters if C == 3 else filters.reshape(O * C, 1, KH, KW).repeat(3, axis=1)
    largest = float(np.abs(filters).max()) or 1.0
    return (0.5 + 0.5 * tiles[:MOST_FILTERS].astype(np.float64) / largest).transpose(0, 2, 3, 1)


def mosaic(tiles: NDArray[np.floating], columns: int) -> NDArray[np.floating]:
    """One picture, (height, width, 3), of tiles (n, h, w, 3) in rows with white gaps."""
    n, h, w, _ = tiles.shape
    scale = max(1, 16 // max(h, w))  # pixels of the picture for one of a tile, so that gaps are thin
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    h, w, gap = h * scale, w * scale, 2
    rows = math.ceil(n / columns)
    canvas = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap, 3))
    for i, tile in enumerate(tiles):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        canvas[y : y + h, x : x + w] = tile
    return canvas


def shortened(text: str, most: int = 28) -> str:
    """A text, such as a file's name, for Matplotlib to show as it is; its middle is left out if it is long."""
    text = printable(text)
    return plain(text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}")


def plain(text: str) -> str:
    """A text without Matplotlib's markup of formulas."""
    return printable(text).replace("$", r"\$")


def _titled(figure: Figure, title: str, note: str) -> Figure:
    figure.suptitle(plain(title), x=0.012, ha="left", fontsize=11, fontweight="bold")
    if note:
        figure.supxlabel(plain(note), x=0.012, ha="left", **FAINT)
    return figure
