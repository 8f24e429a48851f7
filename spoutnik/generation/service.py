"""The models that are served, and generations as asyncio sees them. Nothing here knows HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from spoutnik.engine.llm import LLM
from spoutnik.errors import RunError, UserError
from spoutnik.generation.delta import CollectedReply, Delta, GenerationWarning
from spoutnik.generation.engine_thread import EngineThread, Pieces
from spoutnik.generation.generation import Generation, Steering
from spoutnik.generation.model_card import ModelCard
from spoutnik.generation.options import GenerationPlan
from spoutnik.generation.prefix_warmer import PrefixWarmer
from spoutnik.text.chat_template import Message
from spoutnik.text.tokenizer import Tokenizer

Result = TypeVar("Result")


class Busy(RunError):
    """More work than the queue holds. retry_after: seconds until it is likely to take more."""

    def __init__(self, message: str, retry_after: int):
        super().__init__(message)
        self.retry_after = retry_after


@dataclass
class ServedModel:
    """A model under the name that clients use, read from disk when it is first needed. about: a line for people. card: what it
    can do and examples, where it brings them. aliases: other names that it answers to. quantize: at which precision it is
    read, if not at the server's. adapters: folders of those that are read with it, by name. base: of a model that is an
    adapter, the one it stands beside, whose engine computes both."""

    id: str
    folder: Path
    tokenizer: Tokenizer
    max_model_len: int
    about: str = ""
    card: ModelCard | None = None
    quantize: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    llm: LLM | None = None
    engine_thread: EngineThread | None = None
    prefix_warmer: PrefixWarmer | None = None
    loading: asyncio.Task | None = None
    aliases: tuple[str, ...] = ()
    adapters: dict[str, Path] = field(default_factory=dict)
    base: "ServedModel | None" = None

    @property
    def thinks(self) -> bool:
        """Whether its chat template or its files know thoughts, be their marks tokens or plain text."""
        marks = self.tokenizer.marks
        return marks.stated or any(mark in source for source in self.tokenizer.templates.sources.values()
                                   for mark in marks.pair)


def adapter_model(name: str, folder: Path, base: ServedModel) -> ServedModel:
    """An adapter as a model of its own: base and adapter together under its name."""
    return ServedModel(name, base.folder, base.tokenizer, base.max_model_len, f"An adapter of {base.id}: {folder}.", base=base)


class GenerationHandle(Steering):
    """A generation under way: iterate it for lists of Deltas until all of its choices have finished. Whoever leaves the loop
    early, or is cancelled in it, calls `abort` (`async with` does). replies: what was iterated so far, by choice."""

    def __init__(self, service: "GenerationService", served: ServedModel, name: str, plan: GenerationPlan,
                 job: type = Generation):
        self.service, self.served, self.name, self.plan = service, served, name, plan
        self.began = time.perf_counter()
        self.first_token_seconds: float | None = None
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[list[Delta]] = asyncio.Queue()
        self.job = job(served.llm, name, plan, self._on_deltas)
        self.replies = [CollectedReply() for _ in self.job.choices]
        self._unfinished, self._aborted = len(self.job.choices), False

    async def __aenter__(self) -> "GenerationHandle":
        return self

    async def __aexit__(self, *_) -> None:
        self.abort()

    def _on_deltas(self, deltas: list[Delta]) -> None:
        self.served.engine_thread.deliver(self._loop, self._queue.put_nowait, deltas)

    async def __aiter__(self) -> AsyncIterator[list[Delta]]:
        while self._unfinished > 0:
            deltas = await self._queue.get()
            if self.first_token_seconds is None:
                self.first_token_seconds = time.perf_counter() - self.began
            for delta in deltas:
                self.replies[delta.index].add(delta)
                self._unfinished -= delta.finish_reason is not None
            if not self._unfinished:
                self.service.finish(self)
            yield deltas

    @property
    def cached_tokens(self) -> int:
        """Of the prompt's, those that were in the cache."""
        return self.job.num_cached_tokens or 0

    @property
    def warnings(self) -> list[GenerationWarning]:
        return [warning for reply in self.replies for warning in reply.warnings]

    async def end_thought(self) -> None:
        await self.service.run_in_engine(self.served, self.job.end_thought)

    async def insert(self, text: str) -> None:
        await self.service.run_in_engine(self.served, lambda: self.job.insert(text))

    async def pause(self) -> None:
        await self.service.run_in_engine(self.served, self.job.pause)

    async def resume(self) -> None:
        await self.service.run_in_engine(self.served, self.job.resume)

    def abort(self) -> None:
        if self._unfinished > 0 and not self._aborted:
            self._aborted = True
            self.served.engine_thread.submit(self.job.abort)
            self.service.finish(self)


class GenerationService:
    """The models, and what they generate. load: makes a model ready, in a thread of its own; it may take minutes. max_queue:
    generations under way or waiting, of all models. on_end: called with each handle that has finished, for metrics and logs."""

    def __init__(self, served: list[ServedModel], load: Callable[[ServedModel], LLM], max_queue: int = 256):
        if not served:
            raise UserError("there is no model to serve.")
        self.models = {one.id: one for one in served}
        self.default = served[0]
        self.max_queue = max_queue
        self.active: dict[str, GenerationHandle] = {}
        self.starting = False  # a server reads its first model, and turns requests away meanwhile
        self.draining = False
        self.on_end: list[Callable[[GenerationHandle], None]] = []
        self._load = load
        self._changing_adapters = asyncio.Lock()
        self._number = 0
        self._mean_seconds = 1.0  # that a generation took, lately

    def find(self, name: str) -> ServedModel | None:
        """The model of that name or alias."""
        return self.models.get(name) or next((one for one in self.models.values() if name in one.aliases), None)

    def named(self, name: str) -> ServedModel:
        """The model of that name, or the first one where it has been unloaded."""
        return self.models.get(name, self.default)

    async def model(self, name: str | None) -> ServedModel:
        """The model of that name (the first one where none is named), ready to compute.

        Raises:
            UserError: there is none of that name (any more). RunError: it cannot be loaded, or has broken down.
        """
        served = self.default if not name else self.models.get(name)
        if served is None:
            raise UserError(f"model = {name!r}: is not served any more. Choose {', '.join(self.models)}.")
        if served.base is not None:
            return await self._beside_base(served)
        if served.llm is None:
            if served.loading is None or served.loading.done():
                served.loading = asyncio.create_task(asyncio.to_thread(self._load, served))
            llm = await asyncio.shield(served.loading)
            if served.llm is None:
                warmer = PrefixWarmer(llm)
                served.llm, served.prefix_warmer, served.engine_thread = llm, warmer, EngineThread(llm, warmer.warm_next)
                served.max_model_len = llm.max_model_len  # its cache may hold less than it has positions
        if served.engine_thread.broken:
            raise RunError(f"{served.id}: the engine stopped ({served.engine_thread.broken}). Restart the server.")
        served.llm.core.runner.check_files()
        return served

    async def _beside_base(self, served: ServedModel) -> ServedModel:
        """An adapter's model, ready to compute with its base's engine."""
        base = await self.model(served.base.id)
        if served.llm is None:
            served.llm = base.llm.with_adapter(served.id)
        served.engine_thread, served.prefix_warmer, served.max_model_len = (base.engine_thread, base.prefix_warmer,
                                                                          base.max_model_len)
        return served

    async def load_adapter(self, name: str, folder: Path) -> ServedModel:
        """Reads an adapter of the default model; from then on it is a model of this name.

        Raises:
            UserError: the name is taken, or the adapter does not fit. RunError: it cannot be read.
        """
        async with self._changing_adapters:
            if self.find(name) is not None:
                raise UserError(f"{name!r}: a model of this name is served already. Unload it first, or take another name.")
            base = await self.model(None)
            loaded = await asyncio.to_thread(base.llm.prepare_adapter, name, folder)
            await self.run_in_engine(base, lambda: base.llm.core.adapters.add(loaded))
            self.models[name] = adapter_model(name, folder, base)
            return await self.model(name)

    async def unload_adapter(self, name: str) -> None:
        """Replies under way go on with it. Raises KeyError: no adapter has this name."""
        async with self._changing_adapters:
            if self.models[name].base is None:
                raise KeyError(name)
            base = await self.model(self.models.pop(name).base.id)
            await self.run_in_engine(base, lambda: base.llm.unload_adapter(name))
            base.adapters.pop(name, None)

    def generate(self, served: ServedModel, plan: GenerationPlan, name: str | None = None,
                 job: type = Generation) -> GenerationHandle:
        """Starts a generation; it waits in the engine's own queue while the batch is full.

        Raises:
            Busy: the queue is full, or the server is about to stop.
        """
        if self.draining:
            raise Busy("the server is shutting down. Try again when it is back.", 30)
        if len(self.active) >= self.max_queue:
            raise Busy(f"{len(self.active)} replies are under way, and no more may wait. Try again later.",
                       max(1, round(self._mean_seconds)))
        self._number += 1
        handle = GenerationHandle(self, served, name or f"reply-{self._number}", plan, job)
        self.active[handle.name] = handle
        served.engine_thread.add_job(handle.job)
        return handle

    def finish(self, handle: GenerationHandle) -> None:
        """Called by a handle that has finished or was aborted."""
        if self.active.pop(handle.name, None) is not None:
            self._mean_seconds += 0.1 * (time.perf_counter() - handle.began - self._mean_seconds)
            for callback in self.on_end:
                callback(handle)

    def warm_prefix(self, served: ServedModel, messages: list[Message], variables: Mapping[str, object]) -> None:
        """Has the cache made ready for the turn after `messages`, the last of which is the answer, when the engine is idle."""
        adapter = served.llm.adapter
        served.engine_thread.submit(lambda: served.prefix_warmer.add(messages, variables, adapter))

    async def run_in_engine(self, served: ServedModel, call: Callable[[], Result]) -> Result:
        """Calls something in the engine thread, between two steps; its result."""
        return await asyncio.wrap_future(served.engine_thread.submit(call))

    async def run_in_pieces(self, served: ServedModel, pieces: Pieces[Result]) -> Result:
        """Has long work done in the engine thread, a piece between two steps; its result."""
        return await asyncio.wrap_future(served.engine_thread.submit_pieces(pieces))

    async def close(self, grace: float = 30.0) -> None:
        """Lets generations end, for so many seconds; then aborts them and stops the engines."""
        self.draining = True
        deadline = time.monotonic() + grace
        while self.active and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for handle in list(self.active.values()):
            handle.abort()
        for served in self.models.values():
            if served.engine_thread is not None:
                await asyncio.to_thread(served.engine_thread.close)
