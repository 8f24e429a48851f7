"""Settings of every trained stage, checked strictly. A method's own settings extend these in its own file."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from torch import nn

from spoutnik.train.optimizer import Optimizer, Schedule


class Settings(BaseModel):
    """Unknown keys are refused; a setting that is accepted is used. The text below a key is its line in docs/recipes.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
    """Steps in which the learning rate rises to its highest."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of the matrices, times the learning rate."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The length to which a longer gradient is shortened."""
    micro_batch_tokens: int = Field(default=8192, gt=0)
    """Packed tokens that one core works on at a time. Decides memory, not the result of a step but for rounding."""

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        return Optimizer(model, self.optimizer, self.learning_rate, self.weight_decay, self.max_grad_norm)

    def make_schedule(self, steps: int) -> Schedule:
        return Schedule(self.schedule, steps, self.warmup)


class TrainSettings(OptimizerSettings):
    """Of models that may have experts."""

    bias_update_speed: float = Field(default=0.001, ge=0)
    """Gamma of DeepSeek-V3's balancing of experts without an auxiliary loss."""
    balance_loss_alpha: float = Field(default=0.0001, ge=0)
    """Weight of its sequence-wise balance loss."""


class LanguageModelSettings(TrainSettings):
    """Of training on documents."""

    tokens_per_step: int = Field(default=16384, gt=0)
    """Packed tokens of one step."""
    mtp_loss_weight: float = Field(default=0.1, ge=0)
    """Lambda of the loss of multi-token prediction; models without that module ignore it."""
