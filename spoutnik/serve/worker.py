"""The thread that computes. Whatever touches the engine happens in it, between two steps."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from spoutnik.engine.llm import LLM

Result = TypeVar("Result")
PERIOD = 0.02  # seconds: tokens are handed out no more often, so that a small model's are not alone with their overhead


class Job(Protocol):
    """Something that lives over many steps. All of it is called in the engine's thread."""

    done: bool

    def advance(self) -> None:
        """Takes what the steps since the last call made, and goes on."""

    def fail(self, reason: str) -> None:
        """The engine has broken down."""


class Worker:
    """Steps the engine while there is work and sleeps while there is none.

    busy_seconds, step_seconds: spent since the start, in all and in the engine's steps.
    idle: called when there is nothing to do, before it sleeps; it may add requests to the engine.
    """

    def __init__(self, llm: LLM, idle: Callable[[], object] = lambda: None):
        self.llm, self.core = llm, llm.core
        self.jobs: dict[Job, None] = {}
        self.busy_seconds = self.step_seconds = 0.0
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
        """In the engine's thread: `job` is part of what is advanced from now on."""
        self.jobs[job] = None
        self._due = 0.0

    def close(self) -> None:
        """What is under way is given up."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._obey():
            began = time.perf_counter()
            try:
                ended = self.core.step().samples if self.core.requests else 0
            except Exception as error:  # nothing can be computed any more: those who wait must hear of it
                self.broken = f"{type(error).__name__}: {error}"
                for job in list(self.jobs):
                    job.fail(self.broken)
                self.jobs.clear()
                for request in list(self.core.requests):
                    self.core.abort(request)
                continue
            now = time.perf_counter()
            self.step_seconds += now - began
            if ended or now >= self._due:
                self._due = now + PERIOD
                self._advance()
            self.busy_seconds += time.perf_counter() - began

    def _advance(self) -> None:
        for job in list(self.jobs):
            job.advance()
            if job.done:
                del self.jobs[job]

    def _obey(self) -> bool:
        """Does what was asked for; sleeps while there is nothing to compute. False: it is over."""
        while True:
            if self._inbox.empty() and not self.core.requests:
                self._idle()
            try:
                work = self._inbox.get(block=not self.core.requests)
            except Empty:
                return True
            if work is None:
                return False
            work()
            if self._inbox.empty():
                return True
