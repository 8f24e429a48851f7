"""Prompts to graded completions: shared by RL, rejection sampling and evaluation.

Where several processes work on the run, prompts are dealt to them one by one, and so are the verifiers' answers. Which process
samples a prompt changes no token: that is a function of the weights, the prompt, the seed and the prompt's number.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal, Protocol

from spoutnik.engine.adapters import computed_unmerged
from spoutnik.engine.llm import LLM
from spoutnik.engine.outputs import CompletionOutput, RequestOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.model.lora import adapters_of, without_adapters
from spoutnik.model.parts import is_divided
from spoutnik.model.transformer import Transformer
from spoutnik.tasks import Problem, Task
from spoutnik.tasks.dialogues import perhaps_in_conversation
from spoutnik.tasks.grading import accuracy_rewards
from spoutnik.tasks.language import language_consistency
from spoutnik.text.thought import Reply
from spoutnik.text.thought_format import thought_format
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.loop import Cost
from spoutnik.train.prompt_style import PromptStyle, read_completion
from spoutnik.world import pulse, world


@dataclass(frozen=True)
class GradedCompletion:
    """A completion with its rule-based grades in [0, 1]: accuracy of the answer, language consistency of the thought."""

    completion: CompletionOutput
    reply: Reply
    accuracy: float
    language: float


# Which thoughts are in a language: lenient takes an empty one and one in another script for it, strict does not.
LanguageRule = Literal["lenient", "strict"]
_POLICY = "policy"
_MAX_NUM_SEQS = 640  # up to here a step of a nano model is faster over all rows at once


def rollout_llm(model: Transformer, tokenizer: Tokenizer) -> LLM:
    """An engine over the model's current weights, for token ids alone; a completion ends where one ends in chat: at any of the
    model's ends of sentence and of turn."""
    return llm_that_ends(model, thought_format(tokenizer).end_ids)


def llm_that_ends(model: Transformer, end_ids: Sequence[int], memory: int | None = None) -> LLM:
    """`rollout_llm` of a model whose tokenizer is elsewhere. memory: for weights and cache, bytes."""
    return LLM(model, eos_token_ids=end_ids, max_num_seqs=_MAX_NUM_SEQS, max_num_batched_tokens=8192, memory=memory)


OnProgress = Callable[[int, int], None]  # numbers of new tokens and of samples that ended


class Sampler(Protocol):
    """What writes completions: an engine here, one on every rank, or others."""

    def generate(self, prompts: Sequence[list[int]], params: SamplingParams, *, seed: int,
                 on_progress: OnProgress | None = None) -> list[RequestOutput]:
        """As LLM.generate does."""


class PendingRollouts(Protocol):
    """Prompts that are being sampled."""

    def result(self) -> list[list[CompletionOutput]]:
        """The completions of each prompt, on every rank. Waits for them."""

    def result_on_main(self) -> list[list[CompletionOutput]]:
        """The same on rank 0, of which the others hear nothing."""


@dataclass(frozen=True)
class DoneRollouts:
    """Prompts that were sampled at once."""

    groups: list[list[CompletionOutput]]

    def result(self) -> list[list[CompletionOutput]]:
        return self.groups

    result_on_main = result


class PolicySampler(Protocol):
    """What samples a policy that is being trained: an engine here (`PolicyEngine`), or workers elsewhere."""

    def current(self) -> Sampler:
        """Ready to sample with the weights of now."""

    def begin(self, prompts: Sequence[list[int]], params: SamplingParams, seed: int) -> PendingRollouts:
        """Begins to sample by the weights of now; they may change meanwhile."""

    def take_metrics(self) -> dict[str, float]:
        """For the log, since the last time: `worker_core_seconds` and `worker_gpu_seconds` of other processes, and what
        their keeping up to date took."""


def cost_elsewhere(metrics: Mapping[str, float]) -> Cost:
    """What the metrics of a `PolicySampler` tell of time on processors and GPUs that are not this process's."""
    return Cost(core_seconds=metrics.get("worker_core_seconds", 0.0), gpu_seconds=metrics.get("worker_gpu_seconds", 0.0))


@dataclass(frozen=True)
class DealtSampler:
    """An engine on every rank, each of which samples its part of the prompts; every rank has all completions."""

    llm: LLM

    def generate(self, prompts: Sequence[list[int]], params: SamplingParams, *, seed: int,
                 on_progress: OnProgress | None = None) -> list[RequestOutput]:
        numbers = range(world().rank, len(prompts), world().size)
        requests = self.llm.requests_of([prompts[number] for number in numbers], params, seed, numbers=numbers)
        outputs = [output.outputs for output in self.llm.run(requests, beating(on_progress))]
        return in_order(prompts, world().gather_dealt(outputs))


def in_order(prompts: Sequence[list[int]], completions: Sequence[list[CompletionOutput]]) -> list[RequestOutput]:
    """What an engine would have returned for these prompts."""
    return [RequestOutput(str(number), None, prompt, outputs, finished=True)
            for number, (prompt, outputs) in enumerate(zip(prompts, completions, strict=True))]


def beating(on_progress: OnProgress | None) -> OnProgress:
    """Also a sign of life, for those who wait for this process."""
    def beat(tokens: int, ended: int) -> None:
        pulse.beat()
        if on_progress is not None:
            on_progress(tokens, ended)

    return beat


class PolicyEngine:
    """The engine that samples a policy which is being trained. A model with adapters: its base is packed once, and the adapters
    stand beside it, each time those of now. Without, or with adapters that are not computed so, all weights are packed anew."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer | None, end_ids: Sequence[int] = (),
                 memory: int | None = None):
        """end_ids, memory: of `llm_that_ends`, for a model without its tokenizer."""
        self.model, self.memory = model, memory
        self.end_ids = end_ids if tokenizer is None else thought_format(tokenizer).end_ids
        self._base: LLM | None = None

    def current(self) -> Sampler:
        """Ready to sample with the weights of now. A model that is divided among the processes is put together on each of them,
        for as long as it samples; its base is kept."""
        model = self.model
        if is_divided(model):
            model = model.division.whole(model.compute_dtype, adapters_alone=self._base is not None)
        llm = self._engine(model)
        return llm if world().size == 1 else DealtSampler(llm)

    def begin(self, prompts: Sequence[list[int]], params: SamplingParams, seed: int) -> PendingRollouts:
        """By the weights of now, at once."""
        return DoneRollouts([output.outputs for output in self.current().generate(prompts, params, seed=seed)])

    def take_metrics(self) -> dict[str, float]:
        return {}

    def _engine(self, model: Transformer) -> LLM:
        parts = adapters_of(model)
        if not (parts and computed_unmerged(parts)):
            return llm_that_ends(model, self.end_ids, self.memory)
        if self._base is None:
            self._base = llm_that_ends(without_adapters(model), self.end_ids, self.memory)
        if _POLICY in self._base.core.adapters:
            self._base.unload_adapter(_POLICY)  # and what its prefix cache has of the last step's with it
        self._base.load_adapter(_POLICY, parts)
        return self._base.with_adapter(_POLICY)


def sample_problems(rng: random.Random, tasks: Sequence[Task], count: int, split: str,
                    dialogue_share: float = 0.0) -> list[Problem]:
    """`count` problems as people type them, tasks in turn, `dialogue_share` of them with earlier turns."""
    problems = []
    for task in islice(cycle(tasks), count):
        problem = task.as_typed(task.sample(rng, split), rng)
        problems.append(perhaps_in_conversation(problem, rng, tasks, split, dialogue_share))
    return problems


def thought_language(thought: str, language: str, rule: LanguageRule) -> float:
    """How much of a thought is in the language, in [0, 1]; of one that is empty all by the lenient rule, nothing by the strict
    one. (Formulas alone are in every language.)"""
    return 0.0 if rule == "strict" and not thought.strip() else language_consistency(thought, language)


def grade(asked: Sequence[tuple[Problem, CompletionOutput]], tokenizer: Tokenizer,
          rule: LanguageRule = "lenient", style: PromptStyle = "chat") -> list[GradedCompletion]:
    """Grades the answers alone: thoughts are stripped first, and an ill-formed completion has no answer to grade."""
    replies = [read_completion(completion, tokenizer, style) for _, completion in asked]
    answered = [number for number, reply in enumerate(replies) if reply.well_formed]
    rewards = dealt_rewards([(asked[number][0], replies[number].answer) for number in answered])
    accuracy = dict(zip(answered, rewards))
    return [GradedCompletion(completion, reply, accuracy.get(number, 0.0),
                             thought_language(reply.thought, problem.language, rule))
            for number, ((problem, completion), reply) in enumerate(zip(asked, replies))]


def dealt_rewards(asked: Sequence[tuple[Problem, str]]) -> list[float]:
    """`accuracy_rewards`, of which each process of the run verifies its part: one that need not answer the same twice (a judge)
    is asked once."""
    return world().gather_dealt(accuracy_rewards(asked[world().rank::world().size]))
