"""The report of a run as Markdown and as plain data, beside the page: the same numbers, to be read by people and programs."""

import math
from collections.abc import Sequence

from spoutnik.recipe.bill import BillRow, BillSettings, PointCost
from spoutnik.recipe.pairs import Pair
from spoutnik.recipe.table import NONE, StageRow, count, families_of, percent
from spoutnik.units import duration, size


def points(pair: Pair) -> str:
    """A difference in points with its interval."""
    return f"{100 * pair.difference:+.1f} ({100 * pair.low:+.1f} to {100 * pair.high:+.1f})"


def energy_text(row: BillRow) -> str:
    """Energy and how it is known."""
    if row.energy.joules is None:
        return "unknown"
    kilo = row.energy.joules / 3.6e6
    return f"{1000 * kilo:.3g} Wh, {row.energy.how}" if kilo < 1 else f"{kilo:.3g} kWh, {row.energy.how}"


def money_text(row: BillRow, settings: BillSettings) -> str:
    if row.money is None:
        return NONE
    if 0 < row.money < 5e-5:
        return f"under {settings.currency}0.0001"
    return f"{settings.currency}{row.money:,.{2 if row.money >= 1 else 4}f}"


def point_text(point: PointCost | None) -> str:
    """Core-seconds for a point of accuracy with the interval."""
    if point is None:
        return NONE
    high = "no bound" if math.isinf(point.high) else f"{point.high:,.3g}"
    return f"{point.core_seconds:,.3g} ({point.low:,.3g} to {high})"


def wasted_text(row: BillRow) -> str:
    return "; ".join(f"{tokens:,} in {cause}" for cause, tokens in row.wasted.items()) or NONE


def as_markdown(name: str, summary: Sequence[str], facts: dict[str, str], table: Sequence[StageRow], pairs: Sequence[Pair],
                bill: Sequence[BillRow], settings: BillSettings) -> str:
    families = families_of(table)
    lines = [f"# The run of recipe {name}", "", " ".join(summary), "",
             *[f"* {key}: {value}" for key, value in facts.items()], "", "## Stages", "",
             "Pass@1 on held-out problems, percent, with its 95 % interval over problems.", "",
             _row("stage", "kind", "average", *families, "thought tokens", "well-formed", "reflections", "core-seconds"),
             _row(*["---"] * (7 + len(families)))]
    for row in table:
        if row.accuracy is None:
            lines.append(_row(row.stage, row.kind, NONE, *[NONE] * (len(families) + 3), f"{row.core_seconds:,.0f}"))
            continue
        mean = f"{percent(row.accuracy.mean)} ({percent(row.accuracy.low)} to {percent(row.accuracy.high)})"
        lines.append(_row(row.stage, row.kind, mean,
                          *[percent(row.families[family].mean if family in row.families else None, 0) for family in families],
                          f"{row.thought_tokens:.0f}", percent(row.well_formed), f"{row.reflections:.2f}",
                          f"{row.core_seconds:,.0f}"))
    lines += ["", *[f"* {row.stage}: {row.note}" for row in table if row.note], "", "## Health", "",
              *[f"* {row.stage}: {row.health}" for row in table]]
    if pairs:
        lines += ["", "## Differences on the same problems", "", _row("a", "b", "problems", "a %", "b %", "b − a, points"),
                  _row(*["---"] * 6)]
        lines += [_row(pair.a + (f" (as a {pair.layout})" if pair.layout else ""), pair.b, f"{pair.problems:,}",
                       percent(pair.mean_a), percent(pair.mean_b), points(pair)) for pair in pairs]
    lines += ["", "## The bill", "",
              _row("stage", "wall time", "core-seconds", "trained", "generated", "wasted", "peak memory", "energy", "money",
                   "core-seconds a point"), _row(*["---"] * 10)]
    for row in bill:
        cost = row.cost
        lines.append(_row(row.stage, duration(cost.seconds), f"{cost.core_seconds:,.0f}", count(cost.tokens_trained),
                          count(cost.tokens_generated), wasted_text(row),
                          size(cost.peak_memory_bytes) if cost.peak_memory_bytes else NONE, energy_text(row),
                          money_text(row, settings), point_text(row.point)))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
