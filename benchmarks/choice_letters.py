"""The letter of an answer to multiple choice questions: how many dressings of the right letter are read, and how many texts
without a decision are taken for one.

    python benchmarks/choice_letters.py MMLU_FOLDER [QUESTIONS]

The folder has CSV files test__*.csv: question, four choices, the answer's number. No peer: the others' parsers read one form.
"""

import csv
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from common import machine, print_result

from spoutnik.tasks.choice import extract, prompt

LETTERS = "ABCD"
Question = tuple[str, list[str], str]
# Of a letter and its option's text.
DRESSINGS: tuple[Callable[[str, str], str], ...] = (
    lambda letter, text: f"Some reasoning.\nAnswer: {letter}", lambda letter, text: f"So it is $\\boxed{{{letter}}}$.",
    lambda letter, text: f"The answer is ({letter}).", lambda letter, text: f"{letter}) {text}", lambda letter, text: text,
    lambda letter, text: f"Answer: {letter}) {text}", lambda letter, text: f"Because.\n\n**Answer: {letter}. {text}**",
    lambda letter, text: f"The answer is {text}", lambda letter, text: f"I weigh the options. **{letter}**",
    lambda letter, text: f"La bonne réponse est donc la {letter}.", lambda letter, text: f"{letter} is the correct answer.",
    lambda letter, text: f"The correct answer is {letter} because {text} holds.")


def read(folder: Path) -> list[Question]:
    rows = []
    for file in sorted(folder.glob("test__*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            rows += [(row[0], row[1:5], LETTERS[int(row[5])]) for row in csv.reader(lines) if row[5].isdigit()]
    return rows


def share(verdicts: Iterable[bool]) -> float:
    verdicts = list(verdicts)
    return sum(verdicts) / len(verdicts)


def main() -> None:
    print(machine())
    questions = read(Path(sys.argv[1]))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else len(questions)
    questions = random.Random(16).sample(questions, min(count, len(questions)))
    began = time.process_time()
    read_right = share(extract(dress(gold, options[LETTERS.index(gold)]), options) == gold
                       for _, options, gold in questions for dress in DRESSINGS)
    seconds = (time.process_time() - began) / len(questions) / len(DRESSINGS)
    others = [(options, gold, LETTERS[(LETTERS.index(gold) + 1) % 4]) for _, options, gold in questions]
    print_result({
        "name": f"letters of {len(questions)} questions in {len(DRESSINGS)} dressings", "ours": read_right,
        "unit": "share read as the right letter", "ms_an_answer": 1000 * seconds,
        "another_letter_taken_for_it": share(extract(dress(other, options[LETTERS.index(other)]), options) == gold
                                             for options, gold, other in others for dress in DRESSINGS),
        "hedged_taken_for_it": share(extract(f"The answer is {gold} or {other}.", options) is not None
                                     for options, gold, other in others),
        "all_boxed_taken_for_one": share(extract(" ".join(f"\\boxed{{{letter}}}" for letter in LETTERS), options) is not None
                                         for options, _, _ in others),
        "echo_of_the_prompt_taken_for_one": share(extract(prompt(question, options), options) is not None
                                                  for question, options, _ in questions)})


if __name__ == "__main__":
    main()
