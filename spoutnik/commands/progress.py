"""What long commands show while they work."""

import contextlib
import time
from collections.abc import Callable, Iterator

from spoutnik.units import duration


class TerminalDisplay:
    """A line per stage, with a bar that shows rate and remaining time."""

    def __init__(self):
        self.console = console(stderr=True)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        began = time.perf_counter()
        wide = self.console.width >= 110  # on 80 columns the numbers matter more than the bar and its words
        bar = Progress(TextColumn("[bold]{task.description}"), *([BarColumn(10)] if wide else []), MofNCompleteColumn(),
                       TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
                       TextColumn("<"), TimeRemainingColumn(), console=self.console, refresh_per_second=4)

        def reporter(what: str) -> Callable[[int, int, int, str], None]:
            task = None
            first: list[tuple[float, int]] = []

            def progress(done: int, of: int, tokens: int, note: str) -> None:
                nonlocal task
                now = time.perf_counter()
                if task is None:
                    title = f"{position}/{total} {name}" + (f": {what}" if wide else "")
                    task = bar.add_task(title, total=of, rate="", note="")
                    first.append((now, tokens))
                rate = (tokens - first[0][1]) / max(now - first[0][0], 1e-3)
                bar.update(task, completed=done, total=of, note=note,
                           rate=f"{rate:,.0f} tok/s" if now - first[0][0] > 1 else "")

            return progress

        with bar:
            yield reporter
        if not self.console.is_terminal and time.perf_counter() - began > 2:
            self.console.print(f"{position}/{total} {name}: done in {duration(time.perf_counter() - began)}",
                               highlight=False)


class SilentDisplay:
    """Nothing: for --json and for tests."""

    def say(self, text: str) -> None:
        pass

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        yield lambda what: lambda done, of, tokens, note: None


def display(silent: bool) -> TerminalDisplay | SilentDisplay:
    return SilentDisplay() if silent else TerminalDisplay()


@contextlib.contextmanager
def quantization_progress(silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that shows up only where weights are quantised, which happens once for a model."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(TextColumn("Quantising, once"), BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
                  console=console(stderr=True), disable=silent, transient=True) as bar:
        tasks: list = []

        def progress(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bar.add_task("", total=total))
            bar.update(tasks[0], completed=done)

        yield progress


def console(stderr: bool = False):
    from rich.console import Console

    return Console(stderr=stderr)
