"""Benchmarks of multiple choice: MMLU, GPQA (diamond), TruthfulQA (MC1); asked and graded by spoutnik.tasks.choice."""

import random
import re
from pathlib import Path

from spoutnik.tasks.benchmarks.benchmark import Benchmark, fingerprint
from spoutnik.tasks.benchmarks.records import Record
from spoutnik.tasks.problem import Problem

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# In the original files of these two the right option stands first. So a permutation is drawn, by a seed of the problem's own.
SHUFFLED = "options shuffled by a fixed seed for each problem"


class ChoiceBenchmark(Benchmark):
    """A question with options, whose answer is a letter."""

    def verify(self, problem: Problem, answer: str) -> float:
        return float(self.extract(problem, answer) == problem.answer)

    def extract(self, problem: Problem, answer: str) -> str | None:
        from spoutnik.tasks import choice

        return choice.extract(answer, problem.data["options"])

    def asked(self, question: str, options: list[str], right: int, style: str, own_id: object = None,
              stratum: str = "") -> Problem:
        from spoutnik.tasks import choice

        prompt = choice.prompt(question.strip(), options, style)
        return self.problem(prompt, LETTERS[right], own_id or fingerprint(question), stratum, options=options)


def mmlu(benchmark: ChoiceBenchmark, record: Record) -> Problem:
    """The original's six columns without names, the hub's `question`, `choices`, `answer`, `subject`, or one column a choice;
    the answer as an index or a letter."""
    values = record.values
    if not record.names:
        if len(values) != 6:
            raise record.error(f"has {len(values)} columns, where a question, four options and a letter belong. Give "
                               "MMLU's own file.")
        question, options, answer = str(values["0"]), [str(values[str(column)]) for column in range(1, 5)], values["5"]
    elif "choices" in values:
        question, options, answer = record.text("question"), record.texts("choices"), record.get("answer")
    else:
        columns = [name for stem in ("choice", "option_", "") for name in _columns(values, stem)][:4]
        if len(columns) != 4:
            raise record.error("the options are missing (choices, or choice0 to choice3, or A to D). Give MMLU's own file.")
        question, options, answer = record.text("question"), [str(values[name]) for name in columns], record.get("answer")
    subject = values.get("subject")
    return benchmark.asked(question, options, _index(record, answer, len(options)), "mmlu",
                           stratum=subject if isinstance(subject, str) and subject else _subject(record.file))


def _columns(values: dict[str, object], stem: str) -> list[str]:
    return [name for ends in ("0123", "ABCD") for end in ends if (name := f"{stem}{end}") in values]


def _index(record: Record, answer: object, count: int) -> int:
    """The position of a right option, as an index or a letter."""
    text = str(answer).strip()
    if len(text) == 1 and text.isalpha() and text.isascii():
        index = LETTERS.index(text.upper())
    else:
        index = int(text) if re.fullmatch(r"\d{1,2}", text) and not isinstance(answer, bool) else count
    if index >= count:
        raise record.error(f"the answer {text[:40]!r} is neither the number (from 0) nor the letter of one of {count} options. "
                           "Mend it.")
    return index


def _subject(file: str) -> str:
    """high_school_physics of test__high_school_physics_test.csv."""
    stem = Path(file).name.partition(".")[0]
    return re.sub(r"^(?:test|dev|val)__|_(?:test|dev|val)$", "", stem)


def _shuffled(right: str, wrong: list[str], seed: str) -> tuple[list[str], int]:
    """The options in an order of the problem's own, and where the right one is."""
    order = list(range(len(wrong) + 1))
    random.Random(seed).shuffle(order)
    options = [right, *wrong]
    return [options[index] for index in order], order.index(0)


def gpqa(benchmark: ChoiceBenchmark, record: Record) -> Problem:
    """`Question`, `Correct Answer`, `Incorrect Answer 1` to `3`, as published; shuffled."""
    question, right = record.text("Question", "question"), record.text("Correct Answer", "correct_answer")
    wrong = [record.text(f"Incorrect Answer {number}", f"incorrect_answer_{number}") for number in (1, 2, 3)]
    options, index = _shuffled(right.strip(), [each.strip() for each in wrong], f"gpqa {question}")
    stratum = record.values.get("High-level domain") or record.values.get("Subdomain") or ""
    return benchmark.asked(question, options, index, "gpqa", record.values.get("Record ID"), str(stratum))


def truthfulqa(benchmark: ChoiceBenchmark, record: Record) -> Problem:
    """`mc1_targets`, as a mapping of options to 0 and 1 or as the hub's `choices` and `labels`; or the CSV's `Best Answer` and
    `Incorrect Answers`. One option is right (MC1). Shuffled."""
    question = record.text("question", "Question")
    if record.has("mc1_targets"):
        right, wrong = _targets(record)
    else:
        right = [record.text("Best Answer")]
        wrong = [each.strip() for each in record.text("Incorrect Answers").split(";") if each.strip()]
    if len(right) != 1 or not wrong or len(wrong) >= len(LETTERS):
        raise record.error(f"{len(right)} options are right and {len(wrong)} wrong, where MC1 has one right one and wrong "
                           "ones. Mend or remove the problem.")
    options, index = _shuffled(right[0], wrong, f"truthfulqa {question}")
    return benchmark.asked(question, options, index, "mmlu", stratum=str(record.values.get("Category") or ""))


def _targets(record: Record) -> tuple[list[str], list[str]]:
    """The right and the wrong options."""
    targets = record.get("mc1_targets")
    if isinstance(targets, dict) and isinstance(targets.get("choices"), list) and isinstance(targets.get("labels"), list):
        pairs = list(zip(targets["choices"], targets["labels"], strict=False))
    elif isinstance(targets, dict):
        pairs = list(targets.items())
    else:
        raise record.wrong(("mc1_targets",), targets, "a mapping of options")
    right = [str(option) for option, label in pairs if label == 1]
    return right, [str(option) for option, label in pairs if label != 1]
