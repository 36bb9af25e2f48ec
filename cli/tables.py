"""Tables on the output stream: with rules in a terminal, one line per row in a pipe or a file."""

from collections.abc import Iterable, Sequence

from rich.box import HEAVY_HEAD
from rich.table import Table

from ss4d.cli.console import new_console

PIPED_WIDTH = 400  # characters, so that no row is broken


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints the rows under the names of the columns."""
    console = new_console()
    table = Table(box=HEAVY_HEAD if console.is_terminal else None, pad_edge=console.is_terminal)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:
        console = new_console(width=PIPED_WIDTH)
    console.print(table, highlight=False, crop=False, markup=False)
