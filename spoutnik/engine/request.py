"""A request on its way through the engine, and its samples."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from spoutnik.engine.adapters import LoadedAdapter
from spoutnik.engine.detokenizer import OutputText
from spoutnik.engine.logits_processors import AllowedTokensProcessor, BadWordsProcessor, LogitsProcessor, PenaltyProcessor
from spoutnik.engine.outputs import CompletionOutput, Metrics, RequestOutput
from spoutnik.engine.sampler import row_seed
from spoutnik.engine.sampling_params import PROCESSED_LOGPROBS, SamplingParams
from spoutnik.engine.scheduler import Sequence
from spoutnik.errors import RunError
from spoutnik.text.tokenizer import Tokenizer


@dataclass(eq=False, slots=True)
class Sample:
    """One of a request's n completions. token_ids, logprobs: as known when it last was not decoding.

    sequence: None until the prompt is computed, except for the first sample. text: only for stop texts and streams.
    drafts: guesses of its next tokens; ngrams: prompt lookup's index of its tokens. stuck: its next token is none.
    sent: tokens that a stream has given out; end_sent: the stream has given out its end.
    """

    request: "Request"
    index: int
    seed: int
    sequence: Sequence | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: OutputText | None = None
    logits_processors: list[LogitsProcessor] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] | None = None
    drafts: list[int] = field(default_factory=list)
    ngrams: Any = None
    stuck: bool = False
    sent: int = 0
    end_sent: bool = False
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    @property
    def params(self) -> SamplingParams:
        return self.request.params

    @property
    def reports_processed(self) -> bool:
        """Whether its log-probabilities are those of the distribution that is sampled from."""
        return self.params.logprobs_mode == PROCESSED_LOGPROBS

    def reported_logprobs(self, token_ids: list[int], logprobs: list[float], start: int = 0) -> list[float]:
        """Those of its tokens from `start` on in the mode of its top log-probabilities, if it reports any."""
        if self.top_logprobs is None:
            return logprobs
        return [at[token] for token, at in zip(token_ids, self.top_logprobs[start:start + len(token_ids)])]

    @property
    def checks_tokens(self) -> bool:
        """Whether each of its tokens goes through `accept_tokens`."""
        return self.text is not None or bool(self.logits_processors)

    def process(self, logits: Tensor, num_generated: int) -> None:
        """Its logits processors change the logits (V,) of its next token, in place. Where they leave none, it fails with it."""
        for processor in self.logits_processors:
            processor.apply(logits, num_generated)
        if (self.params.allowed_token_ids or self.params.bad_words) and logits.max() == float("-inf"):
            logits.zero_()
            self.stuck = True

    def accept_tokens(self, tokens: list[int]) -> int:
        """Hands new tokens to the logits processors and the text. Returns how many count: not those after one that ends it."""
        if self.stuck:
            self.fail("no token can follow: allowed_token_ids and bad_words leave none of those that may come here.")
            return 1
        for count, token in enumerate(tokens, start=1):
            try:
                for processor in self.logits_processors:
                    processor.feed(token)
            except RunError as error:
                self.fail(str(error))
                return count
            if self.text is not None and token not in self.request.stop_ids:
                stop = self.text.feed(token)
                if stop is not None:
                    self.finish_reason, self.stop_reason = "stop", stop
                    return count
        self.logits_processors = [processor for processor in self.logits_processors if not processor.done]
        return len(tokens)

    def finish(self, reason: str) -> None:
        """Ends it for this reason, unless it has ended for another."""
        self.finish_reason = self.finish_reason or reason

    def finish_at(self, token: int) -> None:
        """Ends it at its last token: a stop token, or the last of max_tokens."""
        if self.finish_reason is None and token in self.request.stop_ids:
            self.finish_reason, self.stop_reason = "stop", None if token in self.request.eos_ids else token
        self.finish("length")

    def fail(self, reason: str) -> None:
        self.finish_reason, self.stop_reason = "error", reason

    def output(self, tokenizer: Tokenizer | None) -> CompletionOutput:
        """The whole completion, once it has ended."""
        logprobs = self.reported_logprobs(self.token_ids, self.logprobs)
        output = CompletionOutput(self.index, "", self.token_ids, logprobs, self.top_logprobs, self.finish_reason,
                                  self.stop_reason)
        if self.text is not None:
            self.text.close()
            output.text = self.text.text
        elif tokenizer is not None:
            output.text = tokenizer.decode_after(self.request.prompt_token_ids, output.reply_ids,
                                                  keep_special=not self.params.skip_special_tokens)
        return output


@dataclass(eq=False, slots=True)
class Request:
    """n samples of one prompt.

    seed, seed_number: see `row_seed`. number: its place in the order of arrival. owner: the caller's; not read here.
    logits_processors: further ones, of its only sample.
    make_logits_processor: makes a further one for each sample. adapter: None is the base.
    eos_ids: ends of sentence that end it (none with ignore_eos); stop_ids: these and the params' stop_token_ids.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    seed: int
    seed_number: int
    number: int = 0
    stream: bool = False
    logits_processors: Collection[LogitsProcessor] = ()
    make_logits_processor: Callable[[], LogitsProcessor] | None = None
    owner: object = None
    adapter: LoadedAdapter | None = None
    eos_ids: frozenset[int] = frozenset()
    stop_ids: frozenset[int] = frozenset()
    samples: list[Sample] = field(default_factory=list)
    unfinished: int = 0
    prompt_logprobs: list[dict[int, float] | None] | None = None
    num_cached_tokens: int = 0
    metrics: Metrics = field(default_factory=Metrics)

    def create_samples(self, eos_ids: frozenset[int], tokenizer: Tokenizer | None, vocab_size: int) -> None:
        """Creates its samples, and for the first one the sequence that computes the prompt for all."""
        params, prompt = self.params, self.prompt_token_ids
        assert params.n == 1 or not self.logits_processors, "logits processors hold the state of one sample"
        self.eos_ids = frozenset() if params.ignore_eos else eos_ids
        self.stop_ids = self.eos_ids.union(params.stop_token_ids)
        self.unfinished = params.n
        self.prompt_logprobs = None if params.prompt_logprobs is None else [None]
        for index in range(params.n):
            sample = Sample(self, index, row_seed(self.seed, self.seed_number, index))
            if tokenizer is not None and (params.stop or self.stream):
                sample.text = OutputText(tokenizer, params, prompt)
            if params.changes_logits:
                stop_ids = sorted({*eos_ids, *params.stop_token_ids})
                sample.logits_processors.append(PenaltyProcessor(params, prompt, stop_ids, vocab_size))
            if params.allowed_token_ids:
                sample.logits_processors.append(AllowedTokensProcessor(params.allowed_token_ids, vocab_size))
            if params.bad_words:
                sample.logits_processors.append(BadWordsProcessor.of(params.bad_words, tokenizer))
            sample.logits_processors += self.logits_processors
            if self.make_logits_processor is not None:
                sample.logits_processors.append(self.make_logits_processor())
            sample.top_logprobs = None if params.logprobs is None else []
            self.samples.append(sample)
        self.samples[0].sequence = Sequence(list(prompt), len(prompt), (self.number, 0), num_samples=params.n,
                                            prefix_caching=params.prompt_logprobs is None, cache_salt=self.cache_salt,
                                            sample=self.samples[0])

    @property
    def cache_salt(self) -> bytes:
        """Of its sequences: blocks of another adapter, or of the base, are of no use to them."""
        return b"" if self.adapter is None else self.adapter.cache_salt

    @property
    def adapter_number(self) -> int:
        """The runner's, -1 for the base."""
        return -1 if self.adapter is None else self.adapter.number

    def output(self, outputs: list[CompletionOutput]) -> RequestOutput:
        return RequestOutput(self.request_id, self.prompt, self.prompt_token_ids, outputs, self.prompt_logprobs,
                             not self.unfinished, self.num_cached_tokens, self.metrics)
