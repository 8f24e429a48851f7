"""GRPO with verifiable rewards (DeepSeekMath section 4; R1 section 2.2): reasoning RL, and RL for all scenarios.

A step: sample G completions for each prompt (sampling.py), grade them (rewards.py), turn rewards into advantages within the
group, take one gradient step. On-policy, so the ratio starts at 1 by construction: the sampler recorded its log-probabilities,
the trainer computes them again with the same modules, and the difference (bfloat16 rounding) is measured at every step. With
several updates per batch of rollouts, as R1 has them, at the first of them; from the second on the clip acts. With rollouts by
older weights (ahead.py) the ratio is corrected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from spoutnik.errors import RunError
from spoutnik.model.lora import can_share_prefixes
from spoutnik.model.moe import RouterTrace
from spoutnik.model.packing import on_device
from spoutnik.model.parts import is_divided
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import CPU, on_all_ranks, parts
from spoutnik.tasks import Task
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train import losses
from spoutnik.train.anchor import Anchor
from spoutnik.train.batches import Document, PackedBatch, micro_batches, pack_documents, pack_sharing
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.loop import Checkpoints, Cost, Gradient, Progress, Stopwatch, accumulate, train
from spoutnik.train.monitor import Monitor
from spoutnik.train.rewards import Rollouts, Scorer
from spoutnik.train.rollouts import PolicyEngine, PolicySampler, cost_elsewhere
from spoutnik.train.routing import difference_metrics, document_routes, known_tokens, router_names, stream_routes
from spoutnik.train.sampling import RolloutSource, waste_of

ON_POLICY = losses.Staleness()


@dataclass(frozen=True)
class PolicyBatch:
    """A packed micro-batch of rollouts with, per predicted token: advantage, weight and the sampler's log-probability
    (and the reference's, where a KL penalty asks for it). All (N,). routes: router name -> the sampler's experts (T, K) of the
    stream's tokens, where it keeps a record of them."""

    packed: PackedBatch
    advantages: Tensor
    weights: Tensor
    sampler_log_probs: Tensor
    reference_log_probs: Tensor | None = None
    routes: dict[str, Tensor] = field(default_factory=dict)


def policy_batches(rollouts: Rollouts, settings: GRPOSettings, share: bool = False,
                   device: torch.device = CPU, routers: Sequence[str] = ()) -> tuple[list[PolicyBatch], int]:
    """Micro-batches of one step, and the number of generated tokens that carry no gradient (groups without variance). share:
    compute what completions of a micro-batch begin with alike once (`pack_sharing`); with the setting share_prompts, whose
    micro-batches have whole groups, that is each prompt. device: that will compute them. routers: of the model, whose choices
    are the sampler's where it tells them."""
    advantages = losses.group_advantages(rollouts.rewards, settings.std_normalisation)
    trained = losses.has_variance(rollouts.rewards) | (settings.zero_variance == "keep")
    documents, rows, routes, wasted = [], [], [], 0
    for prompt, group, group_advantage, is_trained in zip(rollouts.prompts, rollouts.groups, advantages, trained.tolist()):
        if not is_trained:
            wasted += sum(len(c.token_ids) for c in group)
            continue
        for completion, advantage in zip(group, group_advantage):
            documents.append(Document([*prompt, *completion.token_ids], loss_from=len(prompt)))
            rows.append((advantage, torch.tensor(completion.logprobs)))
            if completion.routed_experts is not None:
                routes.append(document_routes(completion.routed_experts, len(documents[-1].ids), len(routers)))
    if not documents:
        return [], wasted
    if routes and len(routes) < len(documents):
        raise RunError(f"the sampler told the experts of {len(routes)} completions of {len(documents)}. Let all samplers keep "
                       "a record of them, or none.")
    lengths = torch.tensor([d.predicted for d in documents])
    weights = losses.token_weights(lengths, settings.length_normalisation, settings.max_tokens)
    batches = []
    for chosen in _chosen_documents(documents, settings, device):
        size = lengths[chosen]
        packed = (pack_sharing if share or settings.share_prompts else pack_documents)(documents, chosen)
        batches.append(PolicyBatch(packed, torch.stack([rows[i][0] for i in chosen]).repeat_interleave(size),
                                   weights[chosen].repeat_interleave(size), torch.cat([rows[i][1] for i in chosen]),
                                   routes=stream_routes(routes, packed, routers) if routes else {}))
    return batches, wasted


def _chosen_documents(documents: Sequence[Document], settings: GRPOSettings, device: torch.device) -> list[list[int]]:
    """The numbers of each micro-batch's documents: of similar length, or with whole groups, which have one prompt."""
    lengths = [len(document.ids) for document in documents]
    if not settings.share_prompts:
        return micro_batches(lengths, settings.micro_batch_tokens, parts(device))
    size = settings.group_size
    starts = range(0, len(documents), size)
    computed = [sum(lengths[i:i + size]) - (size - 1) * (documents[i].loss_from - 1) for i in starts]
    return [[i for group in chosen for i in range(starts[group], starts[group] + size)]
            for chosen in micro_batches(computed, settings.micro_batch_tokens, parts(device))]


def policy_gradient(model: Transformer, batches: Sequence[PolicyBatch], parameters: Sequence[Tensor],
                    settings: GRPOSettings, staleness: losses.Staleness | None = None) -> Gradient:
    """The gradient of one step, with the mismatch between sampler and trainer measured on the way. staleness: where the sampler
    may have had older weights."""
    model.gradient_checkpointing = settings.gradient_checkpointing
    tokens = sum(len(batch.advantages) for batch in batches)
    documents = sum(len(batch.packed.documents) for batch in batches)
    known = sum(known_tokens(batch.routes) for batch in batches)

    def loss_of(batch: PolicyBatch, trace: RouterTrace) -> tuple[Tensor, dict[str, float]]:
        trace.replayed = batch.routes
        log_probs, entropy = _log_probs(model, batch.packed, settings.temperature, trace)
        loss, clipped = losses.policy_loss(log_probs, batch.sampler_log_probs, batch.advantages, batch.weights, settings,
                                           batch.reference_log_probs, staleness)
        share = len(batch.advantages) / tokens
        metrics = {"loss": float(loss.detach()), "clipped": float(clipped) * share,
                   "entropy": float(entropy.mean()) * share,
                   "mismatch_kl": float(losses.mismatch_kl(batch.sampler_log_probs, log_probs.detach())) * share}
        metrics |= difference_metrics(trace, known)
        if trace.balance_losses:
            part = len(batch.packed.documents) / documents
            loss = loss + settings.balance_loss_alpha * part * torch.stack(trace.balance_losses).sum()
        return loss, metrics

    return accumulate(parameters, batches, loss_of, settings.balance_loss_alpha > 0)


def with_reference(model: Transformer, batches: Sequence[PolicyBatch], temperature: float) -> list[PolicyBatch]:
    """The same batches with the reference model's log-probabilities, which alone travel between processes."""
    @torch.no_grad()
    def one(batch: PolicyBatch) -> Tensor:
        log_probs, _ = _log_probs(model, on_device(batch.packed, model.device), temperature)
        return log_probs.to(batch.advantages.device)

    found = on_all_ranks(one, batches, model.device, is_divided(model))
    return [replace(batch, reference_log_probs=log_probs) for batch, log_probs in zip(batches, found, strict=True)]


def _log_probs(model: Transformer, batch: PackedBatch, temperature: float,
               trace: RouterTrace | None = None) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the batch's targets (N,) and the entropies (N,)."""
    hidden = model.hidden(batch.input_ids, batch.sequences, trace)
    return losses.token_log_probs(hidden[batch.positions], model.lm_head.weight, batch.targets, temperature)


def grpo(model: Transformer, tokenizer: Tokenizer, tasks: Sequence[Task], settings: GRPOSettings, seed: int,
         stage: str, checkpoints: Checkpoints, progress: Progress, scorer: Scorer | None = None,
         reference: Transformer | None = None, monitor: Monitor | None = None,
         anchor: Anchor | None = None, engine: PolicySampler | None = None,
         staleness: losses.Staleness = ON_POLICY) -> tuple[list[dict], Cost]:
    """Trains in place. monitor: validates start and result, if it has what to validate on. anchor: what every step learns
    beside its rollouts. engine: what samples the model, if not an engine here. staleness: how far behind it may be.

    Raises:
        RunError: sampler and trainer disagree by more than `max_mismatch_kl`, or the loss diverged.
    """
    monitor, watch, engine = monitor or Monitor(stage), Stopwatch(), engine or PolicyEngine(model, tokenizer)
    cost = monitor.start() + watch.lap()
    if model.mtp is not None:  # post-training leaves the MTP module alone, as R1 did
        model.mtp.requires_grad_(False)
    optimizer, correction = settings.make_optimizer(model), staleness if staleness.steps else None

    source = RolloutSource(settings, tasks, tokenizer, engine, seed, stage, scorer, staleness.steps)

    def step_gradient(step: int) -> tuple[Gradient, dict[str, float], Cost]:
        rollouts, age = source.of_step(step)
        batches, wasted = policy_batches(rollouts, settings, can_share_prefixes(model), model.device, router_names(model))
        if settings.kl_coefficient:
            batches = with_reference(reference, batches, settings.temperature)
        gradient = policy_gradient(model, batches, optimizer.parameters, settings, correction)
        metrics = dict.fromkeys(("loss", "clipped", "entropy", "mismatch_kl"), 0.0) | rollouts.metrics | gradient.metrics
        if step % settings.updates_per_rollout == 0:
            refuse_mismatch(stage, step, metrics["mismatch_kl"], settings.max_mismatch_kl, staleness.steps)
        else:  # the policy has moved since it was sampled, as it should
            metrics["moved_kl"] = metrics.pop("mismatch_kl")
        if correction is not None:
            metrics |= {"staleness": age, f"{correction.correction}_cut": metrics["clipped"]}
        elsewhere = engine.take_metrics()
        trained = sum(len(b.packed.input_ids) for b in batches)
        metrics |= elsewhere | {"tokens": rollouts.generated} | waste_of(rollouts, settings)
        return gradient, metrics, cost_elsewhere(elsewhere) + Cost(tokens_trained=trained, tokens_generated=rollouts.generated,
                                                                   tokens_wasted=wasted + sum(rollouts.wasted.values()))

    if staleness.steps:
        checkpoints = replace(checkpoints, kept=source.ahead)
    log, total = train(model, optimizer, settings.make_schedule(settings.steps), stage, step_gradient, checkpoints, progress,
                       settings.bias_update_speed, monitor.after_step, anchor, settings.updates_per_rollout)
    monitor.end()
    return log, total + cost + cost_elsewhere(engine.take_metrics())  # of what was sampled since the last step: a validation


def refuse_mismatch(stage: str, step: int, mismatch: float, limit: float, staleness: int = 0) -> None:
    """staleness: steps between the weights that sampled and those that learn, at most."""
    if mismatch > limit and staleness:
        raise RunError(f"{stage}: at step {step} the policy has moved too far from the older weights that sampled for it: "
                       f"mismatch KL {mismatch:.4g} passes max_mismatch_kl = {limit:g}. Lower learning_rate, or max_staleness "
                       f"(it is {staleness}), then run again.")
    if mismatch > limit:
        raise RunError(f"{stage}: sampler and trainer disagree at step {step}: mismatch KL {mismatch:.4g} passes "
                       f"max_mismatch_kl = {limit:g}. The gradient would be of another policy. Compute in float32 "
                       "(dtype: float32) or lower learning_rate, then run again.")
