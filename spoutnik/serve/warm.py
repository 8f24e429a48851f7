"""The next turn's beginning, computed while the user reads.

A template drops past thoughts, so the next prompt does not start with the tokens that were generated: question and answer are
new to the cache without the thought between them. They are known as soon as the answer is, so they are computed when nothing
else is to do; the next turn then starts from blocks that are there.
"""

from collections import OrderedDict
from itertools import count

from spoutnik.engine.llm import LLM
from spoutnik.engine.params import SamplingParams
from spoutnik.engine.request import Request
from spoutnik.text.chat_template import Message

MOST = 16  # conversations that wait; the oldest are forgotten first
_numbers = count()


class Warmer:
    """Prepares conversations of one model, in the engine's thread, when the worker is idle."""

    def __init__(self, llm: LLM):
        self.llm = llm
        self._waiting: OrderedDict[int, list[int]] = OrderedDict()

    def prepare(self, messages: list[Message], variables: dict, tools: list | None = None) -> None:
        """messages: the conversation with the answer in it. What it shares with the next prompt is found by rendering it with
        two different next questions."""
        tokenizer = self.llm.tokenizer
        prompts = [tokenizer.chat_ids([*messages, {"role": "user", "content": said}], tools, variables=variables)
                   for said in ("a", "1")]
        shared = next((i for i, (a, b) in enumerate(zip(*prompts)) if a != b), 0)
        # What the cache cannot hold would wait for room for ever, at the head of everybody's line.
        if 0 < shared < min(self.llm.config.max_position_embeddings - 1, self.llm.core.scheduler.capacity):
            self._waiting[next(_numbers)] = prompts[0][:shared]
            if len(self._waiting) > MOST:
                self._waiting.popitem(last=False)

    def work(self) -> bool:
        """Begins to compute the latest conversation; False where none waits."""
        if not self._waiting:
            return False
        number, prompt = self._waiting.popitem()
        params = SamplingParams(max_tokens=1, temperature=0.0)
        self.llm.core.add(Request(f"warm/{number}", None, prompt, params, 0, 0))
        return True
