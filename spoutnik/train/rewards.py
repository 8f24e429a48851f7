"""From completions to rewards: rules, the reward model, or a coin; and what a step's completions were like."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.errors import RunError
from spoutnik.tasks import Problem
from spoutnik.tasks.general import GeneralPrompt
from spoutnik.tasks.reflection import thought_measures
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.prompt_style import read_completion
from spoutnik.train.rollouts import grade

Scorer = Callable[[Sequence[tuple[str, str]]], list[float]]  # (prompt, answer) pairs to reward-model scores


@dataclass
class Rollouts:
    """What a step learns from. rewards (prompts, G); completions in the same order; metrics for the log, of the first
    draw. right: of each group the share of right answers, None where they are not what is rewarded. wasted: tokens of groups
    that were replaced by others, by cause (sampling.py)."""

    prompts: list[list[int]]
    groups: list[list[CompletionOutput]]
    rewards: Tensor
    metrics: dict[str, float]
    right: list[float | None] = field(default_factory=list)
    wasted: dict[str, int] = field(default_factory=dict)

    @property
    def generated(self) -> int:
        """Tokens of all that was sampled."""
        return sum(self.wasted.values()) + sum(map(tokens_of, self.groups))


def tokens_of(group: Sequence[CompletionOutput]) -> int:
    return sum(len(completion.token_ids) for completion in group)


def grade_rollouts(prompts: list[list[int]], groups: list[list[CompletionOutput]],
                   problems: Sequence[Problem | GeneralPrompt], tokenizer: Tokenizer, settings: GRPOSettings,
                   scorer: Scorer | None, seed: int = 0) -> Rollouts:
    """Rules grade problems; the reward model scores general prompts, by the answer alone (R1 section 3.1). seed: of the coin,
    which rewards in place of both where the settings say so."""
    weights, style = settings.rewards, settings.prompt_style
    rewards = torch.zeros(len(groups), settings.group_size)
    graded = grade([(problem, completion) for problem, group in zip(problems, groups) if not isinstance(problem, GeneralPrompt)
                    for completion in group], tokenizer, weights.language_rule, style)
    next_graded, general, well_formed, right = iter(graded), [], 0, []
    by_answer = weights.accuracy > 0 and weights.random is None
    for row, (problem, group) in enumerate(zip(problems, groups)):
        accuracy = []
        for column, completion in enumerate(group):
            if isinstance(problem, GeneralPrompt):
                reply = read_completion(completion, tokenizer, style)
                rewards[row, column] = weights.format * reply.well_formed
                if reply.well_formed:
                    general.append((row, column, problem.prompt, reply.answer))
            else:
                grades = next(next_graded)
                reply = grades.reply
                accuracy.append(grades.accuracy)
                rewards[row, column] = (weights.accuracy * grades.accuracy + weights.format * reply.well_formed
                                        + weights.language * grades.language * reply.well_formed)
            well_formed += reply.well_formed
        right.append(_mean(accuracy) if accuracy and by_answer else None)
    if weights.random is not None:
        rewards = toss(rewards.shape, weights.random, seed)
    count = sum(len(group) for group in groups)
    metrics = {"reward": float(rewards.mean()), "well_formed": well_formed / count,
               "truncated": sum(not c.finished for group in groups for c in group) / count}
    if graded:
        metrics |= {"accuracy": _mean(g.accuracy for g in graded), "language": _mean(g.language for g in graded)}
        metrics |= thought_measures([(g.reply.thought, g.reply.thought_tokens) for g in graded])
    if general:
        scores = scorer([(prompt, answer) for _, _, prompt, answer in general])
        refuse_bad_scores(general, scores)
        for (row, column, _, _), score in zip(general, scores):
            rewards[row, column] += score
        metrics["preference"] = _mean(scores)
    if not bool(torch.isfinite(rewards).all()):
        raise RunError(f"a reward is not a finite number, by the weights rewards = {weights.model_dump()}. Correct them.")
    return Rollouts(prompts, groups, rewards, metrics, right)


def toss(shape: Sequence[int], probability: float, seed: int) -> Tensor:
    """Rewards (prompts, G) by a coin that knows nothing but the seed: 1 with the probability, else 0."""
    rng = random.Random(f"{seed} coin")
    rows, columns = shape
    return torch.tensor([[float(rng.random() < probability) for _ in range(columns)] for _ in range(rows)]).view(rows, columns)


def refuse_bad_scores(general: Sequence[tuple[int, int, str, str]], scores: Sequence[float]) -> None:
    bad = next((i for i, score in enumerate(scores) if not math.isfinite(score)), None)
    if bad is not None:
        _, _, prompt, answer = general[bad]
        raise RunError(f"the reward model gives {scores[bad]} for {answer[:60]!r} as an answer to {prompt[:60]!r}: a reward "
                       "must be a finite number. Train the reward model again.")


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / max(len(values), 1)
