"""The sequences being decoded, as rows of a few tensors that stay from step to step.

With hundreds of rows, touching each in Python would take as long as the model does: a step is a few operations over all of
them. With a few rows it is the other way round: then single numbers are written, through numpy's view of the same memory.
Rows are dense: where one leaves, the last takes its place.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.engine.runners.base import DecodeBatch, MultiStepOutput
from spoutnik.engine.sampler import SamplingMetadata, columns_of, uniforms_below_1
from spoutnik.engine.scheduler import Sequence

# Of each row: its last token, not in the cache yet; tokens in the cache; seed; tokens generated, and how many may be; whether
# the MTP module has seen all of it.
_INTEGERS = ("tokens", "contexts", "seeds", "generated", "limits", "complete")
_REALS = ("temperature", "top_p", "top_k", "min_p")
_TOKENS, _CONTEXTS, _, _GENERATED = range(4)


class InputBatch:
    """sequences: in the order of the rows. Columns: the names above, (rows,) each; tables (rows, width): their blocks; ends
    (rows, width): the tokens that end them, -1 for none."""

    tokens: Tensor
    contexts: Tensor
    seeds: Tensor
    generated: Tensor
    limits: Tensor
    complete: Tensor
    tables: Tensor
    ends: Tensor
    each: Tensor  # 0, 1, 2, ...: the rows' own numbers

    reals: Tensor  # (4, rows): temperature, top_p, top_k, min_p; columns: each of them

    def __init__(self, capacity: int):
        self.sequences: list[Sequence] = []
        self._capacity = capacity
        self._integers = torch.zeros(len(_INTEGERS), 0, dtype=torch.long)
        self._reals = torch.zeros(len(_REALS), 0)
        self._tables = torch.zeros(0, 8, dtype=torch.long)
        self._ends = torch.zeros(0, 1, dtype=torch.long)
        self._history = torch.zeros(0, 64, dtype=torch.long)  # what each has generated
        self._logprobs = torch.zeros(0, 64)
        self._most = 0  # no row has generated more
        self._look()

    def __len__(self) -> int:
        return len(self.sequences)

    def _look(self) -> None:
        """The views again, after rows have come or gone or a tensor has grown."""
        rows = len(self.sequences)
        for number, name in enumerate(_INTEGERS):
            setattr(self, name, self._integers[number, :rows])
        self.tables, self.ends, self.each = self._tables[:rows], self._ends[:rows], torch.arange(rows)
        self.reals = self._reals[:, :rows]
        self.columns = self.reals.unbind()
        self._numbers = self._integers.numpy()
        self._history_numbers, self._logprob_numbers, self._table_numbers, self._end_numbers = (
            store.numpy() for store in (self._history, self._logprobs, self._tables, self._ends))

    def settings(self) -> SamplingMetadata:
        """For each row's next token."""
        return SamplingMetadata(*self.columns, uniforms_below_1(self.seeds, self.generated))

    def over(self) -> Tensor:
        """(rows,) bool: whether the last token ended the row, or was the last it may have."""
        return (self.tokens[:, None] == self.ends).any(1) | (self.generated >= self.limits)

    def decoding(self) -> DecodeBatch:
        """As a runner takes them, to go on without us."""
        return DecodeBatch(self.tokens, self.contexts, self.tables, self.seeds, self.generated, self.limits, self.ends,
                           self.reals)

    def add(self, sequences: list[Sequence]) -> None:
        """Sequences whose tokens but the last are in the cache. Their owners (engine/request.py) say the rest."""
        if not sequences:
            return
        first, samples = len(self.sequences), [s.owner for s in sequences]
        most = max(len(made.token_ids) for made in samples)
        self._most = max(self._most, most)
        self._reserve(first + len(sequences), max(len(s.blocks) for s in sequences), most,
                      max(len(made.request.ends) for made in samples))
        new = slice(first, first + len(sequences))
        self._integers[:, new] = torch.tensor([
            [made.token_ids[-1], s.length - 1, made.seed, len(made.token_ids), made.params.max_tokens, 1]
            for s, made in zip(sequences, samples)]).T
        self._reals[:, new] = columns_of([made.params for made in samples])
        for row, (sequence, made) in enumerate(zip(sequences, samples), start=first):
            sequence.row = row
            self._history_numbers[row, :len(made.token_ids)] = made.token_ids
            self._logprob_numbers[row, :len(made.token_ids)] = made.logprobs
            ends = list(made.request.ends)
            self._end_numbers[row] = ends + [-1] * (self._ends.shape[1] - len(ends))
        self.sequences += sequences
        self._look()
        self.read_blocks(sequences)

    def read_blocks(self, sequences: list[Sequence]) -> None:
        """These have been given blocks."""
        self._reserve(len(self.sequences), max(len(s.blocks) for s in sequences), 0)
        for sequence in sequences:
            self._table_numbers[sequence.row, :len(sequence.blocks)] = sequence.blocks

    def append_blocks(self, sequences: list[Sequence]) -> None:
        """These have been given one block each: what most steps do."""
        self._reserve(len(self.sequences), max(len(s.blocks) for s in sequences), 0)
        places = torch.tensor([(s.row, len(s.blocks) - 1, s.blocks[-1]) for s in sequences]).T
        self._tables[places[0], places[1]] = places[2]

    def append(self, tokens: Tensor, logprobs: Tensor) -> None:
        """The next token of every row, (rows,)."""
        self._make_columns(1)
        self._history[self.each, self.generated], self._logprobs[self.each, self.generated] = tokens, logprobs
        self.tokens.copy_(tokens)
        self.generated.add_(1)
        self.contexts.add_(1)

    def append_generated(self, made: MultiStepOutput) -> None:
        """What the rows have generated on their own."""
        steps = made.tokens.shape[1]
        self._make_columns(steps)
        there = torch.arange(steps) < made.counts[:, None]
        row, step = there.nonzero(as_tuple=True)
        column = self.generated[row] + step
        self._history[row, column], self._logprobs[row, column] = made.tokens[there], made.logprobs[there]
        some = made.counts > 0
        self.tokens[some] = made.tokens[some, made.counts[some] - 1]
        self.generated.add_(made.counts)
        self.contexts.add_(made.counts)

    def extend(self, row: int, tokens: list[int], logprobs: list[float]) -> None:
        """The next few tokens of one row."""
        self._make_columns(len(tokens))
        numbers, count = self._numbers, len(tokens)
        made = numbers[_GENERATED, row]
        self._history_numbers[row, made:made + count], self._logprob_numbers[row, made:made + count] = tokens, logprobs
        numbers[_TOKENS, row] = tokens[-1]
        numbers[_GENERATED, row] += count
        numbers[_CONTEXTS, row] += count

    def count(self, row: int) -> int:
        """How many tokens a row has generated."""
        return int(self._numbers[_GENERATED, row])

    def take_back(self, row: int) -> None:
        """The last token of a row, which is about to leave, does not count."""
        self._numbers[_GENERATED, row] -= 1

    def made(self, row: int, first: int = 0) -> tuple[list[int], list[float]]:
        """What a row has generated, from its token number `first` on, and the log-probabilities."""
        upto = self._numbers[_GENERATED, row]
        return self._history_numbers[row, first:upto].tolist(), self._logprob_numbers[row, first:upto].tolist()

    def remove(self, sequences: list[Sequence]) -> None:
        """The last rows take the places of those that leave."""
        if not sequences:
            return
        leaving = {s.row for s in sequences}
        left = len(self.sequences) - len(leaving)
        holes = sorted(row for row in leaving if row < left)
        movers = [row for row in range(left, len(self.sequences)) if row not in leaving]
        for hole, mover in zip(holes, movers):
            self.sequences[hole] = self.sequences[mover]
            self.sequences[hole].row = hole
        del self.sequences[left:]
        for sequence in sequences:
            sequence.row = -1
        if holes:
            to, source = torch.tensor(holes), torch.tensor(movers)
            self._integers[:, to], self._reals[:, to] = self._integers[:, source], self._reals[:, source]
            for store in (self._tables, self._ends, self._history, self._logprobs):
                store[to] = store[source]
        self._look()

    def _make_columns(self, count: int) -> None:
        self._most += count
        if self._most > self._history.shape[1]:
            self._most = int(self.generated.max()) + count
            self._reserve(len(self.sequences), 0, self._most)

    def _reserve(self, rows: int, blocks: int, columns: int, ends: int = 0) -> None:
        """Room for so many rows, of so many blocks, generated tokens and ends each."""
        have = self._integers.shape[1]
        if (rows <= have and blocks <= self._tables.shape[1] and columns <= self._history.shape[1]
                and ends <= self._ends.shape[1]):
            return
        more = max(min(max(2 * have, 16), self._capacity), rows) - have if rows > have else 0
        self._integers, self._reals = (F.pad(t, (0, more)) for t in (self._integers, self._reals))
        self._tables = _grown(self._tables, more, blocks)
        self._ends = F.pad(self._ends, (0, max(ends - self._ends.shape[1], 0), 0, more), value=-1)
        self._history, self._logprobs = (_grown(t, more, columns) for t in (self._history, self._logprobs))
        self._look()


def _grown(store: Tensor, rows: int, columns: int) -> Tensor:
    have = store.shape[1]
    return F.pad(store, (0, max(2 * have, columns) - have if columns > have else 0, 0, rows))
