"""A request's n replies, from prompt to answer, each a chain of segments: engine requests, one after the other.

A thought is one segment, which ends at `</think>` or at its budget; the answer is the next, whose prompt, all that went before,
is in the cache: a new segment costs one step. Closing a thought, pausing, inserting a text: each aborts the segment under way
and starts another. What the reader sees comes from one state machine over the ids of all segments (text/thought.py).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import torch

from spoutnik.engine.llm import LLM
from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.request import Request, Sample
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.choice import Choice
from spoutnik.generation.delta import Delta
from spoutnik.generation.nonempty_answer import NonemptyAnswerProcessor, visible_tokens
from spoutnik.generation.options import GenerationPlan
from spoutnik.generation.thought_budget import ThoughtBudget
from spoutnik.text.thought import ThoughtStream

MAX_CHOICES = 1024  # of one request: its random numbers are numbered by segment and choice


class Steering(Protocol):
    """How the control endpoint, the page and the terminal steer a generation under way. Generation does it at once, between two
    engine steps; GenerationHandle has it done there and returns awaitables.

    end_thought: the answers begin. insert: puts a text into the thoughts, where it fits. abort: does nothing after the end.
    """

    def end_thought(self) -> Awaitable[None] | None: ...
    def insert(self, text: str) -> Awaitable[None] | None: ...
    def pause(self) -> Awaitable[None] | None: ...
    def resume(self) -> Awaitable[None] | None: ...
    def abort(self) -> None: ...


class Generation(Steering):
    """A Job of the engine thread. on_deltas: called there with what was added. num_cached_tokens: None before the prompt is
    computed."""

    def __init__(self, llm: LLM, name: str, plan: GenerationPlan, on_deltas: Callable[[list[Delta]], None]):
        self.llm, self.core, self.name, self.plan, self.on_deltas = llm, llm.core, name, plan, on_deltas
        # A structured answer holds no special tokens but the marks of tool calls, which are to be seen.
        keep_special = plan.make_logits_processor is not None and not plan.params.ignore_eos
        self.choices = [Choice(index, ThoughtStream(llm.tokenizer, plan.thinking, plan.params.stop, keep_special))
                        for index in range(plan.params.n)]
        for choice in self.choices:
            choice.has_answer = plan.continues_answer
        self.budget = ThoughtBudget(plan, llm.max_model_len)
        self.paused = False
        self.num_cached_tokens: int | None = None
        self._waiting: list[Choice] = []  # start when the prompt is in the cache
        self._segments = 0

    @property
    def done(self) -> bool:
        return all(choice.finish_reason for choice in self.choices)

    @property
    def thinking(self) -> bool:
        """Is a thought under way?"""
        return any(choice.stream.thinking and choice.finish_reason is None for choice in self.choices)

    def start(self) -> None:
        """All choices share the computation of the prompt: their thoughts are samples of one request."""
        first, *self._waiting = self.choices
        if self.plan.thinking and self.budget.remaining_thought(first) > 0:
            self._waiting = []
            self.start_segment(self.choices, self._thought_params(first))
        else:
            self._continue_choice(first)
        self._deliver()

    def advance(self) -> None:
        for choice in self.choices:
            self._collect(choice)
        if self.num_cached_tokens is not None and not self.paused:
            waiting, self._waiting = self._waiting, []
            for choice in waiting:
                self._continue_choice(choice)
        self._close_repetitive_thoughts()
        self._deliver()

    def fail(self, reason: str) -> None:
        requests = {choice.sample.request.request_id for choice in self.choices if choice.sample is not None}
        for choice in self.choices:
            choice.finish("error", reason, flush=False)
        self._deliver()  # before anything else can go wrong
        for request_id in requests:
            self.core.abort(request_id)

    def end_thought(self) -> None:
        for choice in self._interrupt(self._thinking_choices):
            choice.close_thought(self.plan.closing)
        self.resume()

    def insert(self, text: str) -> None:
        ids = self.llm.tokenizer.encode(text)
        for choice in self._interrupt(self._thinking_choices):
            if len(ids) < self.budget.remaining_positions(choice) - 1:
                choice.append(ids)
        self.resume()

    def pause(self) -> None:
        self._interrupt(self.choices)
        self._deliver()

    def resume(self) -> None:
        self.paused = False
        for choice in self.choices:
            if choice.sample is None and choice.finish_reason is None and choice not in self._waiting:
                self._continue_choice(choice)
        self._deliver()

    def abort(self) -> None:
        self._interrupt(self.choices)
        for choice in self.choices:
            choice.finish("abort")
        self._deliver()

    @property
    def _thinking_choices(self) -> list[Choice]:
        return [choice for choice in self.choices if choice.stream.thinking and choice not in self._waiting]

    def _interrupt(self, choices: list[Choice]) -> list[Choice]:
        """Collects the tokens of these choices and aborts their segments; none starts before `resume`. Returns those that have
        not finished, and are still in the same part (thought or answer)."""
        self.paused, before = True, [choice.stream.thinking for choice in choices]
        for choice in choices:
            self._collect(choice)
        for choice in choices:
            if choice.sample is not None:
                self.core.abort(choice.sample.request.request_id)
                choice.sample = None
        return [choice for choice, thinking in zip(choices, before)
                if choice.finish_reason is None and choice.stream.thinking == thinking]

    def _close_repetitive_thoughts(self) -> None:
        repeating = [choice for choice in self.choices if self.budget.is_repeating(choice)]
        if repeating and not self.paused:
            for choice in self._interrupt(self._thinking_choices):
                if choice in repeating:
                    choice.close_thought(self.plan.closing, "repetition")
            self.resume()

    def _continue_choice(self, choice: Choice) -> None:
        """Starts the next segment of one choice."""
        thinking, budget = choice.stream.thinking, self.budget
        if thinking and budget.remaining_thought(choice) > 0:
            self.start_segment([choice], self._thought_params(choice).changed(n=1))
            return
        if thinking:
            choice.close_thought(self.plan.closing, "thought_budget" if self.plan.max_thinking_tokens else None)
        if budget.remaining_positions(choice) < 1:
            choice.finish("length")
        else:
            self._start_answer(choice)

    def _thought_params(self, choice: Choice) -> SamplingParams:
        return self.plan.params.changed(max_tokens=self.budget.remaining_thought(choice), min_tokens=0, stop=(), logprobs=None,
                                        stop_token_ids=(choice.stream.end,))

    def _start_answer(self, choice: Choice) -> None:
        plan, max_tokens = self.plan, max(self.budget.remaining_tokens(choice), 1)
        marks = [choice.stream.start] if choice.stream.start is not None and max_tokens > 1 else []
        params = plan.params.changed(n=1, max_tokens=max_tokens, stop=(), min_tokens=min(plan.params.min_tokens, max_tokens),
                                     stop_token_ids=(*marks, *plan.params.stop_token_ids))
        processors: list[LogitsProcessor] = []
        if not choice.has_answer:
            ends = self.core.eos_ids.union(plan.params.stop_token_ids,
                                           () if self.budget.may_open_thought(choice) else marks)
            processors.append(NonemptyAnswerProcessor(visible_tokens(self.llm), torch.tensor(sorted(ends), dtype=torch.long),
                                                      max_tokens))
        if plan.make_logits_processor is not None:
            choice.structure = choice.structure or plan.make_logits_processor()
            processors.append(choice.structure)
        self.start_segment([choice], params, processors)

    def start_segment(self, choices: list[Choice], params: SamplingParams, processors: Sequence[LogitsProcessor] = ()) -> None:
        """One engine request for the next part of these choices, which have the same tokens so far. Its random numbers depend
        on the seed, the choice and its number of segments, whatever else runs."""
        first = choices[0]
        request = Request(f"{self.name}/{self._segments}", None, self.plan.prompt + first.ids, params, self.plan.seed,
                          first.segments * MAX_CHOICES + first.index, logits_processors=processors, owner=self)
        self._segments += 1
        self.core.add(request)
        for choice, sample in zip(choices, request.samples):
            choice.sample, choice.segments = sample, choice.segments + 1

    def _collect(self, choice: Choice) -> None:
        """Reads the tokens generated since the last time; where the segment has ended, starts what follows."""
        sample = choice.sample
        if sample is None:
            return
        sent, in_answer = sample.sent, not choice.stream.thinking
        ids, logprobs = self.core.new_tokens(sample)
        if self.num_cached_tokens is None and ids:
            self.num_cached_tokens = sample.request.num_cached_tokens
        count = self._append(choice, ids, sample.finish_reason == "stop" and sample.stop_reason is None)
        choice.generated += count
        if in_answer and sample.top_logprobs is not None:
            choice.delta.ids += ids[:count]
            choice.delta.logprobs += logprobs[:count]
            choice.delta.top_logprobs += sample.top_logprobs[sent:sent + count]
        if choice.stream.stopped is not None:
            self.core.abort(sample.request.request_id)
            choice.finish("stop")
        elif sample.finish_reason is not None:
            choice.sample = None
            self._end_segment(choice, sample)

    def _append(self, choice: Choice, ids: list[int], ended: bool) -> int:
        """Appends new tokens up to a stop text; returns how many count. ended: the last one is an end of sentence, which
        counts but is no text."""
        text_ids = ids[:-1] if ended else ids
        if not self.plan.params.stop or choice.stream.thinking:
            choice.append(text_ids)
            return len(ids)
        for count, token in enumerate(text_ids, start=1):
            choice.append([token])
            if choice.stream.stopped is not None:
                return count
        return len(ids)

    def _end_segment(self, choice: Choice, sample: Sample) -> None:
        """The sample has finished: so has the choice, or its next segment starts."""
        if sample.finish_reason == "error":
            choice.finish("error", str(sample.stop_reason))
            return
        marks = (choice.stream.start, choice.stream.end)
        at_mark = sample.finish_reason == "stop" and sample.stop_reason is not None and sample.stop_reason in marks
        if not choice.stream.thinking and not at_mark:
            choice.finish(sample.finish_reason)
            return
        if choice.has_answer and self.budget.remaining_tokens(choice) < 1:  # the answer's last token opened a thought
            choice.finish("length")
            return
        if choice.stream.thinking and sample.finish_reason == "stop" and not at_mark:
            choice.close_thought(self.plan.closing, "unclosed_thought")
        if choice.stream.thinking and at_mark and not (self.plan.may_think and self.budget.remaining_thought(choice) > 0):
            choice.append(self.llm.tokenizer.end_thought_ids)  # a thought that must not be, in the middle of an answer
        if not self.paused:
            self._continue_choice(choice)

    def _deliver(self) -> None:
        deltas = [delta for choice in self.choices if (delta := choice.take_delta()) is not None]
        if deltas:
            self.on_deltas(deltas)
