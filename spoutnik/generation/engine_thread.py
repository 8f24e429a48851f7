"""The thread that computes. Whatever touches the engine happens in it, between two steps."""

import asyncio
import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from spoutnik.engine.llm import LLM
from spoutnik.engine.step import StepOutput
from spoutnik.errors import RunError

log = logging.getLogger("spoutnik.serve")
Result = TypeVar("Result")
Work = tuple[Future, Callable[[], object]]
# A reply's tokens are handed out every PERIOD seconds, so that a small model's are not alone with their overhead. All replies
# together are handed out RATE times a second: with many of them each gets its tokens in larger pieces, but at least every
# SLOWEST seconds, so that a person still sees text flow.
PERIOD, RATE, SLOWEST = 0.02, 800, 0.25
MOST_AHEAD = 4  # steps of a small model between two looks at what is asked for: some 10 ms with many replies


class Job(Protocol):
    """Something that lives over many steps. All of it is called in the engine's thread. Its engine requests name it as their
    owner."""

    done: bool

    def start(self) -> None:
        """Begins its first requests."""

    def advance(self) -> None:
        """Takes what the steps since the last call made, and goes on."""

    def fail(self, reason: str) -> None:
        """Ends it where it is, at once and whatever state it is in: the engine has broken down, or the job itself has."""


class Outbox:
    """What jobs have to say, on its way to event loops: all that one step brought wakes a loop once."""

    def __init__(self):
        self._held: dict[asyncio.AbstractEventLoop, list[tuple[Callable[[object], None], object]]] = {}

    def put(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[object], None], what: object) -> None:
        """deliver(what) will be called in that loop."""
        self._held.setdefault(loop, []).append((deliver, what))

    def send(self) -> None:
        held, self._held = self._held, {}
        for loop, mail in held.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads there any more
                loop.call_soon_threadsafe(_deliver, mail)


def _deliver(mail: list[tuple[Callable[[object], None], object]]) -> None:
    for deliver, what in mail:
        deliver(what)


class EngineThread:
    """Steps the engine while there is work and sleeps while there is none.

    busy_seconds, step_seconds: spent since the start, in all and in the engine's steps. cpu_seconds, step_cpu_seconds: the
        same in this thread's own time, which others on the same cores do not stretch.
    jobs: when each is handed out next.
    idle: called when there is nothing to do, before it sleeps; it may add requests to the engine.
    """

    def __init__(self, llm: LLM, idle: Callable[[], object] = lambda: None):
        self.llm, self.core = llm, llm.core
        self.core.max_multi_steps = min(self.core.max_multi_steps, MOST_AHEAD)
        self.jobs: dict[Job, float] = {}
        self.outbox = Outbox()
        self.busy_seconds = self.step_seconds = self.cpu_seconds = self.step_cpu_seconds = 0.0
        self.broken: str | None = None
        self._idle = idle
        self._inbox: SimpleQueue[Work | None] = SimpleQueue()
        self._closing = threading.Lock()  # nothing is put into the inbox once nobody looks there
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Result]) -> Future[Result]:
        """Has `work` done between two steps; its result, or what it raised, comes through the future."""
        future: Future[Result] = Future()
        with self._closing:
            if self._closed:
                future.set_exception(RunError("the engine has been stopped."))
            else:
                self._inbox.put((future, work))
        return future

    def begin(self, job: Job) -> None:
        """Starts a job, between two steps."""
        self.call(lambda: self._begin(job))

    def close(self) -> None:
        """What is under way is given up."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)
        self._thread.join()

    @property
    def period(self) -> float:
        """Seconds between two times that a reply is handed out."""
        return min(max(PERIOD, len(self.jobs) / RATE), SLOWEST)

    def _run(self) -> None:
        while self._obey():
            self.outbox.send()
            if not self.core.requests:
                continue
            began, began_cpu = time.perf_counter(), time.thread_time()
            try:
                made = self.core.step()
            except Exception as error:  # nothing can be computed any more: those who wait must hear of it
                _note(error)
                self.broken = f"{type(error).__name__}: {error}"
                self._give_up(list(self.jobs), self.broken)
                self.core.requests.clear()  # in an unknown state: not to be touched again
                self.outbox.send()
                continue
            now, now_cpu = time.perf_counter(), time.thread_time()
            self.step_seconds += now - began
            self.step_cpu_seconds += now_cpu - began_cpu
            self._advance(self._due(made, now))
            self.outbox.send()
            self.busy_seconds += time.perf_counter() - began
            self.cpu_seconds = time.thread_time()
        self._give_up(list(self.jobs), "the engine has been stopped.")
        self.outbox.send()

    def _begin(self, job: Job) -> None:
        if self.broken:
            self._give_up([job], self.broken)
            return
        self.jobs[job] = 0.0
        self.jobs[job] = time.perf_counter() + self.period - PERIOD  # of few, the first token as soon as it is there
        self._guarded(job, job.start)

    def _due(self, made: StepOutput, now: float) -> list[Job]:
        """Those that have waited long enough, and those of which a part has ended: what follows must not wait."""
        ended = {sample.request.owner for sample in made.ended}
        return [job for job, when in self.jobs.items() if when <= now or job in ended]

    def _advance(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._guarded(job, job.advance)
        when = time.perf_counter() + self.period
        self.jobs.update((job, when) for job in jobs if job in self.jobs)

    def _guarded(self, job: Job, act: Callable[[], None]) -> None:
        """A mistake of ours ends this job alone: one that ended this thread would leave everybody waiting for ever."""
        try:
            act()
        except Exception as error:
            _note(error)
            self._give_up([job], f"{type(error).__name__}: the server made a mistake; its log says where.")
        if job.done:
            self.jobs.pop(job, None)

    def _give_up(self, jobs: Iterable[Job], reason: str) -> None:
        for job in jobs:
            self.jobs.pop(job, None)
            try:
                job.fail(reason)
                for request in [request for request in self.core.requests.values() if request.owner is job]:
                    self.core.abort(request.request_id)
            except Exception as error:  # nobody is there to hear it
                _note(error)

    def _obey(self) -> bool:
        """Does what was asked for; sleeps while there is nothing to compute. False: it is over."""
        while True:
            if self._inbox.empty() and not self.core.requests:
                self._call_idle()
            try:
                work = self._inbox.get(block=not self.core.requests)
            except Empty:
                return True
            if work is None:
                return False
            _do(*work)
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


def _do(future: Future, work: Callable[[], object]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
