"""BIG-Bench Hard (Suzgun et al., 2022): 27 tasks; the answers are letters, words, numbers, sorted words or brackets."""

import re
from collections.abc import Iterable
from pathlib import Path

from spoutnik.tasks.benchmarks.benchmark import Benchmark
from spoutnik.tasks.benchmarks.records import Record
from spoutnik.tasks.problem import Problem

NAMES = ("boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
         "formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects",
         "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation",
         "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table", "reasoning_about_colored_objects",
         "ruin_names", "salient_translation_error_detection", "snarks", "sports_understanding", "temporal_sequences",
         "tracking_shuffled_objects_five_objects", "tracking_shuffled_objects_seven_objects",
         "tracking_shuffled_objects_three_objects", "web_of_lies", "word_sorting")
# The last line and not a box: closing braces are among the answers.
PROMPT = ("{question}\n\nThink step by step before answering. The last line of your response should be of the following "
          "format: 'Answer: $ANSWER' (without quotes) where $ANSWER is {form}.")
FORMS = {"letter": "the letter of the right option", "number": "a number", "words": "the sorted words, separated by spaces",
         "brackets": "the missing closing brackets, separated by spaces", "text": "the right option in full"}
_PAIRS = (("True", "False"), ("Yes", "No"), ("yes", "no"), ("valid", "invalid"))
_STATED = re.compile(r"(?:final\s+)?answer\s*(?:is|:|：)\s*(.*)", re.IGNORECASE)
_WRAPPING = " \t\r*`\"'$."
_OPTION = re.compile(r"^\(([A-Z])\)\s*(.*)$", re.MULTILINE)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?([^{}]*?)\}?\s*\}\s*\.?$")


class BBH(Benchmark):
    """Answers of several kinds, each compared in its own form."""

    def extract(self, problem: Problem, answer: str) -> str | None:
        """The letter of an option; else what the last "Answer:" states, the content of a box at the end, or the last line."""
        if problem.data["kind"] == "letter":
            from spoutnik.tasks import choice

            options = problem.data["options"]  # a question of "snarks" is cut after its first one
            return choice.extract(answer, options if len(options) > 1 else ())
        lines = [line.strip() for line in answer[-20_000:].splitlines() if line.strip()]
        for line in reversed(lines):
            if (stated := _STATED.search(line)) and stated[1].strip(" *`"):
                return _unboxed(stated[1])
        return _unboxed(lines[-1]) if lines else None

    def verify(self, problem: Problem, answer: str) -> float:
        extracted = self.extract(problem, answer)
        return float(extracted is not None and _same(problem.data["kind"], problem.answer, extracted))


def _unboxed(line: str) -> str:
    match = _BOXED.search(line.strip())
    return match[1].strip() if match else line.strip(" \t\r*`")


def _same(kind: str, gold: str, answer: str) -> bool:
    match kind:
        case "letter":
            return answer == gold.strip("()")
        case "number":
            number = re.fullmatch(r"(?:.*=\s*)?([-\u2212+]?[\d,]+)(?:\.0+)?", answer.strip(_WRAPPING))
            return number is not None and number[1].replace(",", "").replace("\u2212", "-").lstrip("+") == gold
        case "words":
            return re.split(r"[\s,]+", answer.strip(_WRAPPING + ",").lower()) == gold.lower().split()
        case "brackets":
            return re.sub(r"[\s`*\"'$]", "", answer) == gold.replace(" ", "")
        case _:
            return answer.strip(_WRAPPING).lower() == gold.strip(_WRAPPING).lower()


def kind_of(gold: str, question: str) -> str:
    """What kind of answer a gold one is."""
    if re.fullmatch(r"\([A-Z]\)", gold):
        return "letter"
    if re.fullmatch(r"-?\d+", gold):
        return "number"
    if re.fullmatch(r"[\])}> ]+", gold):
        return "brackets"
    if question.lstrip().lower().startswith("sort the following words"):
        return "words"
    return next((" or ".join(pair) for pair in _PAIRS if gold in pair), "text")


def read(benchmark: Benchmark, records: Iterable[Record]) -> list[Problem]:
    """`input`, `target`; the task's name is its file's."""
    problems, counts = [], {}
    for record in records:
        name = _task_of(benchmark, record)
        counts[name] = counts.get(name, 0) + 1
        question, gold = record.text("input", "question"), str(record.get("target", "answer")).strip()
        kind = kind_of(gold, question)
        prompt = PROMPT.format(question=question.strip(), form=FORMS.get(kind, kind))
        options = {"options": _options(record, question, gold)} if kind == "letter" else {}
        problems.append(benchmark.problem(prompt, gold, f"{name}/{counts[name]}", name, kind=kind, **options))
    return problems


def _options(record: Record, question: str, gold: str) -> list[str]:
    """The texts of the options, in the order of their letters."""
    listed = _OPTION.findall(question)
    if [letter for letter, _ in listed] != [chr(ord("A") + number) for number in range(len(listed))] or \
            gold.strip("()") not in {letter for letter, _ in listed}:
        raise record.error(f"the target {gold} is none of the question's options (A), (B) ... Mend or remove the problem.")
    return [text for _, text in listed]


def _task_of(benchmark: Benchmark, record: Record) -> str:
    if benchmark.name != "bbh":
        return benchmark.name.removeprefix("bbh-")
    if isinstance(config := record.values.get("config"), str):
        return config
    path = Path(record.file)
    stem = path.name.partition(".")[0]
    return next((part for part in (stem, path.parent.name) if part in NAMES), stem)
