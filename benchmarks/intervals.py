"""How often the 95 % intervals of spoutnik.evals.statistics cover the truth, simulated at the sizes of real evaluations.

    python benchmarks/intervals.py [--repeats 4000]

Problems have a difficulty each (a beta distribution around the mean, half of the variance of a coin between problems), and
samples are drawn from it. Beside the rule stand Student's interval alone and the wrong one that takes all samples as
independent. The last line is the same as JSON.
"""

import argparse
import json

import numpy as np
from scipy import stats

from spoutnik.evals.statistics import crossed_mean, difference_interval, holm, mean_interval, shaffer, wilson

SIZES = ((30, 16), (30, 64), (100, 4), (164, 1), (360, 2), (500, 16))  # problems, samples of each
MEANS = (0.30, 0.95, 0.05)
OF_24 = 0.05 / 24
BETWEEN = 0.5  # share of a coin's variance that lies between problems


def difficulties(rng: np.random.Generator, mean: float, shape: tuple[int, ...]) -> np.ndarray:
    scale = 1 / BETWEEN - 1
    return rng.beta(mean * scale, (1 - mean) * scale, size=shape)


def naive(shares: np.ndarray, samples: int) -> tuple[float, float]:
    return wilson(float(shares.mean()), len(shares) * samples)


def student(shares: np.ndarray) -> tuple[float, float]:
    half = float(stats.t.ppf(0.975, len(shares) - 1) * stats.sem(shares))
    return float(shares.mean()) - half, float(shares.mean()) + half


def coverage(rng: np.random.Generator, mean: float, problems: int, samples: int, repeats: int) -> dict:
    """Shares of intervals that hold the mean, and the mean half width of the rule's."""
    counts, half = {"rule": 0, "student": 0, "independent": 0}, 0.0
    for _ in range(repeats):
        shares = rng.binomial(samples, difficulties(rng, mean, (problems,))) / samples
        _, *ours = mean_interval(shares)
        for name, (low, high) in (("rule", ours), ("student", student(shares)), ("independent", naive(shares, samples))):
            counts[name] += low <= mean <= high
        half += (ours[1] - ours[0]) / 2
    return {name: count / repeats for name, count in counts.items()} | {"half": half / repeats}


def stratified(rng: np.random.Generator, repeats: int) -> dict:
    """Ten families of 36 problems, two samples of each; families differ from 0.1 to 0.9 in their means."""
    strata = np.repeat(np.arange(10), 36)
    means = np.linspace(0.1, 0.9, 10)
    counts, halves = {"strata": 0, "no strata": 0}, {"strata": 0.0, "no strata": 0.0}
    for _ in range(repeats):
        chances = np.concatenate([difficulties(rng, mean, (36,)) for mean in means])
        shares = rng.binomial(2, chances) / 2
        for name, groups in (("strata", strata), ("no strata", None)):
            _, low, high = mean_interval(shares, groups if groups is None else list(groups))
            counts[name] += low <= means.mean() <= high
            halves[name] += (high - low) / 2
    return {name: {"coverage": counts[name] / repeats, "half": halves[name] / repeats} for name in counts}


def paired(rng: np.random.Generator, problems: int, samples: int, repeats: int) -> float:
    """Coverage of the interval of a difference of 5 points between two models on the same problems."""
    covered = 0
    for _ in range(repeats):
        chances = difficulties(rng, 0.5, (problems,))
        better = chances + 0.05 * 6 * chances * (1 - chances)  # the mean of 6 p (1 - p) under this beta is 1 - BETWEEN
        truth = 0.05 * 6 * 0.25 * (1 - BETWEEN)
        differences = (rng.binomial(samples, np.clip(better, 0, 1)) - rng.binomial(samples, chances)) / samples
        _, low, high = difference_interval(differences)
        covered += low <= truth <= high
    return covered / repeats


def crossed(rng: np.random.Generator, seeds: int, between: float, repeats: int, problems: int = 1800) -> dict:
    """Paired differences of several seeds on the same problems, in points; `between`: standard deviation of the seeds' effects.
    Of problems 35, of what is left 40, as differences of means of four samples have them."""
    counts, halves = {"rule": 0, "seeds alone": 0}, {"rule": 0.0, "seeds alone": 0.0}
    wrong = 0  # at the level of a page of 24 findings
    for _ in range(repeats):
        effects = rng.normal(0, between, (seeds, 1)) + rng.normal(0, 35, problems)
        values = effects + rng.normal(0, 40, (seeds, problems))
        means = values.mean(axis=1)
        half = float(stats.t.ppf(0.975, seeds - 1) * stats.sem(means))
        mean = crossed_mean(values)
        wrong += 2 * min(mean.p_above(0), mean.p_below(0)) < OF_24
        _, low, high = mean.interval()
        for name, interval in (("rule", (low, high)), ("seeds alone", (means.mean() - half, means.mean() + half))):
            counts[name] += interval[0] <= 0 <= interval[1]
            halves[name] += (interval[1] - interval[0]) / 2
    return {name: {"coverage": counts[name] / repeats, "half": halves[name] / repeats} for name in counts} | {
        "wrong at 0.2 %": wrong / repeats}


def wrong_pages(rng: np.random.Generator, margin: float, repeats: int, findings: int = 24) -> dict[str, float]:
    """How often a page of findings without any difference tells one of them from 0, where a difference of `margin` standard
    errors is tested as well: by Shaffer's correction of both, and by Holm's of the smaller."""
    wrong = {"shaffer": 0, "holm": 0}
    for _ in range(repeats):
        seen = rng.normal(0, 1, findings)
        from_0, from_margin = np.minimum(1, 2 * stats.norm.sf(seen)), stats.norm.cdf(seen - margin)
        wrong["shaffer"] += any(first < 0.05 for first, _ in shaffer(list(zip(from_0, from_margin))))
        nearer = np.array(holm(list(np.minimum(from_0, from_margin)))) < 0.05
        wrong["holm"] += bool((nearer & (from_0 < from_margin)).any())
    return {name: count / repeats for name, count in wrong.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=4000)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(0)
    result: dict = {"repeats": repeats, "coverage": []}
    print(f"{'problems x samples':>20} {'mean':>5} {'rule':>6} {'student':>8} {'independent':>12} {'half width':>11}")
    for problems, samples in SIZES:
        for mean in MEANS:
            row = coverage(rng, mean, problems, samples, repeats)
            result["coverage"].append({"problems": problems, "samples": samples, "mean": mean} | row)
            print(f"{problems:>14} x {samples:<3} {mean:>5.0%} {row['rule']:>6.1%} {row['student']:>8.1%} "
                  f"{row['independent']:>12.1%} {100 * row['half']:>11.1f}")
    result["strata"] = stratified(rng, repeats)
    result["paired"] = {f"{n} x {k}": paired(rng, n, k, repeats) for n, k in ((30, 16), (164, 1), (360, 2))}
    for name, row in result["strata"].items():
        print(f"360 x 2 in ten families, {name}: {row['coverage']:.1%}, half width {100 * row['half']:.1f}")
    for name, share in result["paired"].items():
        print(f"paired difference, {name}: {share:.1%}")
    result["crossed"] = {}
    for seeds in (3, 5):
        for between in (0.3, 1.0, 3.0):
            row = result["crossed"][f"{seeds} seeds, {between} points"] = crossed(rng, seeds, between, repeats // 4)
            shown = ", ".join(f"{name} {row[name]['coverage']:.1%} (half {row[name]['half']:.1f})"
                              for name in ("rule", "seeds alone"))
            print(f"{seeds} seeds that differ by {between} points, 1,800 problems: {shown}; wrong at 0.2 %: "
                  f"{row['wrong at 0.2 %']:.2%}")
    result["pages"] = {margin: wrong_pages(rng, margin, repeats) for margin in (3, 4, 5)}
    for margin, row in result["pages"].items():
        print(f"24 differences of 0, margin {margin} standard errors: a wrong one by Shaffer {row['shaffer']:.1%}, by Holm of "
              f"the smaller p-values {row['holm']:.1%} (5 % wanted)")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
