"""One answer under way, as those see it who watch: the page's tabs and the arena in the terminal. No widgets here."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from spoutnik.engine.generation_config import generation_defaults
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError, hide_paths
from spoutnik.generation.context_window import plan_within_window
from spoutnik.generation.delta import CollectedReply, Delta
from spoutnik.generation.options import GenerationOptions
from spoutnik.generation.service import GenerationHandle, GenerationService, ServedModel
from spoutnik.generation.voting import vote
from spoutnik.text.chat_template import Message


@dataclass
class ChatOptions:
    """What the controls are set to. effort: one of EFFORTS; thoughts: how many, of which the majority answers. system: what the
    model is told before everything. temperature: None is the one that the model's authors recommend, or R1's."""

    model: str
    effort: str = "high"
    thoughts: int = 1
    system: str = ""
    temperature: float | None = None

    def generation_options(self, served: ServedModel) -> GenerationOptions:
        chosen = {} if self.temperature is None else {"temperature": self.temperature}
        params = SamplingParams(**generation_defaults(served.folder) | chosen)
        return GenerationOptions(params, reasoning_effort=self.effort)


@dataclass(eq=False)
class ChatMessage:
    """One message. extras: of a question, its text without its files, and their names; of an answer, tokens, seconds, warnings
    (fields of GenerationWarning; in old histories, sentences), error, agreement, runners_up, left_out (questions that no longer
    fitted), finish_reason ("interrupted": the server was killed). id, parent: in the history, this one's and the one's before.
    created: seconds since 1970."""

    role: str
    content: str = ""
    thought: str = ""
    model: str = ""
    extras: dict = field(default_factory=dict)
    id: int | None = None
    parent: int | None = None
    created: float = field(default_factory=time.time)

    @property
    def prompt_message(self) -> Message:
        """As a model reads it: the template drops thoughts where it should."""
        thought = {"reasoning_content": self.thought} if self.thought else {}
        return {"role": self.role, "content": self.content, **thought}


class ChatTurn:
    """An answer under way. phase: "waiting" (for the model, or its turn), "thinking", "answering", "over". message: what has
    come of it. finished_thoughts: of several that vote. on_end: called at its end; where it returns a future, the turn is over
    when that is done. left_out: questions that this model's last answer left out (see plan_within_window). begun: an answer
    that was broken off, with which this one begins."""

    def __init__(self, service: GenerationService, messages: list[Message], options: ChatOptions,
                 on_end: Callable[["ChatTurn"], asyncio.Future | None] = lambda _: None, left_out: int = 0,
                 begun: ChatMessage | None = None):
        system = [{"role": "system", "content": options.system}] if options.system.strip() else []
        self.service, self.messages, self._on_end, self._left_out = service, [*system, *messages], on_end, left_out
        self.options = replace(options)  # they may be changed for the next answer meanwhile
        self._begun = begun or ChatMessage("assistant")
        if begun is not None:
            self.messages.append(begun.prompt_message)
        counts = {name: self._begun.extras.get(name, 0) for name in ("thought_tokens", "tokens")}
        self.message = ChatMessage("assistant", self._begun.content, self._begun.thought, options.model,
                                   {**counts, "warnings": self._begun.extras.get("warnings", [])})
        self.phase, self.paused = "waiting", False
        self.finished_thoughts = 0
        self._name = f"page-{secrets.token_hex(8)}"
        self._thinking_since: float | None = None
        self._thought_seconds = self._begun.extras.get("thought_seconds", 0.0)
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._finish)  # a task that is stopped before its first step runs no line of its own

    @property
    def thought_seconds(self) -> float:
        """The computation of the prompt is part of it, pauses are not."""
        current = 0.0 if self._thinking_since is None else time.monotonic() - self._thinking_since
        return self._thought_seconds + current

    @property
    def handle(self) -> GenerationHandle | None:
        """To steer; None before it begins and when it is over."""
        return self.service.active.get(self._name)

    async def wait(self) -> None:
        await self._over.wait()

    def stop(self) -> None:
        self._task.cancel()

    async def end_thought(self) -> None:
        if self.handle is not None:
            await self.handle.end_thought()
            self._set_paused(False)

    async def insert(self, text: str) -> None:
        """Into the thought; it goes on from there."""
        if self.handle is not None and text.strip():
            await self.handle.insert(f" {text.strip()} ")
            self._set_paused(False)

    async def toggle_pause(self) -> None:
        if self.handle is not None:
            await (self.handle.resume() if self.paused else self.handle.pause())
            self._set_paused(not self.paused)

    def _set_paused(self, paused: bool) -> None:
        self.paused = paused
        self._run_clock(self.phase == "thinking" and not paused)

    def _run_clock(self, running: bool) -> None:
        self._thought_seconds = self.thought_seconds
        self._thinking_since = time.monotonic() if running else None

    async def _run(self) -> None:
        try:
            served = await self.service.model(self.options.model)
            window = await asyncio.to_thread(plan_within_window, served.llm, self.messages,
                                             self.options.generation_options(served), self._left_out)
            if window.left_out:
                self.message.extras["left_out"] = window.left_out
            self._run_clock(window.plan.thinking)
            handle = self.service.generate(served, window.plan.with_n(self.options.thoughts), self._name)
            if self.options.thoughts > 1:
                await self._vote(handle)
            else:
                async with handle:
                    async for deltas in handle:
                        self._show(handle.replies[0])
                        self._update_progress(handle, deltas)
            read = window.messages if window.plan.prefill is None else window.messages[:-1]
            self.service.warm_prefix(served, [*read, self.message.prompt_message], {})
        except (UserError, RunError) as error:
            self.message.extras |= {"error": hide_paths(str(error)), "error_kind": type(error).__name__}
        except Exception as error:  # a mistake of ours: whoever waits must be told
            self.message.extras["error"] = type(error).__name__
            raise

    def _finish(self, task: asyncio.Task) -> None:
        if task.cancelled():
            self.message.extras["finish_reason"] = "abort"
        self._run_clock(False)
        self.message.extras["thought_seconds"] = round(self.thought_seconds, 1)
        waits_for = self._on_end(self)
        if waits_for is None:
            self._set_over()
        else:
            waits_for.add_done_callback(self._set_over)

    def _set_over(self, _: object = None) -> None:
        self.phase = "over"
        self._over.set()

    async def _vote(self, handle: GenerationHandle) -> None:
        """Progress is shown of all thoughts, the text of the one that speaks for the majority."""
        result = await vote(handle, lambda deltas: self._update_progress(handle, deltas))
        self._show(handle.replies[result.index])
        self.message.extras |= {"thoughts": self.options.thoughts, "agreement": result.agreement,
                                "runners_up": [list(other) for other in result.runners_up]}

    def _show(self, reply: CollectedReply) -> None:
        self.message.thought, self.message.content = self._begun.thought + reply.thought, self._begun.content + reply.answer
        self.message.extras["warnings"] = [*self._begun.extras.get("warnings", []), *map(asdict, reply.warnings)]
        if reply.finish_reason:
            self.message.extras["finish_reason"] = reply.finish_reason
        if reply.finish_reason == "error":
            self.message.extras["error"] = reply.stop_reason or "the engine stopped."

    def _update_progress(self, handle: GenerationHandle, deltas: list[Delta]) -> None:
        before = self._begun.extras
        self.message.extras |= {
            "thought_tokens": before.get("thought_tokens", 0) + sum(reply.thought_tokens for reply in handle.replies),
            "tokens": before.get("tokens", 0) + sum(reply.generated for reply in handle.replies)}
        self.finished_thoughts += sum(delta.finish_reason is not None for delta in deltas)
        phase = "thinking" if self.options.thoughts > 1 or deltas[-1].thinking else "answering"
        if phase != self.phase:
            self.phase = phase
            self._run_clock(phase == "thinking")
