"""Memory of a rank against what `shard` leaves to it: our modules on a fake process group of 64 ranks, in one process."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from tiny import ALL, DEEPSEEK, LLAMA, config
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from spoutnik.errors import UserError
from spoutnik.model.transformer import Transformer
from spoutnik.scale import sharding
from spoutnik.scale.costs import PlannedModel
from spoutnik.scale.hardware import parse_cluster
from spoutnik.scale.launch import NO_LIMIT
from spoutnik.scale.layout import Layout
from spoutnik.scale.memory import training_memory
from spoutnik.scale.parameters import parameters_of, sharded_elements
from spoutnik.scale.sharding import ShardOptions, shard
from spoutnik.scale.training import TrainingWork

RANKS = 64


def sharded(model: Transformer, rank: int, expert: int = 1, ranks: int = RANKS) -> dict[str, torch.Tensor]:
    """The local parts of a rank, by name."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        shard(model, ShardOptions(expert), init_device_mesh("cpu", (ranks,)))
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


@pytest.mark.parametrize("rank", [0, 3, 40, 63])
@pytest.mark.parametrize("expert", [2, 8])
def test_experts_that_are_dealt_to_neighbors_too(expert, rank):
    values = DEEPSEEK | {"n_routed_experts": 16, "vocab_size": 150}
    held = sharded(meta_model(values), rank, expert)
    assert sharded_elements(config(values), RANKS, rank, expert) == sum(part.numel() for part in held.values())


def test_experts_that_do_not_divide_are_refused():
    for expert, values in ((3, DEEPSEEK), (16, DEEPSEEK)):  # of 64 processes, of 8 experts
        with pytest.raises(UserError, match=f"expert_parallel = {expert}: must divide the 8 routed experts and the 64 "
                                            "processes. Give one of 1, 2, 4, 8"):
            sharded(meta_model(values), 0, expert)
    with pytest.raises(UserError, match="the model has no routed experts"):
        sharded(meta_model(LLAMA), 0, 2)


def test_the_groups_that_exchange_tokens_wait_as_long_as_all_others_do(monkeypatch):
    """A new group's own limit is 10 minutes with NCCL, whatever scale.timeout says."""
    mesh, limits = SimpleNamespace(mesh_dim_names=("expert", "copy"), get_group=lambda name: name), {}
    monkeypatch.setattr(sharding, "shard", lambda *_: SimpleNamespace(experts=mesh))
    monkeypatch.setattr(sharding, "init_device_mesh", lambda *_: None)
    monkeypatch.setattr(sharding, "_set_pg_timeout", lambda limit, group: limits.update({group: limit}))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    sharding.divide(None, expert_parallel=2)
    assert limits == {"expert": NO_LIMIT, "copy": NO_LIMIT}


@pytest.mark.parametrize("expert", [1, 8])
def test_the_plan_counts_the_fullest_rank(expert):
    values = DEEPSEEK | {"vocab_size": 150}
    model, cluster = PlannedModel(config(values)), parse_cluster("gpus=64,kind=h100")
    memory = training_memory(model, cluster, Layout(expert=expert), TrainingWork(1e6, 128, 64), micro_batches=1)
    held = sum(part.numel() for part in sharded(meta_model(values), 0, expert).values())
    assert (memory.weights, memory.gradients, memory.moments) == (4 * held, 4 * held, 8 * held)
