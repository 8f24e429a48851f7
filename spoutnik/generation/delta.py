"""What is added to a reply while it is generated, and the reply collected from that."""

from dataclasses import dataclass, field
from typing import Literal

WarningCode = Literal["thought_budget", "repetition", "unclosed_thought"]
_SENTENCES: dict[WarningCode, str] = {
    "thought_budget": "the thought reached its budget of {} tokens and was closed; the answer was written without the rest of "
                      "it",
    "repetition": "the thought went in circles and was closed after {} tokens",
    "unclosed_thought": "the model ended inside its thought; it was closed and asked for the answer",
}


@dataclass(frozen=True)
class GenerationWarning:
    """Why a thought was closed by us and not by the model. tokens: its length then. str() is the English sentence."""

    code: WarningCode
    tokens: int

    def __str__(self) -> str:
        return _SENTENCES[self.code].format(self.tokens)


@dataclass
class Delta:
    """What was added to one of the replies. ids, logprobs, top_logprobs: of the answer alone (see CompletionOutput)."""

    index: int
    thought: str = ""
    answer: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | None = None
    warnings: list[GenerationWarning] = field(default_factory=list)
    thinking: bool = False  # what comes next is thought
    thought_tokens: int = 0  # so far; those that we inserted too
    generated: int = 0  # tokens so far, thought and answer


@dataclass
class CollectedReply:
    """One reply, collected from its deltas."""

    thought: str = ""
    answer: str = ""
    finish_reason: str = ""
    stop_reason: str | None = None
    thought_tokens: int = 0
    generated: int = 0
    warnings: list[GenerationWarning] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        self.thought += delta.thought
        self.answer += delta.answer
        self.warnings += delta.warnings
        self.thought_tokens, self.generated = delta.thought_tokens, delta.generated
        if delta.finish_reason:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason
