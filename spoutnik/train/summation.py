"""The sum of a batch's gradients over cores and processes, and the order in which it is added up.

A sum of floating-point numbers depends on its order. With virtual shards (the idea is EasyScale's, SC 2023) that order is a
property of the batch alone: its micro-batches are dealt to V shards, V fixed in the recipe; a shard's are added one after
another; the shards are the leaves of a binary tree. A process computes a contiguous range of leaves and adds up what it can;
the rest of the tree is added where each number's owner has collected all parts of it. So 1, 2, 3, 4 or 8 processes, on however
many cores, end with the same bytes, and as many bytes are sent as by the usual all_reduce.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spoutnik.parallel import cores, on_all_cores
from spoutnik.world import World, collective

Sum = list[Tensor | None]  # gradients in the order of the parameters; None stands for zeros
GradientOf = Callable[[int], Sum]  # of a micro-batch, by its number; the sum owns what it returns

_BUCKET = 1 << 24  # numbers that are exchanged at one time: 64 MB of float32


def sum_gradients(world: World, count: int, gradient_of: GradientOf, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The sum over `count` micro-batches, the same bytes on every rank."""
    if world.virtual_shards:
        return _sum_over_shards(world, count, gradient_of, parameters)
    return _sum_over_ranks(world, count, gradient_of, parameters)


def _sum_over_ranks(world: World, count: int, gradient_of: GradientOf, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Micro-batches are dealt one by one; a process adds its own in their order, and all_reduce adds the processes' sums in an
    order that depends on their number."""
    total = None
    for gradients in on_all_cores(gradient_of, range(world.rank, count, world.size), parameters[0].device):
        total = _added(total, gradients)
    total = _with_zeros(total, parameters)
    if world.size > 1:
        import torch.distributed as dist

        for bucket in _buckets(total):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with collective():
                dist.all_reduce(flat)
            _unflatten(flat, bucket)
    return total


def _sum_over_shards(world: World, count: int, gradient_of: GradientOf, parameters: Sequence[Tensor]) -> list[Tensor]:
    tree, shards = TreeSum(), world.virtual_shards

    def sum_of_leaf(leaf: int) -> Sum | None:
        total = None
        for number in range(shard_of_leaf(leaf, shards), count, shards):
            total = _added(total, gradient_of(number))
        return total

    mine, width = leaves_of(world.rank, world.size, shards), cores()
    for start in range(mine.start, mine.stop, width):  # no more gradients at one time than there are cores
        leaves = range(start, min(start + width, mine.stop))
        for leaf, value in zip(leaves, on_all_cores(sum_of_leaf, leaves, parameters[0].device)):
            tree.add(leaf, 1, value)
    if world.size == 1:
        return _with_zeros(tree.root, parameters)
    return _rest_of_tree(world, tree, count, parameters)


@dataclass
class TreeSum:
    """A binary tree's sum, leaf by leaf from the left; it holds only the nodes that wait for their right neighbors (at most
    2 log2 V). nodes: (first leaf, leaves below it, sum), where None is the sum of nothing."""

    nodes: list[tuple[int, int, Sum | None]] = field(default_factory=list)

    def add(self, first: int, leaves: int, value: Sum | None) -> None:
        """The next node to the right, whose value is owned."""
        self.nodes.append((first, leaves, value))
        while len(self.nodes) > 1:
            (left, size, a), (_, right_size, b) = self.nodes[-2:]
            if size != right_size or left % (2 * size):
                return
            self.nodes[-2:] = [(left, 2 * size, _added(a, b))]

    @property
    def root(self) -> Sum | None:
        (_, _, value), = self.nodes
        return value


def leaves_of(rank: int, size: int, shards: int) -> range:
    """The leaves that a process computes."""
    return range(rank * shards // size, (rank + 1) * shards // size)


def shard_of_leaf(leaf: int, shards: int) -> int:
    """The leaf's number with its bits reversed. Micro-batches come in the order of their length; so neighbors in the tree hold
    such as lie far apart in it, and every process has long ones and short ones."""
    bits = shards.bit_length() - 1
    return int(format(leaf, f"0{bits}b")[::-1], 2) if bits else 0


def _rest_of_tree(world: World, tree: TreeSum, count: int, parameters: Sequence[Tensor]) -> list[Tensor]:
    """From each process's nodes to the root. Of every bucket each rank owns a part: it collects all ranks' nodes of that part,
    adds them along the tree and sends the sum to all."""
    import torch.distributed as dist

    nodes = [list(_nodes(rank, world, count)) for rank in range(world.size)]
    sizes = [sum(has_some for _, _, has_some in of_rank) for of_rank in nodes]
    own = [_with_zeros(value, parameters) for _, _, value in tree.nodes if value is not None]
    assert len(own) == sizes[world.rank]
    total = own[0] if own else [torch.empty_like(parameter) for parameter in parameters]
    for numbers in _numbered_buckets(total):
        elements = sum(total[i].numel() for i in numbers)
        width = -(-elements // world.size)
        sent = total[numbers[0]].new_zeros(len(own), world.size * width)
        for row, value in zip(sent, own):
            torch.cat([value[i].flatten() for i in numbers], out=row[:elements])
        sent = sent.view(len(own), world.size, width).transpose(0, 1).reshape(-1)  # (ranks, nodes, width), flat
        received = sent.new_empty(sum(sizes) * width)
        with collective():
            dist.all_to_all_single(received, sent, [n * width for n in sizes], [len(own) * width] * world.size)
        part, rows = TreeSum(), iter(received.view(-1, width))
        for first, leaves, has_some in (node for of_rank in nodes for node in of_rank):
            part.add(first, leaves, [next(rows)] if has_some else None)
        whole = sent.new_empty(world.size * width)
        with collective():
            dist.all_gather_single(whole, part.root[0].contiguous())
        _unflatten(whole, [total[i] for i in numbers])
    return total


def _nodes(rank: int, world: World, count: int) -> Iterator[tuple[int, int, bool]]:
    """A rank's nodes: first leaf, leaves below it, and whether they have any micro-batch."""
    leaves = leaves_of(rank, world.size, world.virtual_shards)
    start = leaves.start
    while start < leaves.stop:
        size = 1
        while start % (2 * size) == 0 and start + 2 * size <= leaves.stop:
            size *= 2
        yield start, size, any(shard_of_leaf(leaf, world.virtual_shards) < count for leaf in range(start, start + size))
        start += size


def _added(a: Sum | None, b: Sum | None) -> Sum | None:
    """In place of `a`."""
    if a is None or b is None:
        return b if a is None else a
    for i, y in enumerate(b):
        if a[i] is None:
            a[i] = y
        elif y is not None:
            a[i] += y
    return a


def _with_zeros(total: Sum | None, parameters: Sequence[Tensor]) -> list[Tensor]:
    total = [None] * len(parameters) if total is None else total
    return [torch.zeros_like(p) if gradient is None else gradient for p, gradient in zip(parameters, total)]


def _numbered_buckets(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """Tensors of one type, by number, in their order, until a bucket is full."""
    bucket: list[int] = []
    for number, tensor in enumerate(tensors):
        if bucket and (tensors[bucket[0]].dtype != tensor.dtype or sum(tensors[i].numel() for i in bucket) >= _BUCKET):
            yield bucket
            bucket = []
        bucket.append(number)
    if bucket:
        yield bucket


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    return ([tensors[i] for i in numbers] for numbers in _numbered_buckets(tensors))


def _unflatten(flat: Tensor, into: Iterable[Tensor]) -> None:
    start = 0
    for tensor in into:
        tensor.copy_(flat[start:start + tensor.numel()].view_as(tensor))
        start += tensor.numel()
