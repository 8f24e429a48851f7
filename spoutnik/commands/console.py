"""What commands print: sentences that break between words, columns, JSON. `--help` imports this, so nothing heavy here."""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(stderr: bool = False) -> "Console":
    """A console on a standard stream. A reader that has gone is an error for `main` to handle, not the end of the process."""
    from rich.console import Console

    class StandardConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return StandardConsole(stderr=stderr)


def say(text: str, terminal: "Console | None" = None, style: str = "") -> None:
    """Prints sentences, to stdout where no console is given. A terminal's lines break between words and never within one, so that paths can be copied; elsewhere
    lines stay whole, for programs that search them."""
    terminal = console() if terminal is None else terminal
    if not terminal.is_terminal:
        print(text, file=terminal.file, flush=True)
        return
    from rich.text import Text

    terminal.print(Text(text, style, overflow="ignore"), crop=False)


def print_pairs(terminal: "Console", rows: Iterable[tuple[str, str]], width: int = 0) -> None:
    """Prints labels, at least `width` characters wide, with texts beside them; on a terminal the texts' further lines stand
    below their first."""
    rows = list(rows)
    width = max([width, *(len(label) for label, _ in rows)])
    if not terminal.is_terminal:
        for label, text in rows:
            print(f"{label:{width}} {text}", file=terminal.file)
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, min_width=width)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(Text(label), Text(text))
    terminal.print(grid)


def print_json(value: object) -> None:
    """Prints one line of JSON, in ASCII where the stream cannot hold every character."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, ensure_ascii=plain))
