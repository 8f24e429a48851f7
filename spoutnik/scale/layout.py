"""Parallel layouts: how a model and its batch are divided among GPUs. Does not import torch."""

from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.scale.hardware import Cluster
from spoutnik.scale.key_values import KeyValues

SCHEDULES = ("1f1b", "zero-bubble")
SHARDING = ("fsdp", "optimizer")


@dataclass(frozen=True)
class Layout:
    """tensor, pipeline, context: GPUs that one sequence is divided among, each way; what remains of the GPUs is data-parallel.
    expert: GPUs that the routed experts are divided among; it is cut out of the data, context and tensor ranks of a stage.
    chunks: stages that each pipeline rank holds (interleaved 1F1B; 1 is plain). schedule: 1f1b, or zero-bubble (DualPipe and
    its like), whose bubble is taken as none. sharding: of weights, gradients and optimizer state among data-parallel ranks:
    all of it (fsdp, ZeRO-3) or the optimizer's state alone (optimizer, ZeRO-1)."""

    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    expert: int = 1
    chunks: int = 1
    schedule: str = "1f1b"
    sharding: str = "fsdp"

    def data(self, gpus: int) -> int:
        return gpus // (self.tensor * self.pipeline * self.context)

    def neighbors(self, cluster: Cluster) -> int:
        """Data-parallel ranks in one node: tensor, then context ranks lie closest together, pipeline stages farthest."""
        return max(1, cluster.per_node // (self.tensor * self.context))

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name in ("tensor", "pipeline", "context", "expert")
                 if (value := getattr(self, name)) > 1]
        return ", ".join([*parts, "data the rest"])


def parse_layout(text: str) -> Layout:
    values = KeyValues("--layout", text)
    layout = Layout(values.whole("tensor", 1), values.whole("pipeline", 1), values.whole("context", 1),
                    values.whole("expert", 1), values.whole("chunks", 1), values.choice("schedule", SCHEDULES, "1f1b"),
                    values.choice("sharding", SHARDING, "fsdp"))
    values.refuse_others()
    return layout


def check_layout(layout: Layout, config: ModelConfig, cluster: Cluster) -> None:
    """Raises UserError where something does not divide, with what would."""
    together = layout.tensor * layout.pipeline * layout.context
    if cluster.gpus % together:
        raise UserError(f"--layout: tensor x pipeline x context = {together} does not divide gpus = {cluster.gpus}. Give "
                        "numbers whose product does.")
    heads = config.num_attention_heads
    if heads % layout.tensor:
        raise UserError(f"--layout: tensor = {layout.tensor} does not divide num_attention_heads = {heads}. Give one of "
                        f"{_divisors(heads, cluster.per_node)}.")
    if layout.pipeline * layout.chunks > config.num_hidden_layers:
        raise UserError(f"--layout: pipeline x chunks = {layout.pipeline * layout.chunks} stages, and the model has "
                        f"{config.num_hidden_layers} layers. Give fewer.")
    if layout.expert > 1 and not config.has_experts:
        raise UserError(f"--layout: expert = {layout.expert}: the model has no routed experts. Leave it out.")
    if layout.expert > 1 and config.n_routed_experts % layout.expert:
        raise UserError(f"--layout: expert = {layout.expert} does not divide n_routed_experts = {config.n_routed_experts}. "
                        f"Give one of {_divisors(config.n_routed_experts, cluster.gpus)}.")
    stage = cluster.gpus // layout.pipeline
    if stage % layout.expert:
        raise UserError(f"--layout: expert = {layout.expert} does not divide the {stage} GPUs of a pipeline stage. Give one of "
                        f"{_divisors(stage, config.n_routed_experts)}.")


def candidates(config: ModelConfig, cluster: Cluster, long: bool) -> list[Layout]:
    """Layouts to choose among: powers of two, tensor within a node, as many experts apart as a stage has GPUs at most.

    Args:
        long: sequences may be divided (context) too.
    """
    layouts = []
    for tensor in _powers(min(cluster.per_node, config.num_attention_heads)):
        for pipeline in _powers(min(32, config.num_hidden_layers)):
            for context in _powers(16 if long else 1):
                for expert in _powers(config.n_routed_experts or 1):
                    layout = Layout(tensor, pipeline, context, expert)
                    try:
                        check_layout(layout, config, cluster)
                    except UserError:
                        continue
                    layouts.append(layout)
    return layouts


def _powers(largest: int) -> list[int]:
    return [1 << power for power in range(largest.bit_length()) if 1 << power <= largest]


def _divisors(number: int, largest: int) -> str:
    return ", ".join(str(each) for each in range(1, min(number, largest) + 1) if number % each == 0)
