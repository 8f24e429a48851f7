"""Who samples the policies of a recipe's stages. What samples on clusters stands above recipes (`scale/rollout_workers.py`),
so it is handed to `run_recipe` from outside."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from spoutnik.errors import UserError
from spoutnik.model.transformer import Transformer
from spoutnik.recipe.scale_settings import ScaleSettings
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.rollouts import PolicyEngine, PolicySampler


class Samplers(Protocol):
    """Makes what samples a stage's model."""

    def check(self, scale: ScaleSettings | None, device: str) -> None:
        """Before anything runs. device: the recipe's, on which it trains.

        Raises:
            UserError: what the recipe asks for cannot be had.
        """

    def open(self, model: Transformer, tokenizer: Tokenizer, scale: ScaleSettings | None, folder: Path,
             say: Callable[[str], None]) -> AbstractContextManager[PolicySampler]:
        """For a stage that samples `model`, whose weights change. folder: for what is written of workers that fail."""


class SamplersHere:
    """This process, or each of those that run together."""

    def check(self, scale: ScaleSettings | None, device: str) -> None:
        if scale is not None and scale.rollout_workers:
            raise UserError(f"scale.rollout_workers = {scale.rollout_workers}: only `spoutnik run` starts them. Leave it out.")

    @contextmanager
    def open(self, model: Transformer, tokenizer: Tokenizer, scale: ScaleSettings | None, folder: Path,
             say: Callable[[str], None]) -> Iterator[PolicySampler]:
        yield PolicyEngine(model, tokenizer)


SAMPLERS_HERE = SamplersHere()
