"""Settings of every trained stage, checked strictly. A method's own settings extend these in its own file."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator
from torch import nn

from spoutnik.errors import UserError
from spoutnik.train.optimizer import Optimizer, Schedule

_WARMUP = ("warmup = {warmup} is longer than the stage, which has {steps} steps: the learning rate would never be reached. "
           "Give 0 to {steps}, or leave it out")


class Settings(BaseModel):
    """Unknown keys are refused; a setting that is accepted is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class TrainSettings(OptimizerSettings):
    """bias_update_speed: gamma of V3's balancing. balance_loss_alpha: weight of its sequence-wise balance loss."""

    bias_update_speed: float = Field(default=0.001, ge=0)
    balance_loss_alpha: float = Field(default=0.0001, ge=0)


class LanguageModelSettings(TrainSettings):
    """tokens_per_step: packed tokens of one step. mtp_loss_weight: lambda of the MTP loss (models without one ignore it)."""

    tokens_per_step: int = Field(default=16384, gt=0)
    mtp_loss_weight: float = Field(default=0.1, ge=0)
