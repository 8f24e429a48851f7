"""A request's n replies, from prompt to answer, each a chain of segments: engine requests, one after the other.

A thought is one segment, which ends at `</think>` or at its budget; the answer is the next, whose prompt, all that went before,
is in the cache: a new segment costs one step. Closing a thought, pausing, inserting a text: each aborts the segment under way
and starts another. What the reader sees comes from one state machine over the ids of all segments (text/thought.py). Where the
marks of thoughts are plain text (text/plain_thought.py), that machine finds them, and what a segment generated after one is
left out: a reply does not depend on when its tokens were looked at.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import torch

from spoutnik.engine.llm import LLM
from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.request import Request, Sample
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.choice import Choice
from spoutnik.generation.delta import Delta, GenerationWarning, WarningCode
from spoutnik.generation.nonempty_answer import MarkProcessor, NonemptyAnswerProcessor, token_texts
from spoutnik.generation.options import GenerationPlan, loosened
from spoutnik.generation.thought_budget import ThoughtBudget
from spoutnik.generation.tools.calls import CallAwareStops
from spoutnik.text.plain_thought import PlainThoughtStream
from spoutnik.text.thought import ThoughtStream, thought_stream
from spoutnik.text.thought_format import has_plain_marks, thought_format

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
        self.plain_marks = has_plain_marks(llm.tokenizer)
        self.choices = [Choice(index, self._make_stream()) for index in range(plan.params.n)]
        for choice in self.choices:
            choice.has_answer = plan.continues_answer
        self.budget = ThoughtBudget(plan, llm.max_model_len)
        self.paused = False
        self.num_cached_tokens: int | None = None
        self._waiting: list[Choice] = []  # start when the prompt is in the cache
        self._segments = 0

    def _make_stream(self) -> ThoughtStream | PlainThoughtStream:
        plan, tokenizer = self.plan, self.llm.tokenizer
        stops = CallAwareStops(tokenizer, plan.tools, plan.params.stop) if plan.tools.callable else plan.params.stop
        structured = plan.make_logits_processor is not None
        # A structured answer holds no special tokens but the marks of tool calls, which are to be seen.
        keep_special = structured and not plan.params.ignore_eos
        return thought_stream(tokenizer, plan.prompt, plan.thinking, stops, keep_special, structured,
                              continues=plan.prefill is not None)

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
        for reason in loosened(self.plan):
            first.delta.warnings.append(GenerationWarning("loosened_tool", 0, reason))
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
            self._close_thought(choice)
        self.resume()

    def insert(self, text: str) -> None:
        ids = self.llm.tokenizer.encode(text, continues=True)
        thinking = self._interrupt(self._thinking_choices)
        fitting = [choice for choice in thinking
                   if len(ids) < self.budget.remaining_positions(choice) - 1 and not choice.stream.half_mark]
        for choice in fitting:
            choice.append(ids)
        unfinished = [choice for choice in self.choices if choice.finish_reason is None]
        for choice in unfinished[:1] if not thinking else thinking:  # those that answer already are not meant
            if choice not in fitting:
                choice.delta.warnings.append(GenerationWarning("dropped_insertion", len(ids)))
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
                    self._close_thought(choice, "repetition")
            self.resume()

    def _close_thought(self, choice: Choice, warning: WarningCode | None = None) -> None:
        """With a sentence that says why there is no more of it; one that was about to end by itself ends so."""
        if half := choice.stream.half_mark:
            choice.append(self.llm.tokenizer.encode(f"{self.llm.tokenizer.marks.end[len(half):]}\n\n", continues=True))
        else:
            choice.close_thought(self.plan.closing, warning)

    def _continue_choice(self, choice: Choice) -> None:
        """Starts the next segment of one choice."""
        thinking, budget = choice.stream.thinking, self.budget
        if thinking and budget.remaining_thought(choice) > 0:
            self.start_segment([choice], self._thought_params(choice).changed(n=1))
            return
        if thinking:
            self._close_thought(choice, "thought_budget" if self.plan.max_thinking_tokens else None)
        if budget.remaining_positions(choice) < 1:
            choice.finish("length")
        else:
            self._start_answer(choice)

    def _thought_params(self, choice: Choice) -> SamplingParams:
        stop, stop_ids = ((self.llm.tokenizer.marks.end,), ()) if self.plain_marks else ((), (choice.stream.end,))
        return self.plan.params.changed(max_tokens=self.budget.remaining_thought(choice), min_tokens=0, logprobs=None,
                                        stop=stop, stop_token_ids=stop_ids)

    def _start_answer(self, choice: Choice) -> None:
        plan, max_tokens = self.plan, max(self.budget.remaining_tokens(choice), 1)
        marks = [choice.stream.start] if choice.stream.start is not None and max_tokens > 1 else []
        params = plan.params.changed(n=1, max_tokens=max_tokens, stop=(), min_tokens=min(plan.params.min_tokens, max_tokens),
                                     stop_token_ids=(*marks, *plan.params.stop_token_ids))
        processors: list[LogitsProcessor] = []
        if not choice.has_answer:
            texts, may_open = token_texts(self.llm), self.budget.may_open_thought(choice)
            ends = self.core.eos_ids.union(plan.params.stop_token_ids, () if may_open else marks)
            processors.append(NonemptyAnswerProcessor(texts.visible, torch.tensor(sorted(ends), dtype=torch.long), max_tokens))
            if self.plain_marks:
                tokens_after = len(plan.closing) + 2  # of thought and of answer
                processors.append(MarkProcessor(texts, self.llm.tokenizer.marks, choice.stream.has_thought, max_tokens,
                                                max_tokens - tokens_after if may_open else 0))
        if plan.make_logits_processor is not None:
            choice.structure = choice.structure or plan.make_logits_processor()
            processors.append(choice.structure)
        self.start_segment([choice], params, processors)

    def start_segment(self, choices: list[Choice], params: SamplingParams, processors: Sequence[LogitsProcessor] = ()) -> None:
        """One engine request for the next part of these choices, which have the same tokens so far. Its random numbers depend
        on the seed, the choice and its number of segments, whatever else runs."""
        first = choices[0]
        request = Request(f"{self.name}/{self._segments}", None, self.plan.prompt + first.ids, params, self.plan.seed,
                          first.segments * MAX_CHOICES + first.index, logits_processors=processors, owner=self,
                          adapter=self.llm.adapter)
        self._segments += 1
        self.core.add(request)
        for choice, sample in zip(choices, request.samples):
            choice.sample, choice.segments = sample, choice.segments + 1

    def _collect(self, choice: Choice) -> None:
        """Reads the tokens generated since the last time; where the segment has ended, starts what follows."""
        sample = choice.sample
        if sample is None:
            return
        sent, thinking = sample.sent, choice.stream.thinking
        ids, logprobs = self.core.new_tokens(sample)
        if self.num_cached_tokens is None and ids:
            # A segment that begins after a closed thought may find that in the cache, too: it is not the prompt's.
            self.num_cached_tokens = min(sample.request.num_cached_tokens, len(self.plan.prompt))
        count = self._append(choice, ids, sample.finish_reason == "stop" and sample.stop_reason is None)
        choice.generated += count
        if not thinking and sample.top_logprobs is not None:
            choice.add_logprobs(ids[:count], logprobs[:count], sample.top_logprobs[sent:sent + count])
        turned = choice.stream.thinking != thinking
        if choice.stream.stopped is not None:
            self.core.abort(sample.request.request_id)
            choice.finish("stop")
        elif turned or sample.finish_reason is not None:
            if turned and self.plain_marks:
                self._leave_segment(choice, sample)
            choice.sample = None
            self._end_segment(choice, sample, turned)

    def _leave_segment(self, choice: Choice, sample: Sample) -> None:
        """At a mark in plain text, which the engine may not know. Where the answer is held to a form, the mark's token must not
        hold the answer's beginning, which the form did not see."""
        if sample.finish_reason is None and sample.request.params.n == 1:
            self.core.abort(sample.request.request_id)
        overshoot, tokenizer = choice.stream.overshoot, self.llm.tokenizer
        if not choice.stream.thinking and overshoot.strip() and self.plan.make_logits_processor is not None:
            last = tokenizer.decode_after(self.plan.prompt + choice.ids[:-1], choice.ids[-1:])
            choice.ids[-1:] = tokenizer.encode(last.removesuffix(overshoot), continues=True)

    def _append(self, choice: Choice, ids: list[int], ended: bool) -> int:
        """Appends new tokens up to a stop text, or a mark in plain text; returns how many count. ended: the last one is an end
        of sentence, which counts but is no text."""
        text_ids, stream = ids[:-1] if ended else ids, choice.stream
        if not stream.may_turn and (not self.plan.params.stop or stream.thinking):
            choice.append(text_ids, generated=True)
            return len(ids)
        thinking = stream.thinking
        for count, token in enumerate(text_ids, start=1):
            choice.append([token], generated=True)
            if stream.stopped is not None or self.plain_marks and stream.thinking != thinking:
                return count
        return len(ids)

    def _end_segment(self, choice: Choice, sample: Sample, turned: bool) -> None:
        """The sample has finished, or a mark of thought has come: the choice has finished, or its next segment starts."""
        if sample.finish_reason == "error" and not turned:
            choice.finish("error", str(sample.stop_reason))
            return
        marks = (choice.stream.start, choice.stream.end)
        at_mark = turned or sample.finish_reason == "stop" and sample.stop_reason is not None and sample.stop_reason in marks
        if turned and choice.stream.thinking and not choice.has_answer:
            choice.structure = None  # the form that saw the mark
        if not choice.stream.thinking and not at_mark:
            choice.finish(sample.finish_reason)
            return
        if choice.has_answer and self.budget.remaining_tokens(choice) < 1:  # the answer's last token opened a thought
            choice.finish("length")
            return
        if choice.stream.thinking and sample.finish_reason == "stop" and not at_mark:
            self._close_thought(choice, "unclosed_thought")
        if choice.stream.thinking and at_mark and not (self.plan.may_think and self.budget.remaining_thought(choice) > 0):
            # Closes a thought that must not be, in the middle of an answer.
            choice.append(thought_format(self.llm.tokenizer).closing_ids(self.llm.tokenizer))
        if not self.paused:
            self._continue_choice(choice)

    def _deliver(self) -> None:
        deltas = [delta for choice in self.choices if (delta := choice.take_delta()) is not None]
        if deltas:
            self.on_deltas(deltas)
