"""Supervised fine-tuning on conversations: cold start, the second SFT from base, and (with another student) distillation.

A trace is one JSON line: {"prompt", "thought", "answer"} and whatever says where it came from; "history", where there is
one, holds earlier turns as [question, answer]. Only what the assistant writes last is learned.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from spoutnik.errors import UserError
from spoutnik.files import read_jsonl
from spoutnik.model.transformer import Transformer
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.dialogues import general_question
from spoutnik.tasks.general import good_answer
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.batches import Document
from spoutnik.train.language_model import train_language_model
from spoutnik.train.loop import Checkpoints, Cost, Progress
from spoutnik.train.rollouts import conversation_ids, sample_problems
from spoutnik.train.settings import LanguageModelSettings, Settings


class SFTSettings(LanguageModelSettings):
    """Of fine-tuning on traces."""

    epochs: float = Field(default=2.0, gt=0)
    """Passes over the traces, from which the number of steps follows."""


class ColdStartSettings(Settings):
    """The first traces, written by the families' own solvers. Like R1's thousands of readable ones, they are few and mostly
    short."""

    traces: int = Field(default=3000, gt=0)
    """How many."""
    careful_share: float = Field(default=0.3, ge=0, le=1)
    """The share of them that shows its work step by step."""


def solver_traces(settings: ColdStartSettings, families: Sequence[str], seed: int,
                  dialogue_share: float = 0.0) -> list[dict]:
    """Worked problems of the training split, styles mixed by `careful_share`, languages and levels evenly; `dialogue_share` of
    them with earlier turns."""
    rng = random.Random(f"{seed} cold start")
    rows = []
    for problem in sample_problems(rng, families, settings.traces, "train", dialogue_share):
        family = FAMILIES[problem.family]
        style = "careful" if rng.random() < settings.careful_share else "quick"
        trace = family.solve(problem, rng, style)
        rows.append({"history": problem.history, "prompt": problem.prompt,
                     "thought": trace.thought, "answer": trace.answer, "family": family.name,
                     "level": problem.level, "language": problem.language, "style": style})
    return rows


def general_traces(count: int, seed: int, families: Sequence[str] = (), dialogue_share: float = 0.0) -> list[dict]:
    """Non-reasoning conversations (R1's 200k): the thought is empty, as R1's is for simple requests."""
    rng = random.Random(f"{seed} general")
    rows = []
    for _ in range(count):
        prompt = general_question(rng, families, dialogue_share)
        rows.append({"history": prompt.history, "prompt": prompt.prompt,
                     "thought": "", "answer": good_answer(prompt, rng), "family": "general",
                     "language": prompt.language})
    return rows


def read_traces(path: Path) -> list[dict]:
    """Raises UserError with the line of the first broken one."""
    rows = read_jsonl(path, ("prompt", "thought", "answer"), texts=True)
    for number, row in enumerate(rows, start=1):
        history = row.get("history", [])
        if not (isinstance(history, list) and all(isinstance(turn, list) and len(turn) == 2
                                                  and all(isinstance(text, str) for text in turn) for turn in history)):
            raise UserError(f"{path}, line {number}: history must be a list of [question, answer]. Correct it or leave it out.")
    if not rows:
        raise UserError(f"{path}: holds no traces. Give at least one line with prompt, thought and answer.")
    return rows


def trace_document(row: dict, tokenizer: Tokenizer) -> Document:
    prompt = conversation_ids(row.get("history", ()), row["prompt"], tokenizer)
    return Document([*prompt, *tokenizer.completion_ids(row["thought"], row["answer"])], loss_from=len(prompt))


def sft(model: Transformer, tokenizer: Tokenizer, traces: Sequence[dict], settings: SFTSettings, seed: int, stage: str,
        checkpoints: Checkpoints, progress: Progress) -> tuple[list[dict], Cost]:
    """Trains in place. Every epoch is a new order; a step takes the next documents until tokens_per_step is reached."""
    limit = model.config.max_position_embeddings
    documents = [d for d in (trace_document(row, tokenizer) for row in traces) if len(d.ids) <= limit]
    if not documents:
        raise UserError(f"{stage}: no trace fits the model's {limit} positions. Shorten them.")
    plan = plan_steps([len(d.ids) for d in documents], settings.tokens_per_step, settings.epochs, seed)
    return train_language_model(model, lambda step: [documents[i] for i in plan[step]], settings, len(plan), stage,
                                checkpoints, progress)


def plan_steps(lengths: Sequence[int], tokens_per_step: int, epochs: float, seed: int) -> list[list[int]]:
    """Document numbers of every step: whole shuffled epochs one after another, the last one cut to the fraction."""
    order, left = [], epochs
    while left > 1e-9:
        epoch = list(range(len(lengths)))
        random.Random(f"{seed} epoch {left}").shuffle(epoch)
        order += epoch[:max(1, round(min(left, 1.0) * len(epoch)))]
        left -= 1
    steps: list[list[int]] = [[]]
    filled = 0
    for i in order:
        if steps[-1] and filled + lengths[i] > tokens_per_step:
            steps.append([])
            filled = 0
        steps[-1].append(i)
        filled += lengths[i]
    return steps
