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
from spoutnik.tasks.family import LANGUAGES, Family, sample
from spoutnik.tasks.grading import accuracy_reward
from spoutnik.tasks.problem import SPLITS, STYLES, Problem, Task, Trace, is_held_out

FAMILIES: dict[str, Family] = {family.name: family for family in (
    Countdown(), Arithmetic(), Equations(), Bases(), Letters(), Ordering(), Liars(), Calendar(), Operations(), Spell())}
FIRST_FAMILIES = tuple(FAMILIES)[:8]  # names; the tokenizer's training text is drawn from these

__all__ = ["FAMILIES", "FIRST_FAMILIES", "LANGUAGES", "SPLITS", "STYLES", "Family", "Problem", "Task", "Trace",
           "accuracy_reward", "is_held_out", "sample"]
