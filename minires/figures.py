"""Figures of Matplotlib, drawn into memory: no pyplot, no display, and no use of the back end that is set for others."""

from __future__ import annotations

import io
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """An empty Figure that is rendered by Agg. options: those of ``matplotlib.figure.Figure``.

    Matplotlib is imported here, at the first figure. Importing it fails where MPLBACKEND names a back end that is not
    installed, as processes that are started from Jupyter inherit it; so it is imported without that variable, whose value
    is set afterwards for pyplot in the same process.
    """
    if "matplotlib" not in sys.modules:
        _import_without_backend()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**options)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path | str, **options: Any) -> None:
    """Write a Figure as PNG, SVG or PDF, by the file name's ending, without one as PNG; after an error the file is unchanged.

    options: those of ``Figure.savefig``, such as dpi. Characters that the font lacks are boxes, and no warning. Raises OSError
    when the file cannot be written.
    """
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(picture, format=Path(path).suffix[1:].lower() or "png", **options)
    with atomic_write(path) as file:
        file.write(picture.getvalue())


def _import_without_backend() -> None:
    name = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if name is not None:
            os.environ["MPLBACKEND"] = name
    if name:
        with suppress(ValueError):  # it is not installed
            matplotlib.rcParams["backend"] = name
