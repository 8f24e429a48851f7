"""A finding as numbers and words: all that a page tells of it, whatever becomes of the artifacts that it was measured on."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, Field

from spoutnik.experiment.schema import Claim

ALPHA, POWER = 0.05, 0.8
HOLDS, DOES_NOT, UNDECIDED = "holds", "does not", "undecided"

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  # nan is null in JSON
Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class ComparedSide:
    """title: what is measured of its models, with the unit. layout: how a base was asked; empty where nothing was measured."""

    variant: str
    stage: str
    metric: str
    title: str
    layout: str = ""


@dataclass(frozen=True)
class SeedResult:
    """One seed's two sides, in the metric's unit; the core-seconds that were spent on each side's model and on all that it was
    made from; those of its own stage alone. models: what the two models are; seeds with the same ones count once."""

    seed: int
    models: str
    a: Number
    b: Number
    core_seconds_a: float
    core_seconds_b: float
    of_stage_a: float
    of_stage_b: float


@dataclass(frozen=True)
class Finding:
    """A question with its rule (schema.FindingSettings), its numbers in the metric's unit (nan where there are none), and last
    its verdict, which depends on the other findings of the page (verdicts.py).

    title: of the metric, with the unit. varied: what differs between the two sides, in words. samples: of each problem.
    definition: hash of all that decides its numbers but the seeds. low, high: 95 % interval of the difference b - a over seeds
    and problems, of this finding alone. models: how many pairs of models the seeds gave that differ. seed_deviation: of the
    seeds' differences. problem_error, problem_freedom: the problems' part of the error of the mean, with Student's degrees of
    freedom; 0 where there are no problems. p_holds: of what is refuted where the finding holds, p_does_not: where it does not,
    before the correction for several findings; *_adjusted: after it. obstacle: why nothing can be decided, however many other
    findings there are. remark: why it is undecided, or what else is shown.
    """

    name: str
    question: str
    paper: str
    metric: str
    title: str
    unit: str
    a: ComparedSide
    b: ComparedSide
    claim: Claim
    margin: Annotated[float, Field(gt=0)]
    varied: str
    samples: int
    definition: str
    paper_number: float | None = None
    note: str = ""
    seeds: tuple[SeedResult, ...] = ()
    models: int = 0
    problems: int = 0
    difference: Number = math.nan
    low: Number = math.nan
    high: Number = math.nan
    seed_deviation: Number = math.nan
    problem_error: Number = math.nan
    problem_freedom: int = 0
    p_holds: Probability = 1.0
    p_does_not: Probability = 1.0
    obstacle: str = ""
    p_holds_adjusted: Probability = 1.0
    p_does_not_adjusted: Probability = 1.0
    verdict: str = UNDECIDED
    remark: str = ""

    @property
    def sides(self) -> tuple[ComparedSide, ComparedSide]:
        return self.a, self.b

    @property
    def means(self) -> tuple[float, float]:
        return self._means("a"), self._means("b")

    @property
    def p_adjusted(self) -> float:
        """Of the verdict; where it is undecided of the nearer one."""
        both = {HOLDS: self.p_holds_adjusted, DOES_NOT: self.p_does_not_adjusted}
        return both.get(self.verdict, min(both.values()))

    @property
    def core_seconds(self) -> tuple[float, float]:
        """Of each side with all before it, a seed's mean."""
        return self._means("core_seconds_a"), self._means("core_seconds_b")

    @property
    def of_stage(self) -> tuple[float, float]:
        """Core-seconds of each side's own stage, a seed's mean."""
        return self._means("of_stage_a"), self._means("of_stage_b")

    @property
    def alone(self) -> str:
        """The verdict if this were the only finding."""
        if self.models < 2:
            return UNDECIDED
        return HOLDS if self.p_holds < ALPHA else DOES_NOT if self.p_does_not < ALPHA else UNDECIDED

    @property
    def amount(self) -> str:
        """The margin with its unit."""
        return f"{self.margin:g} {self.unit}".rstrip()

    def _means(self, of: str) -> float:
        return float(np.mean([getattr(one, of) for one in self.seeds])) if self.seeds else math.nan
