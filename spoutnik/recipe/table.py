"""The stage table, in the shape of R1's Table 3: one row per stage, what it can do and what it cost.

`rows` computes it once; the terminal (`print_table`), `--json` (`as_json`) and the HTML report show the same numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spoutnik import tables
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.pairs import best_layout
from spoutnik.tasks import FAMILIES
from spoutnik.train.traces import notes_of

NONE = "–"  # shown where a stage has no such number


@dataclass(frozen=True)
class Interval:
    """A share in [0, 1] with its 95 % interval over problems."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class StageRow:
    """One line of the table. Shares are in [0, 1], times in seconds; None where the stage was not evaluated.

    seconds, core_seconds, tokens (trained + generated): to make the stage, without its evaluation. note: what a stage
    has to say beside its numbers, or instead of them. held_out: of the problems that it was asked, instance or structure.
    health: the manifest's line on how the stage went; warnings: sentences, with the remedy.
    """

    stage: str
    kind: str
    origin: str
    seconds: float
    core_seconds: float
    tokens: int
    accuracy: Interval | None = None
    families: dict[str, Interval] = field(default_factory=dict)
    thought_tokens: float | None = None
    well_formed: float | None = None
    language_consistency: float | None = None
    reflections: float | None = None
    helpfulness: float | None = None
    helpful_content: float | None = None
    helpful_form: float | None = None
    dialogues: float | None = None
    held_out: str = ""
    note: str = ""
    health: str = ""
    warnings: tuple[str, ...] = ()


def rows(artifacts: Sequence[Artifact], origins: dict[str, str]) -> list[StageRow]:
    """One row per artifact, in the order given. origins: stage name -> where the artifact came from."""
    return [_row(artifact, origins.get(artifact.stage, "")) for artifact in artifacts]


def _row(artifact: Artifact, origin: str) -> StageRow:
    evaluation, cost = artifact.evaluation, artifact.cost
    row = StageRow(artifact.stage, artifact.kind, origin, cost.seconds, cost.core_seconds,
                   cost.tokens_trained + cost.tokens_generated, health=artifact.health["line"],
                   warnings=(*artifact.health["refusals"], *artifact.health["warnings"]))
    if evaluation is None:
        return replace(row, note=metrics_note(artifact.manifest["metrics"]))
    better = evaluation["as_textbook"] if best_layout(evaluation) == "textbook" else {}
    shown = evaluation | better  # older evaluations have less of it
    families = better.get("families", {}) if better else evaluation["families"]
    return replace(row, accuracy=_interval(shown["accuracy"]),
                   families={name: _interval(of) for name, of in families.items()},
                   thought_tokens=shown["thought_tokens"], well_formed=shown["well_formed"],
                   language_consistency=shown["language_consistency"],
                   reflections=shown["reflections_per_thought"], **_helpfulness(evaluation.get("helpfulness")),
                   dialogues=evaluation["dialogues"]["mean"] if "dialogues" in evaluation else None,
                   held_out=evaluation["protocol"].get("held_out", "instance"),
                   note="; ".join(filter(None, (_layout_note(evaluation), notes_of(artifact.manifest.get("data", []))))))


def _helpfulness(measured: dict | float | None) -> dict[str, float | None]:
    """A row's fields; older evaluations have the mean of content and form alone."""
    if not isinstance(measured, dict):
        return {"helpfulness": measured}
    content, form = measured["content"], measured["form"]
    return {"helpfulness": (content + form) / 2, "helpful_content": content, "helpful_form": form}


def helpful_percent(row: StageRow, digits: int = 0) -> str:
    """Content and form of the answers to general prompts; one number where an older evaluation does not tell them apart."""
    if row.helpful_content is None:
        return percent(row.helpfulness, digits)
    return f"{percent(row.helpful_content, digits)}/{percent(row.helpful_form, digits)}"


def _layout_note(evaluation: dict) -> str:
    """A base knows no conversations and is asked in two layouts of what it has read; the table has the better one."""
    layout = best_layout(evaluation)
    if not layout:
        return ""
    asked, other = ("a textbook", "a forum") if layout == "textbook" else ("a forum", "a textbook")
    worse = evaluation if layout == "textbook" else evaluation["as_textbook"]
    accuracy = _interval(worse["accuracy"])
    if evaluation["accuracy"]["mean"] == evaluation["as_textbook"]["accuracy"]["mean"]:
        return f"asked as {asked}; as {other} it is right as often, in {worse['thought_tokens']:.0f} thought tokens"
    return (f"asked as {asked}, in which it is right more often; as {other} {percent(accuracy.mean)} % "
            f"(± {percent(accuracy.half_width)}) in {worse['thought_tokens']:.0f} thought tokens")


def _interval(accuracy: dict) -> Interval:
    return Interval(accuracy["mean"], accuracy["low"], accuracy["high"])


def metrics_note(metrics: dict) -> str:
    """A reject or reward-model stage's own result, in words; other metrics by name."""
    parts, rest = [], dict(metrics)
    if "kept_share" in rest:
        share, traces, sampled = rest.pop("kept_share"), rest.pop("kept", None), rest.pop("sampled", None)
        counted = f" ({traces:,.0f} of {sampled:,.0f})" if traces is not None and sampled is not None else ""
        parts.append(f"kept {percent(share)} % of samples{counted}")
    if "held_out_pair_accuracy" in rest:
        by = [f"{name} {percent(rest.pop(key), 0)}" for name in ("form", "relevance", "truth")
              if (key := f"held_out_pairs_of_{name}") in rest]
        parts.append(f"orders {percent(rest.pop('held_out_pair_accuracy'))} % of held-out pairs right"
                     + (f" ({', '.join(by)})" if by else ""))
    if "constant_score" in rest:
        constant, right = rest.pop("constant_score"), rest.pop("right_score")
        parts.append(f"scores one answer to all questions {constant:.2f}, right answers {right:.2f}")
    parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in rest.items()]
    return ", ".join(parts)


def families_of(table: Sequence[StageRow]) -> list[str]:
    """Every family any stage was evaluated on, in the order of the task registry."""
    seen = list(dict.fromkeys(name for row in table for name in row.families))
    return [name for name in FAMILIES if name in seen] + [name for name in seen if name not in FAMILIES]


# Columns where more is better, so that a best value means something: shares in [0, 1].
QUALITIES = ("well_formed", "language_consistency", "helpfulness", "dialogues")


def best_values(table: Sequence[StageRow]) -> dict[str, float]:
    """Column -> its highest value, over at least two evaluated stages. Families are keyed as "families.<name>"."""
    columns: dict[str, list[float]] = {}
    for row in table:
        values = {f"families.{name}": of.mean for name, of in row.families.items()}
        values |= {name: getattr(row, name) for name in QUALITIES}
        values["accuracy"] = row.accuracy.mean if row.accuracy else None
        for name, value in values.items():
            if value is not None:
                columns.setdefault(name, []).append(value)
    return {name: max(values) for name, values in columns.items() if len(values) > 1 and max(values) > min(values)}


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a number of percent, without the sign."""
    return NONE if share is None else f"{100 * share:.{digits}f}"


def count(number: float) -> str:
    """A count of tokens in three digits or so: 950, 12.3k, 4.56M."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.0f}"


def as_json(table: Sequence[StageRow]) -> list[dict]:
    """The rows as plain data, numbers unrounded."""
    return [asdict(row) for row in table]


def print_table(table: Sequence[StageRow], console: Console) -> None:
    """Prints the table, then the stages' notes. Terminals of less than 120 columns do without the families."""
    families = families_of(table) if console.width >= 120 else []
    best = best_values(table)
    helpful = any(row.helpfulness is not None for row in table)
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    grid.add_column("stage", no_wrap=True, overflow="ellipsis")
    headers = ["pass@1 %", *[name[:4] for name in families], "think", "form", "lang", *(["help", "turn"] if helpful else []),
               "refl", "time", "tokens", "core s"]
    for header in headers:
        grid.add_column(header, justify="right", no_wrap=True)
    for row in table:
        grid.add_row(*_cells(row, families, helpful, best))
    tables.print_table(console, grid)
    for row in table:
        if row.note:
            console.print(Text(f"{row.stage}: {row.note}"))
    for row in table:
        console.print(Text(f"{row.stage}: {row.health}", style="" if row.health.startswith("healthy") else "yellow"))
    shares = ("form, lang, help (content/form of answers to general prompts); turn (pass@1 on questions with earlier turns)"
              if helpful else "form, lang")
    by_structure = {row.held_out for row in table if row.accuracy} == {"structure"}
    asked = "problems of held-out structures" if by_structure else "held-out problems (training has their like)"
    console.print(Text(f"pass@1 on {asked}, ± half the 95 % interval; {shares}: percent; think: thought "
                       "tokens; refl: reflection words per thought; time, tokens (trained + generated) and core s: to "
                       "make the stage, its evaluation not counted", style="dim"))


def _cells(row: StageRow, families: Sequence[str], helpful: bool, best: dict[str, float]) -> list[Text]:
    def share(column: str, value: float | None, suffix: str = "", digits: int = 0) -> Text:
        style = "bold green" if value is not None and value == best.get(column) else ""
        return Text(percent(value, digits) + (suffix if value is not None else ""), style=style)

    def number(value: float | None, digits: int) -> Text:
        return Text(NONE if value is None else f"{value:.{digits}f}")

    accuracy = row.accuracy
    cells = [Text(row.stage), share("accuracy", accuracy and accuracy.mean,
                                    f" ±{percent(accuracy.half_width)}" if accuracy else "", 1)]
    cells += [share(f"families.{name}", row.families[name].mean if name in row.families else None) for name in families]
    cells += [number(row.thought_tokens, 0), share("well_formed", row.well_formed),
              share("language_consistency", row.language_consistency)]
    if helpful:
        style = "bold green" if row.helpfulness is not None and row.helpfulness == best.get("helpfulness") else ""
        cells += [Text(helpful_percent(row), style=style), share("dialogues", row.dialogues)]
    return [*cells, number(row.reflections, 2), Text(clock(row.seconds)), Text(count(row.tokens)),
            Text(f"{row.core_seconds:.0f}")]


def clock(seconds: float) -> str:
    """Seconds as [h:]mm:ss, for a narrow column."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
