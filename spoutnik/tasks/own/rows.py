"""Rows of a user's file: a prompt, its answer, and the verifier that compares a completion's answer with it."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spoutnik.endpoint import Endpoint
from spoutnik.errors import UserError
from spoutnik.tasks import answer_kinds, choice, json_answers
from spoutnik.tasks.judge import Case, Judge
from spoutnik.tasks.judge_cache import VerdictCache

# Where a row names no judge of its own, these environment variables do.
JUDGE_URL, JUDGE_MODEL, JUDGE_KEY, JUDGE_CACHE = (f"SPOUTNIK_JUDGE_{name}" for name in ("URL", "MODEL", "KEY", "CACHE"))

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Answer = Annotated[Text, Field(coerce_numbers_to_str=True)]


class Row(BaseModel):
    """What all rows have.

    language: of the prompt (ISO 639-1). split: where the row goes; without it its prompt's hash decides. id, metadata: the
    user's own, kept and not looked at.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: Text
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] = "en"
    split: Literal["train", "held_out"] | None = None
    level: int = 0
    id: str | int | None = None
    metadata: dict[str, Any] = {}

    @property
    def question(self) -> str:
        """The prompt as a model gets it."""
        return self.prompt

    @property
    def gold(self) -> str:
        """The right answer, or what stands for it, to show."""
        return str(getattr(self, "answer", "") or "")

    def check(self) -> None:
        """Raises UserError for what the types do not show: an answer that the row's own verifier cannot read."""

    def verify(self, answer: str) -> float:
        """The grade of an answer without its thought."""
        raise NotImplementedError


class MathRow(Row):
    """ordered: whether the order of several answers counts."""

    verifier: Literal["math"]
    answer: Answer
    ordered: bool = False

    def verify(self, answer: str) -> float:
        from spoutnik.tasks import maths

        given = maths.extract(answer)
        return float(given is not None and maths.answers(self.prompt, self.answer, given, self.language, self.ordered))


class ChoiceRow(Row):
    """answer: a letter, or the text of one of the choices. choices: the options, which are then written below the prompt with
    the request to end with a letter; without them the prompt holds them. letters: those that there are, without choices."""

    verifier: Literal["choice"]
    answer: Answer
    choices: Annotated[list[Answer], Field(min_length=2, max_length=26)] | None = None
    letters: Annotated[str, Field(pattern=r"^[A-Z]{2,26}$")] = "ABCD"

    def check(self) -> None:
        if len(self.gold) != 1 or self.gold not in self.offered:
            named = f"one of the letters {self.offered}" + (" or of the choices" if self.choices else "")
            raise UserError(f"answer = {self.answer!r}: must be {named}. Correct it.")
        if self.answer in self.offered and self.gold != self.answer:
            raise UserError(f"answer = {self.answer!r}: is a letter, and the text of the choice {self.gold}. Write the choices "
                            "otherwise.")

    @property
    def question(self) -> str:
        if self.choices is None:
            return self.prompt
        return choice.prompt(self.prompt, self.choices, "fr" if self.language == "fr" else "mmlu")

    @property
    def gold(self) -> str:
        places = [index for index, text in enumerate(self.choices or ()) if text == self.answer]
        return self.offered[places[0]] if len(places) == 1 else self.answer.strip(" ().")

    @property
    def offered(self) -> str:
        """The letters to choose from."""
        return choice.letters_of(len(self.choices)) if self.choices else self.letters

    def verify(self, answer: str) -> float:
        return float(choice.right(self.gold, answer, self.choices or (), self.offered))


class ExactRow(Row):
    verifier: Literal["exact"]
    answer: Answer
    ignore_case: bool = False
    ignore_spacing: bool = True
    ignore_punctuation: bool = False

    def verify(self, answer: str) -> float:
        return float(answer_kinds.exact(self.answer, answer, self.ignore_case, self.ignore_spacing, self.ignore_punctuation))


class RegexRow(Row):
    """answer: the pattern that the whole answer must match."""

    verifier: Literal["regex"]
    answer: Text

    def check(self) -> None:
        answer_kinds.compiled(self.answer)

    def verify(self, answer: str) -> float:
        return float(answer_kinds.matches(self.answer, answer))


class NumericRow(Row):
    """Tolerances: the larger of the two counts; relative to the answer."""

    verifier: Literal["numeric"]
    answer: Answer
    absolute_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    relative_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    unit: str = ""

    def check(self) -> None:
        if answer_kinds.number(self.answer, self.language, self.unit) is None:
            raise UserError(f"answer = {self.answer!r}: is no number in the language '{self.language}'. Correct it, or name "
                            "its unit.")

    def verify(self, answer: str) -> float:
        return float(answer_kinds.close(self.answer, answer, self.absolute_tolerance, self.relative_tolerance, self.unit,
                                        self.language))


class CodeRow(Row):
    """tests: asserts, a function check(candidate), or cases of input and output (`spoutnik.tasks.code`).
    answer: a solution, to show. timeout: seconds."""

    verifier: Literal["code"]
    tests: str | list | dict
    answer: str | None = None
    timeout: Annotated[float, Field(gt=0, le=600)] = 5.0

    def check(self) -> None:
        from spoutnik.tasks import code

        code.as_tests(self.tests)

    def verify(self, answer: str) -> float:
        from spoutnik.tasks import code

        return code.grade(self.tests, answer, self.timeout)


class JsonRow(Row):
    """schema: what the answer must fit; answer: the value that it must be; one of the two, or both."""

    verifier: Literal["json"]
    schema_: dict | bool | None = Field(default=None, alias="schema")
    answer: Any = None

    def check(self) -> None:
        if self.schema_ is None and "answer" not in self.model_fields_set:
            raise UserError("the key 'schema' is missing, or 'answer'. Add one of them.")
        if self.schema_ is not None:
            json_answers.Schema(self.schema_)

    @property
    def gold(self) -> str:
        return json.dumps(self.answer, ensure_ascii=False) if "answer" in self.model_fields_set else ""

    def verify(self, answer: str) -> float:
        if self.schema_ is not None and not json_answers.fits(json_answers.schema_of(json.dumps(self.schema_)), answer):
            return 0.0
        return float("answer" not in self.model_fields_set or json_answers.equals(self.answer, answer))


class JudgeRow(Row):
    """rubric: what a good answer is. answer: a reference. compare: whether the answer is compared with it, in both orders,
    instead of being correct or not in its light. votes: of the judge, for a comparison an even number. endpoint, model,
    key_variable: the judge; what is missing is read from the environment (SPOUTNIK_JUDGE_URL, _MODEL, _KEY, _CACHE)."""

    verifier: Literal["judge"]
    rubric: Text
    answer: Answer | None = None
    compare: bool = False
    votes: Annotated[int, Field(ge=1, le=64)] | None = None
    endpoint: str | None = None
    model: str | None = None
    key_variable: str | None = None

    def check(self) -> None:
        if self.compare and self.answer is None:
            raise UserError("compare = true needs an answer to compare with. Add the key 'answer'.")
        if self.compare and (self.votes or 2) % 2:
            raise UserError(f"votes = {self.votes}: comparisons are asked in both orders; make it an even number.")

    def verify(self, answer: str) -> float:
        return self.judge.grade(self.case(answer)).grade

    def case(self, answer: str) -> Case:
        return Case(self.prompt, answer, self.rubric, self.answer, self.compare)

    @property
    def judge(self) -> Judge:
        """The judge of this row, shared with others of the same settings. Raises UserError where none is named."""
        url, model = self.endpoint or os.environ.get(JUDGE_URL), self.model or os.environ.get(JUDGE_MODEL)
        if not url or not model:
            raise UserError(f"The verifier 'judge' needs a model to ask: give the row 'endpoint' and 'model', or set "
                            f"{JUDGE_URL} and {JUDGE_MODEL}.")
        key = self.key_variable or (JUDGE_KEY if os.environ.get(JUDGE_KEY) else None)
        return _judge(url, model, key, self.votes or (2 if self.compare else 1), os.environ.get(JUDGE_CACHE))


@lru_cache(maxsize=64)
def _judge(url: str, model: str, key_variable: str | None, votes: int, cache: str | None) -> Judge:
    return Judge(Endpoint(url, model, key_variable), votes, cache=VerdictCache(Path(cache) if cache else None))


class ScriptRow(Row):
    """A row that a user's own `verify` grades."""

    answer: Annotated[str, Field(coerce_numbers_to_str=True)] = ""


VERIFIERS: dict[str, type[Row]] = {"math": MathRow, "choice": ChoiceRow, "exact": ExactRow, "regex": RegexRow,
                                   "numeric": NumericRow, "code": CodeRow, "json": JsonRow, "judge": JudgeRow}
