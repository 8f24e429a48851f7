"""Tables on a console that may be too narrow for them."""

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def print_table(console: Console, table: Table) -> None:
    """Prints a table; where it is wider than the console, each row as a paragraph: the first cell, below it the others with
    their headers. No word is broken, nothing is left out."""
    natural = Measurement.get(console, console.options.update(width=10_000, max_width=10_000), table).maximum
    if natural <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(Text(str(table.title), "bold"))
    headers = [str(column.header) for column in table.columns]
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns))):
        first, *others = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells]
        console.print(first, style=row.style)
        parts = [Text.assemble(f"{header} " if header else "", cell) for header, cell in zip(headers[1:], others) if cell.plain]
        console.print(Padding(Text(", ").join(parts), (0, 0, 0, 2)), style=row.style)
