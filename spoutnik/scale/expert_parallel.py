"""Expert parallelism: each process of a group holds some of every layer's routed experts, and tokens travel to their experts
and back (GShard, arXiv 2006.16668; DeepSeek-V3, section 3.2.2).

Letters: T tokens of this process, K experts per token, E experts, N processes of the group, D hidden size, R rows that arrive.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spoutnik.model.moe import Combine, Dispatch, Experts, Layout


class _Exchanged(torch.autograd.Function):
    """Rows sent to the processes of a group, sent[i] of them to process i, to the rows that come back, received[i] from it;
    their gradients go the other way. (PyTorch's own returns a tensor that is not there yet, which kernels cannot be given.)"""

    @staticmethod
    def forward(ctx, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.arguments = received, sent, group
        result = rows.new_empty(sum(received), rows.shape[1])
        dist.all_to_all_single(result, rows.contiguous(), received, sent, group=group)
        return result

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Exchanged.forward(ctx, grad, *ctx.arguments), None, None, None


@dataclass(frozen=True)
class AllToAll:
    """The exchange of one layer's tokens in a group of processes that hold E / N experts each, in order."""

    group: dist.ProcessGroup

    def __call__(self, local: Experts, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """x (T, D), experts (T, K), weights (T, K) to (T, D): each choice goes to its expert, and its result comes back and is
        weighed here. The weights never travel, so that their gradient is computed where the router is."""
        ranks, held = self.group.size(), len(local.down_proj)
        layout = Layout.of(experts, held * ranks, 1)  # rows sorted by expert, and so by process
        sent = layout.counts.view(ranks, held)
        received = torch.empty_like(sent)  # rows from each process for each expert that is here
        dist.all_to_all_single(received, sent.contiguous(), group=self.group)
        there, here = sent.sum(1).tolist(), received.sum(1).tolist()
        arrived = _Exchanged.apply(Dispatch.apply(x, layout), there, here, self.group)
        chosen = torch.arange(held, device=x.device).repeat(ranks).repeat_interleave(received.flatten())
        if len(chosen):
            computed = local.compute(arrived, chosen[:, None], weights.new_ones(len(chosen), 1))
        else:  # of a row that nobody sent: these experts' gradients are zeros, which others wait for, and not none
            spare = torch.cat([arrived, arrived.new_zeros(1, arrived.shape[1])])
            computed = local.compute(spare, chosen.new_zeros(1, 1), weights.new_ones(1, 1))[:0]
        returned = _Exchanged.apply(computed, here, there, self.group)
        return Combine.apply(returned, layout, weights)


def deal_experts(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Leaves every layer's experts that are this process's, adapters included, and connects the layers with the other
    processes'."""
    ranks, rank = group.size(), group.rank()
    for module in model.modules():
        if not isinstance(module, Experts):
            continue
        held = len(module.down_proj) // ranks
        for owner in module.modules():
            for name, parameter in list(owner.named_parameters(recurse=False)):
                rows = parameter.detach()[rank * held:(rank + 1) * held].clone()
                owner._parameters[name] = nn.Parameter(rows, parameter.requires_grad)
        module.exchange = AllToAll(group)


def rank_loads(loads: dict[str, Tensor], ranks: int) -> Tensor:
    """(layers, N) the tokens that each process computes in each layer, of loads (E,) by router."""
    return torch.stack([load.view(ranks, -1).sum(1) for load in loads.values()])
