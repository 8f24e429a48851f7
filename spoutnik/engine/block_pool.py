"""Who uses which block of the cache, and what is in blocks that nobody uses any more."""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from spoutnik.engine.runners.base import BLOCK_SIZE

Name = bytes  # of a block's content: 16 bytes that depend on every token up to its end


def names_of(tokens: Sequence[int], known: Sequence[Name] = ()) -> list[Name]:
    """The names of the full blocks of a sequence that starts with `tokens`; the first few may be `known`."""
    names = list(known)
    for start in range(len(names) * BLOCK_SIZE, len(tokens) - BLOCK_SIZE + 1, BLOCK_SIZE):
        content = array("q", tokens[start:start + BLOCK_SIZE]).tobytes()
        names.append(hashlib.blake2b((names[-1] if names else b"") + content, digest_size=16).digest())
    return names


class BlockPool:
    """A fixed number of blocks with reference counts. A block that is given back keeps its name and content until it is
    needed for something else; those unused the longest go first, nameless ones before all."""

    def __init__(self, blocks: int):
        self.size = blocks
        self.users = [0] * blocks
        self._free: OrderedDict[int, None] = OrderedDict()  # given back
        self._untouched = 0  # this block and those after it were never taken: there may be millions
        self._name: dict[int, Name] = {}
        self._block: dict[Name, int] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody uses, whatever they still hold."""
        return len(self._free) + self.size - self._untouched

    def take(self, count: int) -> list[int]:
        """New blocks, of one user each. The caller has looked at `free`."""
        assert count <= self.free, "more blocks than are free"
        taken = [self._take() for _ in range(count)]
        for block in taken:
            self.users[block] = 1
        return taken

    def _take(self) -> int:
        oldest = next(iter(self._free), None)
        if self._untouched < self.size and (oldest is None or oldest in self._name):
            self._untouched += 1
            return self._untouched - 1
        del self._free[oldest]
        if oldest in self._name:
            del self._block[self._name.pop(oldest)]
        return oldest

    def find(self, names: Sequence[Name]) -> list[int]:
        """The blocks that hold the longest known beginning of a sequence."""
        found = []
        for name in names:
            if name not in self._block:
                break
            found.append(self._block[name])
        return found

    def unused(self, blocks: Sequence[int]) -> int:
        """How many of these count as free."""
        return sum(self.users[block] == 0 for block in blocks)

    def share(self, blocks: Sequence[int]) -> None:
        """One user more for each."""
        for block in blocks:
            if self.users[block] == 0:
                del self._free[block]
            self.users[block] += 1

    def give_back(self, blocks: Sequence[int]) -> None:
        """One user less for each. The end of a sequence is forgotten before its beginning, which others may share."""
        for block in reversed(blocks):
            assert self.users[block] > 0, "a block given back twice"
            self.users[block] -= 1
            if self.users[block] == 0:
                self._free[block] = None
                if block not in self._name:
                    self._free.move_to_end(block, last=False)

    def name(self, block: int, name: Name) -> None:
        """Says what a full, computed block holds. A content that has a block already keeps that one."""
        if name not in self._block and block not in self._name:
            self._block[name] = block
            self._name[block] = name

    def forget(self) -> None:
        """No content can be found any more: the weights have changed."""
        self._block.clear()
        self._name.clear()
