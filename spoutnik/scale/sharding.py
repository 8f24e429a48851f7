"""Sharded training: every process holds some rows of each parameter, its gradient and its optimizer state, and gathers a layer's
weights while it computes that layer (ZeRO-3, arXiv 1910.02054; PyTorch's FSDP2).

All parameters are cut along their first axis, so that a process holds rows of each that lie one after another. Routed experts can
first be dealt whole to `expert_parallel` processes (`expert_parallel.py`); what one of these holds is then cut among those that have
the same experts.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.moe import Experts, Router, RouterTrace
from spoutnik.model.parts import Part
from spoutnik.model.transformer import Block, Transformer
from spoutnik.scale.expert_parallel import deal_experts, rank_loads
from spoutnik.train.loop import Gradient
from spoutnik.train.muon import orthogonalize

LossOf = Callable[[object, RouterTrace], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class ShardOptions:
    """expert_parallel: processes that one layer's routed experts are dealt to. parameters: the type in which layers are gathered;
    master weights, their gradients' sums and the optimizer's state are float32 in any case."""

    expert_parallel: int = 1
    parameters: torch.dtype = torch.float32


def check_options(options: ShardOptions, config: ModelConfig, ranks: int, source: str = "scale") -> None:
    """Raises UserError: the experts cannot be dealt so; names `source` and what could be."""
    wanted = options.expert_parallel
    if wanted == 1:
        return
    if not config.has_experts:
        raise UserError(f"{source}.expert_parallel = {wanted}: the model has no routed experts. Leave it out.")
    experts = config.n_routed_experts
    possible = [n for n in range(1, min(ranks, experts) + 1) if ranks % n == 0 and experts % n == 0]
    if wanted not in possible:
        raise UserError(f"{source}.expert_parallel = {wanted}: must divide the {experts} routed experts and the {ranks} "
                        f"processes. Give one of {', '.join(map(str, possible))}.")


class Sharding:
    """How a module is divided among the processes of `mesh`. Each number of a parameter lies on exactly one process; buffers lie on
    all of them."""

    def __init__(self, module: nn.Module, options: ShardOptions, mesh: DeviceMesh):
        """mesh: of one dimension. `shard` makes the module fit."""
        self.module, self.options, self.mesh = module, options, mesh
        ranks = torch.arange(mesh.size()).view(-1, options.expert_parallel)
        # Experts are dealt to neighbors first. The first axis is the outer one of the experts' rows, as in the tensor's order.
        self.experts = DeviceMesh(mesh.device_type, ranks.t().contiguous(), mesh_dim_names=("expert", "copy"))
        self.group = mesh.get_group()

    @property
    def rank(self) -> int:
        return self.mesh.get_local_rank()

    @property
    def ranks(self) -> int:
        return self.mesh.size()

    def part(self, name: str, tensor: Tensor) -> Part:
        """What this process holds of an entry of the module's `state_dict`."""
        if not isinstance(tensor, DTensor):
            return Part.whole(tensor, is_copy=self.rank != 0)
        rows, held = tensor._local_tensor.detach(), tensor.shape[0]
        of_experts = ".experts." in name
        mesh = self.experts["copy"] if of_experts else self.mesh
        before = self.experts.get_local_rank("expert") * held if of_experts else 0
        start = min(mesh.get_local_rank() * -(-held // mesh.size()), held)
        shape = (held * self.options.expert_parallel, *tensor.shape[1:]) if of_experts else tuple(tensor.shape)
        return Part(rows, before + start, shape)

    def parts(self) -> dict[str, Part]:
        """Of everything in the module's `state_dict`."""
        return {name: self.part(name, tensor) for name, tensor in self.module.state_dict().items()}

    def parameter_parts(self) -> dict[Tensor, Part]:
        """Of every parameter that is trained."""
        self.reshard()
        return {parameter: self.part(name, parameter) for name, parameter in self.module.named_parameters()
                if parameter.requires_grad}

    def reshard(self) -> None:
        """Frees gathered weights: what a forward pass without gradient leaves gathered would be stale after the next step."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def accumulate(self, parameters: Sequence[Tensor], micro: Sequence[object], loss_of: LossOf,
                   want_balance_loss: bool = False) -> Gradient:
        """As `loop.accumulate`, of the same micro-batches on every process, which are dealt out. Its gradients are the rows that
        are this process's; metrics and loads are those of all.

        Every process makes as many passes as the others, because each pass gathers weights from all: one that has no micro-batch
        left computes another's with weight 0.
        """
        for parameter in parameters:
            parameter.grad = None
        if not micro:
            return Gradient([])
        rows: list[dict[str, float]] = []
        loads: dict[str, Tensor] = {}
        for first in range(0, len(micro), self.ranks):
            mine = first + self.rank
            weight = float(mine < len(micro))
            trace = RouterTrace(want_balance_loss)
            loss, metrics = loss_of(micro[mine if weight else first], trace)
            (loss if weight else loss * 0).backward()
            rows.append(metrics)
            for name, load in trace.loads.items():
                loads[name] = loads.get(name, 0) + load * int(weight)
        self.reshard()
        gradients = [torch.zeros_like(parameter._local_tensor) if parameter.grad is None else parameter.grad._local_tensor
                     for parameter in parameters]
        total = Gradient(gradients, self._summed(rows, len(micro)), self._loads(loads))
        if self.options.expert_parallel > 1 and total.loads:
            of_ranks = rank_loads(total.loads, self.options.expert_parallel).float()
            total.metrics["max_rank_load"] = float((of_ranks.amax(1) / of_ranks.mean(1)).max())
        return total

    def _summed(self, rows: list[dict[str, float]], count: int) -> dict[str, float]:
        """Metrics of all micro-batches, added up in the order in which one process would."""
        names = sorted(rows[0])
        mine = torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64, device=self.device)
        gathered = mine.new_empty(self.ranks * len(mine), len(names))
        dist.all_gather_into_tensor(gathered, mine, group=self.group)
        in_order = gathered.unflatten(0, (self.ranks, -1)).transpose(0, 1).flatten(0, 1)[:count].tolist()
        return {name: sum(row[i] for row in in_order) for i, name in enumerate(names)}

    def _loads(self, loads: dict[str, Tensor]) -> dict[str, Tensor]:
        if not loads:
            return loads
        stacked = torch.stack(list(loads.values())).to(self.device)
        dist.all_reduce(stacked, group=self.group)
        return dict(zip(loads, stacked))

    @property
    def device(self) -> torch.device:
        return torch.device(self.mesh.device_type)

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Of all processes' rows together, the same on each."""
        squares = torch.stack(torch._foreach_norm(list(gradients))).double().square().sum()
        dist.all_reduce(squares, group=self.group)
        return squares.sqrt().float()

    def orthogonalized(self, updates: Iterator[tuple[Tensor, Part]]) -> Iterator[Tensor]:
        """Muon's updates of this process's rows, of its rows of the momenta. Stacked experts lie whole on a process; each other
        matrix is sent to one process, which makes it orthogonal, and its rows are sent back: as many at a time as there are
        processes, one for each."""
        while some := list(islice(updates, self.ranks)):
            cut = [i for i, (rows, _) in enumerate(some) if rows.dim() == 2]
            done = dict(zip(cut, self._dealt([some[i][0] for i in cut], [some[i][1].shape for i in cut]))) if cut else {}
            for i, (rows, _) in enumerate(some):
                yield done[i] if i in done else orthogonalize(rows) if len(rows) else rows

    def _dealt(self, rows: list[Tensor], shapes: list[tuple[int, ...]]) -> list[Tensor]:
        sent = [each.numel() for each in rows] + [0] * (self.ranks - len(rows))
        height, width = shapes[self.rank] if self.rank < len(shapes) else (0, 0)
        chunk = -(-height // self.ranks)
        received = [max(0, min(chunk, height - rank * chunk)) * width for rank in range(self.ranks)]
        whole = rows[0].new_empty(height * width)
        dist.all_to_all_single(whole, torch.cat([each.flatten() for each in rows]), received, sent, group=self.group)
        if height:
            whole = orthogonalize(whole.view(1, height, width)).flatten()
        returned = rows[0].new_empty(sum(sent))
        dist.all_to_all_single(returned, whole.contiguous(), sent, received, group=self.group)
        return [piece.view_as(each) for piece, each in zip(returned.split(sent), rows)]


def shard(module: nn.Module, options: ShardOptions, mesh: DeviceMesh) -> Sharding:
    """Divides a `Transformer`, or a module that has one as `backbone`, among the processes of a mesh, in place; all of them must
    hold the same weights. Trained weights become float32, layer by layer; frozen ones keep their type.

    Raises:
        UserError: the experts cannot be dealt so.
    """
    # Layers return views, and nothing writes into what they return.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    backbone: Transformer = getattr(module, "backbone", module)
    check_options(options, backbone.config, mesh.size())
    sharding = Sharding(module, options, mesh)
    if options.expert_parallel > 1:
        deal_experts(module, sharding.experts.get_group("expert"))
    for layer in [*backbone.layers, *([backbone.mtp] if backbone.mtp is not None else [])]:
        _shard_layer(layer, sharding)
    _fully_shard(module, mesh, options.parameters)
    if backbone.mtp is not None:
        register_fsdp_forward_method(backbone.mtp, "predict")
    if module is backbone:
        register_fsdp_forward_method(backbone, "hidden")
    for each in module.modules():
        if isinstance(each, FSDPModule):
            # Losses are normalized by the counts of the whole step: gradients are added up, never averaged.
            each.set_gradient_divide_factor(1.0)
            each.set_force_sum_reduction_for_comms(True)  # gloo has no other
    return sharding


def _shard_layer(layer: Block, sharding: Sharding) -> None:
    for part in layer.modules():
        if isinstance(part, Router):
            # In float32, as the sampler's: near-ties must route alike.
            _fully_shard(part, sharding.mesh, torch.float32)
        elif isinstance(part, Experts) and sharding.options.expert_parallel > 1:
            _fully_shard(part, sharding.experts["copy"], sharding.options.parameters)
    _fully_shard(layer, sharding.mesh, sharding.options.parameters)


def _fully_shard(module: nn.Module, mesh: DeviceMesh, parameters: torch.dtype) -> None:
    for parameter in module.parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            parameter.data = parameter.data.float()
    policy = MixedPrecisionPolicy(param_dtype=parameters, reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(module, mesh=mesh, mp_policy=policy)
