"""Which of the project's verifiers grades an answer, by the answer's form: a row as tasks of one's own have (docs/tasks.md)."""

import re

from spoutnik.errors import UserError
from spoutnik.tasks import answer_kinds
from spoutnik.tasks.own.reading import checked_row
from spoutnik.tasks.own.rows import Row

LONGEST_EXACT = 8  # words that a reply can be expected to repeat
LONGEST_ANSWER = 600  # characters
JUDGED = {"verifier": "judge", "rubric": "Correct is an answer that states the same as the reference. Further statements that "
          "contradict it make it incorrect."}
_QUANTITY = re.compile(r"(?P<number>[-+−]?[\d.,\u00a0\u202f ]*\d(?:[eE][-+]?\d+)?)\s?"
                       r"(?P<unit>[^\d\s.,;:!?()]{1,16}(?: ?/ ?[^\d\s.,;]{1,8})?)")
_MATHS = re.compile(r"[\\^=√∑∫]|\d\s*[*+/]\s*\d")
# "3 March" is a date and no quantity.
_MONTHS = frozenset("""january february march april may june july august september october november december
    janvier février mars avril mai juin juillet août septembre octobre novembre décembre januar februar märz juni juli oktober
    dezember enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre""".split())


def answer_row(question: str, answer: str, language: str) -> Row | None:
    """The row of a question: numbers, with their unit, are compared as such, formulas as mathematics, a few words without case
    and punctuation; anything longer needs a judge. None where no verifier takes the answer, its own grade included."""
    for options in _verifiers(answer, language):
        try:
            row = checked_row({"prompt": question, "answer": answer, "language": language, **options})
            if options["verifier"] == "judge" or row.verify(answer) == 1.0:
                return row
        except UserError:  # not of this kind after all
            continue
    return None


def _verifiers(answer: str, language: str) -> list[dict]:
    quantity = _QUANTITY.fullmatch(answer)
    choices = []
    if answer_kinds.number(answer, language) is not None:
        choices.append({"verifier": "numeric"})
    elif quantity and quantity["unit"].casefold() not in _MONTHS:
        choices.append({"verifier": "numeric", "unit": quantity["unit"]})
    elif _MATHS.search(answer):
        choices.append({"verifier": "math"})
    if len(answer.split()) <= LONGEST_EXACT and len(answer) <= 10 * LONGEST_EXACT:
        choices.append({"verifier": "exact", "ignore_case": True, "ignore_punctuation": True})
    return [*choices, JUDGED]
