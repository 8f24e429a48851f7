"""What a run cost: core-seconds, tokens, energy (measured, estimated or unknown), money, and what a point of accuracy cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.pairs import Pair, paired_with_start
from spoutnik.train.loop import Cost
from spoutnik.train.settings import Settings

_METERED = 0.98  # of a stage's time, from which on its energy is called measured
_CAUSES = {"wasted_right": "groups all right", "wasted_wrong": "groups all wrong", "wasted_other": "groups without variance"}
_JOULES_PER_KWH = 3.6e6


class BillSettings(Settings):
    """Prices of a run's bill; they change no artifact. What is not given is not estimated."""

    watts: float | None = Field(default=None, gt=0)
    """Of one core that computes (of one GPU, where GPUs do): energy is estimated from it where it cannot be measured."""
    price_per_kwh: float | None = Field(default=None, ge=0)
    """Of electricity."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Of one rented core (or GPU) for an hour of its work."""
    currency: str = Field(default="$", min_length=1, max_length=8)
    """What prices are in."""


@dataclass(frozen=True)
class Energy:
    """how: measured (of the whole processor package), estimated from the watts that were given, or unknown."""

    joules: float | None
    how: Literal["measured", "estimated", "unknown"]


@dataclass(frozen=True)
class PointCost:
    """Core-seconds for each point of pass@1 gained over the model before; low, high: by the interval of the gain. high is
    infinite where the gain may be none."""

    core_seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class BillRow:
    """wasted: cause -> tokens that were generated and not trained on. money: None where no price is given."""

    stage: str
    origin: str
    cost: Cost
    energy: Energy
    money: float | None
    wasted: dict[str, int]
    point: PointCost | None = None
    gain: Pair | None = None


def energy_of(cost: Cost, settings: BillSettings) -> Energy:
    """Of work on this machine. Measured where a counter was read for all of its time."""
    if cost.metered_seconds and cost.metered_seconds >= _METERED * cost.seconds:
        return Energy(cost.joules, "measured")
    if settings.watts is not None:
        return Energy(settings.watts * (cost.gpu_seconds or cost.core_seconds), "estimated")
    return Energy(None, "unknown")


def money_of(cost: Cost, settings: BillSettings) -> float | None:
    """What the hours and the electricity cost, as far as prices are given."""
    parts = []
    if settings.price_per_hour is not None:
        parts.append(settings.price_per_hour * (cost.gpu_seconds or cost.core_seconds) / 3600)
    energy = energy_of(cost, settings)
    if settings.price_per_kwh is not None and energy.joules is not None:
        parts.append(settings.price_per_kwh * energy.joules / _JOULES_PER_KWH)
    return sum(parts) if parts else None


def wasted_by(artifact: Artifact) -> dict[str, int]:
    """Cause -> tokens that a stage generated and nothing learned from."""
    wasted = artifact.cost.tokens_wasted
    if not wasted:
        return {}
    if artifact.kind == "reject":
        return {"rejected samples": wasted}
    by_cause = {cause: round(sum(row.get(key, 0) for row in artifact.log)) for key, cause in _CAUSES.items()}
    by_cause = {cause: tokens for cause, tokens in by_cause.items() if tokens}
    rest = wasted - sum(by_cause.values())  # of artifacts older than these columns of the log, all
    return by_cause | ({"groups without variance": by_cause.get("groups without variance", 0) + rest} if rest > 0 else {})


def point_cost(cost: Cost, gain: Pair) -> PointCost | None:
    """None where nothing was gained."""
    if gain.difference <= 0:
        return None
    low, high = (100 * bound for bound in (gain.low, gain.high))
    return PointCost(cost.core_seconds / (100 * gain.difference), cost.core_seconds / high,
                     cost.core_seconds / low if low > 0 else math.inf)


def bill_rows(artifacts: Sequence[Artifact], origins: Mapping[str, str], settings: BillSettings) -> list[BillRow]:
    """A row for each stage, and one for all evaluations."""
    gains = {pair.b: pair for pair in paired_with_start(artifacts)}
    rows = []
    for artifact in artifacts:
        gain = gains.get(artifact.stage)
        rows.append(_row(artifact.stage, origins.get(artifact.stage, ""), artifact.cost, settings, wasted_by(artifact),
                         point_cost(artifact.cost, gain) if gain else None, gain))
    evaluating = sum((artifact.evaluation_cost for artifact in artifacts), Cost())
    return [*rows, _row("all evaluations", "", evaluating, settings, {})] if evaluating.seconds else rows


def total_row(rows: Sequence[BillRow], settings: BillSettings) -> BillRow:
    """The sum. Energy is as sure as its least sure part."""
    cost = sum((row.cost for row in rows), Cost())
    wasted: dict[str, int] = {}
    for row in rows:
        for cause, tokens in row.wasted.items():
            wasted[cause] = wasted.get(cause, 0) + tokens
    return _row("total", "", cost, settings, wasted)


def _row(stage: str, origin: str, cost: Cost, settings: BillSettings, wasted: dict[str, int], point: PointCost | None = None,
         gain: Pair | None = None) -> BillRow:
    return BillRow(stage, origin, cost, energy_of(cost, settings), money_of(cost, settings), wasted, point, gain)
