"""Sharded training: every process holds some rows of each parameter, its gradient and its optimizer state, and gathers a
layer's weights while it computes that layer (ZeRO-3, arXiv 1910.02054; PyTorch's FSDP2).

All parameters are cut along their first axis, so that a process holds rows of each that lie one after another. Routed experts
can first be dealt whole to `expert_parallel` processes (`expert_parallel.py`); what one of these holds is then cut among those
that have the same experts.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.expert_lora import ExpertsLowRank
from spoutnik.model.lora import LowRank
from spoutnik.model.moe import Experts, Router, RouterTrace
from spoutnik.model.packing import on_device
from spoutnik.model.parts import Part
from spoutnik.model.transformer import Block, Transformer
from spoutnik.scale.expert_parallel import deal_experts, rank_loads
from spoutnik.scale.launch import NO_LIMIT
from spoutnik.scale.ordered_sums import TreeReduceScatter, norm_by_rows, sum_in_rounds
from spoutnik.train.loop import Gradient, Report
from spoutnik.train.muon import orthogonalize
from spoutnik.world import exchanging, pulse, world

LossOf = Callable[[object, RouterTrace], tuple[Tensor, dict[str, float]]]


def _taken(parameter: Tensor) -> Tensor:
    """This process's rows of a gradient, which the parameter gives up."""
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter._local_tensor) if gradient is None else gradient._local_tensor


@dataclass(frozen=True)
class ShardOptions:
    """expert_parallel: processes that one layer's routed experts are dealt to. parameters: the type in which layers are
    gathered; master weights, their gradients' sums and the optimizer's state are float32 in any case."""

    expert_parallel: int = 1
    parameters: torch.dtype = torch.float32


def check_options(options: ShardOptions, config: ModelConfig, ranks: int, source: str = "scale") -> None:
    """Raises UserError: the experts cannot be dealt so, or sums cannot have a fixed order; names `source` and what could be."""
    wanted, shards = options.expert_parallel, world().virtual_shards
    if shards and wanted > 1:
        raise UserError(f"{source}.expert_parallel = {wanted} with reproducible: an expert's gradient is summed where its "
                        "tokens meet, in an order that depends on the number of processes. Write reproducible: false, or leave "
                        "expert_parallel out.")
    if shards and (ranks > shards or ranks & (ranks - 1)):
        raise UserError(f"{source}.shard with reproducible: {ranks} processes do not divide a binary tree of {shards} virtual "
                        "shards. Start a power of two of them, no more than virtual_shards, or write reproducible: false.")
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
    """How a module is divided among the processes of `mesh`. Each number of a parameter lies on exactly one process; buffers
    lie on all of them."""

    def __init__(self, module: nn.Module, options: ShardOptions, mesh: DeviceMesh):
        """mesh: of one dimension. `shard` makes the module fit."""
        self.module, self.options, self.mesh = module, options, mesh
        self.experts: DeviceMesh | None = None  # (neighbors that experts are dealt to, those that have the same ones)
        if options.expert_parallel > 1:
            ranks = torch.arange(mesh.size()).view(-1, options.expert_parallel).t().contiguous()
            self.experts = DeviceMesh(mesh.device_type, ranks, mesh_dim_names=("expert", "copy"))
        self.group = mesh.get_group()

    @property
    def rank(self) -> int:
        return self.mesh.get_local_rank()

    @property
    def ranks(self) -> int:
        return self.mesh.size()

    @property
    def device(self) -> torch.device:
        return torch.device(self.mesh.device_type)

    def part(self, name: str, tensor: Tensor) -> Part:
        """What this process holds of an entry of the module's `state_dict`."""
        if not isinstance(tensor, DTensor):
            return Part.whole(tensor, is_copy=self.rank != 0)
        rows, held = tensor._local_tensor.detach(), tensor.shape[0]
        of_experts = self.experts is not None and ".experts." in name
        mesh = self.experts["copy"] if of_experts else self.mesh
        before = self.experts.get_local_rank("expert") * held if of_experts else 0
        start = min(mesh.get_local_rank() * -(-held // mesh.size()), held)
        shape = (held * self.options.expert_parallel, *tensor.shape[1:]) if of_experts else tuple(tensor.shape)
        return Part(rows, before + start, shape)

    def parts(self, module: nn.Module | None = None) -> dict[str, Part]:
        """Of everything in the `state_dict` of the module, or of one inside it."""
        return {name: self.part(name, tensor) for name, tensor in (module or self.module).state_dict().items()}

    def whole(self, dtype: torch.dtype | None = None, adapters_alone: bool = False,
              on_main: bool = False) -> Transformer | None:
        """The same network on every process as one alone would have it, without gradients; gathered tensor by tensor.

        Args:
            dtype: of matrices other than routers' and adapters', which compute in it in any case; None keeps their own.
            adapters_alone: nothing else has values.
            on_main: on rank 0 alone; None on the others.
        """
        backbone: Transformer = getattr(self.module, "backbone", self.module)
        state = {}
        for name, tensor in backbone.state_dict().items():
            if adapters_alone and ".adapter." not in name:
                continue
            gathered = self.gathered(name, tensor, dtype)
            if self.rank == 0 or not on_main:
                state[name] = gathered
        if on_main and self.rank:
            return None
        with torch.device("meta"):
            copy = Transformer(backbone.config, backbone.compute_dtype, backbone.rotary)
        own = {name: tensor for name, tensor in state.items() if ".adapter." not in name}
        copy.load_state_dict(own, strict=not adapters_alone, assign=True)
        if backbone.config.tie_word_embeddings:
            copy.lm_head.weight = copy.embed_tokens.weight
        copy.requires_grad_(False)
        for name, module in list(backbone.named_modules()):
            if isinstance(module, LowRank | ExpertsLowRank):
                own = {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
                copy.get_submodule(name.removesuffix(".adapter")).adapter = module.with_tensors(own)
        return copy

    def gathered(self, name: str, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An entry of a `state_dict` as a whole, on every process."""
        if isinstance(tensor, DTensor):
            if dtype is not None and tensor.dim() > 1 and ".adapter." not in name and not name.endswith(".gate.weight"):
                tensor = tensor.to(dtype)
            tensor = tensor.full_tensor()
            if self.experts is not None and ".experts." in name:
                held, count = tensor.contiguous(), len(tensor) * self.options.expert_parallel
                tensor = held.new_empty(count, *held.shape[1:])
                dist.all_gather_single(tensor, held, group=self.experts.get_group("expert"))
        return tensor.detach()

    def reshard(self) -> None:
        """Frees gathered weights: what a forward pass without gradient leaves gathered would be stale after the next step."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def accumulate(self, parameters: Sequence[Tensor], micro: Sequence[object], loss_of: LossOf,
                   want_balance_loss: bool = False) -> Gradient:
        """As `loop.accumulate`, of the same micro-batches on every process, which are dealt out. Its gradients are the rows
        that are this process's; metrics and loads are those of all.

        Every process makes as many passes as the others, because each pass gathers weights from all: one that has no
        micro-batch left computes another's with weight 0.
        """
        if not micro:
            return Gradient([])
        self.reshard()
        reports: list[Report] = []

        def pass_over(numbers: Sequence[int | None]) -> list[Tensor]:
            """The sum of one micro-batch of each process."""
            mine, some = numbers[self.rank], next(number for number in numbers if number is not None)
            trace = RouterTrace(want_balance_loss)
            with exchanging():
                loss, metrics = loss_of(on_device(micro[some if mine is None else mine], self.device), trace)
                (loss * 0 if mine is None else loss).backward()
            if mine is not None:
                reports.append((mine, metrics, {name: load.cpu() for name, load in trace.loads.items()}))
            pulse.beat()
            return [_taken(parameter) for parameter in parameters]

        total = Gradient(sum_in_rounds(len(micro), self.ranks, world().virtual_shards, pass_over))
        self.reshard()
        total.add(world().gather(reports), self.device)
        if self.options.expert_parallel > 1 and total.loads:
            of_ranks = rank_loads(total.loads, self.options.expert_parallel).float()
            total.metrics["max_rank_load"] = float((of_ranks.amax(1) / of_ranks.mean(1)).max())
        return total

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Of all processes' rows together, the same on each."""
        if world().virtual_shards:
            return norm_by_rows(gradients, self.group)
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


def divide(module: nn.Module, device: str = "cpu", expert_parallel: int = 1, parameters: str = "float32",
           source: str = "scale") -> None:
    """`shard` among all processes of the run, or on this one alone. device: a type of devices, of which each process takes one.
    source: of the options, for error messages.

    Raises:
        UserError: the experts cannot be dealt so, or sums cannot have a fixed order.
    """
    if not dist.is_initialized():
        dist.init_process_group("gloo" if device == "cpu" else None, store=dist.HashStore(), rank=0, world_size=1)
    options = ShardOptions(expert_parallel, {"float32": torch.float32, "bfloat16": torch.bfloat16}[parameters])
    experts = shard(module, options, init_device_mesh(device, (dist.get_world_size(),)), source).experts
    for name in () if experts is None else experts.mesh_dim_names:
        # New groups have limits of their own, 10 minutes with NCCL, after which it aborts the process without a word of ours.
        _set_pg_timeout(NO_LIMIT, experts.get_group(name))


def shard(module: nn.Module, options: ShardOptions, mesh: DeviceMesh, source: str = "scale") -> Sharding:
    """Divides a `Transformer`, or a module that has one as `backbone`, among the processes of a mesh, in place; all of them
    must hold the same weights. Trained weights become float32, layer by layer; frozen ones keep their type.

    Raises:
        UserError: the experts cannot be dealt so.
    """
    # Layers return views, and nothing writes into what they return.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    backbone: Transformer = getattr(module, "backbone", module)
    check_options(options, backbone.config, mesh.size(), source)
    sharding = Sharding(module, options, mesh)
    if sharding.experts is not None:
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
            if world().virtual_shards:
                each.set_custom_reduce_scatter(TreeReduceScatter())
    module.division = backbone.division = sharding
    for parameter in module.parameters():
        parameter.division = sharding
    return sharding


def _shard_layer(layer: Block, sharding: Sharding) -> None:
    for part in layer.modules():
        if isinstance(part, Router):
            # In float32, as the sampler's: near-ties must route alike.
            _fully_shard(part, sharding.mesh, torch.float32)
        elif isinstance(part, Experts) and sharding.experts is not None:
            _fully_shard(part, sharding.experts["copy"], sharding.options.parameters)
    _fully_shard(layer, sharding.mesh, sharding.options.parameters)


def _fully_shard(module: nn.Module, mesh: DeviceMesh, parameters: torch.dtype) -> None:
    for parameter in module.parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            parameter.data = parameter.data.float()
    gathered = None if parameters == torch.float32 else parameters  # None: each in its own, as frozen ones may be narrower
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(module, mesh=mesh, mp_policy=policy)
