"""Who samples the policy of a reinforcement-learning stage, and how far behind it may be."""

from typing import Literal

from pydantic import Field, model_validator

from spoutnik.train.losses import OffPolicyCorrection, Staleness
from spoutnik.train.settings import Settings


class RolloutSettings(Settings):
    """Of the part of `scale` that is about sampling. All but the engine, the staleness and its correction changes no result."""

    rollout_workers: int = Field(default=0, ge=0, le=4096)
    """Ray actors that sample; 0 samples in the training process. Any number gives the same tokens."""
    rollout_cpus: int = Field(default=1, gt=0)
    """Cores of each."""
    rollout_gpus: int = Field(default=0, ge=0)
    """GPUs of each; vLLM divides the model over them."""
    rollout_engine: Literal["spoutnik", "vllm"] = "spoutnik"
    """What they sample with. vLLM needs a GPU, and its tokens depend on its batches."""
    max_staleness: int = Field(default=0, ge=0, le=16)
    """How many steps older than the policy the weights may be that sample for it. 0: strictly on-policy, sampling and training
    take turns; with k, step t is sampled by the weights before step t - k while the steps between are trained."""
    correction: OffPolicyCorrection = "tis"
    """What becomes of a token whose probability the older weights saw otherwise (`max_staleness`): with tis its weight is the
    ratio, at most correction_cap (truncated importance sampling); with mask, tokens whose ratio is outside of
    [1 / correction_cap, correction_cap] teach nothing."""
    correction_cap: float = Field(default=2.0, gt=1)
    """The largest ratio."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "RolloutSettings":
        given = self.model_fields_set
        if not self.rollout_workers:
            for key in ("rollout_cpus", "rollout_gpus"):
                if key in given:
                    raise ValueError(f"{key} is of rollout workers, and there are none. Give rollout_workers, or leave it out")
            if self.rollout_engine == "vllm":
                raise ValueError("rollout_engine: vllm samples in rollout workers, and there are none. Give rollout_workers")
        if not self.max_staleness:
            for key in ("correction", "correction_cap"):
                if key in given:
                    raise ValueError(f"{key} is of rollouts by older weights, and there are none. Give max_staleness, or leave "
                                     "it out")
        if self.rollout_engine == "vllm" and not self.rollout_gpus:
            raise ValueError("rollout_engine: vllm needs GPUs. Give rollout_gpus")
        return self

    @property
    def staleness(self) -> Staleness:
        return Staleness(self.max_staleness, self.correction, self.correction_cap)

    @property
    def deciding(self) -> dict:
        """What of it decides a stage's result, where it is not the default."""
        chosen = {"rollout_engine": self.rollout_engine} if self.rollout_engine != "spoutnik" else {}
        if self.max_staleness:
            chosen |= self.model_dump(include={"max_staleness", "correction", "correction_cap"})
        return chosen
