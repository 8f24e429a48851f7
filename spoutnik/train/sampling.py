"""What a step of reinforcement learning samples: prompts by seed and step, their completions, and others in place of groups
that teach nothing.

DAPO's dynamic sampling (arXiv 2503.14476, section 3.2): a group in which all rewards are equal has no gradient, so another
prompt is drawn in its place, and what the group cost is counted as waste. What is logged of a step is of its first prompts:
those that come in their place are chosen by their rewards.
"""

import random
from collections.abc import Sequence
from itertools import islice

import torch

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.files import sha256_json
from spoutnik.tasks import Problem, Task
from spoutnik.tasks.dialogues import general_question
from spoutnik.tasks.general import GeneralPrompt
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.ahead import RolloutsAhead
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.losses import has_variance
from spoutnik.train.prompt_style import prompt_ids
from spoutnik.train.rewards import Rollouts, Scorer, grade_rollouts, tokens_of
from spoutnik.train.rollouts import PendingRollouts, PolicySampler, Sampler, sample_problems

WASTE = ("wasted_right", "wasted_wrong", "wasted_other")  # tokens of groups without variance: all right, all wrong, neither


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


def roll_out(sampler: Sampler, tokenizer: Tokenizer, problems: Sequence[Problem | GeneralPrompt], settings: GRPOSettings,
             seed: int, scorer: Scorer | None) -> Rollouts:
    """coin's seed: `seed`."""
    prompts = prompt_ids(problems, tokenizer, settings.prompt_style)
    groups = [output.outputs for output in sampler.generate(prompts, sampling_params(settings), seed=seed)]
    return grade_rollouts(prompts, groups, problems, tokenizer, settings, scorer, seed)


def sampling_params(settings: GRPOSettings) -> SamplingParams:
    return SamplingParams(n=settings.group_size, temperature=settings.temperature, top_p=1.0, max_tokens=settings.max_tokens)


class RolloutSource:
    """The rollouts of a stage, step by step. Those of `updates_per_rollout` steps are sampled together, by the policy as it is
    before the first of them, or, with `staleness`, by one that is some steps older (ahead.py).

    Raises:
        UserError: staleness beside settings that need the weights of now.
    """

    def __init__(self, settings: GRPOSettings, tasks: Sequence[Task], tokenizer: Tokenizer, engine: PolicySampler, seed: int,
                 stage: str, scorer: Scorer | None, staleness: int = 0):
        if staleness and (settings.updates_per_rollout > 1 or settings.zero_variance == "refill"):
            which = "updates_per_rollout" if settings.updates_per_rollout > 1 else "zero_variance: refill"
            raise UserError(f"{stage}: {which} with scale.max_staleness = {staleness}: both would have what is learned from be "
                            "sampled by other weights, each by a rule of its own. Leave one of them out.")
        self.settings, self.tasks, self.tokenizer, self.engine = settings, tasks, tokenizer, engine
        self.seed, self.stage, self.scorer = seed, stage, scorer
        self.ahead = RolloutsAhead(self._begin, staleness, settings.steps)
        self._batch: dict[int, Rollouts] = {}  # step -> what is still to be learned from

    def of_step(self, step: int) -> tuple[Rollouts, int]:
        """And by how many steps the weights that sampled them are older. To be asked for the steps in order, from the first of
        a batch on; each once."""
        age = 0
        if step not in self._batch:
            assert step % self.settings.updates_per_rollout == 0, "a checkpoint lies between two batches of rollouts"
            groups, age = self.ahead.take(step)
            self._batch = self._graded(self._steps_from(step), groups)
        return self._batch.pop(step), age

    def _steps_from(self, step: int) -> range:
        """Those whose rollouts are sampled together."""
        return range(step, min(step + self.settings.updates_per_rollout, self.settings.steps))

    def _problems(self, step: int) -> list[Problem | GeneralPrompt]:
        return step_prompts(self.settings, self.tasks, self.seed, self.stage, step, self.scorer is not None)

    def _prompts(self, problems: Sequence[Problem | GeneralPrompt]) -> list[list[int]]:
        return prompt_ids(problems, self.tokenizer, self.settings.prompt_style)

    def _seed(self, step: int) -> int:
        return self.seed * 1_000_003 + step

    def _begin(self, step: int) -> PendingRollouts:
        prompts = [ids for each in self._steps_from(step) for ids in self._prompts(self._problems(each))]
        return self.engine.begin(prompts, sampling_params(self.settings), self._seed(step))

    def _graded(self, steps: range, groups: Sequence[list[CompletionOutput]]) -> dict[int, Rollouts]:
        """groups: of all prompts of the steps, one after another."""
        rest, graded = iter(groups), {}
        for step in steps:
            problems = self._problems(step)
            prompts = self._prompts(problems)
            rollouts = grade_rollouts(prompts, list(islice(rest, len(prompts))), problems, self.tokenizer, self.settings,
                                      self.scorer, self._seed(step))
            graded[step] = self._refilled(problems, rollouts, step)
        return graded

    def _refilled(self, problems: Sequence[Problem | GeneralPrompt], rollouts: Rollouts, step: int) -> Rollouts:
        """The rollouts with the share of groups without variance; where the settings say so, with others in place of these, as
        far as `refill_rounds` further draws find them."""
        varied = has_variance(rollouts.rewards)
        drawn, flat = len(varied), int((~varied).sum())
        if self.settings.zero_variance != "refill":
            return _with_metrics(rollouts, zero_variance=flat / drawn)
        missing = [problem for problem, is_varied in zip(problems, varied.tolist()) if not is_varied]
        kept, refilled = [_chosen(rollouts, varied)], 0
        waste = _waste(_chosen(rollouts, ~varied))
        sampler = self.engine.current() if missing else None
        for number in range(1, self.settings.refill_rounds + 1):
            if not missing:
                break
            others = self._in_place_of(missing, random.Random(f"{self.seed} {self.stage} {step} refill {number}"))
            seed = int(sha256_json([self.seed, step, number])[:12], 16)
            found = roll_out(sampler, self.tokenizer, others, self.settings, seed, self.scorer)
            varied = has_variance(found.rewards)
            kept.append(_chosen(found, varied))
            waste = {cause: waste[cause] + tokens for cause, tokens in _waste(_chosen(found, ~varied)).items()}
            drawn, flat, refilled = drawn + len(varied), flat + int((~varied).sum()), refilled + int(varied.sum())
            missing = missing[int(varied.sum()):]
        whole = Rollouts([ids for each in kept for ids in each.prompts], [group for each in kept for group in each.groups],
                         torch.cat([each.rewards for each in kept]), rollouts.metrics, [r for each in kept for r in each.right],
                         waste)
        return _with_metrics(whole, zero_variance=flat / drawn, drawn=drawn, refilled=refilled)

    def _in_place_of(self, missing: Sequence[Problem | GeneralPrompt], rng: random.Random) -> list[Problem | GeneralPrompt]:
        """As many prompts, of any of the tasks; general ones in place of general ones."""
        share = self.settings.dialogue_share
        general = sum(isinstance(problem, GeneralPrompt) for problem in missing)
        tasks = rng.sample(list(self.tasks), len(self.tasks))
        return [*sample_problems(rng, tasks, len(missing) - general, "train", share),
                *(general_question(rng, self.tasks, share, self.settings.wishes) for _ in range(general))]


def waste_of(rollouts: Rollouts, settings: GRPOSettings) -> dict[str, int]:
    """Cause -> tokens of groups without variance, those that were replaced included: all their answers are right, all are
    wrong, or neither can be said. None, where such groups stay in the batch."""
    if settings.zero_variance == "keep":
        return dict.fromkeys(WASTE, 0)
    dropped = _waste(_chosen(rollouts, ~has_variance(rollouts.rewards)))
    return {cause: tokens + rollouts.wasted.get(cause, 0) for cause, tokens in dropped.items()}


def _waste(rollouts: Rollouts) -> dict[str, int]:
    waste = dict.fromkeys(WASTE, 0)
    for group, right in zip(rollouts.groups, rollouts.right):
        waste[{1.0: WASTE[0], 0.0: WASTE[1]}.get(right, WASTE[2])] += tokens_of(group)
    return waste


def _chosen(rollouts: Rollouts, mask: torch.Tensor) -> Rollouts:
    """Some of its groups, without metrics."""
    rows = mask.nonzero()[:, 0].tolist()
    return Rollouts([rollouts.prompts[row] for row in rows], [rollouts.groups[row] for row in rows], rollouts.rewards[rows], {},
                    [rollouts.right[row] for row in rows])


def _with_metrics(rollouts: Rollouts, **metrics: float) -> Rollouts:
    rollouts.metrics |= metrics
    return rollouts
