"""DeepSeekMoE (Dai et al. 2024) with the routers of V3 (DeepSeek-V3, section 2.1.2, eq. 12-20) and V2 (section 2.2).

Letters: T tokens, E routed experts, K experts per token, D hidden size.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spoutnik.model.adapter_switches import are_off
from spoutnik.model.config import ModelConfig
from spoutnik.model.grouped import grouped_linear, row_multiple
from spoutnik.model.layers import SwiGLU, swiglu
from spoutnik.model.packing import PackedSequences
from spoutnik.model.shared_prefixes import SharedPrefixes
from spoutnik.native import library, operations


class RouterTrace:
    """The routing of one forward pass, layer by layer: written by the routers, read by the trainer. It is an argument of the
    forward pass and not state of the modules, because threads share those.

    Not a dataclass: FSDP copies those among a module's arguments, and what a layer wrote into its copy would be lost.

    Args:
        want_balance_loss: the routers shall compute their balance losses.
        replayed: router name -> the experts (T, K) that the sampler chose, -1 where that is not known. They are taken instead
            of the router's own, whose scores weigh them (Rollout Routing Replay, arXiv 2510.11370).
        keep_choices: the routers shall leave their choices in `choices`.
    Attributes:
        loads: router name -> (E,) tokens sent to each expert.
        balance_losses: scalars.
        choices: router name -> (T, K) the experts that were taken.
        differing: router name -> (T,) whether the router's own choice would have been another one than the sampler's.
    """

    def __init__(self, want_balance_loss: bool = False, replayed: dict[str, Tensor] | None = None, keep_choices: bool = False):
        self.want_balance_loss, self.keep_choices = want_balance_loss, keep_choices
        self.replayed: dict[str, Tensor] = replayed or {}
        self.loads: dict[str, Tensor] = {}
        self.balance_losses: list[Tensor] = []
        self.choices: dict[str, Tensor] = {}
        self.differing: dict[str, Tensor] = {}


class Router(nn.Module):
    def __init__(self, config: ModelConfig, name: str):
        super().__init__()
        self.config, self.name = config, name
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.biased = config.topk_method == "noaux_tc"
        if self.biased:
            # A buffer: the gradient does not move it. float32 always: bfloat16 would round its small steps away.
            self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))

    def forward(self, x: Tensor, sequences: PackedSequences | None, trace: RouterTrace | None) -> tuple[Tensor, Tensor]:
        """x (T, D) to the chosen experts (T, K) and their weights (T, K), float32."""
        logits = F.linear(x.float(), self.weight.float())  # float32, so that near-ties route alike
        scores = logits.sigmoid() if self.config.scoring_func == "sigmoid" else logits.softmax(-1)
        if operations.supports(scores):
            experts, weights = self._choose(scores.detach())
        else:
            experts, weights = self.select(scores.detach()), None
        if trace is not None and self.name in trace.replayed:
            experts, weights = self._replay(experts, trace), None
        if weights is None or scores.requires_grad:
            weights = scores.gather(1, experts)  # without the bias, which chooses but never weighs
            if self.config.norm_topk_prob:
                weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
            weights = weights * self.config.routed_scaling_factor
        if trace is not None:
            real = experts.shape[0] - sequences.padding
            trace.loads[self.name] = loads_of(experts[:real], self.config.n_routed_experts, sequences)
            if trace.keep_choices:
                trace.choices[self.name] = experts
            if trace.want_balance_loss:
                trace.balance_losses.append(sequence_balance_loss(scores, experts, sequences))
        return experts, weights

    def _replay(self, experts: Tensor, trace: RouterTrace) -> Tensor:
        """The sampler's experts (T, K) where they are known, else these, the router's own; counts where the two differ."""
        replayed = trace.replayed[self.name].to(experts)
        known = (replayed >= 0).all(-1)
        trace.differing[self.name] = known & (experts.sort(-1).values != replayed.sort(-1).values).any(-1)
        return torch.where(known[:, None], replayed, experts)

    def _choose(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """`select` and the weights by the native kernel."""
        config = self.config
        grouped = config.topk_method != "greedy"
        bias = self.e_score_correction_bias if self.biased else None
        n_group, topk_group = (config.n_group, config.topk_group) if grouped else (1, 1)
        return operations.choose_experts(scores, bias, config.num_experts_per_tok, n_group, topk_group, config.norm_topk_prob,
                                       config.routed_scaling_factor)

    def select(self, scores: Tensor) -> Tensor:
        """The K experts with the best scores, V3's biased, inside the best groups: (T, E) to (T, K)."""
        config = self.config
        if self.biased:
            scores = scores + self.e_score_correction_bias
        if config.n_group > 1 and config.topk_method != "greedy":
            groups = scores.unflatten(-1, (config.n_group, -1))
            # A group is as good as its two best experts in V3, as its best one in V2.
            group_scores = groups.topk(2, dim=-1).values.sum(-1) if self.biased else groups.amax(-1)
            best = group_scores.topk(config.topk_group, dim=-1, sorted=False).indices
            eligible = torch.zeros_like(group_scores, dtype=torch.bool).scatter_(1, best, True)
            # -inf, not 0: an eligible expert with a negative bias may be below 0.
            scores = groups.masked_fill(~eligible[..., None], float("-inf")).flatten(-2)
        return scores.topk(config.num_experts_per_tok, dim=-1, sorted=False).indices

    @torch.no_grad()
    def move_bias(self, load: Tensor, gamma: float) -> None:
        """Auxiliary-loss-free balancing: up for starved experts, down for overloaded ones, by the sign alone."""
        load = load.float()
        self.e_score_correction_bias += gamma * torch.sign(load.mean() - load)


def loads_of(experts: Tensor, n_experts: int, sequences: PackedSequences) -> Tensor:
    """(E,) tokens sent to each expert, from (T, K): of all documents, so that a beginning that several share counts in each."""
    if not isinstance(sequences, SharedPrefixes):
        return torch.bincount(experts.flatten(), minlength=n_experts)
    times = sequences.multiplicity.repeat_interleave(experts.shape[1])
    return times.new_zeros(n_experts).index_add_(0, experts.flatten(), times)


def sequence_balance_loss(scores: Tensor, experts: Tensor, sequences: PackedSequences) -> Tensor:
    """V3 eq. 17-20, averaged over documents: sum_i f_i P_i, equal to 1 at perfect balance (alpha is the caller's).

    scores (T, E) sigmoid affinities with gradient; experts (T, K).
    """
    segments, real = len(sequences.lengths), scores.shape[0] - sequences.padding
    scores, experts, ids = scores[:real], experts[:real], sequences.document_ids[:real]
    n_experts = scores.shape[1]
    length = torch.tensor(sequences.lengths, device=scores.device, dtype=scores.dtype)[:, None]
    chosen = torch.zeros_like(scores).scatter_(1, experts, 1.0)
    counts = scores.new_zeros(segments, n_experts).index_add_(0, ids, chosen)
    normalised = scores / scores.sum(-1, keepdim=True)
    sums = scores.new_zeros(segments, n_experts).index_add(0, ids, normalised)
    if isinstance(sequences, SharedPrefixes):
        counts, sums, length = (sequences.per_document(each) for each in (counts, sums, length))
    f, p = counts * (n_experts / experts.shape[1]) / length, sums / length
    return (f * p).sum(-1).mean()


class TokenExchange(Protocol):
    """Brings tokens to the processes that hold their experts, and the results back (scale/expert_parallel.py)."""

    def __call__(self, local: "Experts", x: Tensor, experts: Tensor, weights: Tensor) -> Tensor: ...


class Experts(nn.Module):
    """The routed experts' weights, stacked: gate_up_proj (E, 2I, D), down_proj (E, D, I). With an exchange, those of this
    process alone."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        n, hidden, width = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(n, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(n, hidden, width))
        self.adapter: nn.Module | None = None  # an ExpertsLowRank (expert_lora.py)
        self.exchange: TokenExchange | None = None

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """x (T, D), experts (T, K), weights (T, K) to (T, D)."""
        return self.compute(x, experts, weights) if self.exchange is None else self.exchange(self, x, experts, weights)

    def compute(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """`forward` over the experts that are here: sort by expert, two grouped products, sum back."""
        if self.adapter is None and not torch.is_grad_enabled() and operations.has_fast_matmul(x, self.down_proj):
            return operations.routed_experts(x, experts, weights, self.gate_up_proj.to(x.dtype), self.down_proj.to(x.dtype))
        n_experts = self.down_proj.shape[0]
        layout = Layout.of(experts, n_experts, row_multiple(x, self.down_proj, experts.numel()))
        rows = Dispatch.apply(x, layout)
        gate_up = grouped_linear(rows, self.gate_up_proj, layout.counts)
        adapter = None if are_off() else self.adapter
        inside = swiglu(gate_up if adapter is None else gate_up + adapter.gate_up(rows, layout.counts))
        rows = grouped_linear(inside, self.down_proj, layout.counts)
        rows = rows if adapter is None else rows + adapter.down(inside, layout.counts)
        return Combine.apply(rows, layout, weights)

    def forward_plain(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The plain twin: every expert on every token, masked."""
        out = torch.zeros_like(x)
        for e, (gate_up, down) in enumerate(zip(self.gate_up_proj, self.down_proj)):
            gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
            share = (weights * (experts == e)).sum(-1, keepdim=True)
            out = out + F.linear(F.silu(gate) * up, down) * share
        return out


@dataclass(frozen=True)
class Layout:
    """Rows sorted by expert. counts (E,) rows of each block, rounded up (`row_multiple`); tokens (N,) the token in each row,
    any one where the row is padding; slots (T * K,) the row of each choice."""

    counts: Tensor
    tokens: Tensor
    slots: Tensor

    @staticmethod
    def of(experts: Tensor, n_experts: int, multiple: int) -> "Layout":
        """experts (T, K); every block becomes a multiple of `multiple` rows."""
        if experts.device.type == "cpu" and library() is not None:
            return Layout(*operations.layout(experts, n_experts, multiple))
        return Layout.of_plain(experts, n_experts, multiple)

    @staticmethod
    def of_plain(experts: Tensor, n_experts: int, multiple: int) -> "Layout":
        """The plain twin of `of`."""
        chosen = experts.flatten()
        sizes = torch.bincount(chosen, minlength=n_experts)
        counts = -(-sizes // multiple) * multiple
        order = chosen.argsort(stable=True)
        shift = (counts.cumsum(0) - counts) - (sizes.cumsum(0) - sizes)  # how far padding pushes each block
        rows = torch.arange(len(chosen), device=chosen.device) + shift[chosen[order]]
        slots = torch.empty_like(order).index_copy_(0, order, rows)
        tokens = order.new_zeros(int(counts.sum())).index_copy_(0, rows, order // experts.shape[1])
        return Layout(counts, tokens, slots)


class Dispatch(torch.autograd.Function):
    """x (T, D) to its rows (N, D). The gradient un-sorts a token's K rows and sums them: much faster than index_add."""

    @staticmethod
    def forward(ctx, x: Tensor, layout: Layout) -> Tensor:
        ctx.layout, ctx.tokens = layout, x.shape[0]
        return x.index_select(0, layout.tokens)

    @staticmethod
    def backward(ctx, grad: Tensor):
        if operations.supports(grad):
            return operations.gather_sum(grad.contiguous(), ctx.layout.slots, ctx.tokens), None
        return grad.index_select(0, ctx.layout.slots).view(ctx.tokens, -1, grad.shape[1]).sum(1), None


class Combine(torch.autograd.Function):
    """Rows (N, D) and weights (T, K) to the weighted sum per token (T, D)."""

    @staticmethod
    def forward(ctx, rows: Tensor, layout: Layout, weights: Tensor) -> Tensor:
        ctx.layout, ctx.native = layout, operations.supports(rows) and weights.dtype == torch.float32
        if ctx.native:
            rows, weights = rows.contiguous(), weights.contiguous()
            ctx.save_for_backward(rows, weights)
            return operations.combine(rows, layout.slots, weights)
        chosen = rows.index_select(0, layout.slots).view(*weights.shape, -1)
        ctx.save_for_backward(chosen, weights)
        return torch.bmm(weights.to(rows.dtype)[:, None], chosen)[:, 0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        chosen, weights = ctx.saved_tensors
        if ctx.native:
            grad_rows, grad_weights = operations.combine_backward(grad.contiguous(), chosen, ctx.layout.slots, weights)
            return grad_rows, None, grad_weights
        grad_weights = torch.bmm(chosen, grad[:, :, None])[..., 0].to(weights.dtype)
        spread = (grad[:, None] * weights.to(grad.dtype)[..., None]).flatten(0, 1)
        rows = grad.new_zeros(len(ctx.layout.tokens), grad.shape[1])
        return rows.index_copy_(0, ctx.layout.slots, spread), None, grad_weights


class DeepSeekMoE(nn.Module):
    """Routed experts plus shared ones, which every token passes: one wide SwiGLU in the published weights."""

    def __init__(self, config: ModelConfig, name: str):
        super().__init__()
        self.gate = Router(config, name)
        self.experts = Experts(config)
        self.shared_experts = (SwiGLU(config.hidden_size, config.n_shared_experts * config.moe_intermediate_size)
                               if config.n_shared_experts else None)

    def forward(self, x: Tensor, sequences: PackedSequences | None = None, trace: RouterTrace | None = None) -> Tensor:
        """x (T, D) to (T, D)."""
        out = self.experts(x, *self.gate(x, sequences, trace))
        return out if self.shared_experts is None else out + self.shared_experts(x)
