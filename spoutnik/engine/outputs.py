"""What a request gives back, in the shape that vLLM's users know."""

from dataclasses import dataclass, field


@dataclass
class CompletionOutput:
    """One sample, or, in a stream, what was added to it.

    index: its number in 0..n-1. token_ids: all of its tokens, the one that ended it included. text: without special tokens
        and stop text unless asked for; empty without a tokenizer.
    logprobs: of each token, under the distribution it was drawn from before truncation (tempered, penalised, not cut to
        top_p, top_k or min_p): what reinforcement learning needs. top_logprobs: where asked for, for each token the
        likeliest ones and itself, id -> log-probability under the model's own distribution, untouched.
    finish_reason: "stop", "length", "abort", "error" (stop_reason says what happened), None while it goes on.
    stop_reason: the stop text or stop token id that ended it; None for the end of sentence.
    """

    index: int = 0
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    @property
    def cumulative_logprob(self) -> float:
        return sum(self.logprobs)

    @property
    def finished(self) -> bool:
        """It ended by itself, not cut off."""
        return self.finish_reason == "stop"

    @property
    def reply_ids(self) -> list[int]:
        """token_ids without the token that ended it, where one did."""
        return self.token_ids[:-1] if self.finished and not isinstance(self.stop_reason, str) else self.token_ids


@dataclass
class Metrics:
    """Seconds since the request arrived: when it was first computed, gave its first token, was finished (None: not yet).
    drafted, accepted: tokens that speculation guessed for it, and those that were right."""

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
    """A request and its samples, in order of their index.

    prompt: None where it was given as token ids. prompt_logprobs: where asked for, None for the first token, then for each
        one the likeliest and itself, id -> log-probability. num_cached_tokens: prompt tokens that were not computed again.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[dict[int, float] | None] | None = None
    finished: bool = False
    num_cached_tokens: int = 0
    metrics: Metrics = field(default_factory=Metrics)
