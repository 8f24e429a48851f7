"""Memory of a rank against FSDP2 itself: `fully_shard` of our modules on a fake process group of 64 ranks, in one process."""

import pytest
import torch
import torch.distributed as dist
from tiny import ALL, DEEPSEEK, LLAMA, config
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from spoutnik.model.transformer import Transformer
from spoutnik.scale.costs import PlannedModel
from spoutnik.scale.hardware import parse_cluster
from spoutnik.scale.layout import Layout
from spoutnik.scale.memory import training_memory
from spoutnik.scale.parameters import parameters_of, sharded_elements
from spoutnik.scale.training import TrainingWork

RANKS = 64


def sharded(model: Transformer, rank: int, ranks: int = RANKS) -> dict[str, torch.Tensor]:
    """The local parts of a rank, by name."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        mesh = init_device_mesh("cpu", (ranks,))
        for block in [*model.layers, *([model.mtp] if model.mtp is not None else [])]:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return {name: parameter.to_local() for name, parameter in model.named_parameters()}
    finally:
        dist.destroy_process_group()


def meta_model(values: dict, **changes) -> Transformer:
    with torch.device("meta"):
        return Transformer(config(values, **changes))


@pytest.mark.parametrize("kind", sorted(ALL))
def test_the_parameters_are_those_of_our_modules(kind):
    planned = sorted((parameter.shape, parameter.size) for parameter in parameters_of(config(ALL[kind])))
    built = sorted((tuple(parameter.shape), parameter.numel()) for parameter in meta_model(ALL[kind]).parameters())
    assert planned == built


@pytest.mark.parametrize("rank", [0, 1, 33, 63])
@pytest.mark.parametrize("kind", ["deepseek_v3", "llama"])
def test_a_rank_of_64_holds_exactly_the_planned_bytes(kind, rank):
    # Rows that 64 does not divide, and fewer than 64: some ranks have less, some nothing.
    values = {"deepseek_v3": DEEPSEEK | {"vocab_size": 150}, "llama": LLAMA | {"vocab_size": 131}}[kind]
    held = sharded(meta_model(values), rank)
    assert all(part.dtype == torch.float32 for part in held.values())
    assert 4 * sharded_elements(config(values), RANKS, rank) == sum(part.numel() * 4 for part in held.values())


def test_the_plan_counts_the_fullest_rank():
    values = DEEPSEEK | {"vocab_size": 150}
    model, cluster = PlannedModel(config(values)), parse_cluster("gpus=64,kind=h100")
    memory = training_memory(model, cluster, Layout(), TrainingWork(1e6, 128, 64), micro_batches=1)
    held = sum(part.numel() for part in sharded(meta_model(values), 0).values())
    assert (memory.weights, memory.gradients, memory.moments) == (4 * held, 4 * held, 8 * held)
