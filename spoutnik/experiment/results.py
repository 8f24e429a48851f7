"""What experiments gave, as plain data: a page is written from this and nothing else, and it goes to JSON and back.

The artifacts may lie on another machine, or be gone: a page grows over several sittings, each of which brings the results of
its experiments and takes those of the others from the page's JSON.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spoutnik.experiment.finding import Finding
from spoutnik.experiment.verdicts import with_verdicts
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
    """Of one experiment.

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


@dataclass(frozen=True)
class Page:
    """code: version that writes it. experiments: with the verdicts of all their findings corrected together (`page_of`)."""

    code: str
    experiments: tuple[ExperimentResults, ...]

    @property
    def findings(self) -> list[Finding]:
        return [finding for one in self.experiments for finding in one.findings]

    def with_results(self, results: Sequence[ExperimentResults], code: str) -> "Page":
        """Others added, or in the place of those of their name."""
        of = {one.name: one for one in self.experiments} | {one.name: one for one in results}
        return page_of(code, of.values())


def page_of(code: str, experiments: Iterable[ExperimentResults]) -> Page:
    """A page of these experiments. Whatever verdicts their findings had before, among others, they get anew."""
    experiments = tuple(experiments)
    decided = iter(with_verdicts([finding for one in experiments for finding in one.findings]))
    return Page(code, tuple(replace(one, findings=tuple(next(decided) for _ in one.findings)) for one in experiments))


def total(bill: Iterable[Spent]) -> dict[Purpose, Cost]:
    """Of each purpose; what stands there twice is counted once."""
    sums: dict[Purpose, Cost] = {"making": Cost(), "evaluating": Cost(), "shipped": Cost()}
    for spent in {spent.identity: spent for spent in bill}.values():
        sums[spent.purpose] = sums[spent.purpose] + spent.cost
    return sums
