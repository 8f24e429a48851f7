"""The figures of an experiment's page, as SVG files that stand alone on a light or a dark page."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from spoutnik.experiment.finding import DOES_NOT, HOLDS, UNDECIDED, Finding

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "spoutnik", "font.size": 9, "axes.spines.top": False,
          "axes.spines.right": False, "axes.linewidth": 0.5}
_DASHES = ("-", "--")  # for more variants than there are colors
_COLORS = {HOLDS: "#1a7f37", DOES_NOT: "#b3261e", UNDECIDED: "#767676"}


def draw_finding(one: Finding) -> str:
    """Left the two sides, a line for each seed; right the difference of each seed, its interval and the margin."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
        for seed in one.seeds:
            left.plot((0, 1), (seed.a, seed.b), "o-", linewidth=1, markersize=4, color=_COLORS[one.verdict], alpha=0.7)
        left.set_xticks((0, 1), _labels(one))
        left.set_xlim(-0.4, 1.4)
        left.set_ylabel(one.title, wrap=True)
        _draw_difference(right, one, 0.0)
        right.set_yticks(())
        right.set_xlabel(f"b − a, {one.unit}".rstrip(", "))
        right.set_title(one.verdict, color=_COLORS[one.verdict], fontsize=10)
        _legend(figure, right)
        return _svg(figure)


def draw_overview(findings: Sequence[Finding]) -> str:
    """All differences, each in units of its margin: left of -1 and right of 1 is what matters."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.26 * max(len(findings), 1)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(-1, 1, color="#767676", alpha=0.12, linewidth=0)
        axes.axvline(0, color="#767676", linewidth=0.6)
        axes.set_xscale("symlog", linthresh=2)
        axes.xaxis.set_major_formatter("{x:g}")
        for row, one in enumerate(findings):
            if not math.isnan(one.difference):
                _draw_interval(axes, one, -row, one.margin)
        axes.set_yticks([-row for row in range(len(findings))], [one.name.replace("_", " ") for one in findings])
        axes.set_ylim(-len(findings) + 0.4, 0.6)
        axes.set_xlabel("difference b − a in units of its margin, with its 95 % interval")
        for verdict in dict.fromkeys(one.verdict for one in findings):
            axes.plot((), (), "o-", color=_COLORS[verdict], markersize=4.5, label=verdict)
        _legend(figure, axes)
        return _svg(figure)


@dataclass(frozen=True)
class Line:
    """A variant's curve of one stage: steps (N,) and values (seeds, N)."""

    name: str
    steps: np.ndarray
    values: np.ndarray


def draw_curves(panels: Mapping[str, Sequence[Line]]) -> str:
    """A panel for each signal: a line for each variant, the mean over its seeds, with a band from the lowest to the highest."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.6 + 2.4 * -(-len(panels) // 2)), layout="constrained")
        shown = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).flat
        for axes in shown[len(panels):]:
            axes.set_visible(False)
        for axes, (title, lines) in zip(shown, panels.items()):
            for number, line in enumerate(lines):
                color, dash = f"C{number % 10}", _DASHES[number // 10 % len(_DASHES)]
                axes.plot(line.steps, line.values.mean(axis=0), linewidth=1.2, color=color, linestyle=dash, label=line.name)
                axes.fill_between(line.steps, line.values.min(axis=0), line.values.max(axis=0), color=color, alpha=0.1,
                                  linewidth=0)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("step")
        _legend(figure, figure.axes[0])
        return _svg(figure)


def _legend(figure: Figure, axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=7, frameon=False)


def _draw_difference(axes, one: Finding, row: float) -> None:
    axes.axvline(0, color="#767676", linewidth=0.6)
    margin = one.margin
    low, high = {"equal": (-margin, margin), "higher": (0, margin), "lower": (-margin, 0)}[one.claim]
    axes.axvspan(low, high, color="#767676", alpha=0.15, linewidth=0, label="less than the margin")
    if one.paper_number is not None:
        axes.axvline(one.paper_number, color="#3b6ea5", linewidth=1, linestyle=":",
                     label="the paper's, on its tests")
    if not math.isnan(one.difference):
        _draw_interval(axes, one, row, 1.0, "mean, 95 % interval")
        axes.plot([seed.b - seed.a for seed in one.seeds], [row - 0.35] * len(one.seeds), "|", color=_COLORS[one.verdict],
                  markersize=9, label="a seed each")
    axes.set_ylim(-1, 1)


def _draw_interval(axes, one: Finding, row: float, unit: float, label: str | None = None) -> None:
    if not math.isnan(one.low):
        axes.plot((one.low / unit, one.high / unit), (row, row), "-", color=_COLORS[one.verdict], linewidth=1.6)
    axes.plot((one.difference / unit,), (row,), "o", color=_COLORS[one.verdict], markersize=4.5, label=label)


def _labels(one: Finding) -> list[str]:
    """What tells the two sides apart."""
    a, b = one.sides
    if a.variant != b.variant:
        names = [side.variant + ("" if a.stage == b.stage else f"\n{side.stage}") for side in (a, b)]
    elif a.stage != b.stage:
        names = [a.stage, b.stage]
    else:
        names = [a.metric, b.metric] if a.metric != b.metric else [a.layout, b.layout]
    return [f"{letter}: {name}" for letter, name in zip("ab", names)]


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return out.getvalue()
