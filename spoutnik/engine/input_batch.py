"""The input batch: the decoding sequences as rows of a few tensors that persist from step to step.

With hundreds of rows, handling each in Python takes as long as the model: there a step is a few operations on all rows. With
few rows it is the other way round: there single numbers are written through numpy views of the same memory.
Rows are dense: the last rows replace those that leave.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.engine.runners.base import DecodeBatch, MultiStepOutput
from spoutnik.engine.sampler import SamplingMetadata, sampling_columns, uniforms_below_1
from spoutnik.engine.scheduler import Sequence

_INTEGERS = ("last_tokens", "num_computed", "seeds", "num_generated", "max_tokens", "mtp_complete", "adapter_numbers")
_LAST_TOKENS, _NUM_COMPUTED, _, _NUM_GENERATED = range(4)


class InputBatch:
    """sequences: in the order of the rows. All columns are views of their first `len` rows, int64 unless said otherwise."""

    last_tokens: Tensor  # (rows,) each row's last token, not in the cache yet
    num_computed: Tensor  # (rows,) tokens in the cache
    seeds: Tensor  # (rows,)
    num_generated: Tensor  # (rows,)
    max_tokens: Tensor  # (rows,)
    mtp_complete: Tensor  # (rows,) 1 where the MTP module's cache has all of the row's tokens
    adapter_numbers: Tensor  # (rows,) -1 for the base
    block_tables: Tensor  # (rows, width)
    stop_ids: Tensor  # (rows, width) tokens that end the row, -1 for none
    indices: Tensor  # (rows,) 0, 1, 2, ...
    sampling: Tensor  # (4, rows) float32: temperature, top_p, top_k, min_p

    def __init__(self, max_num_seqs: int):
        self.sequences: list[Sequence] = []
        self._max_num_seqs = max_num_seqs
        self._integers = torch.zeros(len(_INTEGERS), 0, dtype=torch.long)
        self._sampling = torch.zeros(4, 0)
        self._block_tables = torch.zeros(0, 8, dtype=torch.long)
        self._stop_ids = torch.zeros(0, 1, dtype=torch.long)
        self._tokens = torch.zeros(0, 64, dtype=torch.long)  # generated ones
        self._logprobs = torch.zeros(0, 64)
        self._max_generated = 0  # no row has generated more
        self._refresh_views()

    def __len__(self) -> int:
        return len(self.sequences)

    def _refresh_views(self) -> None:
        """After rows have come or gone, or a tensor has been enlarged."""
        rows = len(self.sequences)
        for number, name in enumerate(_INTEGERS):
            setattr(self, name, self._integers[number, :rows])
        self.block_tables, self.stop_ids, self.indices = self._block_tables[:rows], self._stop_ids[:rows], torch.arange(rows)
        self.sampling = self._sampling[:, :rows]
        self.sampling_columns = self.sampling.unbind()
        self._np_integers = self._integers.numpy()
        self._np_tokens, self._np_logprobs, self._np_block_tables, self._np_stop_ids = (
            store.numpy() for store in (self._tokens, self._logprobs, self._block_tables, self._stop_ids))

    def sampling_metadata(self) -> SamplingMetadata:
        """For each row's next token."""
        return SamplingMetadata(*self.sampling_columns, uniforms_below_1(self.seeds, self.num_generated))

    def finished(self) -> Tensor:
        """(rows,) bool: the last token is a stop token, or the last of max_tokens."""
        return (self.last_tokens[:, None] == self.stop_ids).any(1) | (self.num_generated >= self.max_tokens)

    def decode_batch(self) -> DecodeBatch:
        """All rows, as `Runner.decode_multi_step` takes them."""
        return DecodeBatch(self.last_tokens, self.num_computed, self.block_tables, self.seeds, self.num_generated,
                           self.max_tokens, self.stop_ids, self.sampling, self.adapters)

    @property
    def adapters(self) -> Tensor | None:
        """`adapter_numbers`; None where no row has one."""
        return self.adapter_numbers if bool((self.adapter_numbers >= 0).any()) else None

    def add(self, sequences: list[Sequence]) -> None:
        """Appends sequences whose tokens are in the cache, except for the last one."""
        if not sequences:
            return
        first, samples = len(self.sequences), [s.sample for s in sequences]
        most = max(len(sample.token_ids) for sample in samples)
        self._max_generated = max(self._max_generated, most)
        self._reserve(first + len(sequences), max(len(s.blocks) for s in sequences), most,
                      max(len(sample.request.stop_ids) for sample in samples))
        new = slice(first, first + len(sequences))
        self._integers[:, new] = torch.tensor([
            [sample.token_ids[-1], s.num_tokens - 1, sample.seed, len(sample.token_ids), sample.params.max_tokens, 1,
             sample.request.adapter_number]
            for s, sample in zip(sequences, samples)]).T
        self._sampling[:, new] = sampling_columns([sample.params for sample in samples])
        for row, (sequence, sample) in enumerate(zip(sequences, samples), start=first):
            sequence.row = row
            self._np_tokens[row, :len(sample.token_ids)] = sample.token_ids
            self._np_logprobs[row, :len(sample.token_ids)] = sample.logprobs
            stop_ids = list(sample.request.stop_ids)
            self._np_stop_ids[row] = stop_ids + [-1] * (self._stop_ids.shape[1] - len(stop_ids))
        self.sequences += sequences
        self._refresh_views()
        self.update_blocks(sequences)

    def update_blocks(self, sequences: list[Sequence]) -> None:
        """Writes the block tables of sequences that were given blocks."""
        self._reserve(len(self.sequences), max(len(s.blocks) for s in sequences), 0)
        for sequence in sequences:
            self._np_block_tables[sequence.row, :len(sequence.blocks)] = sequence.blocks

    def append_blocks(self, sequences: list[Sequence]) -> None:
        """The same, faster, for sequences that were given one block each."""
        self._reserve(len(self.sequences), max(len(s.blocks) for s in sequences), 0)
        rows, columns, blocks = torch.tensor([(s.row, len(s.blocks) - 1, s.blocks[-1]) for s in sequences]).T
        self._block_tables[rows, columns] = blocks

    def append(self, tokens: Tensor, logprobs: Tensor) -> None:
        """The next token of every row, (rows,)."""
        self._reserve_tokens(1)
        self._tokens[self.indices, self.num_generated] = tokens
        self._logprobs[self.indices, self.num_generated] = logprobs
        self.last_tokens.copy_(tokens)
        self.num_generated.add_(1)
        self.num_computed.add_(1)

    def append_multi_step(self, output: MultiStepOutput) -> None:
        """The tokens of several steps of every row."""
        steps = output.tokens.shape[1]
        self._reserve_tokens(steps)
        valid = torch.arange(steps) < output.counts[:, None]
        row, step = valid.nonzero(as_tuple=True)
        column = self.num_generated[row] + step
        self._tokens[row, column], self._logprobs[row, column] = output.tokens[valid], output.logprobs[valid]
        some = output.counts > 0
        self.last_tokens[some] = output.tokens[some, output.counts[some] - 1]
        self.num_generated.add_(output.counts)
        self.num_computed.add_(output.counts)

    def append_to_row(self, row: int, tokens: list[int], logprobs: list[float]) -> None:
        """The next few tokens of one row."""
        self._reserve_tokens(len(tokens))
        integers, count = self._np_integers, len(tokens)
        start = integers[_NUM_GENERATED, row]
        self._np_tokens[row, start:start + count], self._np_logprobs[row, start:start + count] = tokens, logprobs
        integers[_LAST_TOKENS, row] = tokens[-1]
        integers[_NUM_GENERATED, row] += count
        integers[_NUM_COMPUTED, row] += count

    def drop_last_token(self, row: int) -> None:
        """Of a row that is about to leave."""
        self._np_integers[_NUM_GENERATED, row] -= 1

    def count_generated(self, row: int) -> int:
        return int(self._np_integers[_NUM_GENERATED, row])

    def generated_tokens(self, row: int, start: int = 0) -> tuple[list[int], list[float]]:
        """A row's generated tokens from number `start` on, and their log-probabilities."""
        end = self._np_integers[_NUM_GENERATED, row]
        return self._np_tokens[row, start:end].tolist(), self._np_logprobs[row, start:end].tolist()

    def remove(self, sequences: list[Sequence]) -> None:
        """Moves the last rows to the places of those that leave."""
        if not sequences:
            return
        leaving = {s.row for s in sequences}
        left = len(self.sequences) - len(leaving)
        targets = sorted(row for row in leaving if row < left)
        sources = [row for row in range(left, len(self.sequences)) if row not in leaving]
        for target, source in zip(targets, sources):
            self.sequences[target] = self.sequences[source]
            self.sequences[target].row = target
        del self.sequences[left:]
        for sequence in sequences:
            sequence.row = -1
        if targets:
            to, source = torch.tensor(targets), torch.tensor(sources)
            self._integers[:, to], self._sampling[:, to] = self._integers[:, source], self._sampling[:, source]
            for store in (self._block_tables, self._stop_ids, self._tokens, self._logprobs):
                store[to] = store[source]
        self._refresh_views()

    def _reserve_tokens(self, count: int) -> None:
        self._max_generated += count
        if self._max_generated > self._tokens.shape[1]:
            self._max_generated = int(self.num_generated.max()) + count
            self._reserve(len(self.sequences), 0, self._max_generated)

    def _reserve(self, rows: int, blocks: int, tokens: int, stop_ids: int = 0) -> None:
        """Enlarges the tensors to so many rows, and columns for each row's blocks, generated tokens and stop tokens."""
        have = self._integers.shape[1]
        if (rows <= have and blocks <= self._block_tables.shape[1] and tokens <= self._tokens.shape[1]
                and stop_ids <= self._stop_ids.shape[1]):
            return
        more = max(min(max(2 * have, 16), self._max_num_seqs), rows) - have if rows > have else 0
        self._integers, self._sampling = (F.pad(t, (0, more)) for t in (self._integers, self._sampling))
        self._block_tables = _enlarge(self._block_tables, more, blocks)
        self._stop_ids = F.pad(self._stop_ids, (0, max(stop_ids - self._stop_ids.shape[1], 0), 0, more), value=-1)
        self._tokens, self._logprobs = (_enlarge(t, more, tokens) for t in (self._tokens, self._logprobs))
        self._refresh_views()


def _enlarge(store: Tensor, rows: int, columns: int) -> Tensor:
    """With `rows` rows more, and at least `columns` columns (twice as many as before where these do not suffice)."""
    have = store.shape[1]
    return F.pad(store, (0, max(2 * have, columns) - have if columns > have else 0, 0, rows))
