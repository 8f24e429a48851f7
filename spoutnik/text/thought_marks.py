"""The texts between which a model writes thoughts, and, as R1-Zero does, answers.

They are `<think>` and `</think>`, as R1's, unless tokenizer_config.json says others under `thought`. Whether they are tokens of
the vocabulary or plain text, the vocabulary tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from spoutnik.errors import RunError
from spoutnik.text.special_token_escape import END_THINK, THINK

KEY = "thought"  # of tokenizer_config.json
GGUF_KEYS = ("spoutnik.thought.start", "spoutnik.thought.end")
ANSWER_TAGS = ("<answer>", "</answer>")


@dataclass(frozen=True)
class ThoughtMarks:
    """start, end: of a thought. answer: of an answer, None where nothing encloses it. stated: the model's files name the marks,
    so that it knows thoughts though neither its template nor its vocabulary does."""

    start: str = THINK
    end: str = END_THINK
    answer: tuple[str, str] | None = None
    stated: bool = False

    @staticmethod
    def of(config: Mapping[str, object], template: str | None) -> "ThoughtMarks":
        """From the contents of tokenizer_config.json and the chat template, which shows whether answers are enclosed.

        Raises:
            RunError: the key `thought` is not of its form.
        """
        stated = config.get(KEY)
        answer = ANSWER_TAGS if template is not None and all(tag in template for tag in ANSWER_TAGS) else None
        if stated is None:
            return ThoughtMarks(answer=answer)
        if not isinstance(stated, Mapping) or set(stated) != {"start", "end"} or problem_with_marks(*stated.values()):
            raise RunError(f"tokenizer_config.json: {KEY} = {stated!r} must have start and end, two different texts without "
                           "white space around them. Correct it, or remove the key.")
        return ThoughtMarks(stated["start"], stated["end"], answer, True)

    @property
    def pair(self) -> tuple[str, str]:
        return self.start, self.end

    def spelled_in(self, *texts: str) -> bool:
        """Whether texts of a thought or an answer hold a mark or tag: they could not be told from those around them."""
        return any(mark in text for mark in (*self.pair, *(self.answer or ())) for text in texts)


R1_MARKS = ThoughtMarks()


def problem_with_marks(start: object, end: object) -> str | None:
    """What is wrong with two texts as marks of thought."""
    if not all(isinstance(mark, str) and mark and mark == mark.strip() for mark in (start, end)):
        return "must be texts without white space around them"
    if start in end or end in start:
        return "must not hold each other"
    return None
