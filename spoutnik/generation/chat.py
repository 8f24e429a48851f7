"""A conversation with a model in this process: the same replies as the server's, with the same rules for the thought."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spoutnik.engine.llm import LLM
from spoutnik.errors import RunError
from spoutnik.generation.generation import Delta, Generation
from spoutnik.generation.options import GenerationOptions, plan_chat
from spoutnik.loading import load_tokenizer
from spoutnik.text.tokenizer import Message


def chat_llm(folder: Path, **engine) -> LLM:
    """A model to talk to: ours or any published checkpoint with a chat template. engine: what LLM takes besides."""
    tokenizer = load_tokenizer(folder)
    tokenizer.templates.choose(with_tools=False)  # says so now where there is none: weights take long to read
    return LLM(folder, tokenizer, max_num_seqs=1, **engine)


@dataclass
class Stats:
    """Of the last reply. cached: of its prompt's tokens, those that the cache held. Times in seconds."""

    prompt_tokens: int = 0
    cached: int = 0
    tokens: int = 0
    thought_tokens: int = 0
    first: float = 0.0
    whole: float = 0.0


class Chat:
    """Remembers the turns; each reply starts from a fresh thought, past thoughts are dropped where the template says so.

    options: as the server's requests have them. seed: with it, the same questions get the same answers.
    """

    def __init__(self, llm: LLM, options: GenerationOptions, seed: int = 0, system: str | None = None):
        self.llm, self.options, self.seed, self.system = llm, options, seed, system
        self.messages: list[Message] = []
        self.stats = Stats()
        self._asked = 0
        self._unanswered: str | None = None

    def ask(self, question: str, console: Console | None) -> dict:
        """One turn; shown as it comes where a console is given. Ctrl-C during the thought closes it and has the answer written;
        during the answer, or a second time, it ends the reply.

        Returns:
            prompt, thought, answer, tokens (generated), reasoning_tokens, finish_reason ("abort" after Ctrl-C), warning (a
            sentence, or None).
        Raises:
            UserError: the conversation is too long, or an option is wrong. RunError: the model gives no numbers.
        """
        asked = [*self.messages, {"role": "user", "content": question}]
        told = [{"role": "system", "content": self.system}] if self.system else []
        params = replace(self.options.params, seed=self.seed + len(asked))
        plan = plan_chat(self.llm, [*told, *asked], replace(self.options, params=params))
        said = _Said(console)
        reply = Generation(self.llm, f"chat-{self._asked}", plan, said.add)
        self._asked += 1
        self._unanswered = question
        self._make(reply)
        said.close()
        if said.last.finish_reason == "error":
            raise RunError(str(said.last.stop_reason))
        self.stats = Stats(len(plan.prompt), reply.cached or 0, said.last.generated, said.last.thought_tokens,
                           said.first or 0.0, time.perf_counter() - said.began)
        if said.answer:
            thought = {"reasoning_content": said.thought} if said.thought else {}
            self.messages, self._unanswered = [*asked, {"role": "assistant", "content": said.answer, **thought}], None
        return {"prompt": question, "thought": said.thought, "answer": said.answer, "tokens": said.last.generated,
                "reasoning_tokens": said.last.thought_tokens, "finish_reason": said.last.finish_reason,
                "warning": " ".join(said.warnings) or None}

    def _make(self, reply: Generation) -> None:
        handled = 0
        with _interrupts() as pressed:
            try:
                reply.start()
                while not reply.done:
                    self.llm.core.step()
                    reply.advance()
                    if len(pressed) > handled:
                        handled += 1
                        thinking = reply.choices[0].stream.thinking
                        reply.end_thought() if thinking and handled == 1 else reply.abort()
            except BaseException:
                reply.abort()
                raise

    def take_back(self) -> str | None:
        """Forgets the last turn and returns its question; None where there is none."""
        if self._unanswered is not None:
            question, self._unanswered = self._unanswered, None
            return question
        places = [place for place, message in enumerate(self.messages) if message["role"] == "user"]
        if not places:
            return None
        question = self.messages[places[-1]]["content"]
        del self.messages[places[-1]:]
        return question


class _Said:
    """A reply as it grows, shown where there is a console: thought dimmed, answer plain."""

    def __init__(self, console: Console | None):
        self.console, self.began = console, time.perf_counter()
        self.thought = self.answer = ""
        self.warnings: list[str] = []
        self.first: float | None = None
        self.last = Delta(0)

    def add(self, deltas: list[Delta]) -> None:
        if self.first is None:
            self.first = time.perf_counter() - self.began
        for delta in deltas:
            self._print(delta.thought, "dim italic")
            if delta.answer and not self.answer and (self.thought or delta.thought):
                self._print("\n\n")
            self._print(delta.answer)
            self.thought += delta.thought
            self.answer += delta.answer
            self.warnings += delta.warnings
            self.last = delta

    def close(self) -> None:
        if self.console is None:
            return
        notes = [*self.warnings, *{"length": ["cut off: the reply reached its longest"], "abort": ["stopped"]}.get(
            self.last.finish_reason, [])]
        self._print("\n" + "".join(f"({note})\n" for note in notes), "dim")

    def _print(self, text: str, style: str = "") -> None:
        if self.console is not None and text:
            self.console.print(Text(text, style), end="", soft_wrap=True)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C is noted and not raised: a step must not break off in its middle. The third time it is raised after all."""
    pressed: list[int] = []

    def note(number: int, frame: object) -> None:
        pressed.append(number)
        if len(pressed) > 2:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
