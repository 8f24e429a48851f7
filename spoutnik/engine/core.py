"""The engine core: requests in, one step at a time, outputs out. It joins scheduler, runner, sampler and drafter.

A step: the scheduler says who computes what; the runner computes it; every decoding row gets its next token (or several, with
accepted drafts); complete prompts get their first; samples that ended leave.
"""

import itertools
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from spoutnik.engine import token_selection
from spoutnik.engine.adapters import AdapterStore
from spoutnik.engine.input_batch import InputBatch
from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.request import Request, Sample
from spoutnik.engine.runners.base import Runner
from spoutnik.engine.sampler import SamplingMetadata, gather_logprobs, sample_tokens, uniforms_of
from spoutnik.engine.sampling_params import RAW_LOGPROBS
from spoutnik.engine.scheduler import Chunk, Scheduler, SchedulerOutput, Sequence
from spoutnik.engine.speculative import Drafter
from spoutnik.engine.step import FEW_ROWS, EngineStats, StepOutput, StepState, logits_range
from spoutnik.engine.token_selection import NOT_FINITE, ReportedLogits
from spoutnik.text.tokenizer import Tokenizer


class EngineCore:
    """eos_ids: tokens that end a completion. tokenizer: for text and stop texts. clock: seconds.

    logprobs_mode: of requests that do not say it (SamplingParams). max_multi_steps: steps that the runner may compute in one
        call; lower it to see new tokens sooner.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler, eos_ids: Iterable[int], tokenizer: Tokenizer | None = None,
                 drafter: Drafter | None = None, clock: Callable[[], float] = time.perf_counter,
                 logprobs_mode: str = RAW_LOGPROBS):
        self.runner, self.scheduler, self.tokenizer, self.drafter, self.clock = runner, scheduler, tokenizer, drafter, clock
        self.eos_ids, self.logprobs_mode = frozenset(eos_ids), logprobs_mode
        self.input_batch = InputBatch(scheduler.max_num_seqs)
        self.requests: dict[str, Request] = {}
        self.adapters = AdapterStore(runner)
        self.request_ids = itertools.count()  # for all who share this engine
        self.stats = EngineStats()
        self.max_multi_steps = runner.max_multi_steps
        self._num_added = self._num_steps = 0
        self._checked: dict[Sample, None] = {}  # decoding samples with `checks_tokens`
        self._reporting: dict[Sample, None] = {}  # those that report top log-probabilities

    def add(self, request: Request, generated: list[CompletionOutput] | None = None) -> None:
        """The request has been checked (input_processor.py). generated: what its samples had when an earlier process ended;
        they go on from there, with the same tokens as if it had not."""
        if request.params.logprobs_mode is None:
            request.params = request.params.changed(logprobs_mode=self.logprobs_mode)
        request.metrics.arrival = self.clock()
        request.number, self._num_added = self._num_added, self._num_added + 1
        request.create_samples(self.eos_ids, self.tokenizer, self.runner.config.vocab_size)
        self.adapters.acquire(request.adapter)
        self.requests[request.request_id] = request
        if not any(output.token_ids for output in generated or ()):
            self.scheduler.add(request.samples[0].sequence)
            return
        for sample, output in zip(request.samples, generated, strict=True):
            self._go_on(sample, output)
        if not request.unfinished:
            self._close(request)

    def _go_on(self, sample: Sample, output: CompletionOutput) -> None:
        """A sample with tokens of its own, as after a preemption: only its cache is computed again."""
        request, sample.token_ids, sample.logprobs = sample.request, list(output.token_ids), list(output.logprobs)
        sample.finish_reason, sample.stop_reason = output.finish_reason, output.stop_reason
        sample.sequence = None
        if sample.finish_reason is not None:
            request.unfinished -= 1
            return
        prompt = request.prompt_token_ids
        sample.sequence = Sequence(prompt + sample.token_ids, len(prompt), (request.number, sample.index),
                                   cache_salt=request.cache_salt, sample=sample)
        self.scheduler.add(sample.sequence)

    def abort(self, request_id: str) -> None:
        """Ends a request between two steps; does nothing if it has ended."""
        request = self.requests.get(request_id)
        if request is None:
            return
        for sample in request.samples:
            if sample.finish_reason is None:
                self._save_tokens(sample)
                sample.finish("abort")
                if sample.sequence is not None:
                    self._free([sample])
        request.unfinished = 0
        self._close(request)

    def new_tokens(self, sample: Sample) -> tuple[list[int], list[float]]:
        """A sample's tokens and their log-probabilities since the last call, for a stream."""
        tokens, logprobs = self.tokens_of(sample, sample.sent)
        logprobs = sample.reported_logprobs(tokens, logprobs, sample.sent)
        sample.sent += len(tokens)
        return tokens, logprobs

    def tokens_of(self, sample: Sample, start: int = 0) -> tuple[list[int], list[float]]:
        """A sample's tokens from number `start` on, and their log-probabilities, between any two steps."""
        row = -1 if sample.sequence is None else sample.sequence.row
        if row >= 0:
            return self.input_batch.generated_tokens(row, start)
        return sample.token_ids[start:], sample.logprobs[start:]

    def new_output(self, sample: Sample) -> CompletionOutput | None:
        """All that a sample has got since the last call; None where there is nothing."""
        first = sample.sent
        tokens, logprobs = self.new_tokens(sample)
        if sample.text is not None and sample.finish_reason is not None:
            sample.text.close()
        text = "" if sample.text is None else sample.text.take()
        if not tokens and not text and (sample.finish_reason is None or sample.end_sent):
            return None
        sample.end_sent = sample.finish_reason is not None
        top = None if sample.top_logprobs is None else sample.top_logprobs[first:sample.sent]
        return CompletionOutput(sample.index, text, tokens, logprobs, top, sample.finish_reason, sample.stop_reason)

    @torch.no_grad()
    def step(self) -> StepOutput:
        if not self.requests:
            return StepOutput(0, [])
        drafting = self.drafter is not None and self.drafter.schedule_drafts(self.input_batch)
        multi_step = not drafting and self._can_multi_step()
        scheduled = self._schedule()
        if multi_step and self.input_batch and not scheduled.chunks:
            return self._multi_step()
        step = StepState.of(scheduled, self.input_batch, drafting)
        logits, hidden = self.runner.forward(step.batch)
        if step.rows:
            self._decode(logits[:step.num_decode_tokens], step)
        if scheduled.chunks:
            self._process_chunks(logits[step.num_decode_tokens:], step)
        if self.drafter is not None:
            self.drafter.propose(self.input_batch, step, hidden)
        if step.block_copies:
            self.runner.copy_blocks(*torch.tensor(step.block_copies).T.contiguous())
        self.stats.steps += 1
        return self._finish(step.num_generated, step.ended)

    def _schedule(self) -> SchedulerOutput:
        scheduled = self.scheduler.schedule()
        for sequence in scheduled.preempted:
            self._save_tokens(sequence.sample)
            sequence.token_ids = sequence.sample.request.prompt_token_ids + sequence.sample.token_ids
        if scheduled.preempted:
            self._remove_rows(scheduled.preempted)
            self.stats.preemptions += len(scheduled.preempted)
        if scheduled.extended:
            batch = self.input_batch
            (batch.append_blocks if self.drafter is None else batch.update_blocks)(scheduled.extended)
        return scheduled

    def _can_multi_step(self) -> bool:
        """Whether the runner may decode several steps in one call, nobody needing a token before the next is chosen. If so,
        reserves the slots."""
        self._num_steps = min(self.runner.max_multi_steps, self.max_multi_steps)
        if self._num_steps == 1 or self._checked or self._reporting or self.scheduler.prefilling:
            return False
        if any([s.sample.request.stream for s in self.input_batch.sequences]):
            return False
        for sequence, left in zip(self.input_batch.sequences, self._tokens_left()):
            sequence.num_lookahead_tokens = min(self._num_steps, left) - 1
        return True

    def _tokens_left(self) -> list[int]:
        """How many tokens each row may still generate."""
        return (self.input_batch.max_tokens - self.input_batch.num_generated).tolist()

    def _multi_step(self) -> StepOutput:
        """As many steps as every row has slots for."""
        batch = self.input_batch
        slots = [s.num_slots - s.num_tokens + 1 for s in batch.sequences]
        steps = min([self._num_steps, *(have for have, left in zip(slots, self._tokens_left()) if have < left)])
        output = self.runner.decode_multi_step(batch.decode_batch(), steps)
        batch.append_multi_step(output)
        if self.drafter is not None:
            self.drafter.discard_drafts(batch)
        for sequence, count in zip(batch.sequences, output.counts.tolist()):
            sequence.num_tokens += count
        broken = set(output.broken.nonzero()[:, 0].tolist())
        ended = []
        for row in sorted(broken.union(batch.finished().nonzero()[:, 0].tolist())):
            ended.append(batch.sequences[row].sample)
            ended[-1].fail(NOT_FINITE) if row in broken else ended[-1].finish_at(int(batch.last_tokens[row]))
        self.stats.steps += steps
        return self._finish(int(output.counts.sum()), ended)

    def _decode(self, logits: Tensor, step: StepState) -> None:
        """Each row's next token, or several, from logits (num_decode_tokens, V)."""
        batch, metadata = self.input_batch, self._sampling_metadata(step)
        reporting = []
        for sample in self._reporting:
            start = step.start_of(sample.sequence.row)
            reporting.append((sample, logits[start:start + 1 + sample.sequence.num_draft_tokens]))
        reported = token_selection.raw_logits(reporting)
        broken = token_selection.zero_broken(logits)
        for sample in self._checked:
            row = sample.sequence.row
            sample.process(logits[step.start_of(row)], batch.count_generated(row))
        reported += token_selection.processed_logits(reporting)
        step.next_tokens, logprobs = sample_tokens(logits, metadata)
        if step.starts is None and step.rows > FEW_ROWS:
            ended = token_selection.accept_one_each(batch, step.next_tokens, logprobs, broken, self._checked, reported)
            step.num_generated = step.rows
        else:
            ended = self._accept_row_by_row(step, logprobs, broken, reported)
        for row in ended:
            sample = batch.sequences[row].sample
            sample.finish_at(int(batch.last_tokens[row]))
            step.ended.append(sample)
        for sample in [sample for sample in self._checked if not sample.checks_tokens]:
            del self._checked[sample]

    def _sampling_metadata(self, step: StepState) -> SamplingMetadata:
        """For each token of the decoding rows."""
        batch = self.input_batch
        if step.starts is None:
            return batch.sampling_metadata() if step.rows > FEW_ROWS else SamplingMetadata(
                *batch.sampling_columns, uniforms_of(zip(batch.seeds.tolist(), batch.num_generated.tolist())))
        rows = list(zip(batch.sequences, batch.seeds.tolist(), batch.num_generated.tolist()))
        u = uniforms_of((seed, first + i) for s, seed, first in rows for i in range(1 + s.num_draft_tokens))
        row = torch.tensor([row for row, s in enumerate(batch.sequences) for _ in range(1 + s.num_draft_tokens)])
        return SamplingMetadata(*batch.sampling[:, row].unbind(), u)

    def _accept_row_by_row(self, step: StepState, logprobs: Tensor, broken: list[int],
                           reported: ReportedLogits) -> list[int]:
        """For few rows, with or without drafts; returns the rows that end."""
        batch, tokens, logprobs = self.input_batch, step.next_tokens.tolist(), logprobs.tolist()
        logits_of, step.accepted, ended = dict(reported), [], []
        for row, sequence in enumerate(batch.sequences):
            sample, start, drafted = sequence.sample, step.start_of(row), sequence.num_draft_tokens
            left = sample.params.max_tokens - batch.count_generated(row)
            new = token_selection.accept_drafts(sample, tokens[start:start + 1 + drafted], left)
            if broken and not set(broken).isdisjoint(range(start, start + len(new))):
                sample.fail(NOT_FINITE)
            else:
                batch.append_to_row(row, new, logprobs[start:start + len(new)])
                sequence.num_tokens += len(new)
                step.num_generated += len(new)
                if drafted:
                    for counts in (sample.request.metrics, self.stats):
                        counts.drafted += drafted
                        counts.accepted += len(new) - 1
                if sample in logits_of:
                    sample.top_logprobs += gather_logprobs(logits_of[sample][:len(new)], sample.params.logprobs, new)
            step.accepted.append(len(new))
            if sample.finish_reason or new[-1] in sample.request.stop_ids or len(new) >= left:
                ended.append(row)
        return ended

    def _process_chunks(self, logits: Tensor, step: StepState) -> None:
        """Chunks have been computed; logits (W, V) of their tokens in `logits_range`."""
        resumed, complete, start = [], [], 0
        for chunk in step.scheduled.chunks:
            self._count_chunk(chunk)
            end = start + len(logits_range(chunk))
            prompt_only = chunk.sequence.prompt_only
            if prompt_only and chunk.sequence.sample.params.prompt_logprobs is not None:
                token_selection.add_prompt_logprobs(chunk, logits[start:end])
            self.scheduler.chunk_computed(chunk)
            if chunk.is_last and prompt_only:
                complete.append((chunk.sequence, end - 1))
            elif chunk.is_last:
                resumed.append(chunk.sequence)
            start = end
        self._add_rows(resumed + (self._start_decoding(complete, logits, step) if complete else []))

    def _count_chunk(self, chunk: Chunk) -> None:
        request = chunk.sequence.sample.request
        if request.metrics.first_scheduled is None:
            request.metrics.first_scheduled = self.clock() - request.metrics.arrival
            request.num_cached_tokens = chunk.sequence.num_cached_tokens
        if chunk.is_prompt:
            self.stats.prompt_tokens += chunk.count
        else:
            self.stats.recomputed_tokens += chunk.count

    def _start_decoding(self, complete: list[tuple[Sequence, int]], logits: Tensor, step: StepState) -> list[Sequence]:
        """The first tokens of complete prompts, (sequence, row of its last token in logits): one for each sample, all sharing
        the prompt's blocks. Returns the sequences that decode from now on."""
        samples = [sample for sequence, _ in complete for sample in sequence.sample.request.samples]
        rows = torch.tensor([row for sequence, row in complete for _ in sequence.sample.request.samples])
        step.num_generated += token_selection.sample_first_tokens(samples, logits[rows])
        step.ended += [sample for sample in samples if sample.finish_reason is not None]
        return [decoding for sequence, _ in complete for decoding in self._fork(sequence, step)]

    def _fork(self, sequence: Sequence, step: StepState) -> list[Sequence]:
        request = sequence.sample.request
        request.metrics.first_token = self.clock() - request.metrics.arrival
        sequence.token_ids += sequence.sample.token_ids or [0]  # broken logits: the MTP module still needs a successor
        sequence.num_tokens = len(sequence.token_ids)
        forks = []
        for sample in request.samples[1:]:
            if sample.finish_reason is None:
                sample.sequence = Sequence(request.prompt_token_ids + sample.token_ids, sequence.num_prompt_tokens,
                                        (request.number, sample.index), cache_salt=request.cache_salt, sample=sample)
                forks.append(sample.sequence)
        step.block_copies += self.scheduler.fork(sequence, forks)
        first = [sequence] if sequence.sample.finish_reason is None else []
        return first + [fork for fork in forks if fork in self.scheduler.decoding]

    def _add_rows(self, sequences: list[Sequence]) -> None:
        self.input_batch.add(sequences)
        for sequence in sequences:
            if sequence.sample.checks_tokens:
                self._checked[sequence.sample] = None
            if sequence.sample.top_logprobs is not None:
                self._reporting[sequence.sample] = None

    def _remove_rows(self, sequences: list[Sequence]) -> None:
        self.input_batch.remove([s for s in sequences if s.row >= 0])
        for sequence in sequences:
            self._checked.pop(sequence.sample, None)
            self._reporting.pop(sequence.sample, None)

    def _save_tokens(self, sample: Sample) -> None:
        """Copies a row's generated tokens to its sample."""
        if sample.sequence is not None and sample.sequence.row >= 0:
            sample.token_ids, sample.logprobs = self.input_batch.generated_tokens(sample.sequence.row)

    def _free(self, ended: list[Sample]) -> None:
        """Frees the blocks and rows of samples that ended."""
        for sample in ended:
            sequence, prompt = sample.sequence, sample.request.prompt_token_ids
            complete = self.drafter is None or sequence.row < 0 or bool(self.input_batch.mtp_complete[sequence.row])
            self.scheduler.finish(sequence, prompt + sample.token_ids, None if complete else len(prompt))
        self._remove_rows([sample.sequence for sample in ended])

    def _close(self, request: Request) -> None:
        request.metrics.finish = self.clock() - request.metrics.arrival
        del self.requests[request.request_id]
        self.adapters.release(request.adapter)

    def _finish(self, num_generated: int, ended: list[Sample]) -> StepOutput:
        for sample in ended:
            self._save_tokens(sample)
            sample.request.unfinished -= 1
            if not sample.request.unfinished:
                self._close(sample.request)
        self._free([sample for sample in ended if sample.sequence is not None])
        self.stats.generated_tokens += num_generated
        return StepOutput(num_generated, ended)
