"""An evaluation from the problems to the scores: what is missing is asked for, graded and kept at once, one sample at a time.

A folder for each bench holds `samples.jsonl` and `evaluation.json`. Stopped and begun again, it goes on with what is missing.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from spoutnik.errors import RunError, UserError
from spoutnik.evals.asking import AskingSettings, worked_examples
from spoutnik.evals.benches import Bench
from spoutnik.evals.grader import Grader, verdict
from spoutnik.evals.identity import check_same, identity
from spoutnik.evals.metrics import equality_of, metrics
from spoutnik.evals.models import EvaluatedModel, Question
from spoutnik.evals.results import FILE, scores_of, shares_of, warnings
from spoutnik.evals.samples import ModelReply, Sample, SampleStore, problem_id, sample_of
from spoutnik.evals.trust import sensitivity
from spoutnik.files import exclusive, read_json, sha256_json, write_json
from spoutnik.tasks import Problem
from spoutnik.tasks.prompt_styles import Style, style_of
from spoutnik.train.loop import Progress
from spoutnik.units import duration

SHOTS = 4  # examples of few-shot
_WORTH_A_PREDICTION = 4  # times the replies that are asked for first

_PROGRAM = "```python\npass\n```"  # an answer that a verifier of code runs: whether it can is known before anything is asked

Key = tuple[str, int]  # problem, sample


class Display(Protocol):
    """The display of an evaluation: the terminal, or nothing."""

    def stage(self, name: str, kind: str, position: int, total: int) -> AbstractContextManager[Callable[[str], Progress]]: ...

    def log(self, text: str) -> None: ...


@dataclass(frozen=True)
class Evaluation:
    """What is asked, and where its results go. style: None takes "chat"."""

    model: EvaluatedModel
    settings: AskingSettings
    out: Path
    style: str | None = None
    ks: tuple[int, ...] = ()

    def run(self, benches: Sequence[Bench], display: Display) -> list[dict]:
        """The results of the benches, as their evaluation.json holds them.

        Raises:
            UserError: the model cannot be asked so, or the folder holds samples that were made otherwise. Nothing was asked.
            RunError: an endpoint failed, or a disk; the samples so far are kept.
        """
        with exclusive(self.out / ".lock", f"{self.out}: {{holder}} evaluates into this folder. Wait for it, or give another "
                                           "--out."):
            parts = [_Part.open(self, bench, display) for bench in benches]
            try:
                self._predict(parts, display)
                results = [self._one(part, number, len(parts), display) for number, part in enumerate(parts, start=1)]
                return [_with_sensitivity(part, result, parts) for part, result in zip(parts, results)]
            finally:
                for part in parts:
                    part.store.close()

    def _predict(self, parts: Sequence["_Part"], display: Display) -> None:
        """Asks for the first few of all samples, and says how long the others will take."""
        work = [(part, key) for part in parts for key in part.missing()]
        first = self.model.batch
        if len(work) < _WORTH_A_PREDICTION * first:
            return
        began, tokens = time.perf_counter(), 0
        probe = work[::len(work) // first][:first]
        for part in parts:
            keys = [key for of, key in probe if of is part]
            part.ask(keys)
            tokens += sum(part.store.samples[key].tokens for key in keys)
        seconds, left = time.perf_counter() - began, len(work) - len(probe)
        display.log(f"{len(work):,} replies to ask for. {len(probe)} of them came in {duration(seconds)}, "
                    f"{tokens / len(probe):,.0f} tokens each: the other {left:,} take about "
                    f"{duration(seconds / len(probe) * left)}, less where more at one time are faster.")

    def _one(self, part: "_Part", number: int, total: int, display: Display) -> dict:
        began, missing = time.perf_counter(), part.missing()
        with display.stage(part.bench.name, "benchmark", number, total) as reporter:
            if missing:
                part.ask(missing, reporter("asking"))
        if not missing:
            display.log(f"{part.bench.name}: all samples are there already.")
        result = part.result(part.store.finish(part.keys), time.perf_counter() - began)
        for text in result["warnings"]:
            display.log(text)
        write_json(part.folder / FILE, result)
        return result


@dataclass
class _Part:
    """One bench of an evaluation."""

    evaluation: Evaluation
    bench: Bench
    folder: Path
    style: Style
    store: SampleStore
    identity: dict
    notes: tuple[str, ...]
    seconds: float  # of earlier processes
    problems: dict[str, Problem] = field(default_factory=dict)  # by id, in their order

    @staticmethod
    def open(evaluation: Evaluation, bench: Bench, display: Display) -> "_Part":
        bench, style = _styled(bench, evaluation.style or "chat")
        verdict(bench.problems[0], _PROGRAM)
        warning = evaluation.model.check(style, evaluation.style is not None)
        notes = (*bench.notes, *([warning] if warning else []))
        for note in notes:
            display.log(note)
        folder = evaluation.out / re.sub(r"[^\w.-]+", "-", bench.name).strip("-")
        same = identity(evaluation.model, bench.name, bench.problems, style, evaluation.settings, bench.data)
        kept = read_json(folder / FILE) if (folder / FILE).exists() else None
        store = SampleStore(folder)
        if kept is None and store.samples:
            raise UserError(f"{folder}: has samples, but no {FILE} that says how they were made. Give another --out.")
        if kept is not None:
            check_same(kept.get("identity", {}), same, folder)
        part = _Part(evaluation, bench, folder, style, store, same, notes, (kept or {}).get("cost", {}).get("seconds", 0.0),
                     {problem_id(problem): problem for problem in bench.problems})
        if kept is None:
            write_json(folder / FILE, part.described() | {"scores": {}, "complete": False})
        return part

    @property
    def keys(self) -> list[Key]:
        """First one sample of every problem, then their second ones: what is there when it is stopped says most."""
        return [(problem, sample) for sample in range(self.evaluation.settings.samples) for problem in self.problems]

    def missing(self) -> list[Key]:
        return self.store.missing(self.keys)

    def ask(self, keys: Sequence[Key], progress: Progress | None = None) -> None:
        settings, model = self.evaluation.settings, self.evaluation.model
        done, tokens, total = len(self.keys) - len(self.missing()), 0, len(self.keys)

        def on_tokens(new: int) -> None:
            nonlocal tokens
            tokens += new
            if progress is not None:
                progress(done, total, tokens, "")

        replies: dict[Key, ModelReply] = {}

        def keep(key: Key, correct: float, error: str | None) -> None:
            nonlocal done
            self.store.append(sample_of(self.problems[key[0]], key[1], replies.pop(key), correct, error))
            done += 1

        def on_reply(number: int, reply: ModelReply) -> None:
            key = keys[number]
            replies[key] = reply
            grader.put(key, self.problems[key[0]], reply.answer if reply.well_formed else None)
            on_tokens(0)

        questions = [Question(self.style.prompt(self.problems[problem]), _seed(settings.seed, problem, sample))
                     for problem, sample in keys]
        try:
            with Grader(keep) as grader:
                model.ask(questions, self.style, settings, on_reply, on_tokens)
            on_tokens(0)
        except RunError as error:
            raise RunError(f"{error} The {len(self.store.samples)} samples so far are kept in {self.folder}: the same command "
                           "goes on with the others.") from error

    def described(self) -> dict:
        """All that is needed to repeat it. The hash is of everything that decides the scores."""
        decisive = self.identity | {"problems": list(self.problems), "samples": self.evaluation.settings.samples}
        return {"model": self.evaluation.model.name, "bench": self.bench.name, "style": self.style.name,
                "identity": self.identity, "hash": sha256_json(decisive), "samples": self.evaluation.settings.samples,
                "problems": len(self.problems)}

    def result(self, samples: list[Sample], seconds: float) -> dict:
        numbers = metrics([sample.row() for sample in samples], self.evaluation.ks, equality_of(self.bench.problems[0].task))
        scores = scores_of(samples, (self.bench.name, self.bench.score), self.bench.by_family, self.bench.regrade, numbers)
        of = shares_of(samples)
        limit = self.evaluation.model.limit(self.evaluation.settings)
        return self.described() | {
            "scores": scores, "metrics": numbers, "shares": of, "notes": list(self.notes),
            "warnings": warnings(self.bench.name, of, limit),
            "cost": {"seconds": self.seconds + seconds, "tokens": sum(sample.tokens for sample in samples)}, "complete": True}


def _with_sensitivity(part: _Part, result: dict, parts: Sequence[_Part]) -> dict:
    """The result of reworded problems with what the rewording changed, kept with it; other results as they are."""
    of = part.bench.reworded
    original = next((each for each in parts if of is not None and each.bench.name == of.bench), None)
    if original is None:
        return result
    pairs = [(old, new) for old, new in of.pairs if old in original.problems and new in part.problems]
    rows, new_rows = ([each.store.samples[key].row() for key in each.keys] for each in (original, part))
    effect = sensitivity(rows, new_rows, pairs)
    told = replace(effect.comparison, a=of.bench, b=part.bench.name)
    result |= {"sensitivity": {"source": of.source, "changed": effect.changed, "comparison": asdict(told),
                               "sentences": list(told.sentences)}}
    write_json(part.folder / FILE, result)
    return result


def _styled(bench: Bench, name: str) -> tuple[Bench, Style]:
    """The style, and the bench without the problems that serve as examples."""
    if name != "few-shot":
        return bench, style_of(name)
    examples = worked_examples(bench.training[:100], SHOTS)
    if not examples:
        examples = worked_examples(bench.problems[:SHOTS], SHOTS)
        shown = {question for question, _ in examples}
        left = [problem for problem in bench.problems if problem.prompt not in shown]
        if not examples or not left:
            raise UserError(f"--style few-shot: {bench.name} has no problems whose answers could be examples, or none "
                            "beside them. Choose another style, or raise --limit.")
        note = f"{bench.name}: its first {len(examples)} problems are the examples and are not asked."
        bench = replace(bench, problems=left, notes=(*bench.notes, note))
    return bench, style_of(name, examples)


def _seed(seed: int, problem: str, sample: int) -> int:
    """Of one sample's random numbers: the same whatever else is asked; 31 bits, which all endpoints take."""
    return int(sha256_json([seed, problem, sample])[:8], 16) >> 1
