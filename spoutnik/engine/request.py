"""A request on its way through the engine, and its samples."""

from collections.abc import Callable
from dataclasses import dataclass, field

from spoutnik.engine.detokenizer import TextStream
from spoutnik.engine.logits_processors import LogitsProcessor, PenaltyProcessor
from spoutnik.engine.outputs import CompletionOutput, Metrics, RequestOutput
from spoutnik.engine.sampler import row_seed
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.engine.scheduler import Sequence
from spoutnik.errors import RunError
from spoutnik.text.tokenizer import Tokenizer


@dataclass(eq=False, slots=True)
class Sample:
    """One of a request's n completions. token_ids, logprobs: as known when it last was not decoding.

    text, adjustments, top_logprobs: only where the request needs them (text: stop texts, or a stream; adjustments: to the
        logits of its next token).
    """

    request: "Request"
    index: int
    seed: int
    sequence: Sequence | None = None  # none until its prompt is computed, but for the first sample
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: TextStream | None = None
    logits_processors: list[LogitsProcessor] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] | None = None
    drafts: list[int] = field(default_factory=list)  # guesses of its next tokens
    places: object = None  # the drafter's
    sent: int = 0  # tokens that a stream has given out
    closed: bool = False  # the stream has given out its end
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    @property
    def params(self) -> SamplingParams:
        return self.request.params

    @property
    def watched(self) -> bool:
        """Must each of its tokens be looked at in Python?"""
        return self.text is not None or bool(self.logits_processors)

    def see(self, tokens: list[int]) -> int:
        """Looks at new tokens one by one; returns how many count, fewer than all where one of them ended it."""
        for number, token in enumerate(tokens, start=1):
            try:
                for processor in self.logits_processors:
                    processor.feed(token)
            except RunError as error:
                self.fail(str(error))
                return number
            if self.text is not None and token not in self.request.ends:
                stop = self.text.feed(token)
                if stop is not None:
                    self.finish_reason, self.stop_reason = "stop", stop
                    return number
        self.logits_processors = [processor for processor in self.logits_processors if not processor.done]
        return len(tokens)

    def end(self, reason: str) -> None:
        """It ends now, unless it has ended for a reason of its own."""
        self.finish_reason = self.finish_reason or reason

    def end_with(self, token: int) -> None:
        """Its last token: one that ends it, or the last that it may have."""
        if self.finish_reason is None and token in self.request.ends:
            self.finish_reason, self.stop_reason = "stop", None if token in self.request.eos_ids else token
        self.end("length")

    def fail(self, reason: str) -> None:
        self.finish_reason, self.stop_reason = "error", reason

    def output(self, tokenizer: Tokenizer | None) -> CompletionOutput:
        """What it gives back once it has ended."""
        made = CompletionOutput(self.index, "", self.token_ids, self.logprobs, self.top_logprobs, self.finish_reason,
                                self.stop_reason)
        if self.text is not None:
            self.text.close()
            made.text = self.text.text
        elif tokenizer is not None:
            made.text = tokenizer.decode(made.reply_ids, keep_special=not self.params.skip_special_tokens)
        return made


@dataclass(eq=False, slots=True)
class Request:
    """n samples of one prompt. number: how manieth it is, which also says which of two is younger.

    eos_ids: the ends of sentence that end it (none where it ignores them); ends: these, and the tokens that it names itself.
    seed, seed_number: see `row_seed`. constrain: makes what else limits the choice of a sample's tokens, from its index.
    owner: whoever asked for it, if that is of interest to the caller; it means nothing here.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    seed: int
    seed_number: int
    number: int = 0
    stream: bool = False
    constrain: Callable[[int], list[LogitsProcessor]] | None = None
    owner: object = None
    eos_ids: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()
    samples: list[Sample] = field(default_factory=list)
    unfinished: int = 0
    prompt_logprobs: list[dict[int, float] | None] | None = None
    num_cached_tokens: int = 0
    metrics: Metrics = field(default_factory=Metrics)

    def open(self, eos_ids: frozenset[int], tokenizer: Tokenizer | None, vocabulary: int) -> None:
        """Makes its samples, and of the first one the sequence that computes the prompt for all."""
        params, prompt = self.params, self.prompt_token_ids
        self.eos_ids = frozenset() if params.ignore_eos else eos_ids
        self.ends = self.eos_ids.union(params.stop_token_ids)
        self.unfinished = params.n
        self.prompt_logprobs = None if params.prompt_logprobs is None else [None]
        for index in range(params.n):
            made = Sample(self, index, row_seed(self.seed, self.seed_number, index))
            if tokenizer is not None and (params.stop or self.stream):
                made.text = TextStream(tokenizer, params)
            if params.adjusted:
                made.logits_processors.append(PenaltyProcessor(params, prompt, sorted({*eos_ids, *params.stop_token_ids}),
                                                               vocabulary))
            if self.constrain is not None:
                made.logits_processors += self.constrain(index)
            made.top_logprobs = None if params.logprobs is None else []
            self.samples.append(made)
        self.samples[0].sequence = Sequence(list(prompt), len(prompt), (self.number, 0), forks=params.n,
                                            reuse=params.prompt_logprobs is None, owner=self.samples[0])

    def output(self, outputs: list[CompletionOutput]) -> RequestOutput:
        return RequestOutput(self.request_id, self.prompt, self.prompt_token_ids, outputs, self.prompt_logprobs,
                             not self.unfinished, self.num_cached_tokens, self.metrics)
