"""The beginning of a conversation's next prompt, computed while the user reads. A template drops past thoughts, so the next
prompt does not start with the tokens that were generated: question and answer are new to the cache without the thought."""

from collections import deque
from collections.abc import Mapping
from itertools import count

from spoutnik.engine.adapters import LoadedAdapter
from spoutnik.engine.llm import LLM
from spoutnik.engine.request import Request
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.text.chat_template import Message

MAX_WAITING = 16  # conversations; the oldest are forgotten first
_numbers = count()


class PrefixWarmer:
    """The conversations of one engine that wait for it to be idle."""

    def __init__(self, llm: LLM):
        self.llm = llm
        self._waiting: deque[tuple[list[Message], Mapping[str, object], LoadedAdapter | None]] = deque(maxlen=MAX_WAITING)

    def add(self, messages: list[Message], variables: Mapping[str, object], adapter: LoadedAdapter | None = None) -> None:
        """messages: the conversation with the answer in it. adapter: which gave it. All work is left to `warm_next`: nobody
        waits for it."""
        self._waiting.append((messages, variables, adapter))

    def warm_next(self) -> bool:
        """In the engine thread: begins to compute the latest conversation; False where none waits."""
        while self._waiting:
            *conversation, adapter = self._waiting.pop()
            prefix = self._shared_prefix(*conversation)
            if 0 < len(prefix) < self.llm.max_model_len - 1:
                params = SamplingParams(max_tokens=1, temperature=0.0)
                self.llm.core.add(Request(f"warm/{next(_numbers)}", None, prefix, params, 0, 0, adapter=adapter))
                return True
        return False

    def _shared_prefix(self, messages: list[Message], variables: Mapping[str, object]) -> list[int]:
        """What a conversation shares with its next prompt: the same in its renderings with two different next questions."""
        try:
            prompts = [self.llm.tokenizer.chat_ids([*messages, {"role": "user", "content": question}], variables=variables)
                       for question in ("a", "1")]
        except (UserError, RunError):  # a template may refuse what a model wrote
            return []
        return prompts[0][:next((i for i, (a, b) in enumerate(zip(*prompts)) if a != b), 0)]
