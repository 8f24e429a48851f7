"""The page of an experiment: a row per finding, then each with its seeds and its figure, and the same as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spoutnik.experiment.figures import Line, draw_curves, draw_finding, draw_overview
from spoutnik.experiment.grid import Grid
from spoutnik.experiment.measures import metric_of
from spoutnik.experiment.store import PREBUILT, Store
from spoutnik.experiment.variants import AS_IT_IS
from spoutnik.experiment.verdicts import ALPHA, UNDECIDED, Decided
from spoutnik.files import write_json, write_text
from spoutnik.recipe.report_plots import RL_PANELS, curve_of
from spoutnik.train.loop import Cost
from spoutnik.units import duration

_CURVES = ("accuracy", "thought_tokens", "reflections", "entropy")  # of the training logs, drawn for all variants
_CLAIMS = {"higher": "b above a", "lower": "b below a", "equal": "b as a, within {margin}"}

WRITTEN_BY = "Written by `spoutnik experiment"  # in every page: others are not replaced


@dataclass(frozen=True)
class Page:
    """What the page is made of. commands: what produced it. notes: sentences that stand before the table."""

    grid: Grid
    store: Store
    findings: Sequence[Decided]
    failed: Mapping[str, str]
    command: str
    code: str
    notes: Sequence[str] = ()

    def write(self, path: Path) -> None:
        """The page at `path`, figures in a folder of its name beside it, and the JSON of its name."""
        figures = path.with_suffix("")
        for finding in self.findings:
            write_text(figures / f"{finding.name}.svg", draw_finding(finding))
        write_text(figures / "overview.svg", draw_overview(self.findings))
        for stage, panels in self._curves().items():
            write_text(figures / f"curves-{stage}.svg", draw_curves(panels))
        write_json(path.with_suffix(".json"), self.as_json())
        write_text(path, "\n".join(self._lines(figures.name)) + "\n")

    def as_json(self) -> dict:
        return {"experiments": self.grid.names, "seeds": self.grid.seeds, "code": self.code, "notes": list(self.notes),
                "failed": {self.grid.jobs[symbol].title: why for symbol, why in self.failed.items()},
                "cost": self._cost()[0], "findings": [self._finding(one) for one in self.findings]}

    def _finding(self, one: Decided) -> dict:
        values = {key: _number(getattr(one, key)) for key in (
            "difference", "low", "high", "seed_deviation", "problem_error", "p_holds", "p_does_not", "p_holds_adjusted",
            "p_does_not_adjusted", "problems", "models")}
        sides = {name: {"variant": side.variant, "stage": side.stage, "metric": metric, "layout": layout, "mean": _number(mean),
                        "core_seconds": _number(spent), "core_seconds_of_stage": _number(own)}
                 for (name, (side, metric)), mean, spent, own, layout in zip(
                     one.settings.sides.items(), one.means, one.core_seconds, one.of_stage, one.layouts)}
        return {"name": one.name, "question": one.settings.question, "paper": one.settings.paper,
                "paper_number": one.settings.paper_number, "claim": one.settings.claim, "margin": one.settings.margin,
                "metric": one.settings.metric, "unit": metric_of(one.settings.metric).unit, "verdict": one.verdict,
                "alone": one.alone, "remark": one.remark, "varied": self._varied(one), "note": one.settings.note,
                "seeds": [vars(seed) for seed in one.seeds]} | sides | values

    def _varied(self, one: Decided) -> str:
        """What differs between the two sides."""
        a, b = (side for side, _ in one.settings.sides.values())
        if a.variant == b.variant and a.stage == b.stage:
            return "how the same samples are read" if one.settings.a.metric or one.settings.b.metric else "the layout"
        if a.variant == b.variant:
            return f"the stage: {a.stage}, {b.stage}"
        words = {side.variant: self.grid.varied[self.grid.prefixes[one.name] + side.variant] for side in (a, b)}
        parts = [f"{variant}: {what}" for variant, what in words.items() if what != AS_IT_IS]
        return "; ".join(parts) + (f" (stages {a.stage}, {b.stage})" if a.stage != b.stage else "")

    def _curves(self) -> dict[str, dict[str, list[Line]]]:
        """Of each RL stage that findings compare: signal -> a line for each variant, over its seeds."""
        logs: dict[tuple[str, str], dict[int, list[dict]]] = {}
        for (name, side, seed), (made, _) in self.grid.measured.items():
            asked, _ = self.grid.findings[name].sides[side]
            if made in self.store.artifacts and self.store.artifacts[made].kind == "grpo":
                variant = self.grid.prefixes[name] + asked.variant
                logs.setdefault((asked.stage, variant), {})[seed] = self.store.artifacts[made].log
        stages: dict[str, dict[str, list[Line]]] = {}
        for (stage, variant), of_seeds in logs.items():
            for key, title, factor in RL_PANELS:
                curves = [curve for log in of_seeds.values() if (curve := curve_of(log, key, factor)) is not None]
                if key in _CURVES and curves and len(curves) == len(of_seeds) and len({len(one.steps) for one in curves}) == 1:
                    line = Line(variant, curves[0].steps, np.stack([curve.smooth for curve in curves]))
                    stages.setdefault(stage, {}).setdefault(title, []).append(line)
        return stages

    def _cost(self) -> tuple[dict, str]:
        """Of everything that the page stands on, evaluations too; what ships with the package, apart."""
        own, shipped, evaluating, seen = Cost(), Cost(), Cost(), set()
        for symbol, artifact in self.store.artifacts.items():
            job = self.grid.jobs[symbol]
            identity = artifact.evaluation_folder if job.evaluates else artifact.folder
            if identity in seen:
                continue
            seen.add(identity)
            if job.evaluates:
                evaluating = evaluating + artifact.evaluation_cost
            elif self.store.origins[symbol] == PREBUILT:
                shipped = shipped + artifact.cost
            else:
                own = own + artifact.cost
        text = (f"{own.core_seconds:,.0f} core-seconds to make what is compared, {evaluating.core_seconds:,.0f} to evaluate it "
                f"({duration(own.core_seconds + evaluating.core_seconds)} of one core); the bases that ship with the package "
                f"took {shipped.core_seconds:,.0f} more when they were made")
        return {"making": vars(own), "evaluating": vars(evaluating), "shipped": vars(shipped)}, text

    def _lines(self, figures: str) -> list[str]:
        grid, counted = self.grid, {}
        for one in self.findings:
            counted[one.verdict] = counted.get(one.verdict, 0) + 1
        verdicts = ", ".join(f"{count} {name}" for name, count in counted.items())
        files = self.command.removeprefix("spoutnik experiment")
        lines = ["# Findings", "", f"<!-- {WRITTEN_BY}{files}`. Run it again rather than editing this page. -->", "",
                 f"{len(self.findings)} findings on seeds {', '.join(map(str, grid.seeds))}: {verdicts}. Written by Spoutnik "
                 f"{self.code}; {self._cost()[1]}.", ""]
        lines += [f"**{note}**\n" for note in self.notes]
        lines += [" ".join(grid.about), "", _HOW.format(confidence=f"{100 * (1 - ALPHA):g} %", findings=len(self.findings)), ""]
        if shared := self._shared():
            lines += [f"**All seeds share {shared}**: what is said here is said of these, and of no others.", ""]
        lines += [f"![all findings]({figures}/overview.svg)", "",
                  "Each difference b − a with its interval, in units of its margin; in the gray band it is less than that.", "",
                  "| finding | the paper | ours: b − a (95 %) | verdict | figure | varied |", "|---|---|---|---|---|---|"]
        lines += [f"| [{_cell(one.settings.question)}](#{one.name}) | {_cell(one.settings.paper)} | {_cell(ours(one))} | "
                  f"{_verdict(one)} | [svg]({figures}/{one.name}.svg) | {_cell(self._varied(one))} |"
                  for one in self.findings]
        for one in self.findings:
            lines += self._section(one, figures)
        for stage in self._curves():
            lines += ["", f"## Training of {stage}", "",
                      "A line for each variant: the mean over its seeds of running means, with a band from the lowest seed to "
                      "the highest.", "", f"![the training of {stage}]({figures}/curves-{stage}.svg)"]
        return lines

    def _section(self, one: Decided, figures: str) -> list[str]:
        (a, metric_a), (b, metric_b) = one.settings.sides.values()
        unit = metric_of(one.settings.metric).unit
        claim = _CLAIMS[one.settings.claim].format(margin=f"{one.settings.margin:g} {unit}".strip())
        protocol = self.grid.protocols[one.name]
        remark = f": {one.remark}" if one.remark else "."
        lines = ["", f"## {one.name}", "", f"{one.settings.question} **{one.verdict}**{remark}", "",
                 f"* The paper: {one.settings.paper}",
                 f"* Ours: {ours(one)}" + ("" if math.isnan(one.p_adjusted) or one.verdict == UNDECIDED else
                                           f"; p = {one.p_adjusted:.2g}, corrected for {len(self.findings)} findings"),
                 f"* Claim: {claim}; " + f"margin {one.settings.margin:g} {unit}".rstrip(),
                 f"* a: {_side(a, metric_a, one.layouts[0])}; b: {_side(b, metric_b, one.layouts[1])}"
                 + (f"; on {one.problems:,} problems x {protocol['samples']} samples" if one.problems else ""),
                 f"* Varied: {self._varied(one)}"]
        if one.seeds:
            spent, own = one.core_seconds, one.of_stage
            lines.append("* Core-seconds a seed, of the stage alone (with all before it): "
                         + ", ".join(f"{side} {own[i]:,.0f} ({spent[i]:,.0f})" for i, side in enumerate("ab")))
        if one.settings.note:
            lines.append(f"* {one.settings.note}")
        if one.seeds:
            lines += ["", "| seed | a | b | b − a |", "|---|---|---|---|"]
            lines += [f"| {seed.seed} | {seed.a:.4g} | {seed.b:.4g} | {_signed(seed.b - seed.a)} |" for seed in one.seeds]
            lines += ["", f"![{one.name}]({figures}/{one.name}.svg)"]
        return lines

    def _shared(self) -> str:
        """The stages that are one artifact in all seeds."""
        seeds: dict[str, set[int]] = {}
        for (_, _, seed), (made, _) in self.grid.measured.items():
            for symbol in self.grid.below(made):
                seeds.setdefault(symbol, set()).add(seed)
        shared = dict.fromkeys(self.grid.jobs[symbol].stage for symbol, of in seeds.items() if len(of) > 1)
        return ("one " if len(shared) == 1 else "the same ") + ", ".join(shared) if shared else ""


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


def _verdict(one: Decided) -> str:
    alone = f" (alone: {one.alone})" if one.verdict == UNDECIDED != one.alone else ""
    return f"**{one.verdict}**{alone}"


def ours(one: Decided) -> str:
    """The difference with its interval, and the two means."""
    if math.isnan(one.difference):
        return "–"
    unit = metric_of(one.settings.metric).unit
    interval = "" if math.isnan(one.low) else f" ({_signed(one.low)} to {_signed(one.high)})"
    return f"{_signed(one.difference)}{interval} {unit}".rstrip() + f"; a {one.means[0]:.4g}, b {one.means[1]:.4g}"


def _signed(value: float) -> str:
    """Three digits, as text that has a minus: +12.3, −0.456."""
    return f"{value:+.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:+,.0f}".replace("-", "−")


def _side(side, metric: str, layout: str) -> str:
    return f"`{side.variant}/{side.stage}`, {metric_of(metric).title}" + ("" if layout == "forum" else f", asked as a {layout}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value
