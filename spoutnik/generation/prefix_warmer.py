"""The next turn's beginning, computed while the user reads.

A template drops past thoughts, so the next prompt does not start with the tokens that were generated: question and answer are
new to the cache without the thought between them. They are known as soon as the answer is, so they are computed when nothing
else is to do; the next turn then starts from blocks that are there.
"""

from collections import deque
from collections.abc import Mapping
from itertools import count

from spoutnik.engine.llm import LLM
from spoutnik.engine.request import Request
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.text.chat_template import Message

MOST = 16  # conversations that wait; the oldest are forgotten first
_numbers = count()


class PrefixWarmer:
    """Prepares conversations of one model, in the engine's thread, when the worker is idle."""

    def __init__(self, llm: LLM):
        self.llm = llm
        self._waiting: deque[tuple[list[Message], Mapping[str, object], list | None]] = deque(maxlen=MOST)

    def prepare(self, messages: list[Message], variables: Mapping[str, object], tools: list | None = None) -> None:
        """messages: the conversation with the answer in it. Any thread may call it; all work is left to `work`, so that it
        costs nothing while others wait."""
        self._waiting.append((messages, variables, tools))

    def work(self) -> bool:
        """Begins to compute the latest conversation; False where none waits."""
        while self._waiting:
            prompt = self._shared(*self._waiting.pop())
            if 0 < len(prompt) < self.llm.max_model_len:
                params = SamplingParams(max_tokens=1, temperature=0.0)
                self.llm.core.add(Request(f"warm/{next(_numbers)}", None, prompt, params, 0, 0))
                return True
        return False

    def _shared(self, messages: list[Message], variables: Mapping[str, object], tools: list | None) -> list[int]:
        """What a conversation shares with its next prompt: found by rendering it with two different next questions."""
        try:
            prompts = [self.llm.tokenizer.chat_ids([*messages, {"role": "user", "content": said}], tools, variables=variables)
                       for said in ("a", "1")]
        except (UserError, RunError):  # a template may refuse what a model has said
            return []
        return prompts[0][:next((i for i, (a, b) in enumerate(zip(*prompts)) if a != b), 0)]
