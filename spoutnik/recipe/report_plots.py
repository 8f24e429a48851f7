"""What the report draws: training curves as inline SVG, and the stages' graph as boxes and arrows for its template."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from spoutnik.recipe.artifacts import Artifact

# (log key, title with unit, factor). One small plot each; what a log lacks is left out.
RL_PANELS = (
    ("reward", "reward", 1), ("accuracy", "right answers, %", 100), ("thought_tokens", "thought tokens", 1),
    ("thought_share", "completions with a thought, %", 100), ("reflections", "reflection words per completion", 1),
    ("reflections_per_100", "reflection words per 100 tokens of thought", 1),
    ("checks_or_retries", "thoughts that check or retry, %", 100), ("entropy", "entropy, nats per token", 1),
    ("mismatch_kl", "mismatch KL, nats", 1),
    ("validation_accuracy", "right validation answers, %", 100), ("well_formed", "well-formed completions, %", 100),
    ("zero_variance", "groups without variance, %", 100), ("truncated", "truncated completions, %", 100))
OF_THE_POLICY = ("accuracy", "thought_tokens", "thought_share", "reflections", "reflections_per_100", "checks_or_retries",
                 "well_formed", "entropy")  # whose first value is the start's own: nothing was learned before it
SUPERVISED_PANELS = (("loss", "loss, nats", 1),)

# Stand-ins in the SVG for colours of the page, so that the plots follow its light or dark theme.
_INK, _STRONG = "#010203", "#040506"
_FLAT = 1e-12  # height of an axis below which only rounding differs
_MAX_POINTS = 300  # drawn per curve; the running mean is taken over all of them first


@dataclass(frozen=True)
class Panel:
    """One small plot. label: for readers who do not see it."""

    title: str
    label: str
    svg: Markup


def is_control(artifact: Artifact) -> bool:
    """Whether an RL stage's rewards depend on no answer."""
    settings = artifact.manifest.get("settings", {}).get("settings", {})
    rewards = settings.get("rewards", {})
    by_answer = rewards.get("random") is None and (rewards.get("accuracy", 1.0) or settings.get("general_share"))
    return artifact.kind == "grpo" and not by_answer


def control_of(artifact: Artifact, artifacts: Sequence[Artifact]) -> Artifact | None:
    """The first control that starts from the same model as an RL stage that is none."""
    if artifact.kind != "grpo" or is_control(artifact):
        return None
    start = artifact.inputs.get("start")
    return next((other for other in artifacts if is_control(other) and other.inputs.get("start") == start), None)


@dataclass(frozen=True)
class Curve:
    """A logged value against the step. steps, values, smooth: (N,); smooth is a running mean over a tenth of the steps."""

    steps: np.ndarray
    values: np.ndarray
    smooth: np.ndarray


@dataclass(frozen=True)
class Phase:
    """Something that begins at a step."""

    step: float
    title: str


@dataclass(frozen=True)
class Beside:
    """What is drawn beside a curve. others: the same with other seeds. control: of another stage. start: a dashed line."""

    others: Sequence[Curve] = ()
    control: Curve | None = None
    phases: Sequence[Phase] = ()
    start: float | None = None


def curve_of(log: Sequence[dict], key: str, factor: float = 1) -> Curve | None:
    """None of a log with fewer than two finite values of the key."""
    points = [(row["step"], factor * row[key]) for row in log if math.isfinite(row.get(key, math.nan))]
    if len(points) < 2:
        return None
    steps, values = np.array(points, dtype=float).T
    return Curve(steps, values, running_mean(values, max(3, len(values) // 10) | 1))  # an odd number of steps


def phases_of(artifact: Artifact) -> list[Phase]:
    """Where general prompts begin in an RL stage that has some."""
    settings = artifact.manifest["settings"].get("settings", {})
    if not settings.get("general_share"):
        return []
    first = math.ceil(settings["general_from"] * settings["steps"])
    return [Phase(first, "general prompts")] if 0 < first < settings["steps"] else []


def panels(artifact: Artifact, control: Artifact | None = None, others: Sequence[Artifact] = ()) -> list[Panel]:
    """The curves of one stage's log: the RL signals for a grpo stage, the loss for the others. control: whose running means are
    drawn beside them. others: the same stage with other seeds, drawn thin."""
    log, plots, is_rl = artifact.log, [], artifact.kind == "grpo"
    other_logs, control_log = [other.log for other in others], control.log if control is not None else []
    for key, title, factor in RL_PANELS if is_rl else SUPERVISED_PANELS:
        if (curve := curve_of(log, key, factor)) is None:
            continue
        beside = Beside([other for each in other_logs if (other := curve_of(each, key, factor)) is not None],
                        None if key == "reward" else curve_of(control_log, key, factor), phases_of(artifact),
                        curve.values[0] if is_rl and key in OF_THE_POLICY else None)
        label = f"{title} of {artifact.stage}: from {curve.smooth[0]:.3g} to {curve.smooth[-1]:.3g} (running mean)"
        if beside.control is not None:
            label += f"; of the control {control.stage} to {beside.control.smooth[-1]:.3g}"
        label += f"; {len(beside.others) + 1} seeds" if beside.others else ""
        label += "".join(f"; {phase.title} from step {phase.step:g}" for phase in beside.phases)
        logarithmic = key == "loss" and not is_rl and min(curve.values) > 0
        plots.append(Panel(title + (" (log)" if logarithmic else ""), label,
                           curve_svg(curve, f"{artifact.stage}-{key}", beside, logarithmic)))
    return plots


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """(N,) -> (N,): centred mean over `window` values, over fewer at the ends."""
    half = window // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def curve_svg(curve: Curve, name: str, beside: Beside, logarithmic: bool = False) -> Markup:
    """An <svg> element; `name` keeps its ids apart from those of other plots."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "spoutnik", "font.size": 9, "text.color": _INK,
             "axes.edgecolor": _INK, "axes.linewidth": 0.5, "xtick.color": _INK, "ytick.color": _INK,
             "axes.formatter.limits": (-3, 4), "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(style):
        figure = Figure(figsize=(3.1, 1.75), layout="constrained")
        axes = figure.add_subplot()
        _draw_beside(axes, beside)
        drawn = _thinned(curve.steps)
        axes.plot(curve.steps[drawn], curve.values[drawn], "o", color=_STRONG, alpha=0.45, markersize=2.4, markeredgewidth=0)
        axes.plot(curve.steps[drawn], curve.smooth[drawn], color=_STRONG, linewidth=1.8)
        _scale(axes, logarithmic)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(color=_INK, alpha=0.15, linewidth=0.5)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(out.getvalue(), name)


def _draw_beside(axes, beside: Beside) -> None:
    for other in beside.others:
        shown = _thinned(other.steps)
        axes.plot(other.steps[shown], other.smooth[shown], color=_INK, linewidth=0.9, alpha=0.4)
    if beside.control is not None:
        shown = _thinned(beside.control.steps)
        axes.plot(beside.control.steps[shown], beside.control.smooth[shown], color=_INK, linewidth=1.0, alpha=0.8)
    if beside.start is not None:
        axes.axhline(beside.start, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
    for phase in beside.phases:
        axes.axvline(phase.step, color=_INK, linewidth=0.8, linestyle=(0, (3, 2)))
        axes.annotate(phase.title, (phase.step, 1), xycoords=("data", "axes fraction"), xytext=(2, -2), fontsize=7,
                      textcoords="offset points", rotation=90, va="top", color=_INK)


def _thinned(steps: np.ndarray) -> np.ndarray:
    """Positions of the points that are drawn."""
    return np.unique(np.append(np.arange(0, len(steps), -(-len(steps) // _MAX_POINTS)), len(steps) - 1))


def _scale(axes, logarithmic: bool) -> None:
    """A loss falls by less and less: its axis is logarithmic, with plain numbers on it."""
    if not logarithmic:
        low, high = axes.get_ylim()
        if high - low < _FLAT:
            axes.set_ylim((low + high - 0.1) / 2, (low + high + 0.1) / 2)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 3, 5), numticks=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _inline(svg: str, name: str) -> Markup:
    """A matplotlib SVG file as an element of a page: no prologue, no foreign names, ids of its own, page colours."""
    prefix = re.sub(r"[^a-z0-9]", lambda odd: f"_{ord(odd[0]):x}_", name)
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|\sxmlns(:\w+)?=\"[^\"]*\"", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sid="', f' id="{prefix}-', svg)
    svg = svg.replace("xlink:href=\"#", f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    return Markup(re.sub(r"\n\s*", "\n", svg).replace(_INK, "currentColor").replace(_STRONG, "var(--accent)"))


@dataclass(frozen=True)
class Box:
    """A stage in the drawing; pixels, (x, y) its upper left corner."""

    stage: str
    kind: str
    x: int
    y: int


@dataclass(frozen=True)
class Edge:
    """An arrow. role: the input it stands for; path: the d attribute of an SVG path."""

    role: str
    title: str
    path: str


@dataclass(frozen=True)
class Drawing:
    width: int
    height: int
    box_width: int
    box_height: int
    boxes: list[Box]
    edges: list[Edge]


_BOX_WIDTH, _BOX_HEIGHT, _GAP, _LANE = 122, 44, 34, 72


def draw_graph(artifacts: Sequence[Artifact]) -> Drawing:
    """Stages from left to right by depth; an arrow for every input that is in `artifacts`."""
    cells = _place(artifacts)
    boxes = {name: (1 + column * (_BOX_WIDTH + _GAP), 1 + lane * _LANE) for name, (column, lane) in cells.items()}
    edges = [Edge(role, f"{source} to {artifact.stage} ({role.replace('_', ' ')})",
                  _arrow(boxes[source], boxes[artifact.stage]))
             for artifact in artifacts for role, source in artifact.inputs.items() if source in boxes]
    width = max((x for x, _ in boxes.values()), default=0) + _BOX_WIDTH + 1
    height = max((y for _, y in boxes.values()), default=0) + _BOX_HEIGHT + 1
    return Drawing(width, height, _BOX_WIDTH, _BOX_HEIGHT, [Box(a.stage, a.kind, *boxes[a.stage]) for a in artifacts], edges)


def _place(artifacts: Sequence[Artifact]) -> dict[str, tuple[int, int]]:
    """Stage -> (column, lane). A stage takes the first lane that is free from the model it starts from up to itself, so
    that the arrow between them passes behind no other box; its start's own lane if it can."""
    cells: dict[str, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()
    for artifact in artifacts:
        sources = [cells[source] for source in artifact.inputs.values() if source in cells]
        column = max((c for c, _ in sources), default=-1) + 1
        start_column, start_lane = cells.get(artifact.inputs.get("start"), (column - 1, 0))
        needed = range(start_column + 1, column + 1)
        lanes = [start_lane, *range(len(artifacts) + 1)]
        lane = next(lane for lane in lanes if not any((c, lane) in taken for c in needed))
        taken.update((c, lane) for c in needed)
        cells[artifact.stage] = column, lane
    return cells


def _arrow(source: tuple[int, int], target: tuple[int, int]) -> str:
    """From the right edge of a box to the left edge of another: into the target's lane at once, then straight."""
    (x0, y0), (x1, y1) = source, target
    x0, y0, x1, y1 = x0 + _BOX_WIDTH, y0 + _BOX_HEIGHT // 2, x1 - 2, y1 + _BOX_HEIGHT // 2
    turn = x0 + _GAP - 10
    middle = (x0 + turn) // 2
    return f"M{x0} {y0} C{middle} {y0} {middle} {y1} {turn} {y1} L{x1} {y1}"
