"""GRPO with verifiable rewards (DeepSeekMath section 4; R1 section 2.2): reasoning RL, and RL for all scenarios.

A step: sample G completions for each prompt, grade them, turn rewards into advantages within the group, take one
gradient step. On-policy, so the ratio starts at 1 by construction: the sampler recorded its log-probabilities, the
trainer computes them again with the same modules, and the difference (bfloat16 rounding) is measured at every step.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.model.lora import can_share_prefixes
from spoutnik.model.moe import RouterTrace
from spoutnik.model.packing import on_device
from spoutnik.model.parts import is_divided
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import CPU, on_all_ranks, parts
from spoutnik.tasks import Problem, Task
from spoutnik.tasks.dialogues import general_question
from spoutnik.tasks.general import GeneralPrompt
from spoutnik.tasks.general_text import Wishes
from spoutnik.tasks.language import reflection_count
from spoutnik.text.thought import read_reply
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train import losses
from spoutnik.train.anchor import Anchor
from spoutnik.train.batches import Document, PackedBatch, micro_batches, pack_documents, pack_sharing
from spoutnik.train.loop import Checkpoints, Cost, Gradient, Progress, Stopwatch, accumulate, train
from spoutnik.train.monitor import Monitor
from spoutnik.train.rollouts import LanguageRule, PolicyEngine, Sampler, chat_prompts, grade, sample_problems
from spoutnik.train.routing import difference_metrics, document_routes, known_tokens, router_names, stream_routes
from spoutnik.train.settings import Settings, TrainSettings, young


class RewardSettings(Settings):
    """Reward = accuracy + format + language, each times its weight (R1 eq. 4 and 8); nothing for a truncated completion."""

    accuracy: float = Field(default=1.0, ge=0)
    """Weight of the verifier's verdict, or of the reward model's score."""
    format: float = Field(default=0.1, ge=0)
    """Weight of a well-formed reply: a thought that ends, and an answer."""
    language: float = Field(default=0.1, ge=0)
    """Weight of the share of the thought that is in the language of the question."""
    language_rule: LanguageRule = young("lenient")
    """With strict, no language is credited to an empty thought; with lenient it counts as in the language."""


class GRPOSettings(TrainSettings, losses.PolicyLoss):
    """Of a step: rollouts, rewards, and the loss."""

    steps: int = Field(gt=0)
    """Optimizer steps, one per batch of prompts_per_step x group_size rollouts."""
    prompts_per_step: int = Field(default=64, gt=0)
    """Problems of a step."""
    group_size: int = Field(default=8, gt=1)
    """Completions of each, which are compared with each other."""
    max_tokens: int = Field(default=200, gt=1)
    """The longest completion, thought included; a longer one is cut off and earns nothing."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Of the rollouts, and of the loss."""
    max_mismatch_kl: float = Field(default=0.05, gt=0)
    """Between the sampler's log-probabilities and the trainer's, in nats a token; beyond, the stage fails."""
    rewards: RewardSettings = RewardSettings()
    """The weights of the rewards."""
    general_share: float = Field(default=0.0, ge=0, lt=1)
    """The share of the prompts that are general and scored by the reward model."""
    general_from: float = Field(default=0.5, ge=0, le=1)
    """The share of the steps after which general prompts begin (R1 section 3.2: only at the end, or the reward is hacked)."""
    wishes: Wishes = young("listed")
    """What is wished in general prompts: what a list has, or any words as well."""
    dialogue_share: float = Field(default=0.0, ge=0, le=1)
    """The share of the prompts with earlier turns before the question."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """What the learning rate does after its warm-up, as in the other stages."""


Scorer = Callable[[Sequence[tuple[str, str]]], list[float]]  # (prompt, answer) pairs to reward-model scores


@dataclass
class Rollouts:
    """What a step sampled. rewards (prompts, G); completions in the same order; metrics for the log."""

    prompts: list[list[int]]
    groups: list[list[CompletionOutput]]
    rewards: Tensor
    metrics: dict[str, float]


def roll_out(sampler: Sampler, tokenizer: Tokenizer, problems: Sequence[Problem | GeneralPrompt], settings: GRPOSettings,
             seed: int, scorer: Scorer | None) -> Rollouts:
    prompts = chat_prompts(problems, tokenizer)
    params = SamplingParams(n=settings.group_size, temperature=settings.temperature, top_p=1.0, max_tokens=settings.max_tokens)
    groups = [output.outputs for output in sampler.generate(prompts, params, seed=seed)]
    return grade_rollouts(prompts, groups, problems, tokenizer, settings, scorer)


def grade_rollouts(prompts: list[list[int]], groups: list[list[CompletionOutput]],
                   problems: Sequence[Problem | GeneralPrompt], tokenizer: Tokenizer, settings: GRPOSettings,
                   scorer: Scorer | None) -> Rollouts:
    """Rules grade problems; the reward model scores general prompts, by the answer alone (R1 section 3.1)."""
    weights = settings.rewards
    rewards = torch.zeros(len(groups), settings.group_size)
    graded = grade([(problem, completion) for problem, group in zip(problems, groups) if not isinstance(problem, GeneralPrompt)
                    for completion in group], tokenizer, weights.language_rule)
    next_graded, general, well_formed = iter(graded), [], 0
    for row, (problem, group) in enumerate(zip(problems, groups)):
        for column, completion in enumerate(group):
            if isinstance(problem, GeneralPrompt):
                reply = read_reply(completion.reply_ids, tokenizer, completion.finished)
                rewards[row, column] = weights.format * reply.well_formed
                if reply.well_formed:
                    general.append((row, column, problem.prompt, reply.answer))
            else:
                grades = next(next_graded)
                reply = grades.reply
                rewards[row, column] = (weights.accuracy * grades.accuracy + weights.format * reply.well_formed
                                        + weights.language * grades.language * reply.well_formed)
            well_formed += reply.well_formed
    count = sum(len(group) for group in groups)
    metrics = {"reward": float(rewards.mean()), "well_formed": well_formed / count,
               "truncated": sum(not c.finished for group in groups for c in group) / count}
    if graded:
        metrics |= {"accuracy": _mean(g.accuracy for g in graded), "language": _mean(g.language for g in graded),
                    "thought_tokens": _mean(g.reply.thought_tokens for g in graded),
                    "reflections": _mean(reflection_count(g.reply.thought) for g in graded)}
    if general:
        scores = scorer([(prompt, answer) for _, _, prompt, answer in general])
        refuse_bad_scores(general, scores)
        for (row, column, _, _), score in zip(general, scores):
            rewards[row, column] += score
        metrics["preference"] = _mean(scores)
    if not bool(torch.isfinite(rewards).all()):
        raise RunError(f"a reward is not a finite number, by the weights rewards = {weights.model_dump()}. Correct them.")
    return Rollouts(prompts, groups, rewards, metrics)


def refuse_bad_scores(general: Sequence[tuple[int, int, str, str]], scores: Sequence[float]) -> None:
    bad = next((i for i, score in enumerate(scores) if not math.isfinite(score)), None)
    if bad is not None:
        _, _, prompt, answer = general[bad]
        raise RunError(f"the reward model gives {scores[bad]} for {answer[:60]!r} as an answer to {prompt[:60]!r}: a reward "
                       "must be a finite number. Train the reward model again.")


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / max(len(values), 1)


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
    compute what completions begin with alike once (`pack_sharing`). device: that will compute them. routers: of the model,
    whose choices are the sampler's where it tells them."""
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
    for chosen in micro_batches([len(d.ids) for d in documents], settings.micro_batch_tokens, parts(device)):
        size = lengths[chosen]
        packed = (pack_sharing if share else pack_documents)(documents, chosen)
        batches.append(PolicyBatch(packed, torch.stack([rows[i][0] for i in chosen]).repeat_interleave(size),
                                   weights[chosen].repeat_interleave(size), torch.cat([rows[i][1] for i in chosen]),
                                   routes=stream_routes(routes, packed, routers) if routes else {}))
    return batches, wasted


def policy_gradient(model: Transformer, batches: Sequence[PolicyBatch], parameters: Sequence[Tensor],
                    settings: GRPOSettings) -> Gradient:
    """The gradient of one step, with the mismatch between sampler and trainer measured on the way."""
    model.gradient_checkpointing = settings.gradient_checkpointing
    tokens = sum(len(batch.advantages) for batch in batches)
    documents = sum(len(batch.packed.documents) for batch in batches)
    known = sum(known_tokens(batch.routes) for batch in batches)

    def loss_of(batch: PolicyBatch, trace: RouterTrace) -> tuple[Tensor, dict[str, float]]:
        trace.replayed = batch.routes
        log_probs, entropy = _log_probs(model, batch.packed, settings.temperature, trace)
        loss, clipped = losses.policy_loss(log_probs, batch.sampler_log_probs, batch.advantages, batch.weights, settings,
                                           batch.reference_log_probs)
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
    """The same batches with the reference model's log-probabilities."""
    @torch.no_grad()
    def one(batch: PolicyBatch) -> PolicyBatch:
        packed = on_device(batch.packed, model.device)
        log_probs, _ = _log_probs(model, packed, temperature)
        return replace(batch, reference_log_probs=log_probs.to(batch.advantages.device))

    return on_all_ranks(one, batches, model.device, is_divided(model))


def _log_probs(model: Transformer, batch: PackedBatch, temperature: float,
               trace: RouterTrace | None = None) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the batch's targets (N,) and the entropies (N,)."""
    hidden = model.hidden(batch.input_ids, batch.sequences, trace)
    return losses.token_log_probs(hidden[batch.positions], model.lm_head.weight, batch.targets, temperature)


def grpo(model: Transformer, tokenizer: Tokenizer, tasks: Sequence[Task], settings: GRPOSettings, seed: int,
         stage: str, checkpoints: Checkpoints, progress: Progress, scorer: Scorer | None = None,
         reference: Transformer | None = None, monitor: Monitor | None = None,
         anchor: Anchor | None = None, engine: PolicyEngine | None = None) -> tuple[list[dict], Cost]:
    """Trains in place. monitor: validates start and result, if it has what to validate on. anchor: what every step learns
    beside its rollouts. engine: what samples the model, if somebody else uses it too.

    Raises:
        RunError: sampler and trainer disagree by more than `max_mismatch_kl`, or the loss diverged.
    """
    monitor, watch, engine = monitor or Monitor(stage), Stopwatch(), engine or PolicyEngine(model, tokenizer)
    cost = monitor.start() + watch.lap()
    if model.mtp is not None:  # post-training leaves the MTP module alone, as R1 did
        model.mtp.requires_grad_(False)
    optimizer = settings.make_optimizer(model)

    def step_gradient(step: int) -> tuple[Gradient, dict[str, float], Cost]:
        problems = step_prompts(settings, tasks, seed, stage, step, scorer is not None)
        rollouts = roll_out(engine.current(), tokenizer, problems, settings, seed * 1_000_003 + step, scorer)
        batches, wasted = policy_batches(rollouts, settings, can_share_prefixes(model), model.device, router_names(model))
        if settings.kl_coefficient:
            batches = with_reference(reference, batches, settings.temperature)
        gradient = policy_gradient(model, batches, optimizer.parameters, settings)
        metrics = dict.fromkeys(("loss", "clipped", "entropy", "mismatch_kl"), 0.0) | rollouts.metrics | gradient.metrics
        refuse_mismatch(stage, step, metrics["mismatch_kl"], settings.max_mismatch_kl)
        metrics["zero_variance"] = 1 - float(losses.has_variance(rollouts.rewards).float().mean())
        generated = sum(len(c.token_ids) for group in rollouts.groups for c in group)
        trained = sum(len(b.packed.input_ids) for b in batches)
        metrics["tokens"] = generated
        return gradient, metrics, Cost(tokens_trained=trained, tokens_generated=generated, tokens_wasted=wasted)

    log, total = train(model, optimizer, settings.make_schedule(settings.steps), stage, step_gradient, checkpoints, progress,
                       settings.bias_update_speed, monitor.after_step, anchor)
    monitor.end()
    return log, total + cost


def step_prompts(settings: GRPOSettings, tasks: Sequence[Task], seed: int, stage: str, step: int,
                 with_general: bool) -> list[Problem | GeneralPrompt]:
    """A step's prompts, a function of seed and step: a resumed run repeats none and skips none."""
    rng = random.Random(f"{seed} {stage} {step}")
    general = 0
    if with_general and step >= settings.general_from * settings.steps:
        general = round(settings.general_share * settings.prompts_per_step)
    share = settings.dialogue_share
    problems = sample_problems(rng, tasks, settings.prompts_per_step - general, "train", share)
    return [*problems, *(general_question(rng, tasks, share, settings.wishes) for _ in range(general))]


def refuse_mismatch(stage: str, step: int, mismatch: float, limit: float) -> None:
    if mismatch > limit:
        raise RunError(f"{stage}: sampler and trainer disagree at step {step}: mismatch KL {mismatch:.4g} passes "
                       f"max_mismatch_kl = {limit:g}. The gradient would be of another policy. Compute in float32 "
                       "(dtype: float32) or lower learning_rate, then run again.")
