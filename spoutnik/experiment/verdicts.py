"""Verdicts that hold together: of all findings of a page at once, from the p-values of each; and what the others would take."""

import math
from collections.abc import Sequence
from dataclasses import replace

from spoutnik.evals.statistics import seeds_needed, shaffer
from spoutnik.experiment.finding import ALPHA, DOES_NOT, HOLDS, POWER, UNDECIDED, Finding


def with_verdicts(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of one page with their verdicts; those that they had before, among others, do not count."""
    adjusted = shaffer([(one.p_holds, one.p_does_not) for one in findings])
    return [_with_verdict(one, both, len(findings)) for one, both in zip(findings, adjusted, strict=True)]


def _with_verdict(one: Finding, adjusted: tuple[float, float], findings: int) -> Finding:
    one = replace(one, p_holds_adjusted=1.0, p_does_not_adjusted=1.0, verdict=UNDECIDED, remark=one.obstacle)
    if one.obstacle:
        return one
    one = replace(one, p_holds_adjusted=adjusted[0], p_does_not_adjusted=adjusted[1])
    holds, does_not = (p < ALPHA for p in adjusted)
    if holds and does_not:
        return replace(one, verdict=HOLDS, remark=f"but by less than {one.amount}, which is refuted as well.")
    if holds or does_not:
        return replace(one, verdict=HOLDS if holds else DOES_NOT)
    return replace(one, remark=_what_it_would_take(one, findings))


def _what_it_would_take(one: Finding, findings: int) -> str:
    margin, effect = one.margin, f"a difference of {one.amount}"
    if one.models < 2:
        if len(one.seeds) > 1:
            return ("all seeds share these very models, so that nothing is known of other ones: give the stages that differ no "
                    "seed of their own.")
        return "a single seed says nothing of other ones: give at least three."
    shown = (f"not shown either way (p = {one.p_adjusted:.2g} with the correction)." if one.alone == UNDECIDED else
             f"alone it would be '{one.alone}' (p = {min(one.p_holds, one.p_does_not):.2g}), which is not enough among "
             f"{findings} findings (p = {one.p_adjusted:.2g}).")
    needed = seeds_needed(one.seed_deviation, one.problem_error, margin, ALPHA / findings, POWER)
    if needed is not None:
        more = f"some {max(needed, one.models + 1)} seeds" if needed > one.models else (
            f"{one.models} seeds, which are there, would usually show it: more of them would decide")
        return (f"{shown} To see {effect} in {100 * POWER:g} % of cases, with seeds that differ by {one.seed_deviation:.2g}, "
                f"takes {more}.")
    factor = (one.problem_error * 4 / margin) ** 2 if margin else math.inf
    return (f"{shown} No number of seeds shows {effect} on {one.problems:,} problems (standard error "
            f"{one.problem_error:.2g}): some {math.ceil(factor * one.problems):,} problems would be needed.")
