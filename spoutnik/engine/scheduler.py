"""Who computes what in the next step, and in which blocks of the cache it is kept. No model, no clock: only counting.

A sequence waits, is prefilled in chunks, then decodes: one more token each step, until it ends. When blocks run out, the
youngest sequence gives its own back and waits again, first in the line; what it had generated stays and is computed anew.
"""

from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Any

from spoutnik.engine.block_pool import BlockPool, Name, names_of
from spoutnik.engine.runners.base import BLOCK_SIZE
from spoutnik.errors import UserError


@dataclass(eq=False, slots=True)
class Sequence:
    """One sample of one request.

    tokens: the prompt and what was generated, as known when it last was not decoding. length: how many there are now; while
        it decodes, all but the last are in the cache. order: the older first; samples of one prompt by their number.
    forks: samples that the prompt's computation is for, this one included. reuse: may find blocks of others.
    target: tokens to compute before it decodes. computed: how many of those are in the cache.
    drafts: guessed tokens to be computed after the last. ahead: how many places more its next step may write to.
    owner, row: the engine's.
    """

    tokens: list[int]
    prompt_length: int
    order: tuple[int, int]
    forks: int = 1
    reuse: bool = True
    length: int = 0
    target: int = 0
    computed: int = 0
    cached: int = 0
    blocks: list[int] = field(default_factory=list)
    names: list[Name] = field(default_factory=list)
    drafts: int = 0
    ahead: int = 0
    room: int = 0  # places in its blocks
    owner: Any = None
    row: int = -1

    def __post_init__(self):
        self.length = len(self.tokens)

    @property
    def fresh(self) -> bool:
        """Nothing generated yet."""
        return self.length == self.prompt_length


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens start .. start + count of a sequence, to be computed now. prompt: they are the prompt's, not generated ones.
    last: after them it decodes (and where it is fresh, its first token is sampled from the last one's logits)."""

    sequence: Sequence
    start: int
    count: int
    prompt: bool
    last: bool


@dataclass
class SchedulerOutput:
    """The next step: every decoding sequence's last token and drafts, then the chunks. grown: sequences with new blocks.
    preempted: those that no longer decode; the engine puts what they generated into their `tokens`."""

    chunks: list[Chunk] = field(default_factory=list)
    grown: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)


class Scheduler:
    """max_num_seqs: sequences computed at the same time. max_num_batched_tokens: tokens computed in one step."""

    def __init__(self, blocks: int, max_num_seqs: int, max_num_batched_tokens: int, prefix_caching: bool = True):
        if max_num_seqs < 1:
            raise UserError(f"max_num_seqs = {max_num_seqs}: must be at least 1.")
        if max_num_batched_tokens < max_num_seqs:
            raise UserError(f"max_num_batched_tokens = {max_num_batched_tokens}: must be at least max_num_seqs = "
                            f"{max_num_seqs}, since each sequence decodes a token in a step. Raise it, or lower max_num_seqs.")
        self.pool = BlockPool(blocks)
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.prefix_caching = prefix_caching
        self.waiting: deque[Sequence] = deque()
        self.prefilling: dict[Sequence, None] = {}
        self.decoding: dict[Sequence, None] = {}

    @property
    def unfinished(self) -> int:
        return len(self.waiting) + len(self.prefilling) + len(self.decoding)

    @property
    def capacity(self) -> int:
        """Tokens that one sequence may have, if it is alone."""
        return self.pool.size * BLOCK_SIZE

    def refuse_unfitting(self, prompt_length: int, max_tokens: int) -> None:
        """Raises UserError for a sequence that could never be computed to its end, even alone."""
        needed = blocks_for(prompt_length + max_tokens - 1)
        if needed > self.pool.size:
            raise UserError(f"max_tokens = {max_tokens}: with a prompt of {prompt_length} tokens it needs {needed} blocks of "
                            f"the cache, which has {self.pool.size}, of {BLOCK_SIZE} tokens each. Lower max_tokens, shorten "
                            "the prompt, or give the LLM more memory.")

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> SchedulerOutput:
        plan = SchedulerOutput()
        if self.decoding:
            self._make_room(plan)
        budget = self.max_num_batched_tokens - len(self.decoding) - self._drafted(self.max_num_batched_tokens)
        for sequence in self.prefilling:
            budget -= self._chunk(sequence, budget, plan)
        while budget > 0 and self.waiting and not plan.preempted and self._admit(self.waiting[0]):
            budget -= self._chunk(self.waiting.popleft(), budget, plan)
        return plan

    def _make_room(self, plan: SchedulerOutput) -> None:
        """A place for every token that the decoding sequences will store; older ones first."""
        needy = [s for s in self.decoding if s.length + s.ahead > s.room]
        for sequence in sorted(needy, key=lambda s: s.order):
            while sequence in self.decoding and sequence.length + sequence.ahead > sequence.room:
                if self.pool.free:
                    self._give(sequence, self.pool.take(1))
                    if not plan.grown or plan.grown[-1] is not sequence:
                        plan.grown.append(sequence)
                elif sequence.drafts or sequence.ahead:
                    sequence.drafts = sequence.ahead = 0
                else:
                    self._preempt(max((*self.decoding, *self.prefilling), key=lambda s: s.order), plan)
        if plan.preempted:
            plan.grown = [s for s in plan.grown if s in self.decoding]

    def _drafted(self, limit: int) -> int:
        """How many drafts are computed; none where they would pass the limit."""
        drafted = sum([s.drafts for s in self.decoding])
        if drafted + len(self.decoding) <= limit:
            return drafted
        for sequence in self.decoding:
            sequence.drafts = sequence.ahead = 0
        return 0

    def _preempt(self, sequence: Sequence, plan: SchedulerOutput) -> None:
        self._release(sequence)
        if sequence in self.decoding:
            del self.decoding[sequence]
            plan.preempted.append(sequence)
        else:
            del self.prefilling[sequence]
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pool.give_back(sequence.blocks)
        sequence.blocks, sequence.room, sequence.computed = [], 0, 0
        sequence.drafts = sequence.ahead = 0

    def _give(self, sequence: Sequence, blocks: list[int]) -> None:
        sequence.blocks += blocks
        sequence.room = len(sequence.blocks) * BLOCK_SIZE

    def _admit(self, sequence: Sequence) -> bool:
        """Gives a waiting sequence the blocks for all that it computes before it decodes, those that others have computed
        already where there are any; False where it must wait."""
        running = len(self.prefilling) + len(self.decoding) + sum(s.forks - 1 for s in self.prefilling)
        if running and running + sequence.forks > self.max_num_seqs:
            return False
        # The last prompt token is always computed: its logits are wanted. That of a generated one is fed again by decoding.
        target = sequence.length if sequence.fresh else sequence.length - 1
        shared = []
        if self.prefix_caching and sequence.reuse:
            sequence.names = names_of(sequence.tokens[:target], sequence.names)
            shared = self.pool.find(sequence.names[:(target - 1) // BLOCK_SIZE])
        # A block more for each sample's own copy of the last one, unless nothing else could give one back.
        spare = sequence.forks if running else 0
        new = blocks_for(target) - len(shared)
        if new + spare > self.pool.free - self.pool.unused(shared):
            return False
        self.pool.share(shared)
        self._give(sequence, shared + self.pool.take(new))
        sequence.target, sequence.computed = target, len(shared) * BLOCK_SIZE
        sequence.cached = sequence.computed
        self.prefilling[sequence] = None
        return True

    def _chunk(self, sequence: Sequence, budget: int, plan: SchedulerOutput) -> int:
        """The next tokens of a prefilling sequence. Prompt and generated ones are never in one chunk."""
        start = sequence.computed
        prompt = start < sequence.prompt_length
        end = min(sequence.target, start + budget, sequence.prompt_length if prompt else sequence.target)
        if end > start:
            plan.chunks.append(Chunk(sequence, start, end - start, prompt, end == sequence.target))
        return max(end - start, 0)

    def computed(self, chunk: Chunk) -> None:
        """A chunk is in the cache: others may find its full blocks, and after the last one the sequence decodes."""
        sequence = chunk.sequence
        sequence.computed += chunk.count
        self._name(sequence, sequence.computed)
        if chunk.last:
            del self.prefilling[sequence]
            self.decoding[sequence] = None

    def _name(self, sequence: Sequence, computed: int) -> None:
        if self.prefix_caching:
            sequence.names = names_of(sequence.tokens[:computed], sequence.names)
            for block, name in zip(sequence.blocks, sequence.names[:computed // BLOCK_SIZE]):
                self.pool.name(block, name)

    def fork(self, sequence: Sequence, samples: list[Sequence]) -> list[tuple[int, int]]:
        """Further samples of a prompt that has just been computed, each with its first token in `tokens`: they decode with
        its blocks, the last one copied where it is not full. Returns (from, to) of the copies. Those that find no room wait."""
        full, rest = divmod(sequence.prompt_length, BLOCK_SIZE)
        copies, late = [], []
        for sample in samples:
            if len(self.prefilling) + len(self.decoding) >= self.max_num_seqs or self.pool.free < bool(rest):
                late.append(sample)
                continue
            self.pool.share(sequence.blocks[:full])
            self._give(sample, sequence.blocks[:full] + self.pool.take(bool(rest)))
            if rest:
                copies.append((sequence.blocks[full], sample.blocks[full]))
            sample.names = list(sequence.names)
            self.decoding[sample] = None
        self.waiting.extendleft(reversed(late))
        return copies

    def finish(self, sequence: Sequence, tokens: Tokens[int] = (), nameable: int | None = None) -> None:
        """A sequence has ended, or is given up. tokens: all of it, so that a next turn finds its blocks; of these the first
        `nameable` may be found (None: all but the last, which was never computed)."""
        if sequence in self.decoding:
            if tokens:
                sequence.tokens = list(tokens)
                self._name(sequence, len(tokens) - 1 if nameable is None else min(nameable, len(tokens) - 1))
            del self.decoding[sequence]
        elif sequence in self.prefilling:
            del self.prefilling[sequence]
        else:
            self.waiting.remove(sequence)
        self._release(sequence)
