"""The pool of the cache's blocks: reference counts, and the prefix cache, which finds blocks by a hash of their content."""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

from spoutnik.engine.runners.base import BLOCK_SIZE

BlockHash = bytes  # 16 bytes that depend on every token up to the block's end


def hash_blocks(token_ids: Sequence[int], first_hashes: Sequence[BlockHash] = (), salt: bytes = b"") -> list[BlockHash]:
    """Hashes of the full blocks of a sequence. first_hashes: those of its first blocks, where they were computed before. salt:
    what the content depends on beside the tokens."""
    hashes = list(first_hashes)
    for start in range(len(hashes) * BLOCK_SIZE, len(token_ids) - BLOCK_SIZE + 1, BLOCK_SIZE):
        content = array("q", token_ids[start:start + BLOCK_SIZE]).tobytes()
        hashes.append(hashlib.blake2b((hashes[-1] if hashes else salt) + content, digest_size=16).digest())
    return hashes


class BlockPool:
    """A fixed number of blocks with reference counts. A freed block keeps its hash and content until it is allocated again:
    blocks without a hash first, then those that have been free the longest."""

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self.ref_counts = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict()  # blocks that were in use before
        self._next_unused = 0  # this block and those after it were never allocated: there may be millions
        self._hash_of: dict[int, BlockHash] = {}
        self._block_of: dict[BlockHash, int] = {}

    @property
    def num_slots(self) -> int:
        """Tokens that all blocks hold together."""
        return self.num_blocks * BLOCK_SIZE

    @property
    def num_free_blocks(self) -> int:
        """Blocks without references, cached or not."""
        return len(self._free) + self.num_blocks - self._next_unused

    def allocate(self, count: int) -> list[int]:
        """Blocks with one reference each. The caller has checked `num_free_blocks`."""
        assert count <= self.num_free_blocks, "more blocks than are free"
        blocks = [self._pop_free() for _ in range(count)]
        for block in blocks:
            self.ref_counts[block] = 1
        return blocks

    def _pop_free(self) -> int:
        oldest = next(iter(self._free), None)
        if self._next_unused < self.num_blocks and (oldest is None or oldest in self._hash_of):
            self._next_unused += 1
            return self._next_unused - 1
        del self._free[oldest]
        if oldest in self._hash_of:
            del self._block_of[self._hash_of.pop(oldest)]
        return oldest

    def get_cached_blocks(self, hashes: Sequence[BlockHash]) -> list[int]:
        """The blocks of the longest cached prefix."""
        return [self._block_of[block_hash] for block_hash in takewhile(self._block_of.__contains__, hashes)]

    def count_free(self, blocks: Sequence[int]) -> int:
        """How many of these blocks have no reference."""
        return sum(self.ref_counts[block] == 0 for block in blocks)

    def touch(self, blocks: Sequence[int]) -> None:
        """Adds a reference to each."""
        for block in blocks:
            if self.ref_counts[block] == 0:
                del self._free[block]
            self.ref_counts[block] += 1

    def free(self, blocks: Sequence[int]) -> None:
        """Drops a reference of each. Last block first: a prefix, which others may share, is evicted after its continuation."""
        for block in reversed(blocks):
            assert self.ref_counts[block] > 0, "a block freed twice"
            self.ref_counts[block] -= 1
            if self.ref_counts[block] == 0:
                self._free[block] = None
                if block not in self._hash_of:
                    self._free.move_to_end(block, last=False)

    def cache_block(self, block: int, block_hash: BlockHash) -> None:
        """Makes a full, computed block findable. Where a content has a block already, that one stays."""
        if block_hash not in self._block_of and block not in self._hash_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash
