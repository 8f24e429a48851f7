"""What experiments gave, as plain data: a page is written from this and nothing else, and it goes to JSON and back.

The artifacts may lie on another machine, or be gone: a page grows over several sittings, each of which brings the results of
its experiments and takes those of the others from the page's JSON.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from spoutnik.experiment.finding import Finding
from spoutnik.train.loop import Cost

Purpose = Literal["making", "evaluating", "shipped"]


@dataclass(frozen=True)
class Spent:
    """The cost of one artifact or evaluation. purpose: shipped is what came ready with the package. name: of its folder."""

    purpose: Purpose
    name: str
    cost: Cost

    @property
    def identity(self) -> tuple:
        """Alike where two experiments stand on the very same artifact; what two sittings made, each for itself, is spent
        twice, and never in the same time to the digit."""
        return self.purpose, self.name, *vars(self.cost).values()


@dataclass(frozen=True)
class ExperimentResults:
    """Of one experiment, from one sitting or joined from several (sittings.py).

    file: what names it on the command line. about: which recipe it varies, and why. shared: stages that are one artifact in all
    seeds. code: version that measured; versions: those that made what is measured. failed: title of a job -> sentence. bill:
    of all that its findings stand on, each once. curves: RL stages whose training is drawn.
    """

    name: str
    file: str
    about: str
    seeds: tuple[int, ...]
    shared: tuple[str, ...]
    code: str
    versions: tuple[str, ...]
    failed: dict[str, str]
    bill: tuple[Spent, ...]
    curves: tuple[str, ...]
    findings: tuple[Finding, ...]


def total(bill: Iterable[Spent]) -> dict[Purpose, Cost]:
    """Of each purpose; what stands there twice is counted once."""
    sums: dict[Purpose, Cost] = {"making": Cost(), "evaluating": Cost(), "shipped": Cost()}
    for spent in {spent.identity: spent for spent in bill}.values():
        sums[spent.purpose] = sums[spent.purpose] + spent.cost
    return sums
