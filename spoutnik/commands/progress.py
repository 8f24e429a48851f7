"""Progress of long commands in the terminal."""

import contextlib
import time
from collections.abc import Callable, Iterator

from spoutnik.units import duration, size


class TerminalDisplay:
    """A line per stage, with a bar that shows rate and remaining time."""

    def __init__(self):
        self.console = console(stderr=True)

    def log(self, text: str) -> None:
        self.console.print(text, highlight=False)

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        started = time.perf_counter()
        wide = self.console.width >= 110  # 80 columns have no space for the bar and its title
        bar = Progress(TextColumn("[bold]{task.description}"), *([BarColumn(10)] if wide else []), MofNCompleteColumn(),
                       TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
                       TextColumn("<"), TimeRemainingColumn(), console=self.console, refresh_per_second=4)

        def reporter(what: str) -> Callable[[int, int, int, str], None]:
            task, first_time, first_tokens = None, 0.0, 0

            def progress(done: int, of: int, tokens: int, note: str) -> None:
                nonlocal task, first_time, first_tokens
                now = time.perf_counter()
                if task is None:
                    title = f"{position}/{total} {name}" + (f": {what}" if wide else "")
                    task = bar.add_task(title, total=of, rate="", note="")
                    first_time, first_tokens = now, tokens
                seconds = now - first_time
                rate = f"{(tokens - first_tokens) / seconds:,.0f} tok/s" if seconds > 1 else ""
                bar.update(task, completed=done, total=of, note=note, rate=rate)

            return progress

        with bar:
            yield reporter
        if not self.console.is_terminal and time.perf_counter() - started > 2:
            self.log(f"{position}/{total} {name}: done in {duration(time.perf_counter() - started)}")


class SilentDisplay:
    """Shows nothing: for --json and for tests."""

    def log(self, text: str) -> None:
        pass

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        yield lambda what: lambda done, of, tokens, note: None


def display(silent: bool) -> TerminalDisplay | SilentDisplay:
    return SilentDisplay() if silent else TerminalDisplay()


@contextlib.contextmanager
def quantization_progress(silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears when weights are quantized, which happens once for a model."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(TextColumn("Quantising, once"), BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
                  console=console(stderr=True), disable=silent, transient=True) as bar:
        task = bar.add_task("", visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextlib.contextmanager
def download_progress(name: str, silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and remaining time; without a terminal, a line for every tenth."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    terminal = console(stderr=True)
    with Progress(TextColumn(name), BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
                  console=terminal, disable=silent or not terminal.is_terminal) as bar:
        task, tenths = bar.add_task("", total=None), -1

        def progress(done: int, total: int) -> None:
            nonlocal tenths
            bar.update(task, completed=done, total=total)
            if not silent and not terminal.is_terminal and total and done * 10 // total > tenths:
                tenths = done * 10 // total
                terminal.print(f"{name}: {size(done)} of {size(total)}", highlight=False)

        yield progress


def console(stderr: bool = False):
    from rich.console import Console

    return Console(stderr=stderr)
