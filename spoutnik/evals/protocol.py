"""The R1 evaluation protocol (R1 section 3 and appendix D.1): T 0.6, top-p 0.95, k samples, pass@1 as their mean.

The thought is stripped before grading. The base model, which knows no conversations, gets plain text instead.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import Field

from spoutnik.engine.llm import LLM
from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.evals.samples import ModelReply, problem_id, sample_of
from spoutnik.evals.statistics import mean_interval
from spoutnik.tasks import Family, Problem, Task, sample
from spoutnik.tasks.language import language_consistency
from spoutnik.tasks.reflection import thought_measures
from spoutnik.text.thought import Reply
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.loop import Progress
from spoutnik.train.prompt_style import PromptStyle, prompt_ids, read_completion
from spoutnik.train.resumable import ResumableLLM
from spoutnik.train.rollouts import dealt_rewards, sample_problems
from spoutnik.train.settings import Settings


class EvaluationSettings(Settings):
    """How every stage's model is evaluated: R1's protocol."""

    problems_per_family: int = Field(default=48, gt=0)
    """Held-out problems of each family, the same ones for every stage."""
    samples: int = Field(default=2, gt=0)
    """Completions of each problem (k); pass@1 is their mean."""
    temperature: float = Field(default=0.6, ge=0, le=2)
    """Of sampling; R1 uses 0.6."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """The share of the probability to sample from; R1 uses 0.95."""
    max_tokens: int = Field(default=256, gt=1)
    """The longest completion, thought included."""


@dataclass(frozen=True)
class Graded:
    """One sample of one problem."""

    problem: Problem
    completion: CompletionOutput
    reply: Reply
    correct: float


def held_out_problems(tasks: Sequence[Task], per_task: int) -> list[Problem]:
    """Of a family, levels and languages in turn; of a task that was read, the first of them. The same whatever the model."""
    problems = []
    for task in tasks:
        rng = random.Random(f"0 held out {task.name}")
        if (listed := task.problems("held_out")) is not None:
            problems += listed[:per_task]
        elif isinstance(task, Family):
            for number in range(per_task):
                level = task.levels[number % len(task.levels)]
                language = task.languages[number // len(task.levels) % len(task.languages)]
                problems.append(sample(task, rng, level, language, "held_out"))
        else:
            problems += [task.sample(rng, "held_out") for _ in range(per_task)]
    return problems


def held_out_count(tasks: Sequence[Task], per_task: int) -> int:
    """How many `held_out_problems` gives, without drawing them."""
    lists = [task.problems("held_out") for task in tasks]
    return sum(per_task if listed is None else min(per_task, len(listed)) for listed in lists)


def held_out_dialogues(tasks: Sequence[Task], count: int) -> list[Problem]:
    """Held-out problems at the end of conversations whose earlier turns are held out as well; half of those that may lean on
    the turn before do."""
    rng = random.Random("0 held out dialogues")
    return sample_problems(rng, tasks, count, "held_out", dialogue_share=1.0)


def grade(llm: LLM | ResumableLLM, tokenizer: Tokenizer, problems: Sequence[Problem], settings: EvaluationSettings, seed: int,
          style: PromptStyle = "chat", progress: Progress | None = None) -> list[list[Graded]]:
    """`samples` graded completions of every problem."""
    done, tokens, total = 0, 0, len(problems) * settings.samples

    def on_progress(new_tokens: int, finished: int) -> None:
        nonlocal done, tokens
        done, tokens = done + finished, tokens + new_tokens
        progress(min(done, total), total, tokens, "")

    params = SamplingParams(n=settings.samples, temperature=settings.temperature, top_p=settings.top_p,
                            max_tokens=settings.max_tokens)
    prompts = prompt_ids(problems, tokenizer, style)
    outputs = llm.generate(prompts, params, seed=seed, on_progress=on_progress if progress else None)
    rows = [[(problem, completion, read_completion(completion, tokenizer, style)) for completion in output.outputs]
            for problem, output in zip(problems, outputs)]
    answered = [(problem, reply.answer) for row in rows for problem, _, reply in row if reply.well_formed]
    rewards = iter(dealt_rewards(answered))
    return [[Graded(*each, next(rewards) if each[2].well_formed else 0.0) for each in row] for row in rows]


def accuracy_of(graded: Sequence[Sequence[Graded]]) -> dict[str, float]:
    """pass@1 and its 95 % interval over problems, by strata of task, level and language."""
    per_problem = [sum(g.correct for g in row) / len(row) for row in graded]
    strata = [(row[0].problem.family, row[0].problem.level, row[0].problem.language) for row in graded]
    mean, low, high = mean_interval(per_problem, strata)
    return {"mean": mean, "low": low, "high": high, "problems": len(per_problem), "samples": sum(map(len, graded))}


def summarize(graded: Sequence[Sequence[Graded]]) -> dict:
    """One row of the stage table: accuracy per family and over families, thought length, form, language, reflection."""
    families: dict[str, list[Sequence[Graded]]] = defaultdict(list)
    for row in graded:
        families[row[0].problem.family].append(row)
    flat = [g for row in graded for g in row]

    def mean(values: Iterable[float]) -> float:
        return sum(values) / max(len(flat), 1)

    measured = thought_measures([(g.reply.thought, g.reply.thought_tokens) for g in flat])
    return {
        "accuracy": accuracy_of(graded),
        "families": {name: accuracy_of(rows) for name, rows in families.items()},
        "thought_tokens": mean(g.reply.thought_tokens for g in flat),
        "well_formed": mean(g.reply.well_formed for g in flat),
        "language_consistency": mean(language_consistency(g.reply.thought + " " + g.reply.answer, g.problem.language)
                                     for g in flat),
        "reflections_per_thought": measured["reflections"],
        **{name: measured[name] for name in ("thought_share", "reflections_per_100", "checks_or_retries")},
        "tokens": sum(len(g.completion.token_ids) for g in flat),
    }


def sample_rows(graded: Sequence[Sequence[Graded]]) -> list[dict]:
    """All samples, in the form in which `spoutnik eval` keeps them. A problem that was drawn twice goes on counting its
    samples."""
    rows, seen = [], Counter()
    for of_problem in graded:
        for one in of_problem:
            key, reply, completion = problem_id(one.problem), one.reply, one.completion
            parts = ModelReply(reply.thought, reply.answer, completion.finished, reply.well_formed, len(completion.token_ids),
                               reply.thought_tokens)
            rows.append(sample_of(one.problem, seen[key], parts, one.correct).row())
            seen[key] += 1
    return rows
