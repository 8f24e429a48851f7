"""The audit of one task, in the process that asks: every answer of every attack to every problem of a sample."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.tasks.audit.attacks import ATTACKS, NEEDS_GOLD, Attack
from spoutnik.tasks.audit.payloads import watch_for_traces
from spoutnik.tasks.audit.report import AttackResult, Example, Report
from spoutnik.tasks.audit.sample import Sample, draw_sample
from spoutnik.tasks.exemptions import Exemption
from spoutnik.tasks.family import Family
from spoutnik.tasks.problem import Problem, Task

# Of a verifier that takes more than a second for more answers than these, an attack asks ten problems, and forms that nothing
# was paid for on the first three no more.
_SLOW_VERDICTS, _PROBLEMS_OF_SLOW, _UNPAID = 4, 10, 3

Beat = Callable[[str], None]  # called before each verdict with what is tried

# A text that is asked of a model comes from a tokenizer, so the families read text alone.
FAMILY_EXEMPTIONS: dict[str, Exemption] = {
    "non-strings": Exemption("a completion is always text, and the families' verifiers read nothing else", limit=0.0),
    "equation": Exemption("an integer may be the right side of an equation (7 + 5 = 12), whose left side is not computed: the "
                          "verdicts of the shipped recipe are kept as they are"),
}


def exemptions_of(task: Task) -> Mapping[str, Exemption]:
    """What a task's author wrote down, and what holds for all families."""
    return (FAMILY_EXEMPTIONS if isinstance(task, Family) else {}) | dict(getattr(task, "exemptions", {}))


def probe(task: Task, count: int, seed: int, beat: Beat = lambda what: None) -> Report:
    """The report on a task whose verifier comes back from every answer. count: problems.

    Raises:
        Exception: whatever drawing a problem raises.
    """
    sample = draw_sample(task, count, seed)
    report = Report(task.name, len(sample.problems), exemptions=exemptions_of(task))
    with watch_for_traces() as folder:
        if _probe_golds(task, sample, report, beat):
            return report
        for attack in ATTACKS.values():
            report.attacks.append(_try(task, attack, sample, beat))
            _note_trace(folder, attack.name, report)
    return report


def _note_trace(folder: Path, attack: str, report: Report) -> None:
    if not report.executed and any(folder.iterdir()):
        report.executed = attack


@dataclass
class _Form:
    grade: float = 0.0
    passed: int = 0
    example: Example | None = None


@dataclass
class _Tally:
    """Of an attack. raising: the first answer at which the verifier raised. slow: verdicts that took more than a second."""

    result: AttackResult
    forms: dict[str, _Form] = field(default_factory=lambda: defaultdict(_Form))
    raising: Example | None = None
    slow: int = 0

    @property
    def is_slow(self) -> bool:
        return self.slow > _SLOW_VERDICTS

    def add(self, label: str, problem: Problem, answer: object, grade: float) -> None:
        form = self.forms[label]
        form.grade += grade
        form.passed += grade >= 1.0
        if grade > 0 and form.example is None:
            form.example = _example(problem, answer, grade)


def _try(task: Task, attack: Attack, sample: Sample, beat: Beat) -> AttackResult:
    tally = _Tally(AttackResult(attack.name, attack.limit))
    result = tally.result
    for problem in sample.problems:
        if tally.is_slow and result.problems >= _PROBLEMS_OF_SLOW:
            break
        result.problems += 1
        gold = problem.answer.strip()
        if attack.name in NEEDS_GOLD and not gold:
            continue
        for label, answer in attack.answers(problem, sample):
            is_gold = isinstance(answer, str) and answer.strip() == gold and attack.name in NEEDS_GOLD
            if not is_gold and not (tally.is_slow and result.problems > _UNPAID and not tally.forms[label].grade):
                beat(f"{attack.name}: {label}")
                tally.add(label, problem, answer, _grade(task, problem, answer, tally))
    if tally.forms:
        form, best = max(tally.forms.items(), key=lambda each: each[1].grade)
        result.form, result.mean, result.passed = _short(form, 60), best.grade / result.problems, best.passed
        result.example = best.example or tally.raising
    return result


def _grade(task: Task, problem: Problem, answer: object, tally: _Tally) -> float:
    """The verifier's grade; 0 where it raises or gives none, which is counted."""
    result = tally.result
    began = time.perf_counter()
    try:
        value = task.verify(problem, answer)
        invalid = not _is_grade(value)
        error = f"{value!r}" if invalid else ""
    except Exception as raised:  # noqa: BLE001 - whatever a verifier raises is a finding
        value, invalid, error = 0.0, False, f"{type(raised).__name__}: {raised}"
        result.raised += 1
    seconds = time.perf_counter() - began
    result.seconds = max(result.seconds, seconds)
    tally.slow += seconds > 1
    result.answers += 1
    result.invalid += invalid
    if error and not result.error:
        result.error, tally.raising = error[:160], _example(problem, answer, 0.0)
    return 0.0 if invalid else float(value)


def _is_grade(value: object) -> bool:
    try:
        return bool(0.0 <= value <= 1.0)
    except Exception:  # noqa: BLE001 - an object of any kind
        return False


def _probe_golds(task: Task, sample: Sample, report: Report, beat: Beat) -> bool:
    """The problems' own answers and, where the task solves, its worked solutions. Returns whether that is enough: a verifier
    that hangs at the first of them is refused for it, and would take hours for all attacks."""
    slow = 0
    for problem in sample.problems:
        tally = _Tally(AttackResult("gold", None))
        if problem.answer.strip():
            beat("its own answer")
            grade = _grade(task, problem, problem.answer, tally)
            slow += tally.slow
            report.answered += 1
            report.golds += grade >= 1.0
            if grade < 1.0 and report.gold_example is None:
                report.gold_example = _example(problem, problem.answer, grade)
            if not report.golds and slow == report.answered == _UNPAID:
                return True
        beat("a worked solution")
        trace = task.solve(problem, random.Random(f"{sample.seed} {problem.key}"), "careful")
        if trace is not None:
            grade = _grade(task, problem, trace.answer, tally)
            report.solutions += 1
            report.solved += grade >= 1.0
            if grade < 1.0 and report.solved_example is None:
                report.solved_example = _example(problem, trace.answer, grade)
    return False


def _example(problem: Problem, answer: object, grade: float) -> Example:
    shown = answer if isinstance(answer, str) else repr(answer)
    return Example(_short(problem.prompt), _short(problem.answer), _short(shown), float(grade))


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else text[:most] + "..."
