"""The outputs of a request, in vLLM's shape."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class CompletionOutput:
    """One completion, or, in a stream, what was added to it.

    index: 0..n-1. token_ids: the token that ended it included. text: without special tokens and stop text, unless requested;
        empty without a tokenizer.
    logprobs: of each token. Where none are requested (SamplingParams.logprobs = None), under the distribution it was drawn
        from before truncation (with temperature and penalties, without top_p, top_k and min_p), as reinforcement learning needs
        them; else as SamplingParams.logprobs_mode says. top_logprobs: if requested, for each token the likeliest ones and
        itself, id -> log-probability in the same mode.
    finish_reason: "stop", "length", "abort", "error" (the sentence is in stop_reason), None while unfinished.
    stop_reason: the stop text or stop token id that ended it; None for the end of sentence.
    routed_experts: where the sampler keeps a record of them, the experts (n, layers with routed experts, K) of the first n
        tokens of the prompt with the completion (train/routing.py).
    """

    index: int = 0
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    routed_experts: "Tensor | None" = None

    @property
    def cumulative_logprob(self) -> float:
        return sum(self.logprobs)

    @property
    def finished(self) -> bool:
        """It ended by itself, by a stop token or stop text."""
        return self.finish_reason == "stop"

    @property
    def reply_ids(self) -> list[int]:
        """token_ids without the stop token that ended it."""
        return self.token_ids[:-1] if self.finished and not isinstance(self.stop_reason, str) else self.token_ids


@dataclass
class Metrics:
    """Seconds from arrival until the request was first scheduled, had its first token, was finished (None: not yet).
    drafted, accepted: its speculative tokens, and those that were right."""

    arrival: float = 0.0  # on the engine's clock
    first_scheduled: float | None = None
    first_token: float | None = None
    finish: float | None = None
    drafted: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        return self.accepted / max(self.drafted, 1)


@dataclass
class RequestOutput:
    """A request and its completions, in order of their index.

    prompt: None where token ids were given. prompt_logprobs: if requested, None for the first token, then for each token the
        likeliest ones and itself, id -> log-probability. num_cached_tokens: prompt tokens found in the prefix cache.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[dict[int, float] | None] | None = None
    finished: bool = False
    num_cached_tokens: int = 0
    metrics: Metrics = field(default_factory=Metrics)
