"""The anchor: what training must not forget. Every step also asks for the base's own distributions on snippets of general text,

    loss + weight * KL(base || policy), in nats per token of the snippets.

The teacher of a model with adapters is the model itself with the adapters off: one more forward pass, no second model. Beside
full training stands a frozen copy of the start.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate as running_sums
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.model.adapter_switches import adapters_off
from spoutnik.model.moe import RouterTrace
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import parts
from spoutnik.train.batches import Document, PackedBatch, micro_batches, pack_documents
from spoutnik.train.kl import kl_to_base
from spoutnik.train.loop import Gradient, accumulate
from spoutnik.train.settings import Settings


class AnchorSettings(Settings):
    """Of the anchor: in every step the stage also learns to say of general text what the model it starts from says of it, so
    that it forgets nothing else (docs/adapt.md). It costs each step three forward passes over the snippets."""

    file: Path | None = None
    """General text of your own: plain text (.txt, .md, .rst), or rows in any shape of docs/data.md, also with `text` alone; a
    file, a folder or a pattern, relative to the recipe's folder. Without it, a sample that ships with the package: prose,
    dialogue, code and arithmetic, in English and some in French, German, Spanish and Italian."""
    weight: float = Field(default=1.0, gt=0)
    """Of KL(base || model), in nats per token, beside the stage's own loss."""
    snippets: int = Field(default=4, gt=0)
    """How many a step reads, drawn anew each time."""
    tokens: int = Field(default=64, ge=2)
    """Of each snippet."""


@dataclass(frozen=True)
class Anchor:
    """The anchor of one stage. texts: token ids of the general text, text by text; base: the frozen copy of the start, None
    where the model has adapters; micro_batch_tokens: as of the stage's settings."""

    settings: AnchorSettings
    texts: Sequence[Sequence[int]]
    seed: int
    stage: str
    base: Transformer | None = None
    micro_batch_tokens: int = 8192

    @cached_property
    def starts(self) -> list[int]:
        """How many places each text has at which a snippet may begin; a shorter text is one as a whole.

        Raises:
            UserError: all texts together are shorter than the snippets of one step.
        """
        settings, total = self.settings, sum(map(len, self.texts))
        if total < settings.snippets * settings.tokens:
            source = settings.file or "the shipped sample"
            raise UserError(f"{self.stage}: anchor: {source} holds {total:,} tokens, fewer than the snippets of one step "
                            f"({settings.snippets} x {settings.tokens}). Give more text, or lower anchor.snippets or "
                            "anchor.tokens.")
        return [max(1, len(text) - settings.tokens + 1) for text in self.texts]

    def snippets(self, step: int) -> list[list[int]]:
        """Of a step; a function of seed, stage and step: a resumed stage reads the same. Every place is as likely."""
        rng = random.Random(f"{self.seed} {self.stage} anchor {step}")
        chosen = rng.choices(range(len(self.texts)), cum_weights=list(running_sums(self.starts)), k=self.settings.snippets)
        begins = [(i, rng.randrange(self.starts[i])) for i in chosen]
        return [list(self.texts[i][begin:begin + self.settings.tokens]) for i, begin in begins]

    def gradient(self, model: Transformer, parameters: Sequence[Tensor], step: int) -> Gradient:
        """Of weight * KL(base || model) per token of the step's snippets; its metric `anchor_kl` is without the weight.
        Adapters compute without dropout here, and routers' loads are not counted."""
        documents = [Document(ids) for ids in self.snippets(step)]
        lengths = [len(document.ids) for document in documents]
        groups = micro_batches(lengths, self.micro_batch_tokens, parts(model.device))
        micro = [pack_documents(documents, chosen) for chosen in groups]

        def loss_of(batch: PackedBatch, _: RouterTrace) -> tuple[Tensor, dict[str, float]]:
            kl = self._kl(model, batch) / sum(lengths)
            return self.settings.weight * kl, {"anchor_kl": float(kl.detach())}

        return accumulate(parameters, micro, loss_of)

    def _kl(self, model: Transformer, batch: PackedBatch) -> Tensor:
        """Summed over the batch's tokens."""
        teacher, real = self.base or model, sum(batch.sequences.lengths)
        with torch.no_grad(), adapters_off():
            base_hidden = teacher.hidden(batch.input_ids, batch.sequences)
        hidden = model.hidden(batch.input_ids, batch.sequences)
        return kl_to_base(hidden[:real], model.lm_head.weight, base_hidden[:real], teacher.lm_head.weight)

    def add_to(self, gradient: Gradient, metrics: dict[str, float], model: Transformer, parameters: Sequence[Tensor],
               step: int) -> None:
        """Adds the anchor's part to a step's gradient and `anchor_kl` to its metrics. A step that taught nothing needs none."""
        if not gradient.gradients:
            return
        own = self.gradient(model, parameters, step)
        torch._foreach_add_(gradient.gradients, own.gradients)
        metrics |= own.metrics
