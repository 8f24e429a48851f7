"""Raw prompts on the engine, without a thought to look for: many at a time, as one job of the engine thread."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from spoutnik.engine.llm import LLM
from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.request import Request, Sample
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.delta import Delta


@dataclass(frozen=True)
class CompletionPlan:
    """prompts: token ids of each; params.n completions of each. seed_per_prompt: else the same prompt gives the same text.
    make_logits_processor: makes what holds one completion to its form. notes: sentences on what was asked for and is otherwise.
    """

    prompts: list[list[int]]
    params: SamplingParams
    seed: int
    seed_per_prompt: bool = False
    make_logits_processor: Callable[[], LogitsProcessor] | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def prompt(self) -> list[int]:
        """Of all, to be counted."""
        return [token for prompt in self.prompts for token in prompt]


@dataclass(eq=False)
class CompletionChoice:
    index: int
    sample: Sample | None = None
    generated: int = 0
    finish_reason: str | None = None


class Completions:
    """A Job of the engine thread. Completions of the first prompt come first. num_cached_tokens: of all prompts."""

    def __init__(self, llm: LLM, name: str, plan: CompletionPlan, on_deltas: Callable[[list[Delta]], None]):
        self.core, self.name, self.plan, self.on_deltas = llm.core, name, plan, on_deltas
        self.requests = [Request(f"{name}/{number}", None, prompt, plan.params, plan.seed, number * plan.seed_per_prompt,
                                 stream=True, make_logits_processor=plan.make_logits_processor, owner=self, adapter=llm.adapter)
                         for number, prompt in enumerate(plan.prompts)]
        self.choices = [CompletionChoice(index) for index in range(len(plan.prompts) * plan.params.n)]
        self.num_cached_tokens: int | None = None

    @property
    def done(self) -> bool:
        return all(choice.finish_reason for choice in self.choices)

    def start(self) -> None:
        for request in self.requests:
            self.core.add(request)
        samples = [sample for request in self.requests for sample in request.samples]
        for choice, sample in zip(self.choices, samples):
            choice.sample = sample

    def advance(self) -> None:
        deltas = [delta for choice in self.choices if choice.finish_reason is None and (delta := self._new_delta(choice))]
        if deltas:
            self.num_cached_tokens = sum(request.num_cached_tokens for request in self.requests)
            self.on_deltas(deltas)

    def _new_delta(self, choice: CompletionChoice) -> Delta | None:
        output = self.core.new_output(choice.sample)
        if output is None:
            return None
        choice.generated += len(output.token_ids)
        choice.finish_reason = output.finish_reason
        return Delta(choice.index, answer=output.text, ids=output.token_ids, logprobs=output.logprobs,
                     top_logprobs=output.top_logprobs or [], finish_reason=output.finish_reason,
                     stop_reason=None if output.stop_reason is None else str(output.stop_reason), generated=choice.generated)

    def fail(self, reason: str) -> None:
        self._end("error", reason)

    def abort(self) -> None:
        self._end("abort")

    def _end(self, finish_reason: str, stop_reason: str | None = None) -> None:
        unfinished = [choice for choice in self.choices if choice.finish_reason is None]
        for choice in unfinished:
            choice.finish_reason = finish_reason
        if unfinished:
            self.on_deltas([Delta(choice.index, finish_reason=finish_reason, stop_reason=stop_reason)
                            for choice in unfinished])
        for request in self.requests:
            self.core.abort(request.request_id)
