"""What rank 0 tells the other processes of a run: which stage or evaluation they work on together next. It alone looks into the
run's folder, decides and writes; the others wait for its orders (`following.py`)."""

import socket
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.evals.protocol import PromptStyle
from spoutnik.files import sha256_json
from spoutnik.recipe.artifacts import Artifact
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.world import team, world


@dataclass(frozen=True)
class StageOrder:
    """A stage that is to be made. key: its artifact's, which every rank must come to by itself: so all have the same settings,
    data, verifiers and starts."""

    name: str
    seed: int
    working: Path
    inputs: dict[str, Artifact]
    key: str


@dataclass(frozen=True)
class EvaluationOrder:
    """A model that is to be evaluated. progress: the folder of what is generated on the way."""

    folder: Path
    style: PromptStyle
    progress: Path


Order = StageOrder | EvaluationOrder


def announce(order: Order | None) -> None:
    """By rank 0, before it begins; None ends the others' work. Alone, nobody listens.

    Raises:
        UserError: some rank cannot follow, with its number and what differs there.
    """
    if team().size > 1:
        team().broadcast(order)
        if order is not None:
            refuse_complaints(None)


def refuse_complaints(complaint: str | None) -> None:
    """Before the work begins, on every rank, each with its own complaint or none. Raises UserError on all with the first."""
    complaints = team().gather([complaint])
    for rank, text in enumerate(complaints):
        if text is not None:
            raise UserError(f"rank {rank}: {text}")


def refuse_other_vocabulary(tokenizer: Tokenizer, stage: str) -> None:
    """Of a tokenizer that each rank trained by itself."""
    if world().size == 1:
        return
    prints = world().gather([(sha256_json(tokenizer.bpe.to_str()), socket.gethostname())])
    for rank, (value, host) in enumerate(prints):
        if value != prints[0][0]:
            raise UserError(f"{stage}: the tokenizer that rank {rank} ({host}) has trained is another than that of rank 0 "
                            f"({prints[0][1]}). Install the same version of tokenizers on all machines.")
