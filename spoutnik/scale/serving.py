"""Serving on paper: tokens per second of prefill and decoding, and the cache. Pure functions; does not import torch.

A forward pass takes, of each part, what is slower: its products, or reading its weights and cache; then its messages. MLA
decodes on its latents, which every rank of a tensor-parallel group keeps whole; grouped keys and values are divided. Routed
experts are read where a token of the batch has chosen them.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from spoutnik.errors import UserError
from spoutnik.scale import efficiency
from spoutnik.scale.costs import PlannedModel, TokenCosts
from spoutnik.scale.efficiency import SERVING, Serving
from spoutnik.scale.hardware import Cluster
from spoutnik.scale.key_values import KeyValues
from spoutnik.scale.training import bandwidth, expert_seconds

BYTES = {"bf16": 2, "fp8": 1}


@dataclass(frozen=True)
class ServingWork:
    """input, output: tokens of a request, on average. cached: the share of the input that is in the cache already. batch:
    requests decoded at a time on each GPU; None: as many as fit. tensor: GPUs that a layer is divided among. expert: GPUs that
    the routed experts are divided among, with copies where they do not divide; both None: what makes most tokens (`placed`).
    precision, cache: of weights and cache.
    drafts: the MTP module drafts a token with each, and `acceptance` of them are kept. separate: GPUs prefill or decode and do
    not do both. balanced: experts get equal shares, as in a measurement with random routing. graphs: CUDA graphs. two_batches:
    half of a batch computes while the other's messages to experts are under way (DeepSeek's engine, SGLang on request). whole:
    a request begins only where the cache has room for its last token (TensorRT-LLM's default); else requests grow into what
    others leave. requests: all there is, at once, of one length each; None: they come and go."""

    input: float = 2000
    output: float = 1000
    cached: float = 0.0
    batch: float | None = None
    tensor: int | None = 1
    expert: int | None = 1
    precision: str = "bf16"
    cache: str = "bf16"
    drafts: bool = False
    acceptance: float = 0.85  # DeepSeek-V3, 5.4.3: 85 to 90 %
    separate: bool = False
    balanced: bool = False
    graphs: bool = True
    two_batches: bool = True
    whole: bool = False
    requests: float | None = None


@dataclass(frozen=True)
class Pass:
    """Seconds of a forward pass of the whole model on one GPU of the group, by what they are spent on: products (or reading
    their weights, where that is slower) and what lies between them, attention (or reading the cache). memory: of both, what
    waits for the memory."""

    products: float
    attention: float
    network: float
    launch: float
    memory: float

    @property
    def seconds(self) -> float:
        return self.products + self.attention + self.network + self.launch

    @property
    def binds(self) -> str:
        parts = {"compute": self.products + self.attention - self.memory, "memory bandwidth": self.memory,
                 "network": self.network, "kernel launches": self.launch}
        return max(parts, key=parts.get)


@dataclass(frozen=True)
class ServingPlan:
    """tokens_per_second: output tokens of one GPU that does all (where `separate`, of one that decodes; prefill is
    `prefill_rate`, input tokens it takes in, cached ones included). batch: requests on a GPU. Bytes are of one GPU."""

    prefill_rate: float
    decode_rate: float
    tokens_per_second: float
    seconds_per_token: float
    batch: float
    weight_bytes: float
    cache_bytes: float
    cache_bytes_per_token: float
    prefill: Pass
    decode: Pass


@dataclass(frozen=True)
class Engine:
    """One engine: a group of GPUs that serves a model together."""

    model: PlannedModel
    cluster: Cluster
    work: ServingWork
    constants: Serving = SERVING

    @cached_property
    def costs(self) -> TokenCosts:
        return self.model.mtp_costs if self.work.drafts else self.model.costs

    @property
    def weight_bytes(self) -> float:
        """Of one GPU; embedding and head in bf16."""
        sizes, size = self.model.sizes, BYTES[self.work.precision]
        return (size * (sizes.divided / self.work.tensor + sizes.replicated + sizes.experts / self.work.expert)
                + 2 * sizes.vocabulary / self.work.tensor)

    @property
    def cache_bytes_per_token(self) -> float:
        """Of one GPU, for a token of one of the requests that its tensor-parallel group decodes."""
        config = self.model.config
        whole = BYTES[self.work.cache] * self.costs.layers * config.cache_width
        return whole if config.is_mla else whole / min(self.work.tensor, config.num_key_value_heads)

    @property
    def free_bytes(self) -> float:
        return self.constants.memory_share * self.cluster.gpu.memory - self.weight_bytes - self.constants.reserve

    def largest_batch(self) -> float:
        """Requests for each GPU of a group that fit. Where they come and go they are half-way on average."""
        at_once = self.work.whole or self.work.requests is not None  # which all reach their end together
        length = self.work.input + self.work.output / (1 if at_once else 2)
        return self.free_bytes / (self.cache_bytes_per_token * length * self.work.tensor)

    def forward(self, requests: float, new: float, context: float, latent: bool) -> Pass:
        """The pass of `requests` for each GPU, each with `new` tokens after `context` (the mean while they are computed).

        Args:
            latent: MLA's decoding form, on the cache.
        """
        work, gpu, constants, costs, config = self.work, self.cluster.gpu, self.constants, self.costs, self.model.config
        tokens, group = requests * new, work.tensor
        peak, stream = gpu.peak(work.precision), efficiency.HBM * gpu.bandwidth
        sizes, size = self.model.sizes, BYTES[work.precision]
        dense_bytes = size * (sizes.divided / group + sizes.replicated)
        head_bytes = 2 * config.vocab_size * config.hidden_size / group
        hit = 0.0
        if config.has_experts:  # the share of the experts that some token of all ranks has chosen
            hit = 1 - (1 - config.num_experts_per_tok / config.n_routed_experts) ** (tokens * max(work.expert, group))
        expert_bytes = size * sizes.experts / work.expert * hit
        slow = 1.0 if work.balanced or work.expert == 1 else constants.imbalance
        heads = requests * new if latent else requests  # of a prompt, one position has logits
        products = [(tokens * costs.dense / (constants.matmul * peak), dense_bytes / stream),
                    (slow * tokens * costs.experts / (constants.grouped * peak), expert_bytes / stream),
                    (heads * costs.head / (constants.matmul * gpu.bf16), head_bytes / stream)]
        position = costs.latent_position if latent else costs.position
        cache = requests * group * context * self.cache_bytes_per_token / stream if latent else 0.0
        scores = tokens * context * position / (constants.attention * gpu.bf16)
        attention = max(scores, cache)
        moved = tokens * costs.moved / stream
        network = self._network(tokens, slow)
        launch = costs.layers * (constants.launch if work.graphs or not latent else constants.eager_launch)
        if work.two_batches and work.expert > 1:  # one half computes while the other sends
            overlap = constants.decode_overlap if latent else constants.prefill_overlap
            network = max(0.0, network - overlap * (sum(map(max, products)) + attention + moved))
        waiting = moved + sum(read for computed, read in products if read > computed) + (cache if cache > scores else 0.0)
        return Pass(sum(map(max, products)) + moved, attention, network, launch, waiting)

    def _network(self, tokens: float, slow: float) -> float:
        """Seconds of all-reduces of a tensor-parallel group, two a layer, and of messages to experts."""
        work, costs, hidden = self.work, self.costs, self.model.config.hidden_size
        seconds = 0.0
        if work.tensor > 1:
            received = 2 * 2 * 2 * hidden * (work.tensor - 1) * tokens  # two all-reduces, each twice its size, in bf16
            latency = self.constants.link_latency if work.tensor <= self.cluster.per_node else self.constants.network_latency
            seconds += costs.layers * (received / bandwidth(self.cluster, work.tensor, self.cluster.per_node) + 2 * latency)
        if work.expert > 1 and not work.tensor >= work.expert:
            sent = expert_seconds(self.model, self.cluster, work.expert, costs.moe_layers, tokens > self.constants.few, 1)
            latency = self.constants.link_latency if work.expert <= self.cluster.per_node else self.constants.network_latency
            seconds += slow * tokens * sent + costs.moe_layers * 2 * latency
        return seconds


def serving_plan(model: PlannedModel, cluster: Cluster, work: ServingWork, constants: Serving = SERVING) -> ServingPlan:
    """Raises UserError where the model does not fit the GPUs it is divided among."""
    engine = Engine(model, cluster, work, constants)
    most = engine.largest_batch()
    batch = most if work.batch is None else work.batch
    if engine.free_bytes <= 0 or batch * work.tensor < 1:
        raise UserError(f"--serve: on each GPU the weights take {engine.weight_bytes / 1e9:.0f} GB, and one has "
                        f"{cluster.gpu.memory / 1e9:.0f}. Divide them among more (tensor, expert), or give precision=fp8.")
    if batch > most:
        raise UserError(f"--serve: batch = {batch:g}: the cache of {most:,.0f} requests fits on each GPU beside the weights. "
                        "Give no more, or leave it out.")
    if work.batch is None:
        batch = min(batch, engine.constants.most_requests / work.tensor)
    fresh = work.input * (1 - work.cached)
    requests = max(1.0, engine.constants.prefill_tokens / fresh) / work.tensor
    prefill = engine.forward(requests, fresh, work.input * work.cached + fresh / 2, latent=False)
    tokens = (1 + work.acceptance) if work.drafts else 1
    decode = engine.forward(batch, 2 if work.drafts else 1, work.input + work.output / 2, latent=True)
    prefill_rate = requests * work.input / prefill.seconds
    decode_rate = batch * tokens / decode.seconds
    together = 1 / (1 / decode_rate + work.input / work.output / prefill_rate)
    if work.requests is not None:
        together = _rate_in_waves(engine, batch, prefill_rate)
    return ServingPlan(prefill_rate, decode_rate, decode_rate if work.separate else together, decode.seconds / tokens, batch,
                       engine.weight_bytes, batch * work.tensor * (work.input + work.output / 2) * engine.cache_bytes_per_token,
                       engine.cache_bytes_per_token, prefill, decode)


def _rate_in_waves(engine: Engine, batch: float, prefill_rate: float) -> float:
    """Output tokens/s of a GPU whose requests are all there at the start: they begin and end together, as many as fit, and the
    last of these waves is smaller and still reads all the weights."""
    work = engine.work
    each = work.requests / engine.cluster.gpus
    waves, last = divmod(each, batch)
    seconds = 0.0
    for count, size in ((waves, batch), (1, last)):
        if count and size:
            step = engine.forward(size, 2 if work.drafts else 1, work.input + work.output / 2, latent=True).seconds
            steps = work.output / (1 + (work.acceptance if work.drafts else 0))
            seconds += count * (size * work.input / prefill_rate + steps * step)
    return each * work.output / seconds


def placed(model: PlannedModel, cluster: Cluster, work: ServingWork) -> ServingWork:
    """The work with tensor and expert chosen, where they are not given: the powers of two that make most tokens on each GPU;
    experts are divided where there are any, layers where there are none.

    Raises:
        UserError: the model fits no such engine.
    """
    if work.tensor is not None:
        return work
    config, best, refused = model.config, None, None
    for size in (1 << power for power in range(min(cluster.gpus, 1024).bit_length())):
        if cluster.gpus % size or (config.n_routed_experts if config.has_experts else config.num_attention_heads) % size:
            continue
        other = replace(work, tensor=1, expert=size) if config.has_experts else replace(work, tensor=size, expert=1)
        try:
            plan = serving_plan(model, cluster, other)
        except UserError as error:
            refused = error
            continue
        if best is None or plan.tokens_per_second > best[0]:
            best = plan.tokens_per_second, other
    if best is None:
        raise refused
    return best[1]


def divided(values: KeyValues) -> tuple[int | None, int | None]:
    """tensor and expert as given; None for both where neither is."""
    if not values.has("tensor") and not values.has("expert"):
        return values.absent("tensor"), values.absent("expert")
    return values.whole("tensor", 1), values.whole("expert", 1)


def parse_serving(text: str) -> ServingWork:
    """The work of "input=2000,output=1000,expert=32,precision=fp8"."""
    values, yes = KeyValues("--serve", text), ("yes", "no")
    work = ServingWork(
        values.number("input", 2000), values.number("output", 1000), values.number("cached", 0.0, zero=True),
        values.number("batch", 1.0) if values.has("batch") else None, *divided(values),
        values.choice("precision", BYTES, "bf16"), values.choice("cache", BYTES, "bf16"),
        values.choice("drafts", yes, "no") == "yes", values.number("acceptance", 0.85, zero=True),
        values.choice("separate", yes, "no") == "yes", values.choice("balanced", yes, "no") == "yes",
        values.choice("graphs", yes, "yes") == "yes", values.choice("two_batches", yes, "yes") == "yes",
        values.choice("whole", yes, "no") == "yes", values.number("requests", 1.0) if values.has("requests") else
        values.absent("requests"))
    values.refuse_others()
    if work.separate and work.requests is not None:
        raise UserError(f"--serve: requests = {work.requests:g} with separate = yes: a wave begins on GPUs that prefill and "
                        "ends on others, which is not planned. Leave one of the two out.")
    for key in ("cached", "acceptance"):
        if getattr(work, key) > 1 or (key == "cached" and work.cached == 1):
            raise UserError(f"--serve: {key} = {getattr(work, key):g}: is a share. Give less than 1.")
    return work
