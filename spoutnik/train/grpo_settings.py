"""Settings of reinforcement learning: rollouts, rewards, and the loss."""

from typing import Literal

from pydantic import Field, model_validator

from spoutnik.tasks.general_text import Wishes
from spoutnik.train import losses
from spoutnik.train.prompt_style import PromptStyle
from spoutnik.train.rollouts import LanguageRule
from spoutnik.train.settings import Settings, TrainSettings, young


class RewardSettings(Settings):
    """Reward = accuracy + format + language, each times its weight (R1 eq. 4 and 8); nothing for a truncated completion. With
    accuracy 0 and no general prompts, or with random, the stage is a control: it is sealed though it learned nothing."""

    accuracy: float = Field(default=1.0, ge=0)
    """Weight of the verifier's verdict, or of the reward model's score."""
    format: float = Field(default=0.1, ge=0)
    """Weight of a well-formed reply: a thought that ends, and an answer. (In the styles forum and textbook a reply may do
    without a thought.)"""
    language: float = Field(default=0.1, ge=0)
    """Weight of the share of the thought that is in the language of the question."""
    language_rule: LanguageRule = young("lenient")
    """With strict, no language is credited to an empty thought; with lenient it counts as in the language."""
    random: float | None = young(None, gt=0, lt=1)
    """In place of all others: 1 with this probability and else 0, by a coin, whatever the completion says."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "RewardSettings":
        if self.random is not None and (ignored := self.model_fields_set - {"random"}):
            raise ValueError(f"random is in place of all other rewards, and {', '.join(sorted(ignored))} would be ignored. "
                             "Leave one of them out")
        if self.random is None and not (self.accuracy or self.format or self.language):
            raise ValueError("accuracy, format and language are all 0: no completion would earn more than another. Give one of "
                             "them a weight")
        return self


class GRPOSettings(TrainSettings, losses.PolicyLoss):
    """Of a step: rollouts, rewards, and the loss."""

    steps: int = Field(gt=0)
    """Optimizer steps, one per batch of prompts_per_step x group_size rollouts."""
    prompts_per_step: int = Field(default=64, gt=0)
    """Problems of a step."""
    group_size: int = Field(default=8, gt=1)
    """Completions of each, which are compared with each other."""
    updates_per_rollout: int = young(1, gt=0)
    """Steps whose rollouts are sampled together, before the first of them, and learned from one step after the other (R1: 16).
    From the second on the ratio is not 1 and the clip acts. Checkpoints are written between such batches alone."""
    max_tokens: int = Field(default=200, gt=1)
    """The longest completion, thought included; a longer one is cut off and earns nothing."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Of the rollouts, and of the loss."""
    prompt_style: PromptStyle = young("chat")
    """How problems are put, in rollouts, validation and evaluation: a conversation; or plain text for a base, which knows none:
    a layout of its pretraining text (forum, textbook), or R1-Zero's template, whose completions end at an end of sentence."""
    share_prompts: bool = young(False)
    """Compute each prompt once for its group and not once for each completion: the same step but for rounding, in less time
    where prompts are long beside their completions. (Of an adapter on a dense model, what completions of a micro-batch begin
    with alike is computed once in any case.)"""
    refill_rounds: int = young(3, gt=0)
    """With zero_variance: refill, how often prompts whose group has no variance are replaced by others, at the most."""
    max_mismatch_kl: float = Field(default=0.05, gt=0)
    """Between the sampler's log-probabilities and the trainer's, in nats a token; beyond, the stage fails."""
    rewards: RewardSettings = RewardSettings()
    """The weights of the rewards."""
    general_share: float = Field(default=0.0, ge=0, lt=1)
    """The share of the prompts that are general and scored by the reward model."""
    general_from: float = Field(default=0.5, ge=0, le=1)
    """The share of the steps after which general prompts begin (R1 section 3.2: only at the end, or the reward is hacked)."""
    wishes: Wishes = young("listed")
    """What is wished in general prompts: what a list has, or any words as well."""
    dialogue_share: float = Field(default=0.0, ge=0, le=1)
    """The share of the prompts with earlier turns before the question."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """What the learning rate does after its warm-up, as in the other stages."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "GRPOSettings":
        if self.prompt_style != "chat" and self.dialogue_share:
            raise ValueError(f"dialogue_share: plain text (prompt_style: {self.prompt_style}) has no place for earlier turns. "
                             "Leave one of them out")
        if self.rewards.random is not None and self.general_share:
            raise ValueError("general_share: with rewards.random no reward model is asked. Leave one of them out")
        if self.refill_rounds != type(self).model_fields["refill_rounds"].default and self.zero_variance != "refill":
            raise ValueError(f"refill_rounds is of zero_variance: refill, and it is {self.zero_variance}. Leave it out")
        return self

    @property
    def is_control(self) -> bool:
        """Whether nothing that is rewarded depends on an answer."""
        return self.rewards.random is not None or not self.rewards.accuracy and not self.general_share
