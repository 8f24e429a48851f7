"""One reply, from prompt to answer: a chain of engine requests.

The thought is one request, which ends at `</think>` or at its budget; the answer is the next, whose prompt is all that went
before: its tokens are in the cache, so a new link costs one step. Closing a thought that is too long or goes in circles, ending
it on demand, pausing, putting a sentence into it: each gives up the link at work and begins another. What the reader sees comes
from one state machine over the ids of all links (text/thought.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spoutnik.engine.llm import LLM
from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.request import Request, Sample
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.repetition import in_circles
from spoutnik.text.thought import ThoughtStream

LOOKED_AT = 32  # tokens of a thought between two looks for circles
MOST_REPLIES = 1024  # to one request

CUT = "the thought reached its budget of {} tokens and was closed; the answer was written without the rest of it"
CIRCLES = "the thought went in circles and was closed after {} tokens"
UNCLOSED = "the model ended inside its thought; it was closed and asked for the answer"


@dataclass(frozen=True)
class GenerationPlan:
    """What a reply is to be; all of it is in force.

    prompt: token ids, as the template rendered them. thinking: they end inside a thought.
    params: how tokens are chosen, in both parts. Its max_tokens counts what is generated, thought and answer; its stop texts
        end the answer alone; n replies are made at the same time.
    max_thinking_tokens: of the thought; the rest of max_tokens is the answer's. may_think: the model may open a thought itself.
    closing: the ids that close a thought which does not end by itself, `</think>` among them.
    detect_loops: a thought in circles is closed. constrain: makes what limits an answer's tokens (structured output).
    seed: of the random numbers.
    """

    prompt: list[int]
    thinking: bool
    params: SamplingParams
    max_thinking_tokens: int
    closing: list[int]
    seed: int
    may_think: bool = True
    detect_loops: bool = True
    constrain: Callable[[], LogitsProcessor] | None = None


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
    warnings: list[str] = field(default_factory=list)
    thinking: bool = False  # what comes next is thought
    thought_tokens: int = 0  # so far; those put in by us too
    generated: int = 0  # so far, thought and answer


class Choice:
    """One of a request's n replies: its tokens so far, and the sample that is making more (None: paused, or over)."""

    def __init__(self, index: int, stream: ThoughtStream):
        self.index, self.stream = index, stream
        self.ids: list[int] = []  # all that follows the prompt, what we put in too
        self.thought: list[int] = []
        self.generated = self.links = 0
        self.answered = False  # something of the answer can be seen
        self.sample: Sample | None = None
        self.constraint: LogitsProcessor | None = None
        self.finish_reason: str | None = None
        self.looked_at = 0
        self.delta = Delta(index)

    def take(self, ids: list[int]) -> None:
        """Tokens that follow."""
        if self.stream.thinking:
            self.thought += ids
        self.ids += ids
        self._show(self.stream.feed(ids))

    def finish(self, reason: str, why: str | None = None) -> None:
        if self.finish_reason is None:
            self.finish_reason = self.delta.finish_reason = reason
            self.delta.stop_reason = why or self.stream.stopped
            self._show(self.stream.close())
        self.sample = None

    def fail(self, reason: str) -> None:
        """As `finish`, where nothing of it can be relied on: what was held back of its text is lost."""
        if self.finish_reason is None:
            self.finish_reason = self.delta.finish_reason = "error"
            self.delta.stop_reason = reason
        self.sample = None

    def _show(self, texts: tuple[str, str]) -> None:
        self.delta.thought += texts[0]
        self.delta.answer += texts[1]
        self.answered = self.answered or bool(texts[1])

    @property
    def circling(self) -> bool:
        """Looked at every LOOKED_AT tokens of the thought."""
        if not self.stream.thinking or len(self.thought) < self.looked_at + LOOKED_AT:
            return False
        self.looked_at = len(self.thought)
        return in_circles(self.thought)


class Generation:
    """Lives in the engine's thread (a Job of the worker). deliver: gets what was added, whenever something was."""

    def __init__(self, llm: LLM, name: str, plan: GenerationPlan, deliver: Callable[[list[Delta]], None]):
        self.llm, self.core, self.name, self.plan, self.deliver = llm, llm.core, name, plan, deliver
        keep_special = plan.constrain is not None and not plan.params.ignore_eos  # the form allows marks of tool calls alone
        self.choices = [Choice(index, ThoughtStream(llm.tokenizer, plan.thinking, plan.params.stop, keep_special))
                        for index in range(plan.params.n)]
        self.paused = False
        self.cached: int | None = None  # tokens of the prompt that were in the cache; None until it is computed
        self._later: list[Choice] = []  # begin when the prompt is in the cache
        self._links = 0

    @property
    def done(self) -> bool:
        return all(choice.finish_reason for choice in self.choices)

    # ---------------------------------------------------------------------------------------------- the worker's side

    def start(self) -> None:
        """All replies share the computation of the prompt: thoughts as samples of one request."""
        first, *self._later = self.choices
        if self.plan.thinking and self._thought_room(first) > 0:
            self._later = []
            self._link(self.choices, self._thought_params(first))
        else:
            self._go_on(first)
        self._hand_out()

    def advance(self) -> None:
        for choice in self.choices:
            if choice.sample is not None:
                self._take(choice)
        if self.cached is not None and not self.paused:
            later, self._later = self._later, []
            for choice in later:
                self._go_on(choice)
        self._break_circles()
        self._hand_out()

    def fail(self, reason: str) -> None:
        under_way = {choice.sample.request.request_id for choice in self.choices if choice.sample is not None}
        for choice in self.choices:
            choice.fail(reason)
        self._hand_out()  # before anything else can go wrong
        for name in under_way:
            self.core.abort(name)

    def abort(self) -> None:
        """Nobody waits for it any more."""
        self._interrupt(self.choices)
        for choice in self.choices:
            choice.finish("abort")
        self._hand_out()

    # ------------------------------------------------------------------------------------------ steering, between steps

    def end_thought(self) -> None:
        """Thoughts are closed now, and the answers begin."""
        for choice in self._interrupt(self._thinking):
            self._close(choice)
        self.resume()

    def insert(self, text: str) -> None:
        """Puts a text into the thoughts that are under way, where there is room for it."""
        ids = self.llm.tokenizer.encode(text)
        for choice in self._interrupt(self._thinking):
            if len(ids) < self._places(choice) - 1:
                choice.take(ids)
        self.resume()

    def pause(self) -> None:
        self._interrupt(self.choices)
        self._hand_out()

    def resume(self) -> None:
        self.paused = False
        for choice in self.choices:
            if choice.sample is None and choice.finish_reason is None and choice not in self._later:
                self._go_on(choice)
        self._hand_out()

    @property
    def _thinking(self) -> list[Choice]:
        return [choice for choice in self.choices if choice.stream.thinking and choice not in self._later]

    def _interrupt(self, choices: list[Choice]) -> list[Choice]:
        """Takes what these have made and gives up their links; no new one begins before `resume`. Returns those of them that
        go on where they were: thought or answer, and not over."""
        self.paused, before = True, [choice.stream.thinking for choice in choices]
        for choice in choices:
            if choice.sample is not None:
                self._take(choice)
        for choice in choices:
            if choice.sample is not None:
                self.core.abort(choice.sample.request.request_id)
                choice.sample = None
        return [choice for choice, thinking in zip(choices, before)
                if choice.finish_reason is None and choice.stream.thinking == thinking]

    def _break_circles(self) -> None:
        circling = [choice for choice in self.choices if self.plan.detect_loops and choice.circling]
        if circling and not self.paused:
            for choice in self._interrupt(self._thinking):
                if choice in circling:
                    choice.delta.warnings.append(CIRCLES.format(choice.stream.thought_tokens))
                    self._close(choice)
            self.resume()

    # ------------------------------------------------------------------------------------------------------- the chain

    def _places(self, choice: Choice) -> int:
        """Of the places that the model and its cache have for one reply, those that are left; enough to close the thought are
        kept for that. A link that did not fit would wait for ever, and all that came after it."""
        places = self.llm.max_model_len
        left = places - len(self.plan.prompt) - len(choice.ids)
        return left - len(self.plan.closing) * choice.stream.thinking

    def _room(self, choice: Choice) -> int:
        """Tokens that may still be generated."""
        return min(self.plan.params.max_tokens - choice.generated, self._places(choice))

    def _thought_room(self, choice: Choice) -> int:
        return min(self.plan.max_thinking_tokens - choice.stream.thought_tokens, self._room(choice) - 1)

    def _thought_params(self, choice: Choice) -> SamplingParams:
        return self.plan.params.changed(max_tokens=self._thought_room(choice), min_tokens=0, stop=(), logprobs=None,
                                        stop_token_ids=(choice.stream.end,))

    def _may_open(self, choice: Choice) -> bool:
        """May the answer begin a thought (again)? Only if something can be thought, and said after it."""
        budget = self.plan.max_thinking_tokens - choice.stream.thought_tokens
        room = min(self.plan.params.max_tokens - choice.generated, self._places(choice) - len(self.plan.closing))
        return self.plan.may_think and budget > 0 and room > 2  # its mark, a token of it, one of the answer

    def _close(self, choice: Choice) -> None:
        choice.take(self.plan.closing)

    def _go_on(self, choice: Choice) -> None:
        """Begins the next link of one reply."""
        if choice.stream.thinking and self._thought_room(choice) > 0:
            self._link([choice], self._thought_params(choice).changed(n=1))
            return
        if choice.stream.thinking:
            if self.plan.max_thinking_tokens:
                choice.delta.warnings.append(CUT.format(choice.stream.thought_tokens))
            self._close(choice)
        if self._places(choice) < 1:
            choice.finish("length")
            return
        plan, room = self.plan, max(self._room(choice), 1)
        marks = [choice.stream.start] if choice.stream.start is not None and room > 1 else []
        params = plan.params.changed(n=1, max_tokens=room, stop=(), min_tokens=min(plan.params.min_tokens, room),
                                     stop_token_ids=(*marks, *plan.params.stop_token_ids))
        constraints: list[LogitsProcessor] = []
        if not choice.answered:
            ends = self.core.eos_ids.union(plan.params.stop_token_ids, () if self._may_open(choice) else marks)
            constraints.append(Answered(shown_tokens(self.llm), torch.tensor(sorted(ends), dtype=torch.long), room))
        if plan.constrain is not None:
            choice.constraint = choice.constraint or plan.constrain()
            constraints.append(choice.constraint)
        self._link([choice], params, constraints)

    def _link(self, choices: list[Choice], params: SamplingParams,
              constraints: Sequence[LogitsProcessor] | None = None) -> None:
        """One engine request for the next part of these replies, which have the same tokens so far. Its random numbers are
        those of (seed, which link of which reply), whatever else runs."""
        first = choices[0]
        request = Request(f"{self.name}/{self._links}", None, self.plan.prompt + first.ids, params, self.plan.seed,
                          first.links * MOST_REPLIES + first.index, logits_processors=constraints or (), owner=self)
        self._links += 1
        self.core.add(request)
        for choice, sample in zip(choices, request.samples):
            choice.sample, choice.links = sample, choice.links + 1

    def _take(self, choice: Choice) -> None:
        """What a strand's link has made since the last time; where it has ended, what follows."""
        sample, begun = choice.sample, choice.sample.sent
        ids, logprobs = self.core.new_tokens(sample)
        if self.cached is None and ids:
            self.cached = sample.request.num_cached_tokens
        in_answer = not choice.stream.thinking
        count = self._read(choice, ids, sample.finish_reason == "stop" and sample.stop_reason is None)
        choice.generated += count
        if in_answer and sample.top_logprobs is not None:
            choice.delta.ids += ids[:count]
            choice.delta.logprobs += logprobs[:count]
            choice.delta.top_logprobs += sample.top_logprobs[begun:begun + count]
        if choice.stream.stopped is not None:
            self.core.abort(sample.request.request_id)
            choice.finish("stop")
        elif sample.finish_reason is not None:
            choice.sample = None
            self._link_ended(choice, sample)

    def _read(self, choice: Choice, ids: list[int], ended: bool) -> int:
        """How many of the tokens count. ended: the last one is an end of sentence, which is no text."""
        read = ids[:-1] if ended else ids
        if not self.plan.params.stop or choice.stream.thinking:
            choice.take(read)
            return len(ids)
        for count, token in enumerate(read, start=1):
            choice.take([token])
            if choice.stream.stopped is not None:
                return count
        return len(ids)

    def _link_ended(self, choice: Choice, sample: Sample) -> None:
        if sample.finish_reason == "error":
            choice.finish("error", str(sample.stop_reason))
            return
        marks = (choice.stream.start, choice.stream.end)
        other_part = sample.finish_reason == "stop" and sample.stop_reason is not None and sample.stop_reason in marks
        if not choice.stream.thinking and not other_part:
            choice.finish(sample.finish_reason)
            return
        if choice.answered and self._room(choice) < 1:  # the last token of the answer opened a thought
            choice.finish("length")
            return
        if choice.stream.thinking and sample.finish_reason == "stop" and not other_part:
            choice.delta.warnings.append(UNCLOSED)
            self._close(choice)
        if choice.stream.thinking and other_part and not (self.plan.may_think and self._thought_room(choice) > 0):
            choice.take(self.llm.tokenizer.end_thought_ids)  # a thought that must not be, in the middle of an answer
        if not self.paused:
            self._go_on(choice)

    def _hand_out(self) -> None:
        deltas = []
        for choice in self.choices:
            delta = choice.delta
            if delta.thought or delta.answer or delta.ids or delta.finish_reason or delta.warnings:
                delta.thinking, delta.thought_tokens = choice.stream.thinking, choice.stream.thought_tokens
                delta.generated = choice.generated
                deltas.append(delta)
                choice.delta = Delta(choice.index)
        if deltas:
            self.deliver(deltas)


class Answered:
    """Until an answer shows something it must not end, and its last token must show something: no answer is empty.

    shows (V,) bool: the tokens that do. ends: those that must not come before.
    """

    def __init__(self, shows: Tensor, ends: Tensor, max_tokens: int):
        self.shows, self.ends, self.max_tokens = shows, ends, max_tokens
        self.done = False

    def feed(self, token: int) -> None:
        self.done = self.done or bool(self.shows[token])

    def apply(self, logits: Tensor, generated: int) -> None:
        if not self.done:
            logits[self.ends] = float("-inf")
            if generated + 1 >= self.max_tokens:
                logits[~self.shows] = float("-inf")


def shown_tokens(llm: LLM) -> Tensor:
    """(V,) bool: which tokens are text that can be seen, each by itself."""
    shows = getattr(llm, "shown_tokens", None)
    if shows is None:
        tokenizer = llm.tokenizer
        shows = torch.zeros(llm.config.vocab_size, dtype=torch.bool)
        texts = tokenizer.bpe.decode_batch([[token] for token in range(tokenizer.vocab_size)], skip_special_tokens=True)
        shows[:len(texts)] = torch.tensor([bool(text.strip()) and "\ufffd" not in text for text in texts])
        shows[[mark for mark in (tokenizer.think_id, tokenizer.end_think_id) if mark is not None]] = False
        llm.shown_tokens = shows
    return shows
