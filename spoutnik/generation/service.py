"""The models that are served, and replies as asyncio sees them. No HTTP in here either."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from spoutnik.engine.llm import LLM
from spoutnik.errors import RunError, UserError
from spoutnik.generation.engine_thread import EngineThread
from spoutnik.generation.generation import Delta, Generation, GenerationPlan
from spoutnik.generation.prefix_warmer import PrefixWarmer
from spoutnik.text.chat_template import Message
from spoutnik.text.tokenizer import Tokenizer

Result = TypeVar("Result")


class Busy(RunError):
    """More work than the queue holds. retry_after: seconds until there is likely to be room."""

    def __init__(self, message: str, retry_after: int):
        super().__init__(message)
        self.retry_after = retry_after


class Broken(RunError):
    """The engine cannot compute any more."""


@dataclass
class ServedModel:
    """A model under the name that clients use. It is read from disk when it is first asked for.

    about: a line for people. loading: begun, and not over before the model can be used.
    """

    id: str
    folder: Path
    tokenizer: Tokenizer
    max_model_len: int
    about: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    llm: LLM | None = None
    engine_thread: EngineThread | None = None
    prefix_warmer: PrefixWarmer | None = None
    loading: asyncio.Task | None = None


class GenerationHandle:
    """A reply under way: iterate it for lists of Deltas until all of its n replies are over.

    Whoever leaves the loop early, or is cancelled in it, calls `abort` (`async with` does).
    """

    def __init__(self, service: "GenerationService", served: ServedModel, name: str, plan: GenerationPlan,
                 job: type = Generation):
        self.service, self.served, self.name, self.plan = service, served, name, plan
        self.began = time.perf_counter()
        self.first_token_seconds: float | None = None
        self.warnings: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[list[Delta]] = asyncio.Queue()
        self.job = job(served.llm, name, plan, self._deliver)
        self._left, self._given_up = len(self.job.choices), False

    async def __aenter__(self) -> "GenerationHandle":
        return self

    async def __aexit__(self, *_) -> None:
        self.abort()

    def _deliver(self, deltas: list[Delta]) -> None:
        self.served.engine_thread.outbox.put(self._loop, self._queue.put_nowait, deltas)

    def __aiter__(self) -> AsyncIterator[list[Delta]]:
        return self._deltas()

    async def _deltas(self) -> AsyncIterator[list[Delta]]:
        while self._left > 0:
            deltas = await self._queue.get()
            if self.first_token_seconds is None:
                self.first_token_seconds = time.perf_counter() - self.began
            self.warnings += [warning for delta in deltas for warning in delta.warnings]
            self._left -= sum(delta.finish_reason is not None for delta in deltas)
            if not self._left:
                self.service.ended(self)
            yield deltas

    @property
    def cached_tokens(self) -> int:
        """Of the prompt's, those that were in the cache."""
        return self.job.cached or 0

    # Steering; each returns when it is in force.

    async def end_thought(self) -> None:
        await self._do(self.job.end_thought)

    async def insert(self, text: str) -> None:
        await self._do(lambda: self.job.insert(text))

    async def pause(self) -> None:
        await self._do(self.job.pause)

    async def resume(self) -> None:
        await self._do(self.job.resume)

    async def _do(self, work: Callable[[], None]) -> None:
        await asyncio.wrap_future(self.served.engine_thread.call(work))

    def abort(self) -> None:
        """Ends it where it is; nothing happens where it is over already."""
        if self._left > 0 and not self._given_up:
            self._given_up = True
            self.served.engine_thread.call(self.job.abort)
            self.service.ended(self)


class GenerationService:
    """max_queue: replies that may be under way or waiting at the same time, all models together.

    load: makes a model ready: it is called in a thread of its own, and may take minutes.
    """

    def __init__(self, served: list[ServedModel], load: Callable[[ServedModel], LLM], max_queue: int = 256):
        if not served:
            raise UserError("there is no model to serve.")
        self.models = {one.id: one for one in served}
        self.default = served[0]
        self.max_queue = max_queue
        self.active: dict[str, GenerationHandle] = {}
        self.draining = False
        self.on_end: list[Callable[[GenerationHandle], None]] = []  # for meters
        self._load = load
        self._number = 0
        self._seconds = 1.0  # a reply lately took

    async def model(self, name: str | None) -> ServedModel:
        """The model of that name (the first one where none is named), ready to compute.

        Raises:
            KeyError: there is none of that name. RunError: it cannot be loaded, or has broken down.
        """
        served = self.default if not name else self.models[name]
        if served.llm is None:
            if served.loading is None or served.loading.done():
                served.loading = asyncio.create_task(asyncio.to_thread(self._load, served))
            llm = await asyncio.shield(served.loading)
            if served.llm is None:
                warmer = PrefixWarmer(llm)
                served.llm, served.prefix_warmer, served.engine_thread = llm, warmer, EngineThread(llm, warmer.work)
        if served.engine_thread.broken:
            raise Broken(f"{served.id}: the engine stopped ({served.engine_thread.broken}). Restart the server.")
        return served

    def start(self, served: ServedModel, plan: GenerationPlan, name: str | None = None,
              job: type = Generation) -> GenerationHandle:
        """Begins a reply; it waits in the engine's own line where there is no place for it yet.

        Raises:
            Busy: the queue is full, or the server is about to stop.
        """
        if self.draining:
            raise Busy("the server is shutting down. Try again when it is back.", 30)
        if len(self.active) >= self.max_queue:
            raise Busy(f"{len(self.active)} replies are under way, and no more may wait. Try again later.",
                       max(1, round(self._seconds)))
        self._number += 1
        handle = GenerationHandle(self, served, name or f"reply-{self._number}", plan, job)
        self.active[handle.name] = handle
        served.engine_thread.begin(handle.job)
        return handle

    def ended(self, handle: GenerationHandle) -> None:
        if self.active.pop(handle.name, None) is not None:
            self._seconds += 0.1 * (time.perf_counter() - handle.began - self._seconds)
            for heard in self.on_end:
                heard(handle)

    def prepare(self, served: ServedModel, messages: list[Message], variables: Mapping[str, object],
                tools: list | None = None) -> None:
        """Has the cache made ready for the turn after `messages`, the last of which is the answer, when nothing else is to
        do."""
        served.engine_thread.call(lambda: served.prefix_warmer.prepare(messages, variables, tools))

    async def call(self, served: ServedModel, work: Callable[[], Result]) -> Result:
        """Has something done in the engine's thread, between two steps."""
        return await asyncio.wrap_future(served.engine_thread.call(work))

    async def close(self, patience: float = 30.0) -> None:
        """Lets what is under way end, for so many seconds; then gives it up and stops the engines."""
        self.draining = True
        deadline = time.monotonic() + patience
        while self.active and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for handle in list(self.active.values()):
            handle.abort()
        for served in self.models.values():
            if served.engine_thread is not None:
                await asyncio.to_thread(served.engine_thread.close)
