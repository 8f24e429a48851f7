"""Sums over the processes of a sharded model in an order that does not depend on their number.

As `train/summation.py`, virtual shards are the leaves of a binary tree. There a process computes neighboring leaves, which
would keep whole gradients here; so in each round the N processes compute N neighboring leaves, and the rows of each gradient
are added up along the tree where they stay. A batch of more micro-batches than there are shards is a sum of trees. N is a power
of two.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter

from spoutnik.train.summation import TreeSum, shard_of_leaf

Round = list[int | None]  # the micro-batch of each process, None where it has none


class TreeReduceScatter(ReduceScatter):
    """FSDP's reduce_scatter, whose sums are a binary tree over the ranks: as many bytes are sent, and all parts of a process's
    rows are there at one time."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: object,
                 async_op: bool = False) -> None:
        assert op == dist.ReduceOp.SUM
        parts = torch.empty_like(input_tensor)
        dist.all_to_all_single(parts, input_tensor, group=group)
        rows = parts.view(group.size(), -1)
        while len(rows) > 1:
            rows = rows[0::2] + rows[1::2]
        output_tensor.copy_(rows[0])


def rounds(count: int, ranks: int, shards: int | None) -> Iterator[tuple[int, list[Round]]]:
    """The rounds of `count` micro-batches, with a tree's number: one tree in each, of which each process computes a leaf.
    Without shards all rounds are of one tree, which nobody adds up as such."""
    if shards is None:
        yield 0, [[n if n < count else None for n in range(first, first + ranks)] for first in range(0, count, ranks)]
        return
    for tree, first in enumerate(range(0, count, shards)):
        numbers = [first + shard_of_leaf(leaf, shards) for leaf in range(shards)]
        numbers = [number if number < count else None for number in numbers]
        yield tree, [numbers[leaf:leaf + ranks] for leaf in range(0, shards, ranks)]


def sum_in_rounds(count: int, ranks: int, shards: int | None, pass_over: Callable[[Round], list[Tensor]]) -> list[Tensor]:
    """The sum over all micro-batches of this process's rows. pass_over: the sum of a round, of which not all are None."""
    total = None
    for _, some in rounds(count, ranks, shards):
        if shards is None:
            for numbers in some:
                total = _added(total, pass_over(numbers))
            continue
        tree = TreeSum()
        for number, numbers in enumerate(some):
            has_any = any(each is not None for each in numbers)
            tree.add(number * ranks, ranks, pass_over(numbers) if has_any else None)
        total = _added(total, tree.root)
    if shards is not None:
        torch._foreach_add_(total, 0.0)  # where -0 was added to the 0 of a process without a micro-batch
    return total


def _added(total: list[Tensor] | None, more: list[Tensor]) -> list[Tensor]:
    """In place of the total."""
    if total is None:
        return more
    torch._foreach_add_(total, more)
    return total


def norm_by_rows(gradients: Sequence[Tensor], group: dist.ProcessGroup) -> Tensor:
    """The length of all processes' rows together: each row's squares are summed where it lies, and the rows' sums in the order
    of the whole tensors."""
    matrices = [gradient[:, None] if gradient.dim() == 1 else gradient.flatten(1) for gradient in gradients]
    sums = [matrix.double().square().sum(1) for matrix in matrices]
    counts = torch.tensor([len(each) for each in sums], device=sums[0].device)
    all_counts = [torch.empty_like(counts) for _ in range(group.size())]
    dist.all_gather(all_counts, counts, group=group)
    longest = max(int(each.sum()) for each in all_counts)
    mine = torch.cat([*sums, sums[0].new_zeros(longest - int(counts.sum()))])
    of_ranks = [torch.empty_like(mine) for _ in range(group.size())]
    dist.all_gather(of_ranks, mine, group=group)
    split = [rows[:int(each.sum())].split(each.tolist()) for rows, each in zip(of_ranks, all_counts)]
    in_order = torch.cat([part for of_tensor in zip(*split) for part in of_tensor])
    return in_order.sum().sqrt().float()
