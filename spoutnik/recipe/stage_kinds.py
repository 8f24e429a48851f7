"""The kinds of stages, as a recipe writes them; those that learn from preferences are in preference_stages.py."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from spoutnik.recipe.preference_stages import DPOStage, KTOStage
from spoutnik.recipe.stage_base import LARGEST_SEED, ConversingStage, StageBase
from spoutnik.tasks.general_text import Wishes
from spoutnik.train.anchor import AnchorSettings
from spoutnik.train.data.shapes import KNOWN_KEYS
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.pretrain import PretrainSettings
from spoutnik.train.reject import RejectSettings
from spoutnik.train.reward_model import RewardModelSettings
from spoutnik.train.settings import AdapterSettings, young
from spoutnik.train.sft import ColdStartSettings, SFTSettings
from spoutnik.validation import did_you_mean


class PretrainStage(StageBase):
    """A base model of the recipe's `models` entry, from random weights. With a `seed` of its own it stays the same under
    every seed of the recipe: bases are dear, and what varies after them is what one wants to compare."""

    kind: Literal["pretrain"]
    """The kind of the stage."""
    model: str
    """A name under `models`."""
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    """In place of the recipe's."""
    families: list[str] | None = Field(default=None, min_length=1)
    """What it reads, where that is not all of the recipe's."""
    settings: PretrainSettings
    """How it is trained."""


class MidtrainStage(StageBase):
    """More reading for `from`, with other and longer documents, before it learns to converse."""

    kind: Literal["midtrain"]
    """The kind of the stage."""
    start: str = Field(alias="from")
    """The earlier stage whose model goes on, or a checkpoint under `models`."""
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    """In place of the recipe's."""
    context: dict = {}
    """The keys of the model's configuration that widen its context (DeepSeek-V3, section 4.3), as far as they change:
    max_position_embeddings, rope_scaling, rope_theta."""
    echo_share: float = young(0.0, ge=0, lt=1)
    """The share of documents that say again whatever was said, half of it words that are none: copying is learned here."""
    wishes: Wishes = young("listed")
    """Of general prompts: with any, all that later stages are taught are read here, wishes of any words among them."""
    settings: PretrainSettings
    """How it is trained."""

    @model_validator(mode="after")
    def _only_the_context(self) -> "MidtrainStage":
        keys = ("max_position_embeddings", "rope_scaling", "rope_theta")
        foreign = sorted(set(self.context) - set(keys), key=str)
        if foreign:
            raise ValueError(f"context.{foreign[0]}: would make another model.{did_you_mean(foreign[0], keys)} The context has "
                             "max_position_embeddings, rope_scaling and rope_theta")
        return self


class SFTStage(ConversingStage):
    """Supervised fine-tuning of `from` on traces: written by the solvers, kept by a reject stage or read from a file, with
    general conversations mixed in. `distill` is the same for a student, which the table shows apart from the main line."""

    kind: Literal["sft", "distill"]
    """The kind of the stage."""
    start: str = Field(alias="from")
    """The earlier stage whose model goes on, or a checkpoint under `models`."""
    cold_start: ColdStartSettings | None = None
    """Traces written by the families' solvers."""
    traces: str | None = None
    """Traces kept by an earlier stage of kind reject: its name."""
    file: Path | None = None
    """Traces read from a file (JSON lines, JSON, CSV, TSV or Parquet, also gzipped), a folder of such, a pattern
    (`*.jsonl`) or a data set of the hub (`hub:owner/name@commit:config:split`), in any shape that docs/data.md lists. A path
    is relative to the recipe's folder."""
    columns: dict[str, str] = young({})
    """Where the keys of `file` are of no known shape: what prompt, thought and answer (or messages, or any other key of a
    shape) are called there. Without it the shape is recognized."""
    learn: Literal["last", "all"] = young("last")
    """Of conversations in `file`: their last reply; or all, each as a trace of its own with what stands before it."""
    held_out_share: float = young(0.0, ge=0, lt=1)
    """The share of `file` that is never trained on, by the hash of a conversation's first question. Its loss before and after
    the stage is among the metrics."""
    general: int = Field(default=0, ge=0)
    """How many general conversations are mixed in, whose thoughts are empty."""
    wishes: Wishes = young("listed")
    """What is wished in the general ones: with listed what a list has; with any also 600 wishes of any words, so that the model
    copies what was said, known or not."""
    dialogue_share: float = Field(default=0.0, ge=0, le=1)
    """The share of the solvers' traces and of the general ones with earlier turns."""
    adapter: AdapterSettings | None = young(None)
    """Train an adapter (LoRA) and leave the base as it is."""
    anchor: AnchorSettings | None = young(None)
    """Hold the model to what it said of general text before, so that it forgets nothing else."""
    settings: SFTSettings
    """How it is trained."""

    @model_validator(mode="after")
    def _has_data(self) -> "SFTStage":
        if self.cold_start is None and self.traces is None and self.file is None and not self.general:
            raise ValueError("a stage of kind sft or distill needs data: cold_start, traces, file or general")
        if self.file is None and (self.columns or self.learn != "last" or self.held_out_share):
            raise ValueError("columns, learn and held_out_share are of the traces of file, and the stage has none. Give file, "
                             "or leave them out")
        for key in self.columns:
            if key not in KNOWN_KEYS:
                raise ValueError(f"columns.{key}: is no key of a known shape.{did_you_mean(key, KNOWN_KEYS)} Use prompt, "
                                 "thought and answer, or messages")
        if self.dialogue_share and self.cold_start is None and not self.general:
            raise ValueError("dialogue_share is of the traces of cold_start and of general, and the stage has neither: traces "
                             "that are read have the earlier turns that they have")
        if self.wishes != "listed" and not self.general:
            raise ValueError("wishes is of general conversations, and the stage has none. Give general, or leave it out")
        return self


class GRPOStage(ConversingStage):
    """Reinforcement learning with verifiable rewards; with a reward model for general prompts, RL for all scenarios."""

    kind: Literal["grpo"]
    """The kind of the stage."""
    start: str = Field(alias="from")
    """The earlier stage whose model goes on, or a checkpoint under `models`."""
    reward_model: str | None = None
    """The earlier stage of kind reward_model that scores general prompts."""
    adapter: AdapterSettings | None = young(None)
    """Train an adapter (LoRA) and leave the base as it is; without dropout; with `use_dora` or `experts`, in float32."""
    anchor: AnchorSettings | None = young(None)
    """Hold the model to what it said of general text before, so that it forgets nothing else."""
    settings: GRPOSettings
    """Rollouts, rewards, and how it is trained."""

    @model_validator(mode="after")
    def _general_needs_a_reward_model(self) -> "GRPOStage":
        if self.settings.general_share and self.reward_model is None:
            raise ValueError("settings.general_share needs a reward_model to judge general prompts")
        if self.settings.wishes != "listed" and not self.settings.general_share:
            raise ValueError("settings.wishes is of general prompts, and there are none. Give general_share, or leave it out")
        return self

    @model_validator(mode="after")
    def _samples_what_it_trains(self) -> "GRPOStage":
        if self.adapter is not None and self.adapter.dropout:
            raise ValueError("adapter.dropout: the sampler has none, so the gradient would be of another policy than the one "
                             "that wrote the rollouts. Leave it out")
        if self.adapter is not None and self.adapter.base != "stored":
            raise ValueError(f"adapter.base = {self.adapter.base}: rollouts are sampled from the sum of base and adapter, "
                             "which would need the whole base beside the packed one. Leave it out")
        return self


class RejectStage(StageBase):
    """Rejection sampling: completions of `from` that are right, well formed and in the language of the question become traces
    for later stages."""

    kind: Literal["reject"]
    """The kind of the stage."""
    start: str = Field(alias="from")
    """The earlier stage whose model is sampled, or a checkpoint under `models`."""
    settings: RejectSettings
    """How much is sampled, and what is kept."""


class RewardModelStage(StageBase):
    """A model that scores answers to general prompts: the network of `from` with a scalar head, trained on preference
    pairs."""

    kind: Literal["reward_model"]
    """The kind of the stage."""
    start: str = Field(alias="from")
    """The earlier stage whose network it takes, or a checkpoint under `models`."""
    settings: RewardModelSettings
    """How it is trained."""


BaseStage = PretrainStage | MidtrainStage  # makes a model that continues texts, and may have a seed of its own
Stage = Annotated[PretrainStage | MidtrainStage | SFTStage | DPOStage | KTOStage | GRPOStage | RejectStage | RewardModelStage,
                  Field(discriminator="kind")]
