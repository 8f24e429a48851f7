"""Rejection sampling (R1 section 2.3.3): many completions of the RL model, of which the good ones become SFT data.

Kept: right, well formed, in the language of the question, each text once. A trace names the checkpoint it was sampled from.
"""

import random
from collections.abc import Sequence
from itertools import islice

from pydantic import Field, model_validator

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.tasks import Task
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.loop import Cost, Progress
from spoutnik.train.prompt_style import PromptStyle, prompt_ids
from spoutnik.train.resumable import KeptCalls, ResumableLLM
from spoutnik.train.rollouts import GradedCompletion, LanguageRule, grade, sample_problems
from spoutnik.train.settings import Settings, young


class RejectSettings(Settings):
    """prompts x samples completions, of which the good ones stay."""

    prompts: int = Field(default=2048, gt=0)
    """Problems to sample."""
    samples: int = Field(default=4, gt=0)
    """Completions of each."""
    keep_per_prompt: int = Field(default=2, gt=0)
    """How many of a problem stay at most, so that easy ones do not crowd out hard ones."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Of sampling."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """The share of the probability to sample from."""
    max_tokens: int = Field(default=200, gt=1)
    """The longest completion, thought included."""
    min_language: float = Field(default=0.9, ge=0, le=1)
    """The thought's language consistency below which a trace is dropped."""
    language_rule: LanguageRule = young("lenient")
    """With strict, no language is credited to an empty thought; with lenient it counts as in the language."""
    dialogue_share: float = Field(default=0.0, ge=0, le=1)
    """The share of the problems with earlier turns before the question."""
    prompt_style: PromptStyle = young("chat")
    """How problems are put: as the RL stage that it samples was asked (see there). Traces are of no style."""

    @model_validator(mode="after")
    def _plain_text_has_no_turns(self) -> "RejectSettings":
        if self.prompt_style != "chat" and self.dialogue_share:
            raise ValueError(f"dialogue_share: plain text (prompt_style: {self.prompt_style}) has no place for earlier turns. "
                             "Leave one of them out")
        return self


def reject(llm: LLM | ResumableLLM | KeptCalls, tokenizer: Tokenizer, tasks: Sequence[Task], settings: RejectSettings,
           seed: int, source: str, progress: Progress,
           prompts_at_once: int = 256) -> tuple[list[dict], Cost, dict[str, float]]:
    """The kept traces, the cost, and the share kept. source: name of the sampled checkpoint, for the traces."""
    problems = sample_problems(random.Random(f"{seed} reject"), tasks, settings.prompts, "train", settings.dialogue_share)
    params = SamplingParams(n=settings.samples, temperature=settings.temperature, top_p=settings.top_p,
                            max_tokens=settings.max_tokens)
    traces, generated, kept_tokens = [], 0, 0
    for start in range(0, len(problems), prompts_at_once):
        part = problems[start:start + prompts_at_once]
        outputs = llm.generate(prompt_ids(part, tokenizer, settings.prompt_style), params, seed=seed * 1_000_003 + start)
        graded_all = iter(grade([(problem, c) for problem, output in zip(part, outputs) for c in output.outputs], tokenizer,
                                settings.language_rule, settings.prompt_style))
        for problem, output in zip(part, outputs):
            generated += sum(len(c.token_ids) for c in output.outputs)
            for graded in select(list(islice(graded_all, len(output.outputs))), settings):
                kept_tokens += len(graded.completion.token_ids)
                traces.append({"history": problem.history, "prompt": problem.prompt, "thought": graded.reply.thought,
                               "answer": graded.reply.answer, "family": problem.family, "level": problem.level,
                               "language": problem.language, "source": source})
        progress(min(start + prompts_at_once, len(problems)), len(problems), generated, f"kept {len(traces)}")
    sampled = settings.prompts * settings.samples
    if not traces:
        raise RunError(f"rejection sampling: none of {sampled} completions of {source} was right and well formed, so there "
                       "is nothing to learn from. Train that stage longer, or sample more prompts.")
    cost = Cost(tokens_generated=generated, tokens_wasted=generated - kept_tokens)
    return traces, cost, {"sampled": sampled, "kept": len(traces), "kept_share": len(traces) / sampled}


def select(completions: Sequence[GradedCompletion], settings: RejectSettings) -> list[GradedCompletion]:
    """The completions of one prompt worth learning from, each text once, in sampling order."""
    distinct: dict[tuple[int, ...], GradedCompletion] = {}
    for graded in completions:
        if graded.accuracy == 1.0 and graded.language >= settings.min_language:
            distinct.setdefault(tuple(graded.completion.token_ids), graded)
    return list(distinct.values())[:settings.keep_per_prompt]
