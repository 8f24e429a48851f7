"""The page of experiments: a row per finding, then each with its seeds and its figure, written from plain data (results.py)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from spoutnik.experiment.content import Page
from spoutnik.experiment.figures import draw_finding, draw_overview
from spoutnik.experiment.finding import ALPHA, UNDECIDED, ComparedSide, Finding
from spoutnik.experiment.page_file import (
    OVERVIEW,
    WRITTEN_BY,
    figure_of,
    figure_of_training,
    figures_of,
    page_as_json,
)
from spoutnik.experiment.results import ExperimentResults, Spent, total
from spoutnik.files import write_json, write_text
from spoutnik.units import duration

_CLAIMS = {"higher": "b above a", "lower": "b below a", "equal": "b as a, within {margin}"}


def write_page(page: Page, path: Path, trainings: Mapping[str, str], before: Page | None = None) -> None:
    """The page at `path`, figures in a folder of its name beside it, and the JSON of its name.

    Args:
        trainings: file name -> figure, of those that are new; the others lie there already.
        before: what stood there; figures that are not of the page any more are removed.
    """
    figures = path.with_suffix("")
    for finding in page.findings:
        write_text(figures / figure_of(finding.name), draw_finding(finding))
    for name, figure in trainings.items():
        write_text(figures / name, figure)
    write_text(figures / OVERVIEW, draw_overview(page.findings))
    write_text(path, page_as_markdown(page, figures.name))
    write_json(path.with_suffix(".json"), page_as_json(page, notes_of(page)))
    for name in [] if before is None else set(figures_of(before)) - set(figures_of(page)):
        (figures / name).unlink(missing_ok=True)


def page_as_markdown(page: Page, figures: str) -> str:
    """figures: the name of their folder."""
    findings, several = page.findings, len(page.experiments) > 1
    lines = _head(page)
    lines += [_HOW.format(confidence=f"{100 * (1 - ALPHA):g} %", findings=len(findings)), "",
              f"![all findings]({figures}/{OVERVIEW})", "",
              "Each difference b − a with its interval, in units of its margin; in the gray band it is less than that.", "",
              "| finding | the paper | ours: b − a (95 %) | verdict | figure | varied |", "|---|---|---|---|---|---|"]
    lines += [f"| [{_cell(one.question)}](#{one.name}) | {_cell(one.paper)} | {_cell(ours(one))} | {_verdict(one)} | "
              f"[svg]({figures}/{figure_of(one.name)}) | {_cell(one.varied)} |" for one in findings]
    for one in page.experiments:
        for finding in one.findings:
            lines += _section(finding, figures, len(findings), one.name if several else "")
    for one in page.experiments:
        for stage in one.curves:
            lines += _training(stage, [of for of in page.sittings if of.name == one.name and stage in of.curves], figures,
                               several)
    return "\n".join(lines) + "\n"


def _training(stage: str, sittings: Sequence[ExperimentResults], figures: str, several: bool) -> list[str]:
    """several: the page has other experiments."""
    lines = ["", f"## Training of {stage}" + (f" ({sittings[0].name})" if several else ""), "",
             "A line for each variant: the mean over its seeds of running means, with a band from the lowest seed to the "
             "highest." + (" A figure for each sitting." if len(sittings) > 1 else "")]
    for one in sittings:
        seeds = f", seeds {', '.join(map(str, one.seeds))}" if len(sittings) > 1 else ""
        lines += ["", f"![the training of {stage}{seeds}]({figures}/{figure_of_training(one, stage)})"]
    return lines


def _head(page: Page) -> list[str]:
    findings, several = page.findings, len(page.experiments) > 1
    counted: dict[str, int] = {}
    for one in findings:
        counted[one.verdict] = counted.get(one.verdict, 0) + 1
    verdicts = ", ".join(f"{count} {name}" for name, count in counted.items())
    files = " ".join(one.file for one in page.experiments)
    at_once = ", at once or one after the other with --add" if several else ""
    of = f" of {len(page.experiments)} experiments" if several else ""
    cost = _cost(spent for one in page.experiments for spent in one.bill)
    once = "; what several of them stand on is counted once" if several else ""
    lines = ["# Findings", "", f"<!-- {WRITTEN_BY} {files}`{at_once}. Run it again rather than editing this page. -->", "",
             f"{_counted(findings, 'finding')}{of}: {verdicts}. Written by Spoutnik {page.code}; {cost}{once}.", ""]
    lines += [f"**{note}**\n" for note in notes_of(page)]
    return lines + [_about(one, page) for one in page.experiments] + [""]


def _about(one: ExperimentResults, page: Page) -> str:
    """A line on an experiment; where the page has others, with its own part of the bill."""
    parts = [one.about + ("" if one.about[-1] in ".?!" else "."),
             f"{_counted(one.findings, 'finding')} on seed{'s' * (len(one.seeds) > 1)} {', '.join(map(str, one.seeds))}."]
    sittings = [of.seeds for of in page.sittings if of.name == one.name]
    if len(sittings) > 1:
        each = "; ".join(", ".join(map(str, of)) for of in sittings)
        parts.append(f"They were measured in {len(sittings)} sittings ({each}) and joined, with intervals that are too wide "
                     "rather than too narrow.")
    if one.shared:
        shared = ("one " if len(one.shared) == 1 else "the same ") + ", ".join(one.shared)
        parts.append(f"**All its seeds share {shared}**: what its findings say is said of these, and of no others.")
    if len(page.experiments) > 1:
        parts.append(f"Its bill: {_cost(one.bill)}.")
    return "* " + " ".join(parts)


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _cost(bill: Iterable[Spent]) -> str:
    """Of everything that findings stand on, evaluations too; what ships with the package, apart."""
    making, evaluating, shipped = (cost.core_seconds for cost in total(bill).values())
    return (f"{making:,.0f} core-seconds to make what is compared, {evaluating:,.0f} to evaluate it "
            f"({duration(making + evaluating)} of one core); the bases that ship with the package took {shipped:,.0f} more "
            "when they were made")


def notes_of(page: Page) -> list[str]:
    """Where a part of the page comes from another version of the code than the one that writes it."""
    made = {one.name: one.versions for one in page.experiments if one.versions}
    versions = sorted({version for each in made.values() for version in each})
    measured = [one for one in page.experiments if one.code not in (page.code, *one.versions)]
    if versions in ([], [page.code]) and not measured:
        return []
    later = "".join(f" The numbers of `{one.name}` were measured by {one.code}." for one in measured)
    if len(versions) == 1:
        return [f"All results were made by Spoutnik {versions[0]}; this page was written by {page.code}.{later}"]
    if len(made) == 1:
        return [f"The results come from several versions of the code: {', '.join(versions)}.{later}"]
    each = "; ".join(f"`{name}`: {', '.join(of)}" for name, of in made.items())
    return [f"The results come from several versions of the code ({each}); this page was written by {page.code}.{later}"]


def _section(one: Finding, figures: str, findings: int, experiment: str) -> list[str]:
    """experiment: its name, where the page has several."""
    claim = _CLAIMS[one.claim].format(margin=one.amount)
    remark = f": {one.remark}" if one.remark else "."
    lines = ["", f"## {one.name}", "", f"{one.question} **{one.verdict}**{remark}", "",
             *([f"* Experiment: `{experiment}`"] if experiment else []),
             f"* The paper: {one.paper}",
             f"* Ours: {ours(one)}" + ("" if math.isnan(one.p_adjusted) or one.verdict == UNDECIDED else
                                       f"; p = {one.p_adjusted:.2g}, corrected for {_counted(range(findings), 'finding')}"),
             f"* Claim: {claim}; margin {one.amount}",
             f"* a: {_side(one.a)}; b: {_side(one.b)}"
             + (f"; on {one.problems:,} problems x {one.samples} samples" if one.problems else ""),
             f"* Varied: {one.varied}"]
    if one.seeds:
        spent, own = one.core_seconds, one.of_stage
        lines.append("* Core-seconds a seed, of the stage alone (with all before it): "
                     + ", ".join(f"{side} {own[i]:,.0f} ({spent[i]:,.0f})" for i, side in enumerate("ab")))
    if one.note:
        lines.append(f"* {one.note}")
    if one.seeds:
        lines += ["", "| seed | a | b | b − a |", "|---|---|---|---|"]
        lines += [f"| {seed.seed} | {seed.a:.4g} | {seed.b:.4g} | {_signed(seed.b - seed.a)} |" for seed in one.seeds]
        lines += ["", f"![{one.name}]({figures}/{figure_of(one.name)})"]
    return lines


_HOW = """\
A finding compares two models, a and b, with the same seed and on the same held-out problems. The paper's numbers are of other
models on other tests, and are printed without intervals: what can be compared with them is the sign of a difference, not its
size.

The {confidence} interval of b − a is of one finding alone, for seeds and problems drawn at random: Student's over the seeds and
Student's over the problems (in strata of family, level and language), added as squares. That few seeds make it wide is as it
should be: they are all that is known of others. A claim that b is higher or lower *holds* where a difference is shown
(two-sided test), and *does not* where one of the margin or more is refuted; where both are shown it holds, and its section says
by less than what. A claim that b is as a *holds* where a difference of the margin is refuted both ways (TOST), and *does not*
where one within the margin is. All else is *undecided*, with what deciding it would take. The verdicts of all {findings}
findings hold together at {confidence} (Holm's correction as Shaffer has it, for two hypotheses of each finding of which one can
be true); what an undecided finding would show if it were the only one stands beside it."""


def _verdict(one: Finding) -> str:
    alone = f" (alone: {one.alone})" if one.verdict == UNDECIDED != one.alone else ""
    return f"**{one.verdict}**{alone}"


def ours(one: Finding) -> str:
    """The difference with its interval, and the two means."""
    if math.isnan(one.difference):
        return "–"
    interval = "" if math.isnan(one.low) else f" ({_signed(one.low)} to {_signed(one.high)})"
    return f"{_signed(one.difference)}{interval} {one.unit}".rstrip() + f"; a {one.means[0]:.4g}, b {one.means[1]:.4g}"


def _signed(value: float) -> str:
    """Three digits, as text that has a minus: +12.3, −0.456."""
    return f"{value:+.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:+,.0f}".replace("-", "−")


def _side(side: ComparedSide) -> str:
    asked = f", asked as a {side.layout}" if side.layout not in ("", "forum") else ""
    return f"`{side.variant}/{side.stage}`, {side.title}{asked}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
