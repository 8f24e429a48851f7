"""What looks on while a stage trains: says what is wrong as soon as it shows, measures start and result, keeps the best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.files import install_folder, read_json, remove_folder, write_json
from spoutnik.model.lora import adapters_of, merged_copy
from spoutnik.model.packing import on_device
from spoutnik.model.parts import is_divided
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_tensors, save_tensors
from spoutnik.parallel import on_all_ranks, parts
from spoutnik.tasks import Problem
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.batches import Document, micro_batches, pack_documents
from spoutnik.train.health import Comparison, Row, warnings_of
from spoutnik.train.loop import Cost
from spoutnik.train.losses import token_log_probs
from spoutnik.train.prompt_style import PromptStyle, prompt_ids
from spoutnik.train.rollouts import GradedCompletion, PolicyEngine, PolicySampler, grade
from spoutnik.train.settings import Settings
from spoutnik.world import main_only, world

COMPARED_DOCUMENTS = 64  # of a supervised stage, whose losses before and after it are compared


class ValidationSettings(Settings):
    """How an RL stage's start, result and best checkpoint are told apart: on problems that are drawn apart from those it trains
    on, of the training split, so that the evaluation asks none of them."""

    problems: int = Field(default=96, ge=0)
    """How many, one sample each; 0 switches validation off."""
    looks: int = Field(default=4, ge=0)
    """How often the stage validates between its start and its end, evenly: the best of these and of the last is kept."""
    split: Literal["train", "held_out"] = "train"
    """Of the problems. With held_out they are like those of the evaluation, of which it may ask some: the best checkpoint is
    then chosen by them as well."""
    kept: int = Field(default=4, ge=0)
    """Of the first so many problems, the replies at start, looks and end are kept with the artifact (along.jsonl): how the same
    problems are answered along the training, chosen before anything is trained."""


@dataclass
class Validation:
    """The validation of one RL stage. folder: where a stage in progress keeps what it measured, so that a resumed one goes on.
    engine: what samples the model, if somebody else uses it too.

    A look is a function of the weights, so that a stage that is killed and run again ends with the same best checkpoint.
    """

    model: Transformer
    tokenizer: Tokenizer
    problems: Sequence[Problem]
    params: SamplingParams
    seed: int
    folder: Path
    steps: int
    looks: int
    engine: PolicySampler | None = None
    style: PromptStyle = "chat"
    kept: int = 0

    def start(self) -> Cost:
        """Measures the model that the stage starts from, once."""
        path = self.folder / "start.json"
        if main_only(path.exists):
            return Cost()
        measured, cost = self._measure(0)
        if world().is_main:
            write_json(path, measured)
        return cost

    def look(self, done: int, row: Row) -> Cost:
        """After a step: where it is time for a look, adds what it measured to the row of the log."""
        if done not in self._times():
            return Cost()
        measured, cost = self._measure(done)
        row["validation_accuracy"] = accuracy = _mean(measured["right"])
        if world().is_main:
            write_json(self.folder / "last.json", measured)
        if main_only(lambda: self._is_best(accuracy)):  # where the last is kept as such
            model = self.model.division.whole(on_main=True) if is_divided(self.model) and done < self.steps else self.model
            if world().is_main:
                self._keep(done, accuracy, model)
        return cost

    def _is_best(self, accuracy: float) -> bool:
        """Of equal ones the later: it has learned from more."""
        best = self.best
        return best is None or accuracy >= best["accuracy"]

    def _keep(self, done: int, accuracy: float, model: Transformer) -> None:
        fresh = self.folder / "best.new"
        remove_folder(fresh)
        if done < self.steps:
            save_tensors(fresh / "weights.safetensors", _without_adapters(model).state_dict())
        write_json(fresh / "best.json", {"step": done, "accuracy": accuracy})
        install_folder(fresh, self.folder / "best", aside=self.folder / "best.old")

    @property
    def best(self) -> dict | None:
        """Step and accuracy of the best checkpoint so far. (One of another number of steps, which this stage goes on from, may
        lie there as well, and its last has no weights of its own.)"""
        path = self._best_folder / "best.json"
        best = read_json(path) if path.exists() else None
        has_weights = (self._best_folder / "weights.safetensors").exists()
        return best if best and best["step"] in self._times() and has_weights == (best["step"] < self.steps) else None

    @property
    def _best_folder(self) -> Path:
        best = self.folder / "best"
        return best if best.exists() else self.folder / "best.old"  # of a stage that died between two renames

    def best_model(self) -> Transformer | None:
        """The best checkpoint; None where that is the last."""
        if self.best is None or self.best["step"] == self.steps:
            return None
        model = Transformer(self.model.config, self.model.compute_dtype)
        model.load_state_dict(load_tensors(self._best_folder / "weights.safetensors"), strict=False)
        return model

    def comparisons(self) -> list[Comparison]:
        """Start and result."""
        start, last = (read_json(self.folder / name) for name in ("start.json", "last.json"))
        return [Comparison("right answers", start["right"], last["right"]),
                Comparison("well-formed replies", start["well_formed"], last["well_formed"])]

    def summary(self, folder: str) -> dict:
        """A manifest's `validation`: right answers at start and end, and the best checkpoint. folder: where in the artifact
        that is kept, if it is not the last."""
        right, _ = self.comparisons()
        return {"problems": len(right.after), "start": _mean(right.before), "last": _mean(right.after),
                "best_step": self.best["step"], "best_accuracy": self.best["accuracy"],
                "best": None if self.best["step"] == self.steps else folder}

    def along(self) -> list[dict]:
        """The replies to the first problems, problem by problem, each from the start of the training to its end."""
        looks = {step: read_json(path) for step in sorted({0} | self._times()) if (path := self._replies(step)).exists()}
        return [{"step": step} | replies[number] for number in range(self.kept) for step, replies in looks.items()
                if number < len(replies)]

    def _replies(self, done: int) -> Path:
        return self.folder / "replies" / f"{done}.json"

    def _times(self) -> set[int]:
        return {self.steps} | {round(self.steps * (i + 1) / (self.looks + 1)) for i in range(self.looks)} - {0}

    def _measure(self, done: int) -> tuple[dict[str, list[float]], Cost]:
        self.engine = self.engine or PolicyEngine(self.model, self.tokenizer)
        prompts = prompt_ids(self.problems, self.tokenizer, self.style)
        outputs = self.engine.current().generate(prompts, self.params, seed=self.seed)
        graded = grade([(problem, output.outputs[0]) for problem, output in zip(self.problems, outputs)], self.tokenizer,
                       style=self.style)
        tokens = sum(len(g.completion.token_ids) for g in graded)
        if self.kept and world().is_main:
            write_json(self._replies(done), [_reply_row(*each) for each in zip(self.problems[:self.kept], graded)])
        return {"right": [g.accuracy for g in graded], "well_formed": [float(g.reply.well_formed) for g in graded]}, \
            Cost(tokens_generated=tokens)


@dataclass
class Monitor:
    """Of one stage. say: takes the sentences of warnings, each kind once. validation: of an RL stage. track: takes the log
    after each step.

    comparisons: of start and result, once the stage has ended. warned: kinds of warnings that were said.
    """

    stage: str = ""
    say: Callable[[str], None] = lambda sentence: None
    validation: Validation | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)
    track: Callable[[list[Row]], None] = lambda log: None

    def start(self) -> Cost:
        return self.validation.start() if self.validation else Cost()

    def after_step(self, log: list[Row]) -> Cost:
        """The last row is of the step that was made."""
        cost = self.validation.look(log[-1]["step"] + 1, log[-1]) if self.validation else Cost()
        self.track(log)
        for finding in warnings_of(log):
            if finding.kind not in self.warned:
                self.warned.add(finding.kind)
                self.say(f"{self.stage}, step {log[-1]['step'] + 1}: {finding.sentence}")
        return cost

    def end(self) -> None:
        if self.validation:
            self.comparisons += main_only(self.validation.comparisons)


@torch.no_grad()
def document_losses(model: Transformer, documents: Sequence[Document], micro_batch_tokens: int) -> list[float]:
    """Mean loss per predicted token of each document, in nats."""
    losses = [0.0] * len(documents)

    @torch.no_grad()
    def one(chosen: list[int]) -> list[float]:
        batch = on_device(pack_documents(documents, chosen), model.device)
        hidden = model.hidden(batch.input_ids, batch.sequences)
        log_probs, _ = token_log_probs(hidden[batch.positions], model.lm_head.weight, batch.targets)
        return [-float(part.mean()) for part in log_probs.split([documents[i].predicted for i in chosen])]

    groups = micro_batches([len(document.ids) for document in documents], micro_batch_tokens, parts(model.device))
    for chosen, values in zip(groups, on_all_ranks(one, groups, model.device, is_divided(model))):
        for i, value in zip(chosen, values):
            losses[i] = value
    return losses


def compared_documents(documents_of: Callable[[int], Sequence[Document]], steps: int) -> list[Document]:
    """Documents of the last steps, up to COMPARED_DOCUMENTS, each text once: epochs repeat them, and a test counts them."""
    documents: dict[tuple[int, ...], Document] = {}
    for step in range(steps - 1, -1, -1):
        for document in documents_of(step):
            documents.setdefault(tuple(document.ids), document)
        if len(documents) >= COMPARED_DOCUMENTS:
            break
    return list(documents.values())[:COMPARED_DOCUMENTS]


def _reply_row(problem: Problem, graded: GradedCompletion) -> dict:
    reply = graded.reply
    return {"task": problem.task.name, "level": problem.level, "language": problem.language, "prompt": problem.prompt,
            "gold": problem.answer, "thought": reply.thought, "answer": reply.answer, "correct": graded.accuracy,
            "well_formed": reply.well_formed, "thought_tokens": reply.thought_tokens}


def _without_adapters(model: Transformer) -> Transformer:
    """The sum is kept in float32: what the stage's end rounds it to is decided there."""
    return merged_copy(model, torch.float32) if adapters_of(model) else model


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
