"""Expert parallelism: each process of a group holds some of every layer's routed experts, and tokens travel to their experts
and back (GShard, arXiv 2006.16668; DeepSeek-V3, section 3.2.2).

Letters: T tokens of this process, K experts per token, E experts, N processes of the group, D hidden size, R rows that arrive.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd

from spoutnik.model.moe import Combine, Dispatch, Experts, Layout


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
        arrived = all_to_all_single_autograd(Dispatch.apply(x, layout), here, there, self.group)
        chosen = torch.arange(held, device=x.device).repeat(ranks).repeat_interleave(received.flatten())
        computed = local.compute(arrived, chosen[:, None], weights.new_ones(len(chosen), 1))
        returned = all_to_all_single_autograd(computed, there, here, self.group)
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
