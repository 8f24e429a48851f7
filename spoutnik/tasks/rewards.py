"""The rule-based rewards of R1-Zero and R1: accuracy, format, language. No reward model, no tokenizer."""

from dataclasses import dataclass

from spoutnik.tasks import FAMILIES
from spoutnik.tasks.language import language_consistency
from spoutnik.tasks.problem import Problem


@dataclass(frozen=True)
class Verdict:
    """The rewards of one completion, each in [0, 1]; `total` is their weighted sum."""

    accuracy: float
    format: float
    language: float

    def total(self, accuracy_weight: float = 1.0, format_weight: float = 0.0, language_weight: float = 0.0) -> float:
        """Weighted sum. The defaults reward accuracy alone; the caller states any other choice."""
        return accuracy_weight * self.accuracy + format_weight * self.format + language_weight * self.language


def accuracy_reward(problem: Problem, answer: str) -> float:
    """1.0 for a right answer, 0.0 otherwise. Raises ValueError for a problem of an unknown family."""
    family = FAMILIES.get(problem.family)
    if family is None:
        raise ValueError(f"There is no family {problem.family!r}: the families are {', '.join(FAMILIES)}.")
    return float(family.verify(problem, answer))


def format_reward(well_formed: bool) -> float:
    """1.0 when the completion has its thought and its answer where they belong; the caller decides that."""
    return float(well_formed)


def language_reward(thought: str, language: str) -> float:
    """Share of the thought's words that belong to the language of the question; an empty thought earns nothing."""
    return language_consistency(thought, language) if thought.strip() else 0.0
