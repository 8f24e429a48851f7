"""LoRA of routed experts: each map of each expert has a pair of its own, as PEFT has had it where experts are modules; stacked
over the experts, as their weights are.

Letters: E experts, r rank, D hidden size, I width of an expert, N rows sorted by expert.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spoutnik.model.grouped import grouped_linear
from spoutnik.model.moe import Experts

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class ExpertMap:
    """One map of one expert, a view of the stacked weights: what adapters ask of a `Linear`."""

    weight: Tensor
    is_packed = False

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.weight.shape)

    def first_row(self) -> Tensor:
        return self.weight[0]


def expert_maps(model: nn.Module) -> dict[str, ExpertMap]:
    """The routed experts' maps by their published names without `model.`, as layers.3.mlp.experts.7.up_proj; the MTP module's
    left out."""
    maps = {}
    for name, module in model.named_modules():
        if not isinstance(module, Experts) or not name.startswith("layers."):
            continue
        width = module.down_proj.shape[2]
        for e in range(len(module.down_proj)):
            gate_up, down = module.gate_up_proj[e], module.down_proj[e]
            maps |= {f"{name}.{e}.{projection}": ExpertMap(weight.detach())
                     for projection, weight in zip(PROJECTIONS, (gate_up[:width], gate_up[width:], down))}
    return maps


class ExpertsLowRank(nn.Module):
    """The trained part beside a layer's routed experts: for each projection A (E, r, in) and B (E, out, r). float32."""

    def __init__(self, pairs: Mapping[str, tuple[Tensor, Tensor]], scale: float):
        super().__init__()
        self.lora_A = nn.ParameterDict({projection: nn.Parameter(a) for projection, (a, _) in pairs.items()})
        self.lora_B = nn.ParameterDict({projection: nn.Parameter(b) for projection, (_, b) in pairs.items()})
        self.scale = scale

    @staticmethod
    def of(experts: Experts, parts: Mapping[str, nn.Module]) -> "ExpertsLowRank":
        """parts: pairs (`lora.LowRank`) by names as 7.up_proj. Thinner ones are filled with zeros, other scales go into B, and
        what has none gets zeros."""
        first = next(iter(parts.values()))
        rank = max(part.rank for part in parts.values())
        n, hidden, width = experts.down_proj.shape
        device, pairs = experts.down_proj.device, {}
        for projection in PROJECTIONS:
            inputs, outputs = (width, hidden) if projection == "down_proj" else (hidden, width)
            a, b = torch.zeros(n, rank, inputs, device=device), torch.zeros(n, outputs, rank, device=device)
            for e in range(n):
                if (part := parts.get(f"{e}.{projection}")) is not None:
                    a[e, :part.rank] = part.lora_A.detach()
                    b[e, :, :part.rank] = part.lora_B.detach() * (part.scale / first.scale)
            pairs[projection] = a, b
        return ExpertsLowRank(pairs, first.scale)

    def with_tensors(self, state: Mapping[str, Tensor]) -> "ExpertsLowRank":
        """The same adapter of other tensors, by their names in `state_dict`."""
        return ExpertsLowRank({projection: (state[f"lora_A.{projection}"], state[f"lora_B.{projection}"])
                               for projection in self.lora_A}, self.scale)

    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        """A (r, in) and B (out, r) of a map as 7.up_proj."""
        expert, _, projection = name.partition(".")
        return self.lora_A[projection][int(expert)].detach(), self.lora_B[projection][int(expert)].detach()

    def names(self) -> list[str]:
        """The maps that have a pair, as 7.up_proj."""
        return [f"{e}.{projection}" for projection, a in self.lora_A.items() for e in range(len(a))]

    def _product(self, projection: str, rows: Tensor, counts: Tensor) -> Tensor:
        low = grouped_linear(rows, self.lora_A[projection], counts)
        return self.scale * grouped_linear(low, self.lora_B[projection], counts)

    def gate_up(self, rows: Tensor, counts: Tensor) -> Tensor:
        """What is added to the product with gate_up_proj: rows (N, D) to (N, 2I)."""
        return torch.cat([self._product(projection, rows, counts) for projection in PROJECTIONS[:2]], dim=-1)

    def down(self, rows: Tensor, counts: Tensor) -> Tensor:
        """The same of down_proj: rows (N, I) to (N, D)."""
        return self._product("down_proj", rows, counts)

    def merged(self, stacked: str, weight: Tensor) -> Tensor:
        """The sum with gate_up_proj (E, 2I, D) or down_proj (E, D, I), float32."""
        names = PROJECTIONS[2:] if stacked == "down_proj" else PROJECTIONS[:2]
        deltas = [self.scale * (self.lora_B[name].float() @ self.lora_A[name].float()) for name in names]
        return weight.float() + torch.cat(deltas, dim=1)
