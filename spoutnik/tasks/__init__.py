"""Procedural reasoning problems: generated without end, verified exactly, solved in two styles, in two languages."""

from spoutnik.tasks.arithmetic import Arithmetic
from spoutnik.tasks.bases import Bases
from spoutnik.tasks.calendar import Calendar
from spoutnik.tasks.countdown import Countdown
from spoutnik.tasks.equations import Equations
from spoutnik.tasks.letters import Letters
from spoutnik.tasks.liars import Liars
from spoutnik.tasks.ordering import Ordering
from spoutnik.tasks.problem import LANGUAGES, SPLITS, STYLES, Family, Problem, Trace, is_held_out, sample

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (Countdown(), Arithmetic(), Equations(), Bases(), Letters(), Ordering(), Liars(), Calendar())
}

__all__ = ["FAMILIES", "LANGUAGES", "SPLITS", "STYLES", "Family", "Problem", "Trace", "is_held_out", "sample"]
