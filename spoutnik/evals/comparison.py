"""Two evaluations compared problem by problem: the difference, whether it is chance, whether one is worse than the other."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spoutnik.errors import UserError
from spoutnik.evals.saved import Saved, read_evaluation
from spoutnik.evals.scores import by_problem, stratum
from spoutnik.evals.statistics import difference_interval, equivalence_test, holm, p_not_below, sign_flip_test

ALPHA = 0.05
OWN = ("model",)  # keys of an identity that may differ: what is compared


@dataclass(frozen=True)
class Comparison:
    """B against A on the same problems, in shares from -1 to 1; positive: B is better.

    low, high: 95 % interval of the difference. p_value: of "no difference" (sign flips). p_adjusted: by Holm, where several
    comparisons are made together. p_not_worse: of "B is worse by `margin` or more"; p_equivalent: of "they differ by `margin`
    or more" (TOST); by Holm as well, and both None without a margin.
    """

    a: str
    b: str
    problems: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    margin: float | None = None
    p_not_worse: float | None = None
    p_equivalent: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        return self.p_adjusted < ALPHA

    @property
    def not_worse(self) -> bool | None:
        """Whether it is shown that B is not worse than A by the margin; None without a margin."""
        return None if self.p_not_worse is None else self.p_not_worse < ALPHA

    @property
    def equivalent(self) -> bool | None:
        """Whether it is shown that they differ by less than the margin; None without a margin."""
        return None if self.p_equivalent is None else self.p_equivalent < ALPHA

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was measured and what follows from it, to be printed."""
        points = f"{100 * self.difference:+.1f} points (95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f})"
        p = f"p = {self.p_value:.2g} by sign flips" + \
            (f", {self.p_adjusted:.2g} corrected for several comparisons" if self.p_adjusted != self.p_value else "")
        verdict = f"{self.b} is {'better' if self.difference > 0 else 'worse'}" if self.differs else \
            "no difference is shown, which does not show that there is none"
        texts = [f"{self.b} {self.mean_b:.1%}, {self.a} {self.mean_a:.1%} on the same {self.problems} problems: {points}, "
                 f"{p}: {verdict}."]
        if self.margin is not None:
            margin = f"{100 * self.margin:g} points"
            texts.append(f"Equivalent within {margin}: shown (p = {self.p_equivalent:.2g})." if self.equivalent else
                         f"Not worse by {margin}: shown (p = {self.p_not_worse:.2g})." if self.not_worse else
                         f"Not worse by {margin}: not shown (p = {self.p_not_worse:.2g}); more problems would tell.")
        return (*texts, *self.notes)


def compare(a: Path, b: Path, margin: float | None = None) -> Comparison:
    """The evaluation in folder `b` against the one in `a`.

    Args:
        margin: a difference that would not matter, as a share (0.02: two points).

    Raises:
        UserError: they were made otherwise, or have other problems; the sentence says what differs.
    """
    return compare_saved(read_evaluation(a), read_evaluation(b), margin)


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons that are made together, all with the same margin or all without one: the p-values of each kind are
    corrected for their number (Holm)."""
    adjusted = {"p_adjusted": holm([each.p_value for each in comparisons])}
    if comparisons and comparisons[0].margin is not None:
        adjusted |= {name: holm([getattr(each, name) for each in comparisons]) for name in ("p_not_worse", "p_equivalent")}
    return [replace(each, **{name: values[number] for name, values in adjusted.items()})
            for number, each in enumerate(comparisons)]


def compare_saved(a: Saved, b: Saved, margin: float | None = None) -> Comparison:
    """As `compare`, of evaluations that are read."""
    if margin is not None and not 0 < margin < 1:
        raise UserError(f"--margin {margin}: must be a share between 0 and 1, such as 0.02 for two points.")
    check_comparable(a, b)
    groups_a, groups_b = by_problem(a.rows), by_problem(b.rows)
    missing = [key for key in groups_a if key not in groups_b], [key for key in groups_b if key not in groups_a]
    if any(missing):
        raise UserError(f"{a.folder} and {b.folder} have other problems: {len(missing[0])} are in the first alone and "
                        f"{len(missing[1])} in the second alone ({(missing[0] or missing[1])[0][1]}). Evaluate both on the "
                        "same problems, with the same --limit, to the end.")
    means_a, means_b = ([float(np.mean([row["correct"] for row in groups[key]])) for key in groups_a]
                        for groups in (groups_a, groups_b))
    differences = [right - left for left, right in zip(means_a, means_b, strict=True)]
    result = paired(differences, [stratum(group[0]) for group in groups_a.values()], margin)
    names = (a.model, b.model) if a.model != b.model else (str(a.folder), str(b.folder))
    counts = len(a.rows) / len(groups_a), len(b.rows) / len(groups_b)
    uneven = () if counts[0] == counts[1] else (
        f"{names[0]} has {counts[0]:g} samples of a problem and {names[1]} {counts[1]:g}: the means stay comparable.",)
    return replace(result, a=names[0], b=names[1], mean_a=float(np.mean(means_a)), mean_b=float(np.mean(means_b)),
                   notes=(*a.notes, *b.notes, *uneven))


def paired(differences: Sequence[float], strata: Sequence[Hashable] | None = None, margin: float | None = None) -> Comparison:
    """The comparison of differences per problem, without names."""
    mean, low, high = difference_interval(differences, strata)
    p = sign_flip_test(differences)
    tests = {} if margin is None else {"margin": margin, "p_not_worse": p_not_below(differences, -margin, strata),
                                       "p_equivalent": equivalence_test(differences, margin, strata)}
    return Comparison("A", "B", len(differences), 0.0, mean, mean, low, high, p, p, **tests)


def check_comparable(a: Saved, b: Saved) -> None:
    """Raises UserError where two evaluations differ in more than their model, and says in what."""
    if a.hash == b.hash:
        return
    differing = _differing(a.identity, b.identity)
    if differing:
        shown = "; ".join(f"{name}: {_short(left)} and {_short(right)}" for name, left, right in differing[:6])
        more = f" and {len(differing) - 6} more" if len(differing) > 6 else ""
        raise UserError(f"{a.folder} and {b.folder} cannot be compared: they were evaluated otherwise ({shown}{more}). "
                        "Evaluate both in the same way.")


def _differing(a: dict, b: dict, prefix: str = "") -> list[tuple[str, object, object]]:
    """(key with dots, value in a, value in b) of all that differs, without what may."""
    result = []
    for name in dict.fromkeys([*a, *b]):
        left, right = a.get(name), b.get(name)
        if left == right or prefix + name in OWN:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            result += _differing(left, right, f"{prefix}{name}.")
        else:
            result.append((prefix + name, left, right))
    return result


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
