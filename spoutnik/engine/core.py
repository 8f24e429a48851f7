"""The engine: requests in, one step at a time, results out. It joins scheduler, runner, sampling and drafts.

A step: the scheduler says who computes what; the runner does; every decoding row chooses its next token (or few, where
drafts were right); prompts that are complete choose their first; what has ended leaves.
"""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from spoutnik.engine.input_batch import InputBatch
from spoutnik.engine.request import Request, Sample
from spoutnik.engine.runners.base import Runner
from spoutnik.engine.sampler import SamplingMetadata, likeliest, sample, uniforms_of
from spoutnik.engine.scheduler import Chunk, Scheduler, SchedulerOutput, Sequence
from spoutnik.engine.speculative import Drafter
from spoutnik.engine.step import FEW, EngineStats, Step, StepOutput, wanted_of
from spoutnik.engine.token_selection import NOT_FINITE, Asked, accept_all, accepted, first_tokens, read_prompt, replace_broken
from spoutnik.text.tokenizer import Tokenizer


class EngineCore:
    """eos_ids: tokens that end a completion. tokenizer: for text and stop texts. clock: seconds."""

    def __init__(self, runner: Runner, scheduler: Scheduler, eos_ids: Iterable[int], tokenizer: Tokenizer | None = None,
                 drafter: Drafter | None = None, clock: Callable[[], float] = time.perf_counter):
        self.runner, self.scheduler, self.tokenizer, self.drafter, self.clock = runner, scheduler, tokenizer, drafter, clock
        self.vocabulary = runner.config.vocab_size
        self.eos_ids = frozenset(eos_ids)
        self.rows = InputBatch(scheduler.max_num_seqs)
        self.requests: dict[str, Request] = {}
        self.counts = EngineStats()
        self.max_multi_steps = runner.max_multi_steps  # steps without a look at what else there is to do; may be lowered
        self._number = self._ahead = 0
        self._watched: dict[Sample, None] = {}  # decoding samples whose tokens are looked at one by one
        self._asked: dict[Sample, None] = {}  # those that report likely tokens

    def add(self, request: Request) -> None:
        """The caller has checked it."""
        request.metrics.arrival = self.clock()
        request.number, self._number = self._number, self._number + 1
        request.open(self.eos_ids, self.tokenizer, self.vocabulary)
        self.requests[request.request_id] = request
        self.scheduler.add(request.samples[0].sequence)

    def abort(self, request_id: str) -> Request | None:
        """Ends a request where it is, between two steps; None where there is none of that name (it has ended already)."""
        request = self.requests.get(request_id)
        if request is None:
            return None
        for made in request.samples:
            if made.finish_reason is None:
                self._keep(made)
                made.end("abort")
                if made.sequence is not None:
                    self._leave([made])
        request.unfinished = 0
        self._close(request)
        return request

    def new_tokens(self, made: Sample) -> tuple[list[int], list[float]]:
        """What a sample has got since the last call, for a stream."""
        row = -1 if made.sequence is None else made.sequence.row
        tokens, logprobs = self.rows.made(row, made.sent) if row >= 0 else (made.token_ids[made.sent:],
                                                                            made.logprobs[made.sent:])
        made.sent += len(tokens)
        return tokens, logprobs

    @torch.no_grad()
    def step(self) -> StepOutput:
        if not self.requests:
            return StepOutput(0, [], [])
        drafting = self.drafter is not None and self.drafter.announce(self.rows)
        alone = not drafting and self._can_multi_step()
        plan = self._schedule()
        if alone and self.rows and not plan.chunks:
            return self._generate()
        step = Step.of(plan, self.rows, drafting)
        logits, hidden = self.runner.forward(step.batch)
        if step.rows:
            self._decode(logits[:step.decoded], step)
        if step.plan.chunks:
            self._read_chunks(logits[step.decoded:], step)
        if self.drafter is not None:
            self.drafter.draft(self.rows, step, hidden)
        if step.copies:
            self.runner.copy_blocks(*torch.tensor(step.copies).T.contiguous())
        self.counts.steps += 1
        return self._finish(step.made, step.ended)

    def _schedule(self) -> SchedulerOutput:
        plan = self.scheduler.schedule()
        for sequence in plan.preempted:
            self._keep(sequence.owner)
            sequence.tokens = sequence.owner.request.prompt_token_ids + sequence.owner.token_ids
        if plan.preempted:
            self._withdraw(plan.preempted)
            self.counts.preemptions += len(plan.preempted)
        if plan.grown:
            (self.rows.append_blocks if self.drafter is None else self.rows.read_blocks)(plan.grown)
        return plan

    def _can_multi_step(self) -> bool:
        """May the rows generate a few tokens on their own? If so, they ask for the places. Nobody must want to see one before
        the next is chosen."""
        self._ahead = min(self.runner.max_multi_steps, self.max_multi_steps)
        if self._ahead == 1 or self._watched or self._asked or self.scheduler.prefilling:
            return False
        if any([s.owner.request.stream for s in self.rows.sequences]):
            return False
        for sequence, left in zip(self.rows.sequences, self._left()):
            sequence.ahead = min(self._ahead, left) - 1
        return True

    def _left(self) -> list[int]:
        """How many tokens each row may still generate."""
        return (self.rows.limits - self.rows.generated).tolist()

    def _generate(self) -> StepOutput:
        """The rows go on alone, as far as all of them have places."""
        rows = self.rows
        places = [s.room - s.length + 1 for s in rows.sequences]
        steps = min([self._ahead, *(have for have, left in zip(places, self._left()) if have < left)])
        made = self.runner.decode_multi_step(rows.decoding(), steps)
        rows.append_generated(made)
        if self.drafter is not None:
            self.drafter.pass_over(rows)
        for sequence, count in zip(rows.sequences, made.counts.tolist()):
            sequence.length += count
        broken = set(made.broken.nonzero()[:, 0].tolist())
        ended = []
        for row in sorted(broken.union(rows.over().nonzero()[:, 0].tolist())):
            ended.append(rows.sequences[row].owner)
            ended[-1].fail(NOT_FINITE) if row in broken else ended[-1].end_with(int(rows.tokens[row]))
        self.counts.steps += steps
        return self._finish(int(made.counts.sum()), ended)

    def _decode(self, logits: Tensor, step: Step) -> None:
        """Each decoding row's next token, or few."""
        rows, settings = self.rows, self._settings(step)
        asked = []
        for made in self._asked:
            start = step.place(made.sequence.row)
            asked.append((made, logits[start:start + 1 + made.sequence.drafts].clone()))
        broken = replace_broken(logits)
        for made in self._watched:
            row = made.sequence.row
            for processor in made.logits_processors:
                processor.apply(logits[step.place(row)], rows.count(row))
        step.chosen, logprobs = sample(logits, settings)
        if step.starts is None and step.rows > FEW:
            leaving = accept_all(rows, step.chosen, logprobs, broken, self._watched, asked)
            step.made = step.rows
        else:
            leaving = self._accept_each(step, logprobs, broken, asked)
        for row in leaving:
            made = rows.sequences[row].owner
            made.end_with(int(rows.tokens[row]))
            step.ended.append(made)
        for made in [made for made in self._watched if not made.watched]:
            del self._watched[made]

    def _settings(self, step: Step) -> SamplingMetadata:
        """For each token of the decoding rows."""
        rows = self.rows
        if step.starts is None:
            return rows.settings() if step.rows > FEW else SamplingMetadata(
                *rows.columns, uniforms_of(zip(rows.seeds.tolist(), rows.generated.tolist())))
        pairs = [(seed, first + place) for s, seed, first in zip(rows.sequences, rows.seeds.tolist(), rows.generated.tolist())
                 for place in range(1 + s.drafts)]
        row = torch.tensor([row for row, s in enumerate(rows.sequences) for _ in range(1 + s.drafts)])
        return SamplingMetadata(*rows.reals[:, row].unbind(), uniforms_of(pairs))

    def _accept_each(self, step: Step, logprobs: Tensor, broken: list[int], asked: Asked) -> list[int]:
        """Few rows, one by one; returns those that are over."""
        rows, tokens, logprobs = self.rows, step.chosen.tolist(), logprobs.tolist()
        raw, step.kept, leaving = dict(asked), [], []
        for row, sequence in enumerate(rows.sequences):
            made, start = sequence.owner, step.place(row)
            new = accepted(made, tokens[start:start + 1 + sequence.drafts], made.params.max_tokens - rows.count(row))
            if broken and not set(broken).isdisjoint(range(start, start + len(new))):
                made.fail(NOT_FINITE)
            else:
                rows.extend(row, new, logprobs[start:start + len(new)])
                sequence.length += len(new)
                step.made += len(new)
                if sequence.drafts:
                    self._count_drafts(made.request, sequence.drafts, len(new) - 1)
                if made in raw:
                    made.top_logprobs += likeliest(raw[made][:len(new)], made.params.logprobs, new)
            step.kept.append(len(new))
            if made.finish_reason or new[-1] in made.request.ends or made.params.max_tokens <= rows.count(row):
                leaving.append(row)
        return leaving

    def _count_drafts(self, request: Request, drafted: int, accepted: int) -> None:
        request.metrics.drafted += drafted
        request.metrics.accepted += accepted
        self.counts.drafted += drafted
        self.counts.accepted += accepted

    def _read_chunks(self, logits: Tensor, step: Step) -> None:
        """Chunks have been computed; logits (W, V) of those tokens of theirs that were wanted."""
        resumed, complete, start = [], [], 0
        for chunk in step.plan.chunks:
            self._note(chunk)
            wanted = wanted_of(chunk)
            end = start + len(wanted)
            if chunk.sequence.fresh and chunk.sequence.owner.params.prompt_logprobs is not None:
                read_prompt(chunk, logits[start:end])
            self.scheduler.computed(chunk)
            if chunk.last and chunk.sequence.fresh:
                complete.append((chunk.sequence, end - 1))
            elif chunk.last:
                resumed.append(chunk.sequence)
            start = end
        self._join(resumed + (self._open(complete, logits, step) if complete else []))

    def _note(self, chunk: Chunk) -> None:
        request = chunk.sequence.owner.request
        if request.metrics.first_scheduled is None:
            request.metrics.first_scheduled = self.clock() - request.metrics.arrival
            request.num_cached_tokens = chunk.sequence.cached
        if chunk.prompt:
            self.counts.prompt_tokens += chunk.count
        else:
            self.counts.recomputed_tokens += chunk.count

    def _open(self, complete: list[tuple[Sequence, int]], logits: Tensor, step: Step) -> list[Sequence]:
        """The first tokens of prompts that are complete, (sequence, its place in logits): one for each sample, which share
        the prompt's blocks. Returns the sequences that decode from now on."""
        samples = [(made, place) for sequence, place in complete for made in sequence.owner.request.samples]
        step.made += first_tokens([made for made, _ in samples], logits[torch.tensor([place for _, place in samples])])
        step.ended += [made for made, _ in samples if made.finish_reason is not None]
        return [joining for sequence, _ in complete for joining in self._fork(sequence, step)]

    def _fork(self, sequence: Sequence, step: Step) -> list[Sequence]:
        request = sequence.owner.request
        request.metrics.first_token = self.clock() - request.metrics.arrival
        sequence.tokens += sequence.owner.token_ids or [0]  # broken: something follows, for the MTP module
        sequence.length = len(sequence.tokens)
        forks = []
        for made in request.samples[1:]:
            if made.finish_reason is None:
                made.sequence = Sequence(request.prompt_token_ids + made.token_ids, sequence.prompt_length,
                                         (request.number, made.index), owner=made)
                forks.append(made.sequence)
        step.copies += self.scheduler.fork(sequence, forks)
        going = [sequence] if sequence.owner.finish_reason is None else []
        return going + [s for s in forks if s in self.scheduler.decoding]

    def _join(self, sequences: list[Sequence]) -> None:
        self.rows.add(sequences)
        for sequence in sequences:
            if sequence.owner.watched:
                self._watched[sequence.owner] = None
            if sequence.owner.top_logprobs is not None:
                self._asked[sequence.owner] = None

    def _keep(self, made: Sample) -> None:
        """Out of the rows' tensors, what a sample has generated."""
        if made.sequence is not None and made.sequence.row >= 0:
            made.token_ids, made.logprobs = self.rows.made(made.sequence.row)

    def _withdraw(self, sequences: list[Sequence]) -> None:
        self.rows.remove([s for s in sequences if s.row >= 0])
        for sequence in sequences:
            self._watched.pop(sequence.owner, None)
            self._asked.pop(sequence.owner, None)

    def _leave(self, ended: list[Sample]) -> None:
        for made in ended:
            sequence, prompt = made.sequence, made.request.prompt_token_ids
            complete = self.drafter is None or sequence.row < 0 or bool(self.rows.complete[sequence.row])
            self.scheduler.finish(sequence, prompt + made.token_ids, None if complete else len(prompt))
        self._withdraw([s.sequence for s in ended])

    def _close(self, request: Request) -> None:
        request.metrics.finish = self.clock() - request.metrics.arrival
        del self.requests[request.request_id]

    def _finish(self, made: int, ended: list[Sample]) -> StepOutput:
        """made: tokens that count; ended: samples that leave."""
        closed = []
        for one in ended:
            self._keep(one)
            one.request.unfinished -= 1
            if not one.request.unfinished:
                self._close(one.request)
                closed.append(one.request)
        self._leave([one for one in ended if one.sequence is not None])
        self.counts.generated_tokens += made
        return StepOutput(made, ended, closed)
