"""What is added to a reply while it is generated, and the reply collected from that."""

from dataclasses import dataclass, field
from typing import Literal

WarningCode = Literal["thought_budget", "repetition", "unclosed_thought", "cut_call", "loosened_tool", "unfinished_vote",
                      "tied_vote", "dropped_insertion"]
_SENTENCES: dict[WarningCode, str] = {
    "thought_budget": "the thought reached its budget of {} tokens and was closed; the answer was written without the rest of "
                      "it",
    "repetition": "the thought went in circles and was closed after {} tokens",
    "unclosed_thought": "the model ended inside its thought; it was closed and asked for the answer",
    "cut_call": "a call of a tool was cut off after {} tokens of the reply: it is not complete. Raise max_tokens",
    "loosened_tool": "the arguments of a tool keep its schema only in part ({detail})",
    "unfinished_vote": "none of the {} thoughts came to a finished answer, so that nothing was voted on; this is one of them. "
                       "Raise max_tokens",
    "dropped_insertion": "the text of {} tokens that was to be put into the thought was left out: the thought was over, or had "
                         "no room left for it",
    "tied_vote": "the vote is a tie: several answers have {} each. This is the one that came first",
}


@dataclass(frozen=True)
class GenerationWarning:
    """What a reader should know of a reply: most often why a thought was closed by us and not by the model. tokens: the number
    in the sentence, the thought's length then. detail: what cannot be said in numbers. str() is the English sentence."""

    code: WarningCode
    tokens: int
    detail: str = ""

    def __str__(self) -> str:
        return _SENTENCES[self.code].format(self.tokens, detail=self.detail)


UNUSABLE = "the model cannot be used: "  # begins the stop_reason of replies that end with something outside of this program


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
    thought_tokens: int = 0  # that the model generated so far: what we inserted is nobody's, and marks are not thought
    generated: int = 0  # tokens so far, thought and answer and the marks between


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
