"""The thread that computes. Whatever touches the engine happens in it, between two steps."""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from spoutnik.engine.llm import LLM

log = logging.getLogger("spoutnik.serve")
Result = TypeVar("Result")
PERIOD = 0.02  # seconds: tokens are handed out no more often, so that a small model's are not alone with their overhead


class Job(Protocol):
    """Something that lives over many steps. All of it is called in the engine's thread."""

    done: bool

    def start(self) -> None:
        """Begins."""

    def advance(self) -> None:
        """Takes what the steps since the last call made, and goes on."""

    def fail(self, reason: str) -> None:
        """Ends it where it is, at once and whatever state it is in: the engine has broken down, or the job itself has."""


class Worker:
    """Steps the engine while there is work and sleeps while there is none. What goes wrong in one job is that job's alone; only
    a step that fails is the end of all.

    busy_seconds, step_seconds: spent since the start, in all and in the engine's steps. cpu_seconds, step_cpu_seconds: the
        same in this thread's own time, which others on the same cores do not stretch.
    idle: called when there is nothing to do, before it sleeps; it may add requests to the engine.
    """

    def __init__(self, llm: LLM, idle: Callable[[], object] = lambda: None):
        self.llm, self.core = llm, llm.core
        self.jobs: dict[Job, None] = {}
        self.busy_seconds = self.step_seconds = self.cpu_seconds = self.step_cpu_seconds = 0.0
        self.broken: str | None = None
        self._idle = idle
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Result]) -> Future[Result]:
        """Has `work` done between two steps; its result, or what it raised, comes through the future."""
        future: Future[Result] = Future()

        def done() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)

        self._inbox.put(done)
        return future

    def begin(self, job: Job) -> None:
        """Has `job` started; it is advanced until it is done."""
        self.call(lambda: self._begin(job))

    def _begin(self, job: Job) -> None:
        if self.broken:
            self._lose(job, self.broken)
            return
        self.jobs[job] = None
        self._due = 0.0
        self._do(job, job.start)

    def close(self) -> None:
        """What is under way is given up."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._obey():
            began, began_cpu = time.perf_counter(), time.thread_time()
            try:
                ended = self.core.step().samples if self.core.requests else 0
            except Exception as error:  # nothing can be computed any more: those who wait must hear of it
                self.broken = f"{type(error).__name__}: {error}"
                _note(error)
                for job in list(self.jobs):
                    self._lose(job, self.broken)
                self.core.requests.clear()  # in an unknown state: not to be touched again
                continue
            now, now_cpu = time.perf_counter(), time.thread_time()
            self.step_seconds += now - began
            self.step_cpu_seconds += now_cpu - began_cpu
            if ended or now >= self._due:
                self._due = now + PERIOD
                self._advance()
            self.busy_seconds += time.perf_counter() - began
            self.cpu_seconds = time.thread_time()

    def _advance(self) -> None:
        for job in list(self.jobs):
            self._do(job, job.advance)

    def _do(self, job: Job, work: Callable[[], None]) -> None:
        """A mistake that ended this thread would leave everybody waiting for ever."""
        try:
            work()
        except Exception as error:
            _note(error)
            self._lose(job, f"{type(error).__name__}; the server's log says where")
        if job.done:
            self.jobs.pop(job, None)

    def _lose(self, job: Job, reason: str) -> None:
        self.jobs.pop(job, None)
        try:
            job.fail(reason)
        except Exception as error:  # nobody is there to hear it
            _note(error)

    def _obey(self) -> bool:
        """Does what was asked for; sleeps while there is nothing to compute. False: it is over."""
        while True:
            if self._inbox.empty() and not self.core.requests and not self.broken:
                self._call_idle()
            try:
                work = self._inbox.get(block=not self.core.requests)
            except Empty:
                return True
            if work is None:
                return False
            work()
            if self._inbox.empty():
                return True

    def _call_idle(self) -> None:
        try:
            self._idle()
        except Exception as error:  # what is done ahead of time is nobody's loss
            _note(error)


def _note(error: Exception) -> None:
    """The message may hold what a user wrote: the log gets the places alone."""
    log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__, -8)))
