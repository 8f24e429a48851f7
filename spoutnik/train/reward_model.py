"""The reward model (R1 section 3.1): the policy's own network with a scalar head, trained on preference pairs.

It reads the prompt and the answer, never the thought, as R1's helpfulness model does.
"""

import random
from collections.abc import Sequence
from itertools import islice

import torch
from pydantic import Field
from torch import Tensor, nn

from spoutnik.model.layers import Linear
from spoutnik.model.moe import RouterTrace
from spoutnik.model.packing import PackedSequences
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import cores, on_all_cores
from spoutnik.tasks.general import preference_pairs
from spoutnik.tasks.general_text import TAUGHT_KINDS
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.batches import Document, PackedBatch, micro_batches, pack_documents
from spoutnik.train.loop import Checkpoints, Cost, Gradient, Progress, accumulate, train
from spoutnik.train.losses import preference_loss
from spoutnik.train.settings import OptimizerSettings


class RewardModelSettings(OptimizerSettings):
    """Of training on pairs of a better and a worse answer."""

    steps: int = Field(gt=0)
    """Optimizer steps."""
    tokens_per_step: int = Field(default=8192, gt=0)
    """Filled with whole pairs."""


class RewardModel(nn.Module):
    """Transformer (its head unused) and `score`: the last token's state to one number."""

    def __init__(self, backbone: Transformer):
        super().__init__()
        self.backbone = backbone
        self.score = Linear(backbone.config.hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, input_ids: Tensor, sequences: PackedSequences, trace: RouterTrace | None = None) -> Tensor:
        """Packed documents (T,) to their scores (documents,), float32."""
        hidden = self.backbone.hidden(input_ids, sequences, trace)
        return self.score(hidden[sequences.last_tokens].float())[:, 0]


def scored_document(prompt: str, answer: str, tokenizer: Tokenizer) -> Document:
    """Prompt, an empty thought and the answer: the thought is not scored."""
    ids = tokenizer.chat_ids([{"role": "user", "content": prompt}]) + tokenizer.completion_ids("", answer)
    return Document(ids, loss_from=len(ids) - 1)


def score_answers(model: RewardModel, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]],
                  micro_batch_tokens: int = 8192) -> list[float]:
    """Squashed to (0, 1) by the sigmoid, so that one prompt cannot outweigh a right answer's reward of 1."""
    limit = model.backbone.config.max_position_embeddings
    documents = [Document(d.ids[:limit], d.loss_from) for d in (scored_document(*pair, tokenizer) for pair in pairs)]
    groups = micro_batches([len(d.ids) for d in documents], micro_batch_tokens, cores())

    @torch.no_grad()
    def one(chosen: list[int]) -> list[float]:
        ids = torch.tensor([t for i in chosen for t in documents[i].ids])
        return model(ids, PackedSequences.of([len(documents[i].ids) for i in chosen])).sigmoid().tolist()

    scores = [0.0] * len(documents)
    for chosen, values in zip(groups, on_all_cores(one, groups)):
        for i, value in zip(chosen, values):
            scores[i] = value
    return scores


def train_reward_model(model: RewardModel, tokenizer: Tokenizer, settings: RewardModelSettings, seed: int, stage: str,
                       checkpoints: Checkpoints, progress: Progress) -> tuple[list[dict], Cost]:
    optimizer = settings.make_optimizer(model)

    def pairs_of(step: int) -> list[Document]:
        """Chosen and rejected documents in turn."""
        pairs, documents = preference_pairs(random.Random(f"{seed} {stage} {step}"), "train", TAUGHT_KINDS), []
        while sum(len(d.ids) for d in documents) < settings.tokens_per_step:
            prompt, *answers = next(pairs)
            documents += [scored_document(prompt.prompt, answer, tokenizer) for answer in answers]
        return documents

    def step_gradient(step: int) -> tuple[Gradient, dict[str, float], Cost]:
        documents = pairs_of(step)
        lengths = [len(chosen.ids) + len(rejected.ids) for chosen, rejected in zip(documents[::2], documents[1::2])]
        micro = [pack_documents(documents, [d for i in chosen for d in (2 * i, 2 * i + 1)])
                 for chosen in micro_batches(lengths, settings.micro_batch_tokens, cores())]

        def loss_of(batch: PackedBatch, trace: RouterTrace) -> tuple[Tensor, dict[str, float]]:
            scores = model(batch.input_ids, batch.sequences, trace)
            chosen, rejected = scores[0::2], scores[1::2]
            share = len(chosen) / len(lengths)
            loss = preference_loss(chosen, rejected) * share
            right = float((chosen > rejected).float().mean()) * share
            return loss, {"loss": float(loss.detach()), "accuracy": right}

        gradient = accumulate(optimizer.parameters, micro, loss_of)
        return gradient, dict(gradient.metrics), Cost(tokens_trained=sum(lengths))

    return train(model, optimizer, settings.make_schedule(settings.steps), stage, step_gradient, checkpoints, progress)


def held_out_accuracy(model: RewardModel, tokenizer: Tokenizer, pairs: int, seed: int) -> float:
    """Share of held-out pairs whose chosen answer scores higher."""
    drawn = islice(preference_pairs(random.Random(f"{seed} held out pairs"), "held_out"), pairs)
    scores = score_answers(model, tokenizer, [(p.prompt, answer) for p, *answers in drawn for answer in answers])
    return sum(a > b for a, b in zip(scores[0::2], scores[1::2])) / pairs
