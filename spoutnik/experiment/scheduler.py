"""The jobs of a grid, each in a process of its own on one core, as many at a time as there are cores.

One thread per process: the products of a small network are too small to split, and a result does not depend on how many jobs
run beside it. A job that fails takes along those that need it, and no other.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.errors import RunError
from spoutnik.experiment.grid import Job
from spoutnik.experiment.store import Store

_LAST = 2000  # characters of a crashed process's output that are kept

Report = Mapping[str, object]


@dataclass(frozen=True)
class Told:
    """What a worker said at last."""

    folder: Path | None = None
    error: str | None = None


class Watcher:
    """Hears of jobs: nothing is shown. The terminal's is in commands/experiment.py."""

    def started(self, job: Job) -> None: ...

    def progress(self, job: Job, report: Report) -> None: ...

    def ended(self, job: Job, error: str | None) -> None: ...


@dataclass
class Scheduler:
    """seconds: symbol -> predicted core-seconds, by which the longest way to the end goes first. failed: symbol -> sentence."""

    store: Store
    seconds: Mapping[str, float]
    watcher: Watcher
    workers: int
    failed: dict[str, str] = field(default_factory=dict)
    _processes: set[subprocess.Popen] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: bool = False

    def run(self) -> None:
        """Until every job is done or has failed.

        Raises:
            KeyboardInterrupt: what is in progress is kept at its last checkpoint.
        """
        jobs = self.store.grid.jobs
        ranks = _ways_to_the_end(jobs, self.seconds)
        pending = sorted(jobs.values(), key=lambda job: -ranks[job.symbol])
        running: dict[Future, tuple[Job, Path]] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                while pending or running:
                    pending = self._launch(pending, running, pool)
                    if running:
                        self._collect(running)
            except BaseException:
                self._stop()
                raise

    def _launch(self, pending: list[Job], running: dict[Future, tuple[Job, Path]], pool: ThreadPoolExecutor) -> list[Job]:
        """Starts what can be started; returns what is left."""
        left, again = list(pending), True
        while again:  # what is already there may make others ready
            again = False
            for job in list(left):
                broken = next((need for need in job.needs.values() if need in self.failed), None)
                if broken is not None:
                    self._fail(job, f"needs {self.store.grid.jobs[broken].title}, which failed")
                elif self.store.inputs(job) is None:
                    continue
                elif not self.store.lookup(job, copy=True):
                    final = self.store.final(job)
                    if len(running) >= self.workers or final in [folder for _, folder in running.values()]:
                        continue  # another job makes the very same
                    self.watcher.started(job)
                    running[pool.submit(self._work, job, final)] = job, final
                else:
                    again = True
                left.remove(job)
                again = again or broken is not None
        return left

    def _collect(self, running: dict[Future, tuple[Job, Path]]) -> None:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            job, _ = running.pop(future)
            told = future.result()
            if told.error is None:
                self.store.made(job, told.folder)
                self.watcher.ended(job, None)
            else:
                self._fail(job, told.error)

    def _fail(self, job: Job, error: str) -> None:
        self.failed[job.symbol] = error
        self.watcher.ended(job, error)

    def _work(self, job: Job, final: Path) -> Told:
        """Runs in a thread of the pool: starts the job's process and listens to it."""
        log = self.store.run.path / "logs" / f"{final.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as errors:
            process = subprocess.Popen([sys.executable, "-m", "spoutnik.experiment.worker"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment())
            with self._lock:
                self._processes.add(process)
                if self._stopping:
                    process.kill()
            try:
                return self._listen(job, final, process) or _crash(process.wait(), log)
            finally:
                with self._lock:
                    self._processes.discard(process)
                process.stdin.close()
                process.wait()

    def _listen(self, job: Job, final: Path, process: subprocess.Popen) -> Told | None:
        told = None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(self._order(job, final)) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            report = json.loads(line)
            if "error" in report:
                told = Told(error=report["error"])
            elif "folder" in report:
                told = Told(Path(report["folder"]))
            else:
                self.watcher.progress(job, report)
        return told

    def _order(self, job: Job, final: Path) -> dict:
        """What the worker is told. The values are those that were read at the start: files may change meanwhile."""
        inputs = self.store.inputs(job)
        order = {"values": job.values, "source": job.source, "seed": job.seed, "stage": job.stage, "evaluate": job.evaluates,
                 "out": str(self.store.run.path), "lock": f"{final.name}.lock"}
        if job.evaluates:
            return order | {"model": str(inputs["model"].folder)}
        return order | {"inputs": {role: str(artifact.folder) for role, artifact in inputs.items()}}

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._processes:
                process.kill()  # each goes on from its last checkpoint


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _crash(status: int, log: Path) -> Told:
    """The sentence for a process that ended without a word."""
    last = log.read_text("utf-8", "replace")[-_LAST:].strip().rpartition("\n")[2]
    how = f"was killed by signal {-status}" + (" (out of memory?)" if status == -9 else "") if status < 0 else "crashed"
    return Told(error=f"its process {how}{f': {last}' if last else ''}. Its output is in {log}. The same command tries again.")


def _ways_to_the_end(jobs: Mapping[str, Job], seconds: Mapping[str, float]) -> dict[str, float]:
    """Symbol -> core-seconds from the job's start to the end of the longest way that begins with it."""
    ways = {symbol: seconds.get(symbol, 0.0) for symbol in jobs}
    for job in reversed(jobs.values()):  # each stands after those that it needs
        for need in job.needs.values():
            ways[need] = max(ways[need], seconds.get(need, 0.0) + ways[job.symbol])
    return ways


def failures(failed: Mapping[str, str], jobs: Mapping[str, Job]) -> RunError | None:
    """The error of an experiment of which jobs failed, by their own fault."""
    own = [f"{jobs[symbol].title}: {error}" for symbol, error in failed.items() if not error.startswith("needs ")]
    if not own:
        return None
    return RunError(f"{len(own)} of {len(jobs)} jobs failed; the findings that need them are undecided, all others stand.\n"
                    + "\n".join(f"  {line}" for line in own))


def run_jobs(store: Store, seconds: Mapping[str, float], watcher: Watcher, workers: int) -> dict[str, str]:
    """Runs all; returns symbol -> sentence of those that failed."""
    scheduler = Scheduler(store, seconds, watcher, workers)
    scheduler.run()
    return scheduler.failed
