"""Settings of every trained stage, checked strictly. A method's own settings extend these in its own file."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from torch import nn

from spoutnik.train.optimizer import Optimizer, Schedule


def refuse_truth(model: type[BaseModel], value: object, info: ValidationInfo) -> object:
    """A validator of numbers: pydantic would take `yes` for 1."""
    if isinstance(value, bool) and model.model_fields[info.field_name].annotation in (int, float, int | None, float | None):
        raise ValueError("must be a number, not true or false")
    return value


class StrictModel(BaseModel):
    """Unknown keys are refused, and so are numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Settings(StrictModel):
    """A setting that is accepted is used."""

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: object, info: ValidationInfo) -> object:
        return refuse_truth(cls, value, info)


class OptimizerSettings(Settings):
    """How a step moves the weights. micro_batch_tokens: packed tokens that one core works on at a time."""

    learning_rate: float = Field(gt=0, le=1)
    # "optimiser" is how older recipes spell the key and how artifacts' keys are computed.
    optimizer: Literal["adamw", "muon"] = Field(default="muon", validation_alias=AliasChoices("optimizer", "optimiser"),
                                                serialization_alias="optimiser")
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    warmup: int = Field(default=10, ge=0)
    weight_decay: float = Field(default=0.1, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    micro_batch_tokens: int = Field(default=8192, gt=0)

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        return Optimizer(model, self.optimizer, self.learning_rate, self.weight_decay, self.max_grad_norm)

    def make_schedule(self, steps: int) -> Schedule:
        return Schedule(self.schedule, steps, self.warmup)


class TrainSettings(OptimizerSettings):
    """bias_update_speed: gamma of V3's balancing. balance_loss_alpha: weight of its sequence-wise balance loss."""

    bias_update_speed: float = Field(default=0.001, ge=0)
    balance_loss_alpha: float = Field(default=0.0001, ge=0)


class LanguageModelSettings(TrainSettings):
    """tokens_per_step: packed tokens of one step. mtp_loss_weight: lambda of the MTP loss (models without one ignore it)."""

    tokens_per_step: int = Field(default=16384, gt=0)
    mtp_loss_weight: float = Field(default=0.1, ge=0)
