"""Memory of one GPU in training: weights, gradients, optimizer state, activations. Pure functions; does not import torch.

With `fsdp` sharding every rank keeps float32 weights (they are the master copy), float32 gradients and AdamW's two moments of
its part, and gathers layers in bfloat16. With `optimizer` sharding it keeps bfloat16 weights and float32 gradients of its whole
stage, and float32 master weights and moments of its part (ZeRO-1, as DeepSeek-V3 and Megatron-LM).
"""

from dataclasses import dataclass

from spoutnik.scale.costs import PlannedModel
from spoutnik.scale.hardware import Cluster
from spoutnik.scale.layout import Layout
from spoutnik.scale.parameters import sharded_elements
from spoutnik.scale.training import TrainingWork

USABLE = 0.92  # of a GPU's memory: the rest is the CUDA context's, NCCL's buffers' and the allocator's fragments


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of the fullest GPU. gathered: layers in bfloat16 beside the rank's own part."""

    weights: float
    gradients: float
    master: float
    moments: float
    gathered: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return (self.weights + self.gradients + self.master + self.moments + self.gathered + self.activations + self.logits)


def training_memory(model: PlannedModel, cluster: Cluster, layout: Layout, work: TrainingWork, micro_batches: int
                    ) -> TrainingMemory:
    """micro_batches: of a step of one pipeline, which bound how many a stage keeps the activations of."""
    config, sizes = model.config, model.sizes
    layers = config.num_hidden_layers + config.num_nextn_predict_layers
    held_layers = -(-layers // layout.pipeline)
    share = held_layers / layers
    vocabulary = sizes.vocabulary / layout.tensor / (1 if layout.pipeline == 1 or config.tie_word_embeddings else 2)
    dense = share * (sizes.divided / layout.tensor + sizes.replicated) + vocabulary
    experts = share * sizes.experts / layout.expert
    ranks = layout.data(cluster.gpus) * layout.context
    expert_ranks = max(1, cluster.gpus // layout.pipeline // layout.expert)
    if layout.tensor == layout.pipeline == 1 and ranks % layout.expert == 0:
        part = float(sharded_elements(config, ranks, expert=layout.expert))
    else:
        part = dense / ranks + experts / expert_ranks
    if layout.sharding == "fsdp":
        whole_layer = (dense - vocabulary + experts) / held_layers
        gathered = dense + experts if layout.pipeline > 1 else 2 * whole_layer + vocabulary / 2
        weights, gradients, master, moments, gathered = 4 * part, 4 * part, 0.0, 8 * part, 2 * gathered if ranks > 1 else 0.0
        if layout.pipeline > 1 and ranks > 1:  # gradients of a stage are summed whole, and scattered after the last micro-batch
            gradients += 4 * (dense + experts)
    else:
        weights, gradients, master, moments, gathered = 2 * (dense + experts), 4 * (dense + experts), 4 * part, 8 * part, 0.0
    tokens = work.micro_batch * work.sequence / layout.context / layout.tensor
    kept = min(layout.pipeline, micro_batches) * (1 + (layout.pipeline - 1) / layout.pipeline / layout.chunks
                                                  if layout.chunks > 1 else 1)
    saved, whole = _layer_bytes(model, work.recompute, work.precision)
    layer = tokens * (saved * held_layers * kept + (whole - saved))
    logits = 10 * tokens * config.vocab_size  # bfloat16, float32 and the gradient
    if layout.pipeline > 1:  # the first stage keeps most micro-batches, the last one has the logits
        first, last = layer, tokens * (saved * held_layers + whole - saved) + logits
        layer, logits = (first, 0.0) if first > last else (last - logits, logits)
    return TrainingMemory(weights, gradients, master, moments, gathered, layer, logits)


def _layer_bytes(model: PlannedModel, recompute: str, precision: str) -> tuple[float, float]:
    """What a token of a layer leaves for the backward pass: with the recomputation, and all of it, in bfloat16; `cheap` keeps
    the inputs of products in the type that they are multiplied in."""
    config, costs = model.config, model.costs
    heads, hidden = config.num_attention_heads, config.hidden_size
    attended = heads * config.value_width
    keys = heads * (config.qk_head_dim + config.value_width) if config.is_mla else config.cache_width
    queries = heads * config.qk_head_dim + (config.q_lora_rank or 0)
    dense_share = 1 - costs.moe_layers / costs.layers
    width = dense_share * config.intermediate_size
    if config.has_experts:
        per_token = config.num_experts_per_tok
        width += (1 - dense_share) * (per_token + config.n_shared_experts) * config.moe_intermediate_size
        width += (1 - dense_share) * per_token * hidden * 2 / 3  # the permuted inputs and outputs, beside three of `width`
    products = queries + keys + 2 * hidden + 3 * width
    whole = 2 * (products + 4 * hidden + attended)
    if config.is_mla:
        compressed = (config.q_lora_rank or heads * config.qk_head_dim) + config.cache_width
    else:
        compressed = queries + keys
    kept = {"none": whole, "full": 2 * hidden, "selective": 2 * (hidden + attended + products / 2),
            "cheap": (1 if precision == "fp8" else 2) * (2 * hidden + attended + compressed + 2 * width)}
    return min(kept[recompute], whole), whole
