"""A conversation with a model in this process: the same replies as the server's, by the same rules for the thought."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from spoutnik.engine.llm import LLM
from spoutnik.errors import RunError
from spoutnik.generation.context_window import plan_within_window, split_turns
from spoutnik.generation.delta import CollectedReply, Delta
from spoutnik.generation.generation import Generation
from spoutnik.generation.options import GenerationOptions
from spoutnik.loading import load_tokenizer
from spoutnik.text.tokenizer import Message


def chat_llm(folder: Path, **engine) -> LLM:
    """A model to talk to: ours or any published checkpoint with a chat template. engine: LLM's other arguments."""
    tokenizer = load_tokenizer(folder)
    tokenizer.templates.choose(with_tools=False)  # fails now where there is none: weights take long to read
    return LLM(folder, tokenizer, max_num_seqs=1, **engine)


@dataclass
class Stats:
    """Of the last reply. cached_tokens: of its prompt's, those that were in the cache. tokens: generated. Times in seconds."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    thought_tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0


class ReplyOutput(Protocol):
    """Where a reply is shown while it comes."""

    def show(self, thought: str, answer: str) -> None:
        """What was added."""

    def close(self, notes: Sequence[str]) -> None:
        """The end, with sentences on the whole."""


class Chat:
    """A conversation that remembers its turns; past thoughts are dropped where the template says so. With the same seed, the
    same questions get the same answers."""

    def __init__(self, llm: LLM, options: GenerationOptions, seed: int = 0, system: str | None = None):
        self.llm, self.options, self.seed, self.system = llm, options, seed, system
        self.messages: list[Message] = []
        self.stats = Stats()
        self._generations = 0
        self._unanswered: str | None = None
        self._first_kept: Message | None = None  # of those that the last reply could read

    def ask(self, question: str, output: ReplyOutput | None = None) -> dict:
        """One turn, shown as it comes where an output is given. Ctrl-C closes the thought; a second one, or one during the
        answer, ends the reply.

        Returns:
            prompt, thought, answer, tokens (generated), reasoning_tokens, finish_reason ("abort" after Ctrl-C), warning
            (sentences, or None). A conversation that outgrows the context goes on without its oldest questions, and says so.
        Raises:
            UserError: the question is too long, or an option is wrong. RunError: the model gives no numbers.
        """
        messages = [*self.messages, {"role": "user", "content": question}]
        system = [{"role": "system", "content": self.system}] if self.system else []
        options = replace(self.options, params=replace(self.options.params, seed=self.seed + len(messages)))
        window = plan_within_window(self.llm, [*system, *messages], options, self._count_left_out())
        plan, self._first_kept = window.plan, window.messages[len(system)]
        reply = ShownReply(output, [*describe_left_out(window.left_out), *(note.rstrip(".") for note in plan.notes)])
        generation = Generation(self.llm, f"chat-{self._generations}", plan, reply.take)
        self._generations += 1
        self._unanswered = question
        try:
            self._run(generation)
        finally:
            reply.close()
        if reply.finish_reason == "error":
            raise RunError(str(reply.stop_reason))
        self.stats = Stats(len(plan.prompt), generation.num_cached_tokens or 0, reply.generated, reply.thought_tokens,
                           reply.first_token_seconds or 0.0, time.perf_counter() - reply.began)
        if reply.answer.strip():
            thought = {"reasoning_content": reply.thought} if reply.thought else {}
            self.messages = [*messages, {"role": "assistant", "content": reply.answer, **thought}]
            self._unanswered = None
        return {"prompt": question, "thought": reply.thought, "answer": reply.answer, "tokens": reply.generated,
                "reasoning_tokens": reply.thought_tokens, "finish_reason": reply.finish_reason,
                "warning": "; ".join(reply.notes) or None}

    def _count_left_out(self) -> int:
        """Turns that the last reply could not read. None, where the conversation is another one by now."""
        start = next((index for index, message in enumerate(self.messages) if message is self._first_kept), 0)
        return len(split_turns(self.messages[:start])[1])

    def _run(self, generation: Generation) -> None:
        handled = 0
        with _interrupts() as interrupts:
            try:
                generation.start()
                while not generation.done:
                    self.llm.core.step()
                    generation.advance()
                    if len(interrupts) > handled:
                        handled += 1
                        generation.end_thought() if generation.thinking and handled == 1 else generation.abort()
            except BaseException:
                generation.abort()
                raise

    def take_back(self) -> str | None:
        """Forgets the last turn and returns its question; None where there is none."""
        if self._unanswered is not None:
            question, self._unanswered = self._unanswered, None
            return question
        questions = [index for index, message in enumerate(self.messages) if message["role"] == "user"]
        if not questions:
            return None
        question = self.messages[questions[-1]]["content"]
        del self.messages[questions[-1]:]
        return question


def describe_left_out(count: int) -> list[str]:
    """A sentence on the questions that no longer fit; none where all do."""
    if not count:
        return []
    questions = "its first question was" if count == 1 else f"its first {count} questions were"
    return [f"the conversation has outgrown the model's context: {questions} left out, with the answers"]


class ShownReply(CollectedReply):
    """A reply that is shown as it comes, where there is an output. notices: sentences that go with its warnings."""

    def __init__(self, output: ReplyOutput | None, notices: Sequence[str]):
        super().__init__()
        self.output, self.notices, self.began = output, notices, time.perf_counter()
        self.first_token_seconds: float | None = None

    def take(self, deltas: list[Delta]) -> None:
        if self.first_token_seconds is None:
            self.first_token_seconds = time.perf_counter() - self.began
        for delta in deltas:
            if self.output is not None:
                self.output.show(delta.thought, delta.answer)
            self.add(delta)

    @property
    def notes(self) -> list[str]:
        return [*self.notices, *map(str, self.warnings)]

    def close(self) -> None:
        ends = {"length": ["cut off: the reply reached its longest"], "abort": ["stopped"]}
        if self.output is not None:
            self.output.close([*self.notes, *ends.get(self.finish_reason, [])])


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The Ctrl-Cs so far, which raise nothing: a step must not break off in its middle. The third is raised after all."""
    interrupts: list[int] = []

    def on_interrupt(number: int, frame: object) -> None:
        interrupts.append(number)
        if len(interrupts) > 2:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
