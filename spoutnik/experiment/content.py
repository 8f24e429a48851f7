"""What a page tells: the sittings of each experiment joined, and the findings of all with their verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from spoutnik.experiment.finding import Finding
from spoutnik.experiment.results import ExperimentResults
from spoutnik.experiment.sittings import joined
from spoutnik.experiment.verdicts import with_verdicts


@dataclass(frozen=True)
class Page:
    """code: version that writes it. sittings: as they were measured; those of one experiment have different seeds.
    experiments: joined from them, with the verdicts of all their findings corrected together (`page_of`)."""

    code: str
    sittings: tuple[ExperimentResults, ...]
    experiments: tuple[ExperimentResults, ...]

    @property
    def findings(self) -> list[Finding]:
        return [finding for one in self.experiments for finding in one.findings]

    def with_results(self, results: Sequence[ExperimentResults], code: str, join: bool = False) -> "Page":
        """Others added, or in the place of those of their name. join: sittings of their name on other seeds stay."""
        stay = self.kept_beside({one.name: one.seeds for one in results}, join)
        order = list(dict.fromkeys(one.name for one in (*self.sittings, *results)))
        return page_of(code, sorted((*stay, *results), key=lambda one: order.index(one.name)))

    def kept_beside(self, new: Mapping[str, Sequence[int]], join: bool) -> list[ExperimentResults]:
        """The sittings that stay where others are added. new: experiment -> seeds."""
        return [one for one in self.sittings if one.name not in new or join and set(new[one.name]).isdisjoint(one.seeds)]


def page_of(code: str, sittings: Iterable[ExperimentResults]) -> Page:
    """A page of these sittings. Whatever verdicts their findings had before, among others, they get anew."""
    sittings = tuple(sittings)
    by_name = {name: sorted((one for one in sittings if one.name == name), key=lambda one: min(one.seeds))
               for name in dict.fromkeys(one.name for one in sittings)}
    experiments = [joined(each) for each in by_name.values()]
    decided = iter(with_verdicts([finding for one in experiments for finding in one.findings]))
    return Page(code, tuple(one for each in by_name.values() for one in each),
                tuple(replace(one, findings=tuple(next(decided) for _ in one.findings)) for one in experiments))
