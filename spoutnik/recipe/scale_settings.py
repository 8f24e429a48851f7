"""What a recipe says about the processes that run it, and nothing about how many there are."""

from typing import Literal

from pydantic import Field, model_validator

from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.train.settings import young


class ScaleSettings(RolloutSettings):
    """How a run is divided among processes (`torchrun ... -m spoutnik run`, docs/scale.md) and cores, and who
    samples. Without this section each sum over a batch has as many parts as there are processes and cores, and its last digits
    depend on their number."""

    reproducible: bool = True
    """The same bytes on any number of processes and cores: each sum over a batch has a fixed order."""
    virtual_shards: int = Field(default=8, ge=1, le=4096)
    """Into how many parts each batch is divided then, a power of two, and the most processes that can work on it. Another
    number is another order of the same sums, and makes other artifacts."""
    shard: bool = young(False)
    """Divide weights, gradients and the optimizer's state among the processes (FSDP), so that a model need not fit into one:
    each holds its rows of every matrix and gathers a layer's while it computes that layer. A number of processes that is a
    power of two, where sums are reproducible."""
    expert_parallel: int = young(1, ge=1)
    """Processes that each layer's routed experts are dealt to, and that tokens travel between. Not with reproducible."""
    parameters: Literal["float32", "bfloat16"] = young("float32")
    """The type in which layers are gathered; weights, sums and the optimizer's state stay float32. bfloat16 halves the traffic;
    and where the recipe computes in bfloat16 it changes nothing else, for routers are gathered in float32."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds in which no process finishes a piece of work (a micro-batch, a step of sampling), after which the run is taken to
    hang: it ends, and the stacks of all processes are in OUT/stacks. Changes no key."""

    @model_validator(mode="after")
    def _a_binary_tree(self) -> "ScaleSettings":
        shards = self.virtual_shards
        if shards & (shards - 1):
            lower = 1 << (shards.bit_length() - 1)
            raise ValueError(f"virtual_shards = {shards}: is no power of two. Write {lower} or {2 * lower}")
        if not self.reproducible and "virtual_shards" in self.model_fields_set:
            raise ValueError("virtual_shards is of reproducible sums, and reproducible is false. Leave one of them out")
        return self

    @model_validator(mode="after")
    def _of_sharding(self) -> "ScaleSettings":
        asked = self.model_fields_set & {"expert_parallel", "parameters"}
        if asked and not self.shard:
            raise ValueError(f"{min(asked)} is of sharded training. Write shard: true, or leave it out")
        if self.shard and self.rollout_workers:
            raise ValueError("rollout_workers with shard: workers are sent the weights of a model that one process holds "
                             "whole. Leave one of them out")
        if self.expert_parallel > 1 and self.reproducible:
            raise ValueError(f"expert_parallel = {self.expert_parallel} with reproducible: an expert's gradient is summed "
                             "where its tokens meet, in an order that depends on the number of processes. Write reproducible: "
                             "false, or leave expert_parallel out")
        return self

    @property
    def key(self) -> dict[str, object]:
        """What decides a trained stage's bytes beside the number of shards: sums over a divided model have an order of their
        own."""
        return {"parameters": self.parameters} if self.shard and self.reproducible else {}

    @property
    def fixed_shards(self) -> int | None:
        """None where sums are divided as processes and cores are."""
        return self.virtual_shards if self.reproducible else None
