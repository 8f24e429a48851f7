"""The stages that learn from preferences, and their data."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from spoutnik.recipe.stage_base import ConversingStage
from spoutnik.train.anchor import AnchorSettings
from spoutnik.train.data.shapes import KNOWN_KEYS
from spoutnik.train.dpo import DPOSettings
from spoutnik.train.kto import KTOSettings
from spoutnik.train.settings import AdapterSettings, young
from spoutnik.validation import did_you_mean


class PreferenceStage(ConversingStage):
    """Learning from opinions on replies."""

    start: str = Field(alias="from")
    """The earlier stage whose model goes on, or a checkpoint under `models`. As it is at the beginning it is also the reference
    policy."""
    file: Path
    """Preferences from a file, a folder or a pattern, as in a stage of kind sft: pairs of a chosen and a rejected reply,
    replies with a label, or the opinions that the page has stored (docs/preferences.md)."""
    columns: dict[str, str] = {}
    """Where the keys of `file` are of no known shape: what prompt, chosen and rejected (or prompt, completion and label) are
    called there."""
    held_out_share: float = Field(default=0.0, ge=0, lt=1)
    """The share of `file` that is never trained on, by the hash of a conversation's first question. What became of it is among
    the metrics."""
    adapter: AdapterSettings | None = None
    """Train an adapter (LoRA) and leave the base as it is."""
    anchor: AnchorSettings | None = young(None)
    """Hold the model to what it said of general text before, so that it forgets nothing else."""

    @field_validator("columns")
    @classmethod
    def _keys_are_known(cls, columns: dict[str, str]) -> dict[str, str]:
        for key in columns:
            if key not in KNOWN_KEYS:
                raise ValueError(f"{key}: is no key of a known shape.{did_you_mean(key, KNOWN_KEYS)} Use prompt, chosen and "
                                 "rejected, or prompt, completion and label")
        return columns


class DPOStage(PreferenceStage):
    """Direct preference optimization (DPO) of `from`: of two replies to the same conversation the better one is to become the
    likelier. Good and bad replies to the same conversation are taken for pairs."""

    kind: Literal["dpo"]
    """The kind of the stage."""
    settings: DPOSettings
    """How it is trained."""


class KTOStage(PreferenceStage):
    """Kahneman-Tversky optimization (KTO) of `from`: good replies are to become likelier and bad ones less likely. They need no
    counterpart; a pair is taken for a good and a bad one."""

    kind: Literal["kto"]
    """The kind of the stage."""
    settings: KTOSettings
    """How it is trained."""
