"""Supervised fine-tuning on conversations (`traces.py`): cold start, the second SFT from base, and (with another student)
distillation. Only what the assistant writes last is learned.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from spoutnik.errors import UserError
from spoutnik.model.transformer import Transformer
from spoutnik.tasks import LANGUAGES, Task
from spoutnik.tasks.dialogues import general_question
from spoutnik.tasks.general import good_answer
from spoutnik.tasks.general_text import Wishes
from spoutnik.text.chat_template import TemplateRefusal
from spoutnik.text.thought_format import thought_format
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.anchor import Anchor
from spoutnik.train.batches import Document
from spoutnik.train.data.conversations import context_of
from spoutnik.train.language_model import train_language_model
from spoutnik.train.loop import Checkpoints, Cost, Progress
from spoutnik.train.monitor import Monitor, document_losses
from spoutnik.train.prompt_style import message_ids
from spoutnik.train.rollouts import sample_problems
from spoutnik.train.settings import LanguageModelSettings, Settings, young
from spoutnik.train.traces import TraceReport, Traces

MEASURED = 256  # held-out traces whose loss a stage tells


class SFTSettings(LanguageModelSettings):
    """Of fine-tuning on traces."""

    epochs: float = Field(default=2.0, gt=0, le=1000)
    """Passes over the traces, from which the number of steps follows."""


class ColdStartSettings(Settings):
    """The first traces, written by the families' own solvers. Like R1's thousands of readable ones, they are few and mostly
    short."""

    traces: int = Field(default=3000, gt=0)
    """How many."""
    careful_share: float = Field(default=0.3, ge=0, le=1)
    """The share of them that shows its work step by step."""
    other_language_share: float = young(0.0, ge=0, le=1)
    """The share of them whose thought is in another language than the question, so that a reward of the language has something
    to learn."""


def solver_traces(settings: ColdStartSettings, tasks: Sequence[Task], seed: int,
                  dialogue_share: float = 0.0) -> list[dict]:
    """Worked problems of the training split, styles mixed by `careful_share`, languages and levels evenly; `dialogue_share` of
    them with earlier turns."""
    rng = random.Random(f"{seed} cold start")
    rows = []
    for problem in sample_problems(rng, tasks, settings.traces, "train", dialogue_share):
        style = "careful" if rng.random() < settings.careful_share else "quick"
        trace = problem.task.solve(problem, rng, style)
        thought = trace.thought
        if settings.other_language_share and rng.random() < settings.other_language_share:
            other = replace(problem, language=rng.choice([each for each in LANGUAGES if each != problem.language]))
            thought = problem.task.solve(other, rng, style).thought  # a problem's data are the same in every language
        rows.append({"history": problem.history, "prompt": problem.prompt,
                     "thought": thought, "answer": trace.answer, "family": problem.family,
                     "level": problem.level, "language": problem.language, "style": style})
    return rows


def general_traces(count: int, seed: int, tasks: Sequence[Task] = (), dialogue_share: float = 0.0,
                   wishes: Wishes = "listed") -> list[dict]:
    """Non-reasoning conversations (R1's 200k): the thought is empty, as R1's is for simple requests."""
    rng = random.Random(f"{seed} general")
    rows = []
    for _ in range(count):
        prompt = general_question(rng, tasks, dialogue_share, wishes)
        rows.append({"history": prompt.history, "prompt": prompt.prompt,
                     "thought": "", "answer": good_answer(prompt, rng), "family": "general",
                     "language": prompt.language})
    return rows


def trace_document(row: dict, tokenizer: Tokenizer) -> Document:
    """Raises TemplateRefusal where the model's chat template does not take what stands before the reply."""
    prompt = message_ids(context_of(row), tokenizer, row.get("tools"))
    completion = thought_format(tokenizer).completion_ids(row["thought"], row["answer"], tokenizer)
    return Document([*prompt, *completion], loss_from=len(prompt))


def fit(sources: Sequence[Traces], tokenizer: Tokenizer, positions: int, rng: random.Random) -> list[Document]:
    """The documents of all sources that fit into the model's positions, in random order; completes the sources' reports.

    Raises:
        UserError: the chat template refuses all of them, for that reason.
    """
    fitting = Fitting(tokenizer, positions)
    rows = [(source, row) for source in sources for row in source.rows]
    rng.shuffle(rows)
    fitted = [fitting.documents([row], source.report) for source, row in rows]
    return fitting.checked([document for documents in fitted for document in documents])


class Fitting:
    """Decides which traces can be learned by a model with so many positions, and counts the others in their reports."""

    def __init__(self, tokenizer: Tokenizer, positions: int):
        self.tokenizer, self.positions = tokenizer, positions
        # A text of more characters than this has no chance.
        self._most_characters = positions * max(map(len, tokenizer.bpe.get_vocab()))
        self._refusal: TemplateRefusal | None = None

    def documents(self, rows: Sequence[dict], report: TraceReport) -> list[Document]:
        """Of traces that are only used together; none where one of them does not fit, which the report counts once."""
        documents, reason = [], "too_long"
        try:
            if any(self.tokenizer.marks.spelled_in(row["thought"], row["answer"]) for row in rows):
                reason = "marks"
            elif all(characters(row) <= self._most_characters for row in rows):
                documents = [trace_document(row, self.tokenizer) for row in rows]
        except TemplateRefusal as error:
            reason, self._refusal = "refused", error
        if documents and all(len(document.ids) <= self.positions for document in documents):
            return documents
        setattr(report, reason, getattr(report, reason) + 1)
        report.used -= 1
        return []

    def checked(self, fitted: list) -> list:
        """What fits of all. Raises UserError: nothing does, since the chat template refuses it, for that reason."""
        if self._refusal is not None and not fitted:
            raise self._refusal
        return fitted


def characters(row: dict) -> int:
    """Of a trace and all that stands before it."""
    texts = (row["thought"], row["answer"], *(message["content"] for message in context_of(row)))
    return sum(map(len, texts))


def held_out_documents(held_out: Traces, tokenizer: Tokenizer, positions: int, seed: int) -> list[Document]:
    """Those that a stage measures before and after: at most MEASURED. Raises UserError where none fits."""
    documents = fit([held_out], tokenizer, positions, random.Random(f"{seed} held out"))[:MEASURED]
    if not documents:
        raise UserError(f"{held_out.report.source}: no trace fits the model's {positions} positions. Shorten them.")
    return documents


def held_out_loss(model: Transformer, documents: Sequence[Document], settings: SFTSettings) -> float:
    """In nats per learned token, averaged over documents; 0 where there is none."""
    losses = document_losses(model, documents, settings.micro_batch_tokens) if documents else []
    return sum(losses) / max(len(losses), 1)


def sft(model: Transformer, documents: Sequence[Document], settings: SFTSettings, seed: int, stage: str,
        checkpoints: Checkpoints, progress: Progress, monitor: Monitor | None = None,
        anchor: Anchor | None = None) -> tuple[list[dict], Cost]:
    """Trains in place. Every epoch is a new order; a step takes the next documents until tokens_per_step is reached.

    Raises:
        UserError: there is no document.
    """
    if not documents:
        raise UserError(f"{stage}: no trace fits the model's {model.config.max_position_embeddings} positions. Shorten them.")
    plan = plan_steps([len(d.ids) for d in documents], settings.tokens_per_step, settings.epochs, seed)
    return train_language_model(model, lambda step: [documents[i] for i in plan[step]], settings, len(plan), stage,
                                checkpoints, progress, monitor, anchor)


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
