"""The audit finds what is wrong with a verifier, and nothing where nothing is."""

import itertools
import os
import random
import re
import tempfile
import time

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks import FAMILIES, Problem, Task, Trace
from spoutnik.tasks.audit import ATTACKS, Exemption, audit_tasks
from spoutnik.tasks.audit import cache as audit_cache
from spoutnik.tasks.audit import probe as probing
from spoutnik.tasks.audit.cache import cached_audit
from spoutnik.tasks.audit.probe import probe
from spoutnik.tasks.audit.report import Report, report_from_json


class Sum(Task):
    """Sums whose verifier is sound, to be spoiled by those below."""

    name = "sums"

    def sample(self, rng, split="train"):
        first, second = rng.randrange(1000, 5000), rng.randrange(1000, 5000)
        return self.pose(f"What is {first} + {second}?", str(first + second))

    def pose(self, prompt, answer):
        return Problem(self, 1, "en", prompt, answer, {"prompt": prompt})

    def verify(self, problem, answer):
        return isinstance(answer, str) and answer.strip() == problem.answer

    def solve(self, problem, rng, style="careful"):
        return Trace("", problem.answer)


def refusals(task: Task, problems: int = 20) -> list[str]:
    return probe(task, problems, 0).refusals


def test_a_sound_verifier_passes_all_attacks():
    report = probe(Sum(), 20, 0)
    assert not report.refusals and not report.exempted
    assert report.golds == report.answered == report.solved == report.solutions == report.problems == 20
    assert [result.attack for result in report.attacks] == list(ATTACKS)
    assert all(result.answers and not result.raised for result in report.attacks)
    assert report.best_blind.mean == 0


@pytest.mark.parametrize("attack, verify", [
    ("empty", lambda problem, answer: answer in ("", problem.answer)),
    ("white space", lambda problem, answer: isinstance(answer, str) and answer.strip() in ("", problem.answer)),
    ("constants", lambda problem, answer: answer in ("0", problem.answer)),
    ("echo", lambda problem, answer: answer in (problem.prompt, problem.answer)),
    ("numbers of the prompt", lambda problem, answer: isinstance(answer, str) and (
        answer.strip() == problem.answer or problem.prompt.split()[2] in answer.split())),
    ("other golds", lambda problem, answer: isinstance(answer, str) and answer.isascii() and answer.isdigit() and
     len(answer) == 4),
    ("noise", lambda problem, answer: isinstance(answer, str) and problem.answer in answer.replace(",", " ").split()),
    ("negated", lambda problem, answer: isinstance(answer, str) and answer.rstrip(".").endswith(problem.answer)),
    ("boxes", lambda problem, answer: isinstance(answer, str) and (
        answer == problem.answer or answer.startswith(f"\\boxed{{{problem.answer}}}"))),
    ("equation", lambda problem, answer: isinstance(answer, str) and answer.split(" = ")[-1] == problem.answer),
    ("extended", lambda problem, answer: isinstance(answer, str) and answer.startswith(problem.answer)),
    ("long", lambda problem, answer: isinstance(answer, str) and (answer == problem.answer or len(answer) > 50_000)),
    ("broken LaTeX", lambda problem, answer: answer in (problem.answer, "\\boxed{")),
    ("early exit", lambda problem, answer: answer == problem.answer or "exit(0)" in str(answer)),
    ("always equal", lambda problem, answer: answer == problem.answer or "__eq__" in str(answer)),
    ("non-strings", lambda problem, answer: answer is None or answer == problem.answer),
    ("odd characters", lambda problem, answer: answer in (problem.answer, "\0")),
])
def test_each_attack_that_is_paid_is_found(attack, verify):
    class Paying(Sum):
        def verify(self, problem, answer):
            return verify(problem, answer)

    sentences = refusals(Paying())
    assert any(sentence.startswith(f"{attack}: ") and " on average (" in sentence for sentence in sentences), sentences


def test_partial_credit_counts_as_it_is_paid():
    class Half(Sum):
        def verify(self, problem, answer):
            return 1.0 if answer == problem.answer else 0.3 if answer == "7" else 0.0

    class More(Half):
        def verify(self, problem, answer):
            return 2 * super().verify(problem, answer) if answer == "7" else super().verify(problem, answer)

    assert not refusals(Half()), "what was never tried cannot be found"
    half = type("Usual", (Half,), {"verify": lambda self, problem, answer: 0.3 if answer == "no" else
                                   float(answer == problem.answer)})
    assert not refusals(half()) and any("constants" in note and "0.30" in note for note in probe(half(), 10, 0).notes)
    more = type("Usual", (Half,), {"verify": lambda self, problem, answer: 0.6 if answer == "no" else
                                   float(answer == problem.answer)})
    assert any(sentence.startswith("constants: 'no' is graded 0.60") for sentence in refusals(more()))


def test_verifiers_that_raise_or_give_no_grade_are_refused():
    class Raising(Sum):
        def verify(self, problem, answer):
            return int(answer) == int(problem.answer)

    class Odd(Sum):
        def verify(self, problem, answer):
            return float("nan") if answer == "yes" else float(answer == problem.answer)

    sentence = refusals(Raising())[0]
    assert sentence.startswith("The verifier raises for ") and "ValueError: invalid literal" in sentence and "echo" in sentence
    [sentence] = refusals(Odd())
    assert "gives no grade" in sentence and "nan" in sentence


def test_own_answers_and_worked_solutions_must_be_right():
    class Strict(Sum):
        def verify(self, problem, answer):
            return False

    class Wrong(Sum):
        def solve(self, problem, rng, style="careful"):
            return Trace("", "17")

    assert "Only 0 of 20 own answers are graded 1" in refusals(Strict())[0]
    [sentence] = refusals(Wrong())
    assert "Only 0 of 20 worked solutions are graded 1: '17' is graded 0 where" in sentence


def test_a_verifier_that_executes_what_it_reads_is_found():
    class Evaluating(Sum):
        def verify(self, problem, answer):
            if not isinstance(answer, str) or "**" in answer or "*10" in answer:
                return False
            try:
                return str(eval(answer)) == problem.answer
            except Exception:
                return False

    assert "The verifier executes what it reads (execution)." in refusals(Evaluating())


def test_a_number_in_the_path_of_temporary_files_is_nobodys_answer(monkeypatch, tmp_path):
    class Few(Sum):
        """Sums of 2 to 10; the last number of a text is its answer, so that a path with the right one is paid now and then."""

        def sample(self, rng, split="train"):
            first, second = rng.randrange(1, 6), rng.randrange(1, 6)
            return self.pose(f"What is {first} + {second}?", str(first + second))

        def verify(self, problem, answer):
            return isinstance(answer, str) and re.findall(r"\d+", answer)[-1:] == [problem.answer]

    (tmp_path / "T6").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "T6"))
    report = probe(Few(), 20, 0)
    [execution] = (result for result in report.attacks if result.attack == "execution")
    assert 0 < execution.mean < 0.5 and not report.executed
    assert not any("execution" in sentence for sentence in report.refusals)
    assert not list((tmp_path / "T6").iterdir())


def test_exemptions_hold_up_to_their_limit_and_are_told():
    class Binary(Sum):
        name = "binary"
        exemptions = {"constants": Exemption("yes or no", limit=0.7), "other golds": Exemption("the same", limit=0.7)}
        share = 2

        def sample(self, rng, split="train"):
            number = rng.randrange(10 ** 6)
            return self.pose(f"Is {number} good?", "maybe" if number % self.share else "never")

    report = probe(Binary(), 40, 0)
    assert not report.refusals and "constants" in report.exempted[0] and "yes or no" in report.exempted[0]
    Binary.share = 10
    assert any(sentence.startswith("constants: 'maybe' is graded 0.") for sentence in refusals(Binary(), 40))


def test_hanging_and_dying_verifiers_are_reported_and_the_others_audited():
    class Hanging(Sum):
        name = "hanging"

        def verify(self, problem, answer):
            while answer == "yes":
                time.sleep(0.01)
            return answer == problem.answer

    class Dying(Sum):
        name = "dying"

        def verify(self, problem, answer):
            if answer == "9**9**9**9":
                os._exit(3)
            return answer == problem.answer

    class Undrawn(Sum):
        name = "undrawn"

        def sample(self, rng, split="train"):
            raise KeyError("nothing there")

    reports = list(audit_tasks([Sum(), Hanging(), Dying(), Undrawn(), Sum()], problems=3, seconds=1.5))
    assert [report.task for report in reports] == ["sums", "hanging", "dying", "undrawn", "sums"]
    assert not reports[0].refusals and not reports[-1].refusals
    assert reports[1].refusals == ["The verifier hangs: constants: 'yes' takes more than 1.5 s."]
    assert reports[2].refusals == ["The verifier ended its process, by a crash or its memory (bombs: 9**9**9**9)."]
    assert "KeyError: 'nothing there'" in reports[3].refusals[0]


def test_a_slow_verifier_is_asked_little_and_still_found(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(probing.time, "perf_counter", lambda: 2.0 * next(ticks))  # two seconds an answer

    class Slow(Sum):
        asked = 0

        def verify(self, problem, answer):
            self.asked += 1
            return answer in ("yes", problem.answer)

    task = Slow()
    sentences = probe(task, 30, 0).refusals
    [sentence] = sentences
    assert sentence.startswith("constants: 'yes' is graded 1.00 on average (10 of 10 problems)") and task.asked < 1200


def test_a_verifier_that_hangs_for_its_own_answers_is_asked_three_times(monkeypatch):
    """It is ended each time, so that the audit itself never hangs: with all attacks it would take hours."""
    ticks = itertools.count()
    monkeypatch.setattr(probing.time, "perf_counter", lambda: 10.0 * next(ticks))

    class Hanging(Sum):
        asked = 0

        def verify(self, problem, answer):
            self.asked += 1
            return 0.0

    task = Hanging()
    assert "0 of 3 own answers" in probe(task, 30, 0).refusals[0] and task.asked <= 6


def test_a_user_s_error_while_problems_are_drawn_is_raised_as_it_is():
    class Missing(Sum):
        def sample(self, rng, split="train"):
            raise UserError("my.jsonl: no such file.")

    with pytest.raises(UserError, match="my.jsonl: no such file."):
        list(audit_tasks([Missing()], problems=2))


def test_problems_that_were_read_are_a_sample_of_those_there_are():
    class Listed(Sum):
        def problems(self, split="held_out"):
            return [] if split == "train" else [self.pose(f"{number}?", str(number)) for number in range(7)]

        def sample(self, rng, split="train"):
            raise AssertionError("nothing is drawn")

    assert probe(Listed(), 5, 0).problems == 5 and probe(Listed(), 50, 0).problems == 7


def test_problems_without_answers_of_their_own_are_audited_without_them():
    class Open(Sum):
        def sample(self, rng, split="train"):
            return self.pose(super().sample(rng).prompt, "")

        def verify(self, problem, answer):
            return isinstance(answer, str) and answer == "a right one"

        def solve(self, problem, rng, style="careful"):
            return None

    report = probe(Open(), 5, 0)
    assert not report.refusals and report.answered == 0 and "no answers of their own" in report.notes[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_passes(name):
    report = probe(FAMILIES[name], 12, 0)
    assert not report.refusals
    assert {sentence.partition(":")[0] for sentence in report.exempted} <= {"non-strings", "equation"}


def test_a_report_is_kept_until_what_decides_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_cache, "cache_folder", lambda: tmp_path)
    task = FAMILIES["arithmetic"]
    [first] = cached_audit([task], problems=3)
    [path] = (tmp_path / "audits").iterdir()
    stamp = path.stat().st_mtime_ns
    [second] = cached_audit([task], problems=3)
    assert second == first and path.stat().st_mtime_ns == stamp
    list(cached_audit([task], problems=3, fresh=True))
    assert path.stat().st_mtime_ns != stamp and len(list((tmp_path / "audits").iterdir())) == 1
    list(cached_audit([task, FAMILIES["letters"]], problems=4))
    assert len(list((tmp_path / "audits").iterdir())) == 3
    path.write_text("{ half a report")
    assert [report.task for report in cached_audit([task], problems=3)] == [first.task]
    assert path.read_text() != "{ half a report"


def test_reports_survive_their_journey_through_json():
    report = probe(FAMILIES["letters"], 3, 0)
    back = report_from_json(report.as_json())
    assert back == report and isinstance(back, Report) and back.refusals == report.refusals


def test_forms_have_labels_of_their_own_that_depend_on_no_problem():
    """Else one form's grades would be another's."""
    from spoutnik.tasks.audit.sample import draw_sample
    rng = random.Random(0)
    for task in (Sum(), FAMILIES["spell"], FAMILIES["liars"]):
        sample = draw_sample(task, 6, rng.randrange(100))
        for attack in ATTACKS.values():
            labels = [[label for label, _ in attack.answers(problem, sample)] for problem in sample.problems]
            assert all(len(set(each)) == len(each) for each in labels), attack.name
            assert len(set(itertools.chain(*labels))) <= max(map(len, labels)) + 3, attack.name
