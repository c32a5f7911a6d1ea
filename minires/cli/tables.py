"""Tables that commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def print_table(console: Console, heads: list[str], rows: list[list[str]], wrapped: int | None = None) -> None:
    """Print a table, names at the left and numbers at the right; outside a terminal as wide as it is.

    wrapped: the number of a column of texts, at the left too, whose lines are broken where the terminal is too narrow.
    """
    from rich.measure import Measurement
    from rich.table import Table

    from .display import DIM

    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i in (0, wrapped) else "right", no_wrap=i != wrapped)
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:
        whole = Measurement.get(console, console.options.update(max_width=1000), table).maximum
        console.width = max(console.width, whole)
    console.print(table)
