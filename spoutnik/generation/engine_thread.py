"""The thread that runs the engine. Whatever touches the engine happens in it, between two steps."""

import asyncio
import contextlib
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from spoutnik.engine.llm import LLM
from spoutnik.engine.step import StepOutput
from spoutnik.errors import RunError
from spoutnik.generation.delta import UNUSABLE

log = logging.getLogger("spoutnik.serve")
Result = TypeVar("Result")
Pieces = Generator[None, None, Result]  # long work: computes a piece with each `next`, and returns its result
Delivery = tuple[Callable[[object], None], object]
# A job delivers its tokens every MIN_PERIOD seconds, so that a small model's do not each pay for a delivery; many jobs do so
# MAX_RATE times a second together, but each at least every MAX_PERIOD seconds, so that a person still sees text flow.
MIN_PERIOD, MAX_RATE, MAX_PERIOD = 0.02, 800, 0.25
MAX_MULTI_STEPS = 4  # of a small model between two looks at the queue of calls: some 10 ms with many replies


class Job(Protocol):
    """Something that lives over many steps, called in the engine thread; its engine requests name it as their owner.

    start: adds its first requests. advance: collects what was generated since the last call, and goes on. fail: ends it at
    once and whatever state it is in: the engine has broken down, or the job itself has.
    """

    done: bool

    def start(self) -> None: ...
    def advance(self) -> None: ...
    def fail(self, reason: str) -> None: ...


class EngineThread:
    """Steps the engine while there is work and sleeps while there is none.

    on_idle: called before it sleeps; it may add requests to the engine. jobs: the time of each one's next delivery. broken: why
        the engine can compute no more.
    busy_seconds, step_seconds: spent since the start, in all and in the engine's steps. cpu_seconds, step_cpu_seconds: the
        same in this thread's own time, which others on the same cores do not stretch.
    """

    def __init__(self, llm: LLM, on_idle: Callable[[], object] = lambda: None):
        self.core = llm.core
        self.core.max_multi_steps = min(self.core.max_multi_steps, MAX_MULTI_STEPS)
        self.jobs: dict[Job, float] = {}
        self._deliveries: dict[asyncio.AbstractEventLoop, list[Delivery]] = {}
        self.busy_seconds = self.step_seconds = self.cpu_seconds = self.step_cpu_seconds = 0.0
        self.broken: str | None = None
        self._on_idle = on_idle
        self._calls: SimpleQueue[tuple[Future, Callable[[], object]] | None] = SimpleQueue()  # None: stop
        self._pieces: deque[tuple[Future, Pieces]] = deque()  # of the first, a piece is computed between two steps
        self._lock = threading.Lock()  # no call is queued once nobody will run it
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """Has something called between two steps; its result, or what it raised, comes through the future."""
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(RunError("the engine has been stopped."))
            else:
                self._calls.put((future, call))
        return future

    def submit_pieces(self, pieces: Pieces[Result]) -> Future[Result]:
        """Has long work done piece by piece: one piece between two steps, and one work after the other, so that what is
        generated meanwhile is held up by a piece at most. Cancelling the future ends it after the piece under way."""
        future: Future[Result] = Future()
        queued = self.submit(lambda: self._pieces.append((future, pieces)))
        queued.add_done_callback(lambda queued: queued.exception() and _settle(future, error=queued.exception()))
        return future

    def add_job(self, job: Job) -> None:
        """Starts a job, between two steps."""
        self.submit(lambda: self._start_job(job))

    def deliver(self, loop: asyncio.AbstractEventLoop, callback: Callable[[object], None], value: object) -> None:
        """For jobs: callback(value) will be called in that event loop. All that one step brought wakes a loop once."""
        self._deliveries.setdefault(loop, []).append((callback, value))

    def _flush_deliveries(self) -> None:
        deliveries, self._deliveries = self._deliveries, {}
        for loop, calls in deliveries.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(lambda calls=calls: [callback(value) for callback, value in calls])

    def close(self) -> None:
        """Jobs under way fail."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._calls.put(None)
        self._thread.join()

    @property
    def period(self) -> float:
        """Seconds between two deliveries of a job."""
        return min(max(MIN_PERIOD, len(self.jobs) / MAX_RATE), MAX_PERIOD)

    def _run(self) -> None:
        while self._run_calls():
            self._flush_deliveries()
            self._run_piece()
            if not self.core.requests:
                continue
            began, began_cpu = time.perf_counter(), time.thread_time()
            try:
                output = self.core.step()
            except Exception as error:  # nothing can be computed any more: those who wait must be told
                _log_error(error)
                self.broken = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
                self._fail_jobs(list(self.jobs), UNUSABLE * isinstance(error, RunError) + self.broken)
                self.core.requests.clear()  # in an unknown state: not to be touched again
                self._flush_deliveries()
                continue
            now, now_cpu = time.perf_counter(), time.thread_time()
            self.step_seconds += now - began
            self.step_cpu_seconds += now_cpu - began_cpu
            self._advance(self._due_jobs(output, now))
            self._flush_deliveries()
            self.busy_seconds += time.perf_counter() - began
            self.cpu_seconds = time.thread_time()
        self._fail_jobs(list(self.jobs), "the engine has been stopped.")
        self._flush_deliveries()
        for future, pieces in self._pieces:
            pieces.close()
            _settle(future, error=RunError("the engine has been stopped."))

    def _run_piece(self) -> None:
        """A piece of the first of the long works, if there are any."""
        if not self._pieces:
            return
        future, pieces = self._pieces[0]
        try:
            if not future.cancelled():
                next(pieces)
                return
            pieces.close()
        except StopIteration as end:
            _settle(future, end.value)
        except Exception as error:
            _settle(future, error=error)
        self._pieces.popleft()

    def _start_job(self, job: Job) -> None:
        if self.broken:
            self._fail_jobs([job], self.broken)
            return
        self.jobs[job] = 0.0
        self.jobs[job] = time.perf_counter() + self.period - MIN_PERIOD  # of few jobs, the first token as soon as it is there
        self._run_guarded(job, job.start)

    def _due_jobs(self, output: StepOutput, now: float) -> list[Job]:
        """Those whose time has come, and those of which a sample has finished: what follows must not wait."""
        finished = {sample.request.owner for sample in output.ended}
        return [job for job, when in self.jobs.items() if when <= now or job in finished]

    def _advance(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._run_guarded(job, job.advance)
        when = time.perf_counter() + self.period
        self.jobs.update((job, when) for job in jobs if job in self.jobs)

    def _run_guarded(self, job: Job, call: Callable[[], None]) -> None:
        """A mistake of ours ends this job alone: one that ended this thread would leave everybody waiting for ever."""
        try:
            call()
        except Exception as error:
            _log_error(error)
            self._fail_jobs([job], f"{type(error).__name__}: the server made a mistake; its log says where.")
        if job.done:
            self.jobs.pop(job, None)

    def _fail_jobs(self, jobs: Iterable[Job], reason: str) -> None:
        for job in jobs:
            self.jobs.pop(job, None)
            try:
                job.fail(reason)
                for request in [request for request in self.core.requests.values() if request.owner is job]:
                    self.core.abort(request.request_id)
            except Exception as error:  # the thread must go on for the others
                _log_error(error)

    def _run_calls(self) -> bool:
        """Runs the calls in the queue; sleeps while there is nothing to compute. False: it is to stop."""
        while True:
            if self._calls.empty() and not self.core.requests and not self._pieces:
                try:
                    self._on_idle()
                except Exception as error:  # work ahead of time: nobody waits for it
                    _log_error(error)
            try:
                item = self._calls.get(block=not self.core.requests and not self._pieces)
            except Empty:
                return True
            if item is None:
                return False
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)
            if self._calls.empty():
                return True


def _settle(future: Future, result: object = None, error: BaseException | None = None) -> None:
    """Unless nobody waits for it any more."""
    if future.set_running_or_notify_cancel():
        future.set_result(result) if error is None else future.set_exception(error)


def _log_error(error: Exception) -> None:
    """Without its message, which may hold what a user wrote: its type, and the lines of code."""
    log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__, -8)))
