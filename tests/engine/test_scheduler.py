"""The scheduler against a naive engine that writes down what every place of the cache holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.engine.runners.base import BLOCK_SIZE
from spoutnik.engine.scheduler import Scheduler, Sequence, num_blocks_for
from spoutnik.errors import UserError

REQUESTS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(1, 3), st.integers(0, 2),
                              st.integers(0, 12)), min_size=1, max_size=9)


class Naive:
    """Runs requests (prompt length, tokens to generate, samples, beginning, arrival) to their end and checks every step. A
    sequence's i-th token is a function of its beginning and of i alone until the prompt's last, so prompts share prefixes."""

    def __init__(self, scheduler, requests, drafts=0):
        self.scheduler, self.requests, self.drafts = scheduler, requests, drafts
        self.cache = {}  # (block, place) -> the tokens up to there
        self.limits, self.done, self.computed, self.steps, self.preempted = {}, [], 0, 0, 0
        self.rows = {}

    def tokens_of(self, sequence):
        return sequence.token_ids

    def store(self, sequence, start, end):
        for position in range(start, end):
            block = sequence.blocks[position // BLOCK_SIZE]
            assert self.scheduler.pool.ref_counts[block] == 1 or self.holds(sequence, position), "wrote into a shared block"
            self.cache[block, position % BLOCK_SIZE] = tuple(sequence.token_ids[:position + 1])

    def holds(self, sequence, position):
        block = sequence.blocks[position // BLOCK_SIZE]
        return self.cache.get((block, position % BLOCK_SIZE)) == tuple(sequence.token_ids[:position + 1])

    def run(self):
        waiting = sorted(enumerate(self.requests), key=lambda pair: pair[1][4])
        while waiting or self.scheduler.unfinished:
            while waiting and (waiting[0][1][4] <= self.steps or not self.scheduler.unfinished):
                number, (length, max_tokens, samples, beginning, _) = waiting.pop(0)
                prompt = [beginning * 1000 + i for i in range(length)]
                sequence = Sequence(prompt, length, (number, 0), num_samples=samples, sample=(number, 0))
                self.limits[number] = length + max_tokens
                self.scheduler.add(sequence)
            self.step()
            assert self.steps < 5000, "never ends"

    def step(self):
        scheduler = self.scheduler
        for sequence in scheduler.decoding:
            left = self.limits[sequence.sample[0]] - sequence.num_tokens
            sequence.num_draft_tokens = sequence.num_lookahead_tokens = min(self.drafts, left - 1)
        output = scheduler.schedule()
        self.steps += 1
        self.preempted += len(output.preempted)
        decoding = list(scheduler.decoding)
        tokens = len(decoding) + sum(s.num_draft_tokens for s in decoding) + sum(c.count for c in output.chunks)
        assert 0 < tokens <= scheduler.max_num_batched_tokens
        assert len(decoding) + len(scheduler.prefilling) <= scheduler.max_num_seqs
        self.check_users()
        for sequence in decoding:  # all but the last token is there, and there are slots for what follows
            assert sequence.num_tokens == len(sequence.token_ids) and len(sequence.blocks) * BLOCK_SIZE == sequence.num_slots
            assert all(self.holds(sequence, position) for position in range(sequence.num_tokens - 1))
            assert sequence.num_tokens + sequence.num_draft_tokens <= sequence.num_slots
            self.store(sequence, sequence.num_tokens - 1, sequence.num_tokens)
        for chunk in output.chunks:
            sequence = chunk.sequence
            assert chunk.start == sequence.num_computed_tokens and all(self.holds(sequence, p) for p in range(chunk.start))
            assert chunk.is_prompt == (chunk.start + chunk.count <= sequence.num_prompt_tokens)
            assert chunk.is_prompt or chunk.start >= sequence.num_prompt_tokens
            self.store(sequence, chunk.start, chunk.start + chunk.count)
            self.computed += chunk.count
        for sequence in decoding:
            self.append(sequence)
        for chunk in output.chunks:
            fresh = chunk.sequence.prompt_only
            scheduler.chunk_computed(chunk)
            if chunk.is_last and fresh:
                self.open(chunk.sequence)
        for sequence in [s for s in scheduler.decoding if s.num_tokens >= self.limits[s.sample[0]]]:
            self.done.append(sequence.sample)
            scheduler.finish(sequence, sequence.token_ids)

    def append(self, sequence):
        sequence.token_ids.append((sequence.sample, sequence.num_tokens).__hash__() % 10**9)
        sequence.num_tokens += 1

    def open(self, sequence):
        number = sequence.order[0]
        forks = [Sequence(list(sequence.token_ids), sequence.num_prompt_tokens, (number, i), sample=(number, i))
                 for i in range(1, sequence.num_samples)]
        for each in [sequence, *forks]:
            self.append(each)
        for source, target in self.scheduler.fork(sequence, forks):
            for place in range(BLOCK_SIZE):
                if (source, place) in self.cache:
                    self.cache[target, place] = self.cache[source, place]

    def check_users(self):
        held = [block for s in (*self.scheduler.decoding, *self.scheduler.prefilling) for block in s.blocks]
        assert self.scheduler.pool.ref_counts == [held.count(block) for block in range(self.scheduler.pool.num_blocks)]


@given(REQUESTS, st.integers(7, 30), st.integers(1, 6), st.integers(6, 64), st.booleans(), st.integers(0, 2))
def test_every_request_ends_with_its_own_tokens_in_its_own_places(requests, blocks, seqs, budget, caching, drafts):
    scheduler = Scheduler(blocks, seqs, budget, caching)
    naive = Naive(scheduler, requests, drafts)
    naive.run()
    assert sorted(naive.done) == [(n, i) for n, request in enumerate(requests) for i in range(request[2])]
    assert scheduler.pool.num_free_blocks == scheduler.pool.num_blocks


def test_requests_that_need_more_than_there_is_take_turns():
    naive = Naive(Scheduler(5, 4, 64), [(20, 40, 1, i, 0) for i in range(4)])
    naive.run()
    assert naive.preempted > 0 and len(naive.done) == 4


def test_the_oldest_is_never_preempted():
    scheduler = Scheduler(6, 4, 64)
    naive = Naive(scheduler, [(30, 60, 1, i, 0) for i in range(3)])
    naive.run()
    assert [number for number, _ in naive.done] == [0, 1, 2] and naive.preempted > 0


def test_a_group_costs_one_prefill():
    for length in (37, 32):
        naive = Naive(Scheduler(64, 16, 64), [(length, 5, 16, 0, 0)])
        naive.run()
        assert naive.computed == length


def test_a_group_larger_than_the_rows_costs_no_more_than_a_block_for_each_late_sample():
    naive = Naive(Scheduler(64, 4, 64), [(37, 5, 16, 0, 0)])
    naive.run()
    assert naive.computed == 37 + 12 * (37 - 32)


def test_a_prompt_is_never_all_found():
    naive = Naive(Scheduler(64, 4, 64), [(32, 3, 1, 0, 0), (32, 3, 1, 0, 20), (40, 3, 1, 0, 40)])
    naive.run()
    assert naive.computed == 32 + 16 + 8  # the second computes its last block again, for the logits of its last token


def test_without_prefix_caching_everything_is_computed():
    naive = Naive(Scheduler(64, 4, 64, prefix_caching=False), [(32, 3, 1, 0, 0), (32, 3, 1, 0, 20)])
    naive.run()
    assert naive.computed == 64


def test_a_long_prompt_comes_in_chunks_beside_decoding_sequences():
    scheduler = Scheduler(64, 4, 8)
    naive = Naive(scheduler, [(3, 30, 1, 0, 0), (50, 3, 1, 1, 2)])
    naive.run()
    assert naive.steps < 3 + 50 / 7 + 30


def test_a_request_that_never_fits_is_refused_in_a_sentence():
    scheduler = Scheduler(4, 4, 64)
    scheduler.check_fits(60, 5)  # 64 places: the last token is never computed
    with pytest.raises(UserError, match="max_tokens = 6: with a prompt of 60 tokens it needs 5 blocks .* which has 4"):
        scheduler.check_fits(60, 6)
    assert num_blocks_for(64) == 4


@pytest.mark.parametrize("seqs, budget, sentence", [(0, 10, "max_num_seqs = 0"), (8, 7, "max_num_batched_tokens = 7")])
def test_impossible_limits_are_refused(seqs, budget, sentence):
    with pytest.raises(UserError, match=sentence):
        Scheduler(4, seqs, budget)


def test_a_waiting_and_a_prefilling_sequence_can_be_given_up():
    scheduler = Scheduler(8, 4, 16)
    first, second = (Sequence(list(range(n, n + 40)), 40, (n, 0)) for n in (0, 1))
    scheduler.add(first)
    scheduler.add(second)
    scheduler.schedule()
    assert first in scheduler.prefilling and second in scheduler.waiting
    scheduler.finish(first)
    scheduler.finish(second)
    assert scheduler.unfinished == 0 and scheduler.pool.num_free_blocks == 8
