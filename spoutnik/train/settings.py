"""Settings of every trained stage, checked strictly. A method's own settings extend these in its own file."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from torch import nn

from spoutnik.errors import UserError
from spoutnik.model.lora import ALL_LINEAR, LoraConfig
from spoutnik.train.optimizer import Optimizer, Schedule

_WARMUP = ("warmup = {warmup} is longer than the stage, which has {steps} steps: the learning rate would never be reached. "
           "Give 0 to {steps}, or leave it out")


def refuse_truth(model: type[BaseModel], value: object, info: ValidationInfo) -> object:
    """A validator of numbers: pydantic would take `yes` for 1."""
    if isinstance(value, bool) and model.model_fields[info.field_name].annotation in (int, float, int | None, float | None):
        raise ValueError("must be a number, not true or false")
    return value


def young(default: object, **limits) -> object:
    """A setting that is younger than the first artifacts: at its default it is left out of what decides a stage's result, so
    that what was made without it is found again. limits: as pydantic's Field takes them."""
    return Field(default=default, exclude_if=lambda value: value == default, **limits)


class StrictModel(BaseModel):
    """Unknown keys are refused, and so are numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Settings(StrictModel):
    """A setting that is accepted is used. The text below a key is its line in docs/recipes.md."""

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: object, info: ValidationInfo) -> object:
        return refuse_truth(cls, value, info)


class OptimizerSettings(Settings):
    """How a step moves the weights."""

    learning_rate: float = Field(gt=0, le=1)
    """The highest of the schedule."""
    # "optimiser" is how older recipes spell the key and how artifacts' keys are computed.
    optimizer: Literal["adamw", "muon"] = Field(default="muon", validation_alias=AliasChoices("optimizer", "optimiser"),
                                                serialization_alias="optimiser")
    """Muon moves the matrices and AdamW the rest; or AdamW moves all."""
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    """What the learning rate does after its warm-up: stays, falls along a cosine, or stays and then falls (warm-up, stable,
    decay)."""
    warmup: int = Field(default=10, ge=0)
    """Steps in which the learning rate rises to its highest, no more than the stage has. Where none are given, at most half of
    the stage's."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of the matrices, times the learning rate."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The length to which a longer gradient is shortened."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Packed tokens that one core works on at a time. Decides memory, not the result of a step but for rounding."""

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        return Optimizer(model, self.optimizer, self.learning_rate, self.weight_decay, self.max_grad_norm)

    @model_validator(mode="after")
    def _warm_before_the_end(self) -> "OptimizerSettings":
        steps = getattr(self, "steps", None)
        if steps is not None and "warmup" in self.model_fields_set and self.warmup > steps:
            raise ValueError(_WARMUP.format(warmup=self.warmup, steps=steps))
        return self

    def make_schedule(self, steps: int, stage: str = "") -> Schedule:
        """The warm-up, where the recipe gives none, takes no more than half of a short stage.

        Raises:
            UserError: the recipe's is longer than the stage, whose steps follow from its data.
        """
        if "warmup" not in self.model_fields_set:
            return Schedule(self.schedule, steps, min(self.warmup, steps // 2))
        if self.warmup > steps:
            raise UserError(f"{stage}: {_WARMUP.format(warmup=self.warmup, steps=steps)}.")
        return Schedule(self.schedule, steps, self.warmup)


class AdapterSettings(Settings):
    """Of LoRA: the base stays as it is, and thin matrices beside its linear maps are trained (docs/adapt.md)."""

    rank: int = Field(default=16, gt=0)
    """Of each pair of matrices."""
    alpha: float = Field(default=32.0, gt=0)
    """The pair's product is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the pair's inputs that a step leaves out."""
    target_modules: Literal["all-linear"] | list[str] = ALL_LINEAR
    """The linear maps, by the last parts of their published names (q_proj, down_proj ...); or all of attention, feed-forward
    and shared experts. Routed experts: `experts`."""
    use_rslora: bool = False
    """Multiply by alpha / sqrt(rank) instead, which keeps high ranks learning."""
    use_dora: bool = False
    """Train each output's length apart from its direction."""
    experts: bool = young(False)
    """Also each map of each routed expert; without dropout, and not with use_dora."""
    base: Literal["stored", "int8", "int4"] = young("stored")
    """How the frozen linear maps lie in memory: as the files hold them, or packed in 8 or 4 bits (QLoRA). What is trained is an
    adapter of the packed weights."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _one_name_is_no_list(cls, value: object) -> object:
        if isinstance(value, str) and value != ALL_LINEAR:
            raise ValueError(f"must be {ALL_LINEAR} or a list: [{value}]")
        return value

    @model_validator(mode="after")
    def _experts_are_plain(self) -> "AdapterSettings":
        if self.experts and (self.use_dora or self.dropout):
            raise ValueError(f"experts with {'use_dora' if self.use_dora else 'dropout'}: PEFT has neither for routed experts, "
                             "since it sums their adapters with the weights. Leave one of them out")
        return self

    @model_validator(mode="after")
    def _lengths_are_of_whole_weights(self) -> "AdapterSettings":
        if self.use_dora and self.base != "stored":
            raise ValueError(f"use_dora with base {self.base}: DoRA needs the whole weight at each step, which packed weights "
                             "do not have. Leave one of them out")
        return self

    def config(self) -> LoraConfig:
        targets = self.target_modules if self.target_modules == ALL_LINEAR else tuple(self.target_modules)
        return LoraConfig(self.rank, self.alpha, self.dropout, targets, self.use_rslora, self.use_dora, self.experts)


class TrainSettings(OptimizerSettings):
    """Of models that may have experts."""

    bias_update_speed: float = Field(default=0.001, ge=0)
    """Gamma of DeepSeek-V3's balancing of experts without an auxiliary loss."""
    balance_loss_alpha: float = Field(default=0.0001, ge=0)
    """Weight of its sequence-wise balance loss."""
    gradient_checkpointing: bool = young(False)
    """Keep the inputs of the layers alone for the gradient and compute each layer again: less memory, about a third more time,
    the same result."""


class LanguageModelSettings(TrainSettings):
    """Of training on documents."""

    tokens_per_step: int = Field(default=16384, gt=0)
    """Packed tokens of one step."""
    mtp_loss_weight: float = Field(default=0.1, ge=0)
    """Lambda of the loss of multi-token prediction; models without that module ignore it."""
