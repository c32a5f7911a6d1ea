"""``minires compare``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import Debug
from .options import check_picture
from .paths import nonempty


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs, or folders that hold some.", show_default=False, parser=nonempty, metavar="RUN…"
        ),
    ],
    plot: Annotated[
        Path,
        typer.Option(
            help="The picture, a .png, .svg or .pdf; compare.png by default.",
            parser=nonempty,
            metavar="PATH",
            show_default=False,
        ),
    ] = Path("compare.png"),
    debug: Debug = False,
) -> None:
    """The curves of several runs in one picture, and a table of them."""
    from ..figures import save_figure
    from ..training import compare as comparing
    from . import display
    from .tables import print_table

    check_picture(plot)
    found = comparing.runs_in(runs)
    console = display.console()
    print_table(console, *comparing.table(found))
    save_figure(comparing.draw(found), plot, dpi=150)
    console.print(f"drawn in {plot}")
