"""Progress of long commands in the terminal."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from spoutnik.commands.console import console
from spoutnik.units import duration, size


class RemainingTime:
    """The time that a whole run still needs: what was predicted for each stage, corrected by what the stages before took."""

    def __init__(self, predicted: Mapping[str, float]):
        self._left = dict(predicted)
        self._predicted = self._took = 0.0

    def finish(self, stage: str, seconds: float) -> None:
        self._predicted += self._left.pop(stage, 0.0)
        self._took += seconds

    def seconds(self, stage: str, elapsed: float, done: float) -> float:
        """What remains when `stage` has run for `elapsed` seconds and is `done` (in [0, 1]) of its way."""
        left = self._left.get(stage, 0.0)
        # The prediction counts as half a minute of experience: a stage of two seconds must not turn it over.
        factor = (self._took + elapsed + 30) / (self._predicted + left * done + 30)
        return factor * (sum(self._left.values()) - left * done)


class TerminalDisplay:
    """A line per stage, with a bar that shows rate and remaining time, that of the whole run as well. predicted: seconds of
    each stage."""

    def __init__(self, predicted: Mapping[str, float] | None = None):
        self.console = console(stderr=True)
        self._remaining = RemainingTime(predicted or {})

    def log(self, text: str) -> None:
        self.console.print(text, highlight=False)

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        started = time.perf_counter()
        width = self.console.width
        wide = width >= 110
        note = [TextColumn("{task.fields[note]}")] if width >= 80 else []
        times = [TimeElapsedColumn(), TextColumn("<"), TimeRemainingColumn()]
        columns = [BarColumn(10), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), *note, *times] if wide else [
            MofNCompleteColumn(), *note]
        run = [TextColumn("{task.fields[run]}")] if width >= 60 else []
        bar = Progress(TextColumn("[bold]{task.description}"), *columns, *run, console=self.console, refresh_per_second=4)

        def reporter(what: str) -> Callable[[int, int, int, str], None]:
            task, first_time, first_tokens = None, 0.0, 0

            def progress(done: int, of: int, tokens: int, note: str) -> None:
                nonlocal task, first_time, first_tokens
                now = time.perf_counter()
                if task is None:
                    title = f"{position}/{total} {name}" + (f": {what}" if wide else "")
                    task = bar.add_task(title, total=of, rate="", note="", run="")
                    first_time, first_tokens = now, tokens
                seconds = now - first_time
                rate = f"{(tokens - first_tokens) / seconds:,.0f} tok/s" if seconds > 1 else ""
                # A stage's work takes most of its time, its evaluation the rest.
                left = self._remaining.seconds(name, now - started, 0.9 * done / of if what != "evaluating" else 0.9)
                bar.update(task, completed=done, total=of, note=note, rate=rate,
                           run=f"({duration(left)} left)" if left else "")

            return progress

        with bar:
            yield reporter
        took = time.perf_counter() - started
        self._remaining.finish(name, took)
        if not self.console.is_terminal and took > 2:
            left = self._remaining.seconds("", 0, 0)
            self.log(f"{position}/{total} {name}: done in {duration(took)}"
                     + (f"; the whole run: about {duration(left)} more" if position < total and left else ""))


class SilentDisplay:
    """Shows nothing: for --json and for tests."""

    def log(self, text: str) -> None:
        pass

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        yield lambda what: lambda done, of, tokens, note: None


def display(silent: bool, predicted: Mapping[str, float] | None = None) -> TerminalDisplay | SilentDisplay:
    return SilentDisplay() if silent else TerminalDisplay(predicted)


def _byte_columns(title: str, width: int) -> list:
    """Columns of a bar that counts bytes: as many as the terminal holds."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    bar = [BarColumn(20), DownloadColumn(), TransferSpeedColumn()] if width >= 80 else [DownloadColumn()]
    return [TextColumn(title), *bar, TimeRemainingColumn()] if width >= 50 else [TextColumn(title), TimeRemainingColumn()]


@contextlib.contextmanager
def quantization_progress(silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears when weights are quantized, which happens once for a model."""
    from rich.progress import Progress

    terminal = console(stderr=True)
    with Progress(*_byte_columns("Quantizing, once", terminal.width), console=terminal, transient=True,
                  disable=silent or not terminal.is_terminal) as bar:
        task = bar.add_task("", visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextlib.contextmanager
def download_progress(name: str, silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and remaining time; without a terminal, a line for every tenth."""
    from rich.progress import Progress

    terminal = console(stderr=True)
    with Progress(*_byte_columns(name, terminal.width), console=terminal, disable=silent or not terminal.is_terminal) as bar:
        task, tenths = bar.add_task("", total=None), -1

        def progress(done: int, total: int) -> None:
            nonlocal tenths
            bar.update(task, completed=done, total=total)
            if not silent and not terminal.is_terminal and total and done * 10 // total > tenths:
                tenths = done * 10 // total
                terminal.print(f"{name}: {size(done)} of {size(total)}", highlight=False)

        yield progress
