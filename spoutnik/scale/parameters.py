"""The parameters of our modules, and which part of each a rank holds. Does not import torch.

Names and shapes are those of `Transformer`: routed experts are stacked, the MTP module shares embedding and head, and the
routers' correction biases are buffers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import Shape, is_mtp, published_shapes


@dataclass(frozen=True)
class Parameter:
    """layer: its number, the MTP module's being the last; None for embedding, head and final norm. role: "experts" (divided
    among expert-parallel ranks), "divided" (among tensor-parallel ranks) or "replicated" (each has it)."""

    name: str
    shape: Shape
    layer: int | None
    role: str

    @property
    def size(self) -> int:
        return prod(self.shape)


# What tensor parallelism leaves whole: norms, routers, MLA's compressions, MTP's projection (vLLM and Megatron-LM do so too).
_REPLICATED = ("layernorm.weight", "norm.weight", "mlp.gate.weight", "q_a_proj.weight", "kv_a_proj_with_mqa.weight",
               "eh_proj.weight")


def parameters_of(config: ModelConfig) -> Iterator[Parameter]:
    config = config.model_copy(update={"quantization_config": None})  # multipliers of blocks are no parameters
    for name, shape in published_shapes(config).items():
        if name.endswith("e_score_correction_bias"):
            continue
        if is_mtp(name, config) and name.endswith(("embed_tokens.weight", "shared_head.head.weight")):
            continue
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else None
        if ".experts." in name:
            if ".experts.0.up_proj" in name or ".experts.0." not in name:
                continue  # stacked with the first expert's gate_proj and down_proj
            outputs, inputs = shape
            stacked = (config.n_routed_experts, (2 if "gate_proj" in name else 1) * outputs, inputs)
            yield Parameter(name.replace(".experts.0.gate_proj", ".experts.gate_up_proj").replace(".experts.0.", ".experts."),
                            stacked, layer, "experts")
        else:
            yield Parameter(name, shape, layer, "replicated" if name.endswith(_REPLICATED) else "divided")


def shard_rows(rows: int, ranks: int, rank: int) -> int:
    """Rows that FSDP2's `fully_shard` leaves to a rank of a parameter's first dimension: it is cut as `torch.chunk` does, so
    the first ranks have ceil(rows / ranks) and the last may have none."""
    chunk = -(-rows // ranks)
    return max(0, min(chunk, rows - rank * chunk))


def sharded_elements(config: ModelConfig, ranks: int, rank: int = 0, expert: int = 1) -> int:
    """Elements of all parameters that a rank holds where `scale/sharding.py` divides a model among `ranks`, its routed experts
    dealt to `expert` neighbors and cut among the ranks that have the same ones. Rank 0 has the most."""
    total = 0
    for parameter in parameters_of(config):
        rows = shard_rows(parameter.shape[0], ranks, rank)
        if parameter.role == "experts":
            rows = shard_rows(parameter.shape[0] // expert, ranks // expert, rank // expert)
        total += rows * prod(parameter.shape[1:])
    return total
