"""A finding's interval and p-values, from its difference over models and problems."""

from dataclasses import replace

from spoutnik.evals.statistics import CrossedMean
from spoutnik.experiment.finding import Finding
from spoutnik.experiment.schema import Claim


def decided(result: Finding, crossed: CrossedMean) -> Finding:
    """With interval and p-values, as far as the numbers give them. crossed: the difference over models and problems."""
    result = replace(result, difference=crossed.mean)
    if not crossed.parts:
        return replace(result, obstacle="one number has no interval: give more seeds.")
    _, low, high = (float(value) for value in crossed.interval())
    result = replace(result, low=low, high=high, seed_deviation=float(crossed.seed_deviation),
                     problem_error=float(crossed.problem_error),
                     problem_freedom=crossed.parts[-1][1] if result.problems else 0)
    if result.models < 2:
        return result
    if crossed.error == 0:
        return replace(result, obstacle="the seeds agree to the last digit: nothing is known of how far others would lie.")
    holds, does_not = p_values_of(crossed, result.claim, result.margin)
    return replace(result, p_holds=float(holds), p_does_not=float(does_not))


def p_values_of(crossed: CrossedMean, claim: Claim, margin: float) -> tuple[float, float]:
    """The p-values of what is refuted where a finding holds, and of what is where it does not.

    higher, lower: it holds where "the difference is 0 or of the other sign" is refuted (two-sided t); it does not where "a
    difference of `margin` or more in the claimed direction" is. equal: it holds where both "`margin` or more above" and "below"
    are refuted (TOST, Schuirmann 1987); it does not where "within the margin" is (the smaller of two one-sided p-values,
    doubled). Of the two that could be refuted at most one is true.
    """
    if claim == "equal":
        return (max(crossed.p_above(-margin), crossed.p_below(margin)),
                min(1.0, 2 * min(crossed.p_above(margin), crossed.p_below(-margin))))
    if claim == "higher":
        return min(1.0, 2 * crossed.p_above(0.0)), crossed.p_below(margin)
    return min(1.0, 2 * crossed.p_below(0.0)), crossed.p_above(-margin)
