"""Whether a stage learned anything: pure functions over the rows of its log and over measurements of its start and its result.

A finding is a sentence with the remedy. Most warn, while the stage runs; those that refuse keep its result from being called
done. The thresholds and where they come from: docs/training-health.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import stats

Row = dict[str, float]

MIN_ROWS = 5  # steps before anything is said
TRUNCATED, ALL_TRUNCATED = 0.5, 0.99  # shares of completions: to warn of, to refuse
NO_VARIANCE, NOTHING_LEARNED = 0.9, 0.9  # share of groups without variance to warn of; share of steps without any to refuse
ILL_FORMED = 0.5  # share of well-formed completions below which one is warned
MISMATCH = 0.01  # nats per token between sampler and trainer; `max_mismatch_kl` stops the stage
COLLAPSED, EXPLODED = 0.05, 2.0  # nats of entropy, if it is also five times less or twice as much as at the start
FELL = 0.5  # nats per token by which good replies have become less likely, where preferences are learned
CUT = 0.05  # of the tokens of documents, beyond the model's positions
FEW_KEPT = 0.02  # of the completions that rejection sampling makes
SELDOM = 0.9  # share of completions with a thought below which it is in the line
SHRUNK = 0.7  # of the first thoughts' length
TREND_P, WORSE_P, BETTER_P = 0.001, 0.01, 0.05  # one-sided; a trend is looked at again and again, hence the smaller one
BLOWN_UP, RECOVERED = 2.0, 0.5  # nats above the first loss, if also half as much again; share of it: below, all is won back
BROKEN = ("not finite", "truncated")  # kinds of findings that refuse a control too: it measured nothing
WORSE_LOSS = 0.01  # nats and share by which a loss must have risen: rounding moves all losses a little, and one way


@dataclass(frozen=True)
class Finding:
    """kind: each is said once while a stage runs. refuses: the stage is not done."""

    kind: str
    sentence: str
    refuses: bool = False


@dataclass(frozen=True)
class Comparison:
    """Start and result of a stage on the same items, in the same order."""

    measure: Literal["right answers", "well-formed replies", "loss"]
    before: Sequence[float]
    after: Sequence[float]

    @property
    def better(self) -> tuple[int, int]:
        """How many items got better and how many got worse."""
        sign = -1 if self.measure == "loss" else 1
        changes = [sign * (after - before) for before, after in zip(self.before, self.after)]
        return sum(change > 0 for change in changes), sum(not change >= 0 for change in changes)  # no number is worse

    def is_worse(self, looks: int = 1) -> bool:
        """Beyond chance, by the sign test over items. looks: how many such tests are made (Bonferroni)."""
        up, down = self.better
        if self.measure == "loss":
            rise = _mean(self.after) - _mean(self.before)
            if rise < WORSE_LOSS * max(abs(_mean(self.before)), 1.0):
                return False
        return sign_test(down, up) < WORSE_P / looks

    def is_better(self) -> bool:
        return sign_test(*self.better) < BETTER_P


def sign_test(more: int, less: int) -> float:
    """How likely at least so many of the items that changed changed this way, were both ways as likely (one-sided)."""
    return float(stats.binomtest(more, more + less, 0.5, "greater").pvalue) if more + less else 1.0


def warnings_of(rows: Sequence[Row], ended: bool = False) -> list[Finding]:
    """What is wrong so far. ended: there are no further steps, so that a short stage is judged as well."""
    if not rows or (len(rows) < MIN_ROWS and not ended):
        return []
    recent = rows[-max(MIN_ROWS, len(rows) // 10):]
    findings = _rl_warnings(rows, recent) if "reward" in rows[0] else _cut_warnings(rows) + _fall_warnings(recent)
    if ended or len(rows) >= 16 and len(rows) & (len(rows) - 1) == 0:  # looked at when the log has doubled
        findings += _trends(rows)
    return findings


def _rl_warnings(rows: Sequence[Row], recent: Sequence[Row]) -> list[Finding]:
    first = rows[:len(recent)]
    findings = []

    def add(kind: str, sentence: str) -> None:
        findings.append(Finding(kind, sentence))

    truncated, flat, formed = (_mean_of(recent, key) for key in ("truncated", "zero_variance", "well_formed"))
    if truncated >= TRUNCATED:
        add("truncated", f"{_percent(truncated)} of the completions were cut at max_tokens and get no reward. Raise "
                         "max_tokens, or start from a model that ends its thoughts (a cold start by SFT).")
    if flat >= NO_VARIANCE and truncated < TRUNCATED:
        add("zero variance", f"in {_percent(flat)} of the groups all rewards are equal, so that they teach nothing. "
                             + _variance_remedy(recent))
    if formed < ILL_FORMED and truncated < TRUNCATED:
        add("ill-formed", f"only {_percent(formed)} of the completions are well formed. Lower learning_rate, or start from a "
                          "model that knows the form (a cold start by SFT).")
    mismatch = _mean_of(recent, "mismatch_kl")
    if mismatch >= MISMATCH and any(row.get("staleness") for row in recent):
        add("mismatch", f"the policy has moved {mismatch:.3g} nats per token away from the older weights that sampled for it: "
                        "much of the gradient is cut or of another policy. Lower max_staleness or learning_rate.")
    elif mismatch >= MISMATCH:
        add("mismatch", f"sampler and trainer differ by {mismatch:.3g} nats per token: the gradient is partly of another "
                        "policy. Compute in float32 (dtype: float32), or lower learning_rate.")
    before, entropy = (_mean_of([row for row in part if row.get("grad_norm")], "entropy") for part in (first, recent))
    if entropy < min(COLLAPSED, before / 5):
        add("entropy", f"entropy collapsed from {before:.3g} to {entropy:.3g} nats per token: completions of a prompt are "
                       "nearly the same. Raise temperature or clip_epsilon_high, or lower learning_rate.")
    if entropy > max(EXPLODED, 2 * before):
        add("entropy", f"entropy rose from {before:.3g} to {entropy:.3g} nats per token: the policy becomes noise. Lower "
                       "learning_rate.")
    return findings


def _cut_warnings(rows: Sequence[Row]) -> list[Finding]:
    if _share_cut(rows) < CUT:
        return []
    return [Finding("cut documents", f"{_percent(_share_cut(rows))} of the tokens lie beyond the model's positions and "
                                     "are not learned. Widen the context (max_position_embeddings).")]


def _fall_warnings(recent: Sequence[Row]) -> list[Finding]:
    """Of preferences: DPO and KTO only ask that good replies lose less than bad ones, and often both lose."""
    change = _mean_of(recent, "chosen_change")
    if not change < -FELL:
        return []
    return [Finding("chosen replies fell", f"good replies have become {-change:.2g} nats per token less likely than they were: "
                                           "the model leaves bad ones and good ones alike. Set nll_weight (of kind dpo), raise "
                                           "beta, or lower learning_rate.")]


def _share_cut(rows: Sequence[Row]) -> float:
    return _mean([row.get("cut_tokens", 0.0) for row in rows])


def _variance_remedy(rows: Sequence[Row]) -> str:
    reward, accuracy, truncated = (_mean_of(rows, key) for key in ("reward", "accuracy", "truncated"))
    if truncated >= TRUNCATED:
        return f"{_percent(truncated)} of the completions were cut at max_tokens, which earns nothing. Raise max_tokens."
    if accuracy > 0.5:
        return f"The problems are too easy ({_percent(accuracy)} are solved): take harder families."
    if reward > 0:
        return "Raise group_size or temperature, or take easier problems."
    return ("No completion earned anything: start from a better model (SFT first), take easier families, or raise group_size, "
            "temperature and max_tokens.")


def _trends(rows: Sequence[Row]) -> list[Finding]:
    """What a third of the log says against another, by Welch's test."""
    first, last = _outer_thirds(rows)
    third = len(first)
    if "reward" not in rows[0]:
        if third >= MIN_ROWS and _p_greater(last, first, "loss") < TREND_P:
            return [Finding("loss", f"the loss rose from {_mean_of(first, 'loss'):.3g} to {_mean_of(last, 'loss'):.3g}. Lower "
                                    "learning_rate.")]
        return []
    if third < 3:
        return []
    falls = [Finding("reward", f"the reward{' with general prompts' if 'preference' in end[-1] else ''} fell from "
                               f"{_mean_of(begin, 'reward'):.3g} to {_mean_of(end, 'reward'):.3g}. Lower learning_rate.")
             for begin, end in (_outer_thirds(part) for part in _alike(rows))
             if len(begin) >= MIN_ROWS and _p_greater(begin, end, "reward") < TREND_P]
    return falls[:1] + shorter_thoughts(first, last)


def _outer_thirds(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    third = len(rows) // 3
    return rows[:third], rows[len(rows) - third:]


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows whose rewards can be compared: those of problems alone, and those with general prompts, which a reward model
    scores and which may come late (`general_from`)."""
    parts = [row for row in rows if "preference" not in row], [row for row in rows if "preference" in row]
    return [part for part in parts if part]


def shorter_thoughts(first: Sequence[Row], last: Sequence[Row]) -> list[Finding]:
    """Thoughts that got shorter while no more answers are right: rewards of form alone do that, since a short reply is
    well formed more often than a long one."""
    before, after = (_mean_of(rows, "thought_tokens") for rows in (first, last))
    if not after < SHRUNK * before or _p_greater(last, first, "accuracy") < BETTER_P:
        return []
    right = [_percent(_mean_of(rows, "accuracy")) for rows in (first, last)]
    return [Finding("shorter thoughts", f"thoughts shrank from {before:.0f} to {after:.0f} tokens while accuracy did not move "
                    f"beyond chance ({right[0]} to {right[1]}): the rewards of format and language alone do that. Lower "
                    "rewards.format, take problems of which some are solved, or raise group_size.")]


def refusals_of(rows: Sequence[Row], comparisons: Sequence[Comparison] = ()) -> list[Finding]:
    """Why a stage that has ended is not done."""
    findings = []
    if rows:
        bad = next((key for row in rows for key in ("loss", "reward") if not math.isfinite(row.get(key, 0.0))), None)
        if bad:
            findings.append(Finding("not finite", f"its {bad} was not a number. Lower learning_rate."))
        findings += _rl_refusals(rows) if "reward" in rows[0] else _blown_up(rows)
        if not any(row.get("grad_norm") for row in rows) and not findings:
            findings.append(Finding("no update", f"none of its {len(rows)} steps moved the weights: there was no gradient. "
                                                 "Give it other data."))
    for comparison in comparisons:
        if comparison.is_worse(len(comparisons)):
            findings.append(Finding(f"worse {comparison.measure}", _worse_sentence(comparison)))
    return [Finding(finding.kind, finding.sentence, True) for finding in findings]


def _rl_refusals(rows: Sequence[Row]) -> list[Finding]:
    truncated = _mean_of(rows, "truncated")
    if truncated >= ALL_TRUNCATED:
        return [Finding("truncated", f"{_percent(truncated)} of all completions were cut at max_tokens, so that none could "
                                     "earn a reward. Raise max_tokens, or start from a model that ends its replies.")]
    flat = sum(row.get("zero_variance", 0.0) >= 1 for row in rows)
    if flat >= NOTHING_LEARNED * len(rows):
        return [Finding("zero variance", f"in {flat} of its {len(rows)} steps the rewards of every group were equal, so that "
                                         f"there was nothing to learn. {_variance_remedy(rows)}")]
    return []


def _blown_up(rows: Sequence[Row]) -> list[Finding]:
    """A loss that left its start far behind on the way, and of which the end has won little back: what was there is lost."""
    first, last = rows[0]["loss"], _mean_of(rows[-max(1, len(rows) // 10):], "loss")
    peak = max(rows, key=lambda row: row["loss"])
    if not all(math.isfinite(row["loss"]) for row in rows) or last < RECOVERED * first:
        return []
    if peak["loss"] < max(1.5 * first, first + BLOWN_UP):
        return []
    return [Finding("blew up", f"the loss rose from {first:.3g} to {peak['loss']:.3g} at step {peak['step'] + 1} and ended at "
                               f"{last:.3g}. Lower learning_rate.")]


def _worse_sentence(comparison: Comparison) -> str:
    up, down = comparison.better
    if comparison.measure == "loss":
        return (f"the loss on {len(comparison.after)} of its documents is {_mean(comparison.after):.3g}, where it was "
                f"{_mean(comparison.before):.3g} before the stage ({down} got worse, {up} better). Lower learning_rate.")
    shares = [_percent(_mean(values)) for values in (comparison.before, comparison.after)]
    return (f"on {len(comparison.after)} validation problems, {comparison.measure} fell from {shares[0]} to {shares[1]} "
            f"({down} got worse, {up} better: beyond chance). Lower learning_rate or steps.")


def pair_findings(right: float, pairs: int) -> list[Finding]:
    """Of a reward model that puts `right` (a share) of held-out pairs in order: what a coin does is nothing learned."""
    count = round(right * pairs)
    if sign_test(pairs - count, count) < WORSE_P:
        return [Finding("pairs", f"it orders only {_percent(right)} of {pairs} held-out pairs right, fewer than a coin. Lower "
                                 "learning_rate, or give it more steps.", True)]
    if not sign_test(count, pairs - count) < BETTER_P:
        return [Finding("pairs", f"it orders {_percent(right)} of {pairs} held-out pairs right, which a coin does as well: "
                                 "what it scores is noise. Give it more steps.")]
    return []


def constant_findings(answer: str, score: float, right: float, of_relevance: bool) -> list[Finding]:
    """Of a reward model that gives `score` on average to one answer whatever is asked, and `right` to right answers.

    of_relevance: it was to learn that from its pairs, and is not done where it has not; pairs of form teach nothing of it.
    """
    if score < right or math.isclose(score, right, abs_tol=1e-6):
        return []
    remedy = "Give it more steps, or lower learning_rate" if of_relevance else "Train it with pairs: relevance"
    return [Finding("constant", f"one answer to every question, {answer!r}, scores {score:.2f} on average where right answers "
                                f"score {right:.2f}: RL would learn to say it. {remedy}.", of_relevance)]


def kept_findings(share: float) -> list[Finding]:
    """Of rejection sampling, by the share of completions that was kept."""
    if share >= FEW_KEPT:
        return []
    return [Finding("few kept", f"only {100 * share:.2g} % of the completions were kept: mostly the easiest problems. Train "
                                "the stage before longer, or sample more.")]


def stage_health(rows: Sequence[Row], comparisons: Sequence[Comparison], others: Sequence[Finding] = (),
                 is_control: bool = False) -> dict:
    """A manifest's `health`: the line of the table, and the sentences of what warns and of what keeps a stage from being done.
    others: findings on what it made, beside those of its log. is_control: its rewards do not depend on answers, so that to have
    learned nothing, or to have forgotten something, is a result."""
    findings = [*refusals_of(rows, comparisons), *others]
    if is_control:
        findings = [replace(finding, refuses=finding.kind in BROKEN) for finding in findings]
    known = {finding.kind for finding in findings}
    findings += [finding for finding in warnings_of(rows, ended=True) if finding.kind not in known]
    return {"line": "control; " * is_control + health_line(rows, comparisons, findings),
            "warnings": [finding.sentence for finding in findings if not finding.refuses],
            "refusals": [finding.sentence for finding in findings if finding.refuses]}


def health_line(rows: Sequence[Row], comparisons: Sequence[Comparison], findings: Sequence[Finding]) -> str:
    """The health of a stage in a line: a verdict, then its numbers."""
    refused = [finding.kind for finding in findings if finding.refuses]
    warned = [finding.kind for finding in findings if not finding.refuses]
    verdict = f"not done: {', '.join(refused)}" if refused else f"warned: {', '.join(warned)}" if warned else "healthy"
    numbers = _rl_numbers(rows) if rows and "reward" in rows[0] else _loss_numbers(rows)
    for comparison in comparisons:
        up, down = comparison.better
        digits = "{:.2f}" if comparison.measure == "loss" else "{:.0%}"
        before, after = (digits.format(_mean(values)).replace("%", " %") for values in (comparison.before, comparison.after))
        items = f"{len(comparison.after)} {'documents' if comparison.measure == 'loss' else 'validation problems'}"
        numbers.append(f"{comparison.measure} on {items} {before} to {after} ({up} better, {down} worse)")
    return "; ".join([verdict, *numbers])


def _rl_numbers(rows: Sequence[Row]) -> list[str]:
    tail = max(1, len(rows) // 10)
    first, last = rows[:tail], rows[-tail:]

    def change(key: str, show: Callable[[float], str]) -> str:
        return f"{show(_mean_of(first, key))} to {show(_mean_of(last, key))}"

    rewards = [[_mean_of(part[:tail], "reward"), _mean_of(part[-tail:], "reward")] for part in _alike(rows)]
    numbers = ["reward " + ", with general prompts ".join(f"{begin:.2f} to {end:.2f}" for begin, end in rewards),
               f"truncated {_percent(_mean_of(rows, 'truncated'))}",
               f"groups without variance {_percent(_mean_of(rows, 'zero_variance'))}"]
    if any("well_formed" in row for row in rows):
        numbers.append(f"well-formed {change('well_formed', _percent)}")
    if any("thought_tokens" in row for row in rows):
        numbers.append(f"thoughts {change('thought_tokens', '{:.0f}'.format)} tokens")
        if min(_mean_of(part, "thought_share") for part in (first, last)) < SELDOM:
            numbers.append(f"thoughts in {change('thought_share', _percent)} of the completions")
    updated = [row for row in rows if row.get("grad_norm")]
    if updated:
        numbers.append(f"entropy {_mean_of(updated[:tail], 'entropy'):.2f} to {_mean_of(updated[-tail:], 'entropy'):.2f}")
    return [*numbers, f"mismatch {_mean_of(rows, 'mismatch_kl'):.1e}"]


def _loss_numbers(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    updates, tail = sum(bool(row.get("grad_norm")) for row in rows), max(1, len(rows) // 10)
    numbers = [f"{updates} steps", f"loss {_mean_of(rows[:tail], 'loss'):.2f} to {_mean_of(rows[-tail:], 'loss'):.2f}"]
    if "margin" in rows[-1]:
        numbers.append(f"margin {_mean_of(rows[:tail], 'margin'):.2f} to {_mean_of(rows[-tail:], 'margin'):.2f}")
    if cut := round(sum(row.get("cut_documents", 0) for row in rows)):
        numbers.append(f"{cut} documents cut at the model's positions ({100 * _share_cut(rows):.1f} % of the tokens)")
    return numbers


def _p_greater(more: Sequence[Row], less: Sequence[Row], key: str) -> float:
    """Welch's one-sided test that a metric's mean is greater in `more`; 1 where nothing can be said."""
    a, b = ([row[key] for row in rows if key in row] for rows in (more, less))
    if min(len(a), len(b)) < 2 or len({*a, *b}) == 1:
        return 1.0
    if len(set(a)) == len(set(b)) == 1:
        return float(a[0] <= b[0])
    return float(stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue)


def _mean_of(rows: Sequence[Row], key: str) -> float:
    """nan where no row has it: no comparison with a threshold holds then."""
    return _mean([row[key] for row in rows if key in row])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f} %"
