"""The progress of an experiment in the terminal: a line per job that runs, and how long the whole still takes."""

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spoutnik.commands.console import console
from spoutnik.commands.progress import RemainingTime
from spoutnik.units import duration

if TYPE_CHECKING:
    from spoutnik.experiment.grid import Job


class GridProgress:
    """A Watcher (experiment/scheduler.py). Jobs report from threads of their own. seconds: predicted of each job."""

    def __init__(self, seconds: Mapping[str, float], at_once: int, silent: bool):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console, self.silent, self.at_once = console(stderr=True), silent, at_once
        self._remaining, self._total, self._done = RemainingTime(seconds), len(seconds), 0
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running: dict[str, tuple[object, float, float]] = {}  # symbol -> bar, begin, share done
        columns = [TextColumn("[bold]{task.description}"), BarColumn(10), MofNCompleteColumn(),
                   TextColumn("{task.fields[note]}"), TimeElapsedColumn()]
        self._bars = Progress(*columns, console=self.console, disable=silent or not self.console.is_terminal)
        self._whole = None

    def __enter__(self) -> "GridProgress":
        self._bars.start()
        self._whole = self._bars.add_task("all jobs", total=self._total, note="")
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, job: "Job") -> None:
        with self._lock:
            self._running[job.symbol] = self._bars.add_task(job.title, total=None, note=""), time.perf_counter(), 0.0

    def progress(self, job: "Job", report: Mapping[str, object]) -> None:
        with self._lock:
            bar, began, _ = self._running[job.symbol]
            elapsed = time.perf_counter() - began
            rate = f"{report['tokens'] / elapsed:,.0f} tok/s" if elapsed > 1 and report["tokens"] else ""
            self._bars.update(bar, completed=report["done"], total=report["total"], note=f"{rate}  {report['note']}".strip())
            self._running[job.symbol] = bar, began, report["done"] / max(report["total"], 1)
            self._bars.update(self._whole, note=f"{duration(self._left())} left")

    def ended(self, job: "Job", error: str | None) -> None:
        with self._lock:
            took = 0.0
            if job.symbol in self._running:
                bar, began, _ = self._running.pop(job.symbol)
                took = time.perf_counter() - began
                self._bars.remove_task(bar)
            self._remaining.finish(job.symbol, took)
            self._done += 1
            self._bars.update(self._whole, completed=self._done, note=f"{duration(self._left())} left")
            if not self.silent:
                what = f"done in {duration(took)}" if error is None else f"[red]failed[/]: {error}"
                predicted = self._seconds.get(job.symbol)
                beside = f" (predicted {duration(predicted)})" if predicted and error is None else ""
                left = f"about {duration(self._left())} left"
                self.console.print(f"{self._done}/{self._total} {job.title}: {what}{beside}; {left}", highlight=False)

    def _left(self) -> float:
        """Seconds that all that is left takes."""
        now = time.perf_counter()
        begun = sum(self._seconds.get(symbol, 0.0) * done for symbol, (_, _, done) in self._running.items())
        elapsed = sum(now - began for _, began, _ in self._running.values())
        return max(self._remaining.seconds("", elapsed, 0.0) - begun, 0.0) / self.at_once
