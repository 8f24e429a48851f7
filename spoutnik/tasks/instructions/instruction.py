"""One verifiable instruction with its settings, and the counting that the 25 types share (Zhou et al., 2023, IFEval).

No check runs a pattern that may backtrack over a response, and settings are compared as text: a keyword with a bracket in it
is that keyword, no pattern.
"""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Relation = Literal["at least", "less than"]


class Instruction(BaseModel):
    """What a response must obey. The fields are the settings by their names in IFEval's files.

    Attributes:
        id: the type's name in IFEval, "group:name".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: ClassVar[str]

    def follows(self, response: str) -> bool:
        """Whether a response that is not blank obeys."""
        raise NotImplementedError


def stands_in(relation: Relation, count: int, threshold: int) -> bool:
    return count >= threshold if relation == "at least" else count < threshold
