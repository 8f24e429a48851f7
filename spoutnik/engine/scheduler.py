"""The scheduler: which sequences compute which tokens in the next step, and in which blocks of the cache. It knows no model.

A sequence waits, is prefilled in chunks, then decodes, one token or more each step, until it ends. When blocks run out, the
youngest sequence is preempted: it frees its blocks and waits at the head of the queue; what it had generated is kept, and its
cache entries are computed again (vLLM's preemption by recomputation).
"""

from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Any

from spoutnik.engine.block_pool import BlockHash, BlockPool, hash_blocks
from spoutnik.engine.runners.base import BLOCK_SIZE
from spoutnik.errors import RunError, UserError


@dataclass(eq=False, slots=True)
class Sequence:
    """One sample of a request, as the scheduler sees it.

    token_ids: prompt and generated tokens, as known when it last was not decoding. num_tokens: how many there are now; while
        it decodes, all but the last are in the cache. order: smaller is older; samples of one prompt by their index.
    num_samples: how many samples its prompt is computed for, itself included. prefix_caching: may reuse cached blocks.
    cache_salt: sequences of another one share no blocks with it.
    num_prefill_tokens: tokens to compute before it decodes; num_computed_tokens: how many of those are in the cache;
        num_cached_tokens: how many were found there.
    num_slots: tokens that its blocks hold. num_draft_tokens: drafts computed after its last token. num_lookahead_tokens:
        slots that its next step writes to beyond the last token's.
    sample, row: the engine's Sample, and its row in the InputBatch (-1 for none); not read here.
    """

    token_ids: list[int]
    num_prompt_tokens: int
    order: tuple[int, int]
    num_samples: int = 1
    prefix_caching: bool = True
    cache_salt: bytes = b""
    num_tokens: int = 0
    num_prefill_tokens: int = 0
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    block_hashes: list[BlockHash] = field(default_factory=list)
    num_slots: int = 0
    num_draft_tokens: int = 0
    num_lookahead_tokens: int = 0
    sample: Any = None
    row: int = -1

    def __post_init__(self):
        self.num_tokens = len(self.token_ids)

    @property
    def prompt_only(self) -> bool:
        """No token is generated yet."""
        return self.num_tokens == self.num_prompt_tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens start .. start + count of a sequence, computed in this step. is_prompt: of its prompt, not generated before a
    preemption. is_last: the sequence decodes after it (its first token is sampled now if it has none)."""

    sequence: Sequence
    start: int
    count: int
    is_prompt: bool
    is_last: bool


@dataclass
class SchedulerOutput:
    """The next step: every decoding sequence's last token and drafts, then the chunks. extended: sequences that were given
    blocks. preempted: sequences that no longer decode; the engine updates their token_ids."""

    chunks: list[Chunk] = field(default_factory=list)
    extended: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)


def num_blocks_for(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_SIZE)


class Scheduler:
    """max_num_seqs: sequences computed at the same time. max_num_batched_tokens: tokens computed in one step. lent: blocks that
    something beside the steps uses meanwhile (an embedding); sequences that need them take them back."""

    def __init__(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int, prefix_caching: bool = True):
        if max_num_seqs < 1:
            raise UserError(f"max_num_seqs = {max_num_seqs}: must be at least 1.")
        if max_num_batched_tokens < max_num_seqs:
            raise UserError(f"max_num_batched_tokens = {max_num_batched_tokens}: must be at least max_num_seqs = "
                            f"{max_num_seqs}, since each sequence decodes a token in a step. Raise it, or lower max_num_seqs.")
        self.pool = BlockPool(num_blocks)
        self.lent: list[int] = []
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.prefix_caching = prefix_caching
        self.waiting: deque[Sequence] = deque()
        self.prefilling: dict[Sequence, None] = {}
        self.decoding: dict[Sequence, None] = {}

    @property
    def unfinished(self) -> int:
        return len(self.waiting) + len(self.prefilling) + len(self.decoding)

    def check_fits(self, num_prompt_tokens: int, max_tokens: int) -> None:
        """Raises UserError for a sequence that the cache could not hold to its end, even alone."""
        needed = num_blocks_for(num_prompt_tokens + max_tokens - 1)
        if needed > self.pool.num_blocks:
            raise UserError(f"max_tokens = {max_tokens}: with a prompt of {num_prompt_tokens} tokens it needs {needed} blocks "
                            f"of the cache, which has {self.pool.num_blocks}, of {BLOCK_SIZE} tokens each. Lower max_tokens, "
                            "shorten the prompt, or give the LLM more memory.")

    def lend(self, count: int) -> list[int]:
        """Free blocks for one computation beside the steps, until `take_back`. Before each use of them it looks whether `lent`
        is still this list. Raises RunError: too few are free."""
        assert not self.lent, "one at a time"
        if count > self.pool.num_free_blocks:
            raise RunError(f"an embedding needs {count} blocks of the cache, and {self.pool.num_free_blocks} are free. Try "
                           "again when fewer requests are under way.")
        self.lent = self.pool.allocate(count)
        return self.lent

    def take_back(self) -> None:
        self.pool.free(self.lent)
        self.lent = []

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> SchedulerOutput:
        output = SchedulerOutput()
        if self.decoding:
            self._allocate_decode_slots(output)
        budget = self.max_num_batched_tokens - len(self.decoding) - self._count_drafts()
        for sequence in self.prefilling:
            budget -= self._add_chunk(sequence, budget, output)
        while budget > 0 and self.waiting and not output.preempted and self._admit(self.waiting[0]):
            budget -= self._add_chunk(self.waiting.popleft(), budget, output)
        return output

    def _allocate_decode_slots(self, output: SchedulerOutput) -> None:
        """A slot for every token that the decoding sequences will store, older sequences first."""
        short = [s for s in self.decoding if s.num_tokens + s.num_lookahead_tokens > s.num_slots]
        for sequence in sorted(short, key=lambda s: s.order):
            while sequence in self.decoding and sequence.num_tokens + sequence.num_lookahead_tokens > sequence.num_slots:
                if self.pool.num_free_blocks:
                    self._append_blocks(sequence, self.pool.allocate(1))
                    if not output.extended or output.extended[-1] is not sequence:
                        output.extended.append(sequence)
                elif self.lent:
                    self.take_back()
                elif sequence.num_draft_tokens or sequence.num_lookahead_tokens:
                    sequence.num_draft_tokens = sequence.num_lookahead_tokens = 0
                else:
                    self._preempt(max((*self.decoding, *self.prefilling), key=lambda s: s.order), output)
        if output.preempted:
            output.extended = [s for s in output.extended if s in self.decoding]

    def _count_drafts(self) -> int:
        """Drafts that this step computes; all are dropped where they do not fit into it."""
        count = sum([s.num_draft_tokens for s in self.decoding])
        if count + len(self.decoding) <= self.max_num_batched_tokens:
            return count
        for sequence in self.decoding:
            sequence.num_draft_tokens = sequence.num_lookahead_tokens = 0
        return 0

    def _preempt(self, sequence: Sequence, output: SchedulerOutput) -> None:
        self._free_blocks(sequence)
        if sequence in self.decoding:
            del self.decoding[sequence]
            output.preempted.append(sequence)
        else:
            del self.prefilling[sequence]
        self.waiting.appendleft(sequence)

    def _free_blocks(self, sequence: Sequence) -> None:
        self.pool.free(sequence.blocks)
        sequence.blocks, sequence.num_slots, sequence.num_computed_tokens = [], 0, 0
        sequence.num_draft_tokens = sequence.num_lookahead_tokens = 0

    def _append_blocks(self, sequence: Sequence, blocks: list[int]) -> None:
        sequence.blocks += blocks
        sequence.num_slots = len(sequence.blocks) * BLOCK_SIZE

    def _admit(self, sequence: Sequence) -> bool:
        """Gives a waiting sequence the blocks for all its prefill, cached ones where there are any; False if it must wait."""
        running = len(self.prefilling) + len(self.decoding) + sum(s.num_samples - 1 for s in self.prefilling)
        if running and running + sequence.num_samples > self.max_num_seqs:
            return False
        # The last prompt token is always computed: its logits are needed. The last generated token is decoding's input.
        target = sequence.num_tokens if sequence.prompt_only else sequence.num_tokens - 1
        cached = []
        if self.prefix_caching and sequence.prefix_caching:
            sequence.block_hashes = hash_blocks(sequence.token_ids[:target], sequence.block_hashes, sequence.cache_salt)
            cached = self.pool.get_cached_blocks(sequence.block_hashes[:(target - 1) // BLOCK_SIZE])
        # One block more per sample, for its own copy of the last one; not needed where nothing else holds blocks.
        reserve = sequence.num_samples if running else 0
        count = num_blocks_for(target) - len(cached)
        free = self.pool.num_free_blocks - self.pool.count_free(cached)
        if free < count + reserve <= free + len(self.lent):
            free += len(self.lent)
            self.take_back()
        if count + reserve > free:
            return False
        self.pool.touch(cached)
        self._append_blocks(sequence, cached + self.pool.allocate(count))
        sequence.num_prefill_tokens = target
        sequence.num_computed_tokens = sequence.num_cached_tokens = len(cached) * BLOCK_SIZE
        self.prefilling[sequence] = None
        return True

    def _add_chunk(self, sequence: Sequence, budget: int, output: SchedulerOutput) -> int:
        """Schedules a prefilling sequence's next tokens and returns how many. No chunk mixes prompt and generated tokens."""
        start, target = sequence.num_computed_tokens, sequence.num_prefill_tokens
        is_prompt = start < sequence.num_prompt_tokens
        end = min(target, start + budget, sequence.num_prompt_tokens if is_prompt else target)
        if end > start:
            output.chunks.append(Chunk(sequence, start, end - start, is_prompt, end == target))
        return max(end - start, 0)

    def chunk_computed(self, chunk: Chunk) -> None:
        """A chunk is in the cache: its full blocks can be found, and after the last chunk the sequence decodes."""
        sequence = chunk.sequence
        sequence.num_computed_tokens += chunk.count
        self._cache_blocks(sequence, sequence.num_computed_tokens)
        if chunk.is_last:
            del self.prefilling[sequence]
            self.decoding[sequence] = None

    def _cache_blocks(self, sequence: Sequence, num_tokens: int) -> None:
        if self.prefix_caching:
            sequence.block_hashes = hash_blocks(sequence.token_ids[:num_tokens], sequence.block_hashes, sequence.cache_salt)
            for block, block_hash in zip(sequence.blocks, sequence.block_hashes[:num_tokens // BLOCK_SIZE]):
                self.pool.cache_block(block, block_hash)

    def fork(self, sequence: Sequence, forks: list[Sequence]) -> list[tuple[int, int]]:
        """Starts further samples of a prompt that has just been computed, each with its first token in `token_ids`. They share
        its blocks and copy the last one where it is not full: returns (source, target) of these copies. Those for which there
        is no place wait."""
        full, rest = divmod(sequence.num_prompt_tokens, BLOCK_SIZE)
        copies, waiting = [], []
        for fork in forks:
            if len(self.prefilling) + len(self.decoding) >= self.max_num_seqs or self.pool.num_free_blocks < bool(rest):
                waiting.append(fork)
                continue
            self.pool.touch(sequence.blocks[:full])
            self._append_blocks(fork, sequence.blocks[:full] + self.pool.allocate(bool(rest)))
            if rest:
                copies.append((sequence.blocks[full], fork.blocks[full]))
            fork.block_hashes = list(sequence.block_hashes)
            self.decoding[fork] = None
        self.waiting.extendleft(reversed(waiting))
        return copies

    def finish(self, sequence: Sequence, token_ids: Tokens[int] = (), num_cacheable: int | None = None) -> None:
        """Removes a sequence. token_ids: all of it, so that a later prompt finds its blocks; num_cacheable: how many of these
        may be found (None: all but the last, which was never computed)."""
        if sequence in self.decoding:
            if token_ids:
                sequence.token_ids, most = list(token_ids), len(token_ids) - 1
                self._cache_blocks(sequence, most if num_cacheable is None else min(num_cacheable, most))
            del self.decoding[sequence]
        elif sequence in self.prefilling:
            del self.prefilling[sequence]
        else:
            self.waiting.remove(sequence)
        self._free_blocks(sequence)
