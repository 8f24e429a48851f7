"""Procedural reasoning problems: generated without end, verified exactly, solved in two styles, in two languages."""

from spoutnik.tasks.families.arithmetic import Arithmetic
from spoutnik.tasks.families.bases import Bases
from spoutnik.tasks.families.calendar import Calendar
from spoutnik.tasks.families.countdown import Countdown
from spoutnik.tasks.families.equations import Equations
from spoutnik.tasks.families.letters import Letters
from spoutnik.tasks.families.liars import Liars
from spoutnik.tasks.families.operations import Operations
from spoutnik.tasks.families.ordering import Ordering
from spoutnik.tasks.families.spell import Spell
from spoutnik.tasks.problem import LANGUAGES, SPLITS, STYLES, Family, Problem, Trace, is_held_out, sample

FAMILIES: dict[str, Family] = {family.name: family for family in (
    Countdown(), Arithmetic(), Equations(), Bases(), Letters(), Ordering(), Liars(), Calendar(), Operations(), Spell())}
FIRST_FAMILIES = tuple(FAMILIES)[:8]  # the tokenizer's training text is drawn from these

__all__ = ["FAMILIES", "FIRST_FAMILIES", "LANGUAGES", "SPLITS", "STYLES", "Family", "Problem", "Trace", "accuracy_reward",
           "is_held_out", "sample"]


def accuracy_reward(problem: Problem, answer: str) -> float:
    """R1's accuracy reward: 1.0 for a right answer, 0.0 otherwise. Raises ValueError for a problem of an unknown family."""
    family = FAMILIES.get(problem.family)
    if family is None:
        raise ValueError(f"There is no family {problem.family!r}: the families are {', '.join(FAMILIES)}.")
    return float(family.verify(problem, answer))
