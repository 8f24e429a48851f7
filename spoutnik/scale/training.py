"""Time of a training step under a layout. Pure functions; does not import torch.

Each GPU's share of a step is the step's tokens divided by the GPUs; all costs are per such token. Passes: one forward, two
backward; recomputation adds one (full) or half of the products (selective, as PyTorch's checkpointing of operations, which
keeps every other product and attention). Attention's backward counts 2.5: it computes its scores again (FlashAttention 2).
"""

from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.scale import efficiency
from spoutnik.scale.costs import PlannedModel, TokenCosts, distinct_nodes
from spoutnik.scale.efficiency import SOFTWARE, Software
from spoutnik.scale.hardware import GPU, Cluster
from spoutnik.scale.key_values import KeyValues
from spoutnik.scale.layout import Layout

# Passes more, of products and of attention. cheap: norms, SwiGLU and MLA's up-projections (DeepSeek-V3, 3.2.3).
RECOMPUTE = {"none": (0.0, 0.0), "cheap": (0.1, 0.0), "selective": (0.5, 0.0), "full": (1.0, 1.0)}


@dataclass(frozen=True)
class TrainingWork:
    """tokens: in all. sequence: their length. batch: sequences in a step. micro_batch: sequences at a time; None: one.
    micro_batches: of a pipeline's step, in place of what follows from that. precision: of the products, bf16 or fp8.
    recompute: one of `RECOMPUTE`. software: one of `SOFTWARE`. mtp: the MTP module learns too."""

    tokens: float
    sequence: int
    batch: int
    micro_batch: int = 1
    micro_batches: int | None = None
    precision: str = "bf16"
    recompute: str = "full"
    software: Software = efficiency.PYTORCH
    mtp: bool = False


@dataclass(frozen=True)
class TrainingTime:
    """Seconds of one step by what they are spent on; of traffic, what no computation hides. tokens: of the step."""

    products: float
    attention: float
    memory: float
    tensor: float
    expert: float
    data: float
    bubble: float
    launch: float
    optimizer: float
    tokens: float
    gpus: int

    @property
    def seconds(self) -> float:
        return (self.products + self.attention + self.memory + self.tensor + self.expert + self.data + self.bubble + self.launch
                + self.optimizer)

    @property
    def tokens_per_second_per_gpu(self) -> float:
        return self.tokens / self.seconds / self.gpus

    @property
    def binds(self) -> str:
        """What takes most: compute, memory bandwidth, network, pipeline bubble or launches."""
        parts = {"compute": self.products + self.attention, "memory bandwidth": self.memory + self.optimizer,
                 "network": self.tensor + self.expert + self.data, "pipeline bubble": self.bubble,
                 "kernel launches": self.launch}
        return max(parts, key=parts.get)


def micro_batches(work: TrainingWork, layout: Layout, cluster: Cluster) -> int:
    """Of one pipeline in a step. Raises UserError where batch or sequence do not divide."""
    data = layout.data(cluster.gpus)
    if work.sequence % layout.context:
        raise UserError(f"--layout: context = {layout.context} does not divide sequence = {work.sequence}. Give one that does.")
    if work.micro_batches is not None:
        return work.micro_batches
    if work.batch % (data * work.micro_batch):
        raise UserError(f"--train: batch = {work.batch} sequences are not {data} data-parallel ranks (of {cluster.gpus} GPUs) "
                        f"x micro_batch = {work.micro_batch} or a multiple of it. Give another batch, or a layout with more "
                        "tensor, pipeline or context ranks.")
    return work.batch // (data * work.micro_batch)


def training_time(model: PlannedModel, cluster: Cluster, layout: Layout, work: TrainingWork) -> TrainingTime:
    """Of one step. The layout has been checked.

    Raises:
        UserError: the batch does not divide among the ranks.
    """
    gpu, software, costs = cluster.gpu, work.software, model.mtp_costs if work.mtp else model.costs
    step_tokens = work.batch * work.sequence
    share = step_tokens / cluster.gpus
    products, attention = _compute(costs, gpu, work, layout)
    passes = 3 + RECOMPUTE[work.recompute][1]
    memory = (costs.moved * passes * software.eager + costs.loss_moved) / (efficiency.HBM * gpu.bandwidth)
    tensor = _tensor_traffic(model, cluster, layout, costs.layers * (2 + RECOMPUTE[work.recompute][1]))
    tensor *= 1 - software.tensor_overlap
    expert = expert_seconds(model, cluster, layout.expert, costs.moe_layers, software.once_a_node, software.dispatch_bytes)
    expert *= 2 + RECOMPUTE[work.recompute][1]
    hidden = min(expert, software.expert_overlap * (products + attention + memory))
    expert -= hidden
    imbalance = -(-model.config.num_hidden_layers // layout.pipeline) * layout.pipeline / model.config.num_hidden_layers
    parts = (products, attention, memory, tensor, expert)
    products, attention, memory, tensor, expert = (part * share * imbalance for part in parts)
    count = micro_batches(work, layout, cluster)
    busy = products + attention + memory + tensor + expert
    launch = max(0.0, software.launch * software.eager * passes * count * costs.layers / layout.pipeline - busy)
    bubble = 0.0 if layout.schedule == "zero-bubble" else (busy + launch) * (layout.pipeline - 1) / (layout.chunks * count)
    data = _data_seconds(model, cluster, layout, 1 if layout.pipeline > 1 else count)
    data = max(0.0, data - max(0.0, software.data_overlap * busy - hidden * share))  # beside messages to experts
    state = model.sizes.total / cluster.gpus
    optimizer = 28 * state / (efficiency.HBM * gpu.bandwidth)  # weights, gradient, two moments: read and, but one, written
    return TrainingTime(products, attention, memory, tensor, expert, data, bubble, launch, optimizer, step_tokens,
                        cluster.gpus)


def _compute(costs: TokenCosts, gpu: GPU, work: TrainingWork, layout: Layout) -> tuple[float, float]:
    """Seconds a token of products and of attention."""
    software, (again, attention_again) = work.software, RECOMPUTE[work.recompute]
    fp8 = work.precision == "fp8"
    peak = gpu.peak(work.precision)
    dense, grouped = (software.matmul_fp8, software.grouped_fp8) if fp8 else (software.matmul_bf16, software.grouped_bf16)
    if costs.experts:  # all products of such models are smaller, attention's compressions and shared experts too
        dense = grouped
    layers = (3 + again) * (costs.dense / dense + costs.experts / grouped) / peak
    head = 3 * costs.head / (software.matmul_bf16 * gpu.bf16)  # in bf16 in every stack
    kernel = software.attention * (software.ring if layout.context > 1 else 1.0) * gpu.bf16
    attention = (3.5 + attention_again) * costs.position * work.sequence / 2 / kernel
    return layers + head, attention


def _tensor_traffic(model: PlannedModel, cluster: Cluster, layout: Layout, layer_passes: float) -> float:
    """Seconds a token: in each pass of a layer two all-gathers and two reduce-scatters of the hidden states (sequence parallel
    tensor parallelism, Korthikanti et al. 2022)."""
    if layout.tensor == 1:
        return 0.0
    received = 4 * 2 * model.config.hidden_size * (layout.tensor - 1)
    return layer_passes * received / bandwidth(cluster, layout.tensor, cluster.per_node)


def bandwidth(cluster: Cluster, ranks: int, neighbors: int) -> float:
    """Bytes/s that each member of a group really receives."""
    share = efficiency.LINK if ranks <= neighbors else min(efficiency.LINK, efficiency.NETWORK)
    return share * cluster.group_bandwidth(ranks, neighbors)


def expert_seconds(model: PlannedModel, cluster: Cluster, expert: int, moe_layers: int, once_a_node: bool,
                   dispatch_bytes: int) -> float:
    """Seconds a token of sending it to its experts and their outputs back, in one pass: the slower of network and links."""
    if expert == 1 or not moe_layers:
        return 0.0
    per_node = min(expert, cluster.per_node)
    nodes = expert / per_node
    size = (dispatch_bytes + 2) * model.config.hidden_size  # there, and back in bf16
    remote = model.config.num_experts_per_tok * (nodes - 1) / nodes
    if once_a_node:
        remote = distinct_nodes(model.config, nodes)
    local = model.config.num_experts_per_tok * (per_node - 1) / per_node
    slower = max(remote / (efficiency.NETWORK * cluster.network), local / (efficiency.LINK * cluster.gpu.link))
    return moe_layers * size * slower


def _data_seconds(model: PlannedModel, cluster: Cluster, layout: Layout, gathers: int) -> float:
    """Seconds a step of gathering weights (bf16, forward and backward) and scattering gradients (float32). With `optimizer`
    sharding weights are gathered and gradients scattered once a step.

    Args:
        gathers: how often in a step: with every micro-batch, or once where a pipeline keeps its stage's weights.
    """
    sizes = model.sizes
    held = layout.data(cluster.gpus) * layout.context
    ranks_of_experts = max(1, cluster.gpus // layout.pipeline // layout.expert)
    bytes_moved = 2 * 2 + 4 if layout.sharding == "fsdp" else 2 + 4
    times = gathers if layout.sharding == "fsdp" else 1
    seconds = 0.0
    dense = (sizes.divided + sizes.replicated + sizes.vocabulary) / layout.tensor / layout.pipeline
    for elements, ranks, near in ((dense, held, layout.neighbors(cluster)),
                                  (sizes.experts / layout.expert / layout.pipeline, ranks_of_experts,
                                   max(1, cluster.per_node // min(layout.expert, cluster.per_node)))):
        if ranks > 1:
            seconds += times * bytes_moved * elements * (ranks - 1) / ranks / bandwidth(cluster, ranks, near)
    return seconds


def parse_training(text: str) -> TrainingWork:
    """The work of "tokens=14.8T,sequence=4096,batch=15360,precision=fp8"."""
    values = KeyValues("--train", text)
    given = values.whole("micro_batches", 0) if values.has("micro_batches") else None
    work = TrainingWork(values.number("tokens", 1e12), values.whole("sequence", 4096), values.whole("batch", 1024),
                        values.whole("micro_batch", 1), given, values.choice("precision", ("bf16", "fp8"), "bf16"),
                        values.choice("recompute", RECOMPUTE, "full"),
                        SOFTWARE[values.choice("software", SOFTWARE, "pytorch")],
                        values.choice("mtp", ("yes", "no"), "no") == "yes")
    values.refuse_others()
    return work
