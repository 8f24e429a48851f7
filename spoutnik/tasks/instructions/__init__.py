"""Instructions that a program can verify: the 25 types of IFEval (Zhou et al., 2023, arXiv 2311.07911), written here.

Strictly, a response obeys as it is; loosely, also without its first or last line or without asterisks, which catches "Here
is your text:" and bold type. The official checks need two downloads and answer one text differently from time to time;
these need none and do not. Where they differ on purpose, the type's docstring says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic import ValidationError

from spoutnik.errors import UserError
from spoutnik.tasks.instructions import form, wording
from spoutnik.tasks.instructions.instruction import Instruction
from spoutnik.validation import did_you_mean, sentences

TYPES: dict[str, type[Instruction]] = {kind.id: kind for kind in (
    wording.Keywords, wording.KeywordFrequency, wording.ForbiddenWords, wording.LetterFrequency, wording.ResponseLanguage,
    wording.NumberOfSentences, form.NumberOfParagraphs, wording.NumberOfWords, form.ParagraphFirstWord,
    form.NumberOfPlaceholders, form.Postscript, form.NumberOfBullets, form.ConstrainedResponse, form.NumberOfHighlights,
    form.MultipleSections, form.JsonFormat, form.Title, form.TwoResponses, form.RepeatPrompt, form.EndPhrase,
    wording.CapitalWordFrequency, wording.EnglishCapital, wording.EnglishLowercase, form.NoComma, form.Quotation)}

__all__ = ["TYPES", "Following", "Instruction", "check", "follows", "instruction", "instructions_of"]


@dataclass(frozen=True)
class Following:
    """Which of a prompt's instructions a response obeys, in their order, as it is and loosely."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]

    @property
    def prompt_strict(self) -> bool:
        """Whether it obeys all of them: the number that papers print."""
        return all(self.strict)

    @property
    def prompt_loose(self) -> bool:
        return all(self.loose)


def instruction(instruction_id: str, kwargs: Mapping[str, object], prompt: str = "") -> Instruction:
    """An instruction as IFEval's files state it; settings that are None are left out. Raises UserError for an unknown type,
    and for a setting that is missing, unknown or wrong.

    prompt: what is to be repeated, where no setting says it.
    """
    kind = TYPES.get(instruction_id)
    if kind is None:
        raise UserError(f"There is no instruction {instruction_id!r}.{did_you_mean(instruction_id, TYPES)} There are "
                        f"{', '.join(TYPES)}.")
    settings = {name: value for name, value in kwargs.items() if value is not None}
    if kind is form.RepeatPrompt:
        settings = {"prompt_to_repeat": prompt} | settings
    try:
        return kind(**settings)
    except ValidationError as error:
        raise UserError(f"The instruction {instruction_id}: {sentences(error, kind)}") from error


def instructions_of(row: Mapping[str, object]) -> list[Instruction]:
    """The instructions of a row of IFEval (`instruction_id_list`, `kwargs`, `prompt`). Raises UserError as `instruction`."""
    names, settings = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        raise UserError("instruction_id_list: must be a list of instructions, with at least one.")
    if not isinstance(settings, Sequence) or len(settings) != len(names):
        raise UserError(f"kwargs: must be a list with the settings of each of the {len(names)} instructions.")
    if not all(isinstance(each, Mapping) for each in settings):
        raise UserError("kwargs: the settings of an instruction must be an object, {} where there are none.")
    return [instruction(str(name), each, str(row.get("prompt", ""))) for name, each in zip(names, settings, strict=True)]


def check(instruction_id: str, kwargs: Mapping[str, object], response: str, prompt: str = "") -> bool:
    """Whether a response obeys one instruction, as it is. False for a blank one. Raises UserError as `instruction` does, and
    nothing for any response."""
    return _obeys(instruction(instruction_id, kwargs, prompt), response)


def follows(row: Mapping[str, object], response: str) -> Following:
    """Which instructions of a row of IFEval a response obeys. Raises UserError as `instruction` does."""
    instructions = instructions_of(row)
    response = response if isinstance(response, str) else ""
    strict = tuple(_obeys(each, response) for each in instructions)
    loose = tuple(obeyed or any(_obeys(each, variant) for variant in _variants(response)[1:])
                  for each, obeyed in zip(instructions, strict, strict=True))
    return Following(strict, loose)


def _obeys(instruction: Instruction, response: str) -> bool:
    return isinstance(response, str) and bool(response.strip()) and instruction.follows(response)


@lru_cache(maxsize=8)
def _variants(response: str) -> tuple[str, ...]:
    """The response itself and what counts loosely: without the first line, the last, both, each also without asterisks."""
    lines = response.split("\n")
    parts = (response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])))
    return (*parts, *(part.replace("*", "") for part in parts))
