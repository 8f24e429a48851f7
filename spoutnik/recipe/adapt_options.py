"""What a user asks `spoutnik adapt` for, and what a method takes where they do not say."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.train.data.conversations import Learn

# Learning rates of an adapter, about ten times those of a whole model (docs/adapt.md).
LEARNING_RATES = {("sft", False): 5e-4, ("sft", True): 5e-5, ("grpo", False): 5e-5, ("grpo", True): 2e-6,
                  ("dpo", False): 5e-5, ("dpo", True): 1e-6, ("kto", False): 5e-5, ("kto", True): 1e-6}
EPOCHS = {"sft": 4.0, "dpo": 2.0, "kto": 2.0}


@dataclass(frozen=True)
class AdaptOptions:
    """What a user asks for; None where the data or the method decides."""

    model: str
    data: Path
    method: str | None = None
    verifier: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    learn: Learn = "last"
    held_out_share: float | None = None
    general: Path | None = None
    rank: int | None = None
    alpha: float | None = None
    full: bool = False
    epochs: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    max_tokens: int | None = None
    anchor: Path | None = None
    no_anchor: bool = False
    micro_batch_tokens: int = 2048
    seed: int = 0
    exempt: str | None = None

    def check(self) -> None:
        """Raises UserError where options contradict each other."""
        if self.full and (self.rank is not None or self.alpha is not None):
            raise UserError("--full: trains the whole model, which has no --rank and no --alpha. Leave --full out, or them.")
        if self.held_out_share is not None and not 0 < self.held_out_share < 1:
            raise UserError(f"--held-out-share {self.held_out_share:g}: must be above 0 and below 1, so that both parts exist.")
        if self.learn not in ("last", "all"):
            raise UserError(f"--learn {self.learn}: must be last or all.")
        if self.exempt is not None and not self.exempt.strip():
            raise UserError("--exempt: is empty. Say why the verifier is trained on all the same.")
        if self.no_anchor and self.anchor is not None:
            raise UserError("--no-anchor: leaves the anchor out, and --anchor gives its text. Leave one of them out.")
        if self.anchor is not None and self.general is not None and self.anchor.resolve() == self.general.resolve():
            raise UserError(f"--general {self.general}: is the text of --anchor, which training holds the model to: what was "
                            "forgotten elsewhere would not show. Give another text.")

    def check_method(self, method: str) -> None:
        """Raises UserError where an option is of another method."""
        if method == "grpo" and self.epochs is not None:
            raise UserError("--epochs: is of the other methods. Say with --steps how long reinforcement learning takes.")
        if method != "grpo" and self.steps is not None:
            raise UserError("--steps: is of --method grpo. Say with --epochs how often the data is read.")
        if method != "grpo" and self.exempt is not None:
            raise UserError("--exempt: is of --method grpo, the one that a verifier rewards. Leave it out.")
        if method != "sft" and self.learn != "last":
            raise UserError("--learn: is of --method sft. Leave it out.")


def slug(path: Path) -> str:
    """A recipe's name from its data's: adapt-my."""
    stem = re.sub(r"[^a-z0-9]+", "-", path.name.partition(".")[0].lower()).strip("-")
    return f"adapt-{stem}" if stem else "adapt"
