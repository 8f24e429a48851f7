"""The reward model (R1 section 3.1): the policy's own network with a scalar head, trained on preference pairs.

It reads the prompt and the answer, never the thought, as R1's helpfulness model does.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import mean

import torch
from pydantic import Field
from torch import Tensor, nn

from spoutnik.model.layers import Linear
from spoutnik.model.moe import RouterTrace
from spoutnik.model.packing import PackedSequences
from spoutnik.model.parts import Division, is_divided
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import on_all_ranks, parts
from spoutnik.tasks import LANGUAGES
from spoutnik.tasks.general import GeneralPrompt, good_answer, has_content, sample_general
from spoutnik.tasks.general_text import Wishes, taught_kinds
from spoutnik.tasks.preferences import DIFFERENCES, Pairs, pairs_that_differ, preference_pairs
from spoutnik.text.thought_format import thought_format
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.batches import Document, PackedBatch, micro_batches, pack_documents
from spoutnik.train.loop import Checkpoints, Cost, Gradient, Progress, accumulate, train
from spoutnik.train.losses import preference_loss
from spoutnik.train.monitor import Monitor
from spoutnik.train.prompt_style import conversation_ids
from spoutnik.train.settings import OptimizerSettings, young


class RewardModelSettings(OptimizerSettings):
    """Of training on pairs of a better and a worse answer."""

    steps: int = Field(gt=0)
    """Optimizer steps."""
    tokens_per_step: int = Field(default=8192, gt=0)
    """Filled with whole pairs."""
    pairs: Pairs = young("form")
    """What makes the worse answer worse: with form its form, now and then a fact; with relevance half of the time that it
    answers another question, of the same kind or not, and in a quarter that it says what is false. Pairs of form leave a reward
    model blind to the question."""
    wishes: Wishes = young("listed")
    """What is wished in the prompts: what a list has, or any words as well."""


class RewardModel(nn.Module):
    """Transformer (its head unused) and `score`: the last token's state to one number. division: as a `Transformer`'s."""

    division: Division | None = None

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
    ids = conversation_ids((), prompt, tokenizer) + thought_format(tokenizer).completion_ids("", answer, tokenizer)
    return Document(ids, loss_from=len(ids) - 1)


def score_answers(model: RewardModel, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]],
                  micro_batch_tokens: int = 8192) -> list[float]:
    """Squashed to (0, 1) by the sigmoid, so that one prompt cannot outweigh a right answer's reward of 1."""
    limit = model.backbone.config.max_position_embeddings
    documents = [Document(d.ids[:limit], d.loss_from) for d in (scored_document(*pair, tokenizer) for pair in pairs)]
    device = model.backbone.device
    groups = micro_batches([len(d.ids) for d in documents], micro_batch_tokens, parts(device))

    @torch.no_grad()
    def one(chosen: list[int]) -> list[float]:
        ids = torch.tensor([t for i in chosen for t in documents[i].ids], device=device)
        return model(ids, PackedSequences.of([len(documents[i].ids) for i in chosen], device)).sigmoid().tolist()

    scores = [0.0] * len(documents)
    for chosen, values in zip(groups, on_all_ranks(one, groups, device, is_divided(model))):
        for i, value in zip(chosen, values):
            scores[i] = value
    return scores


def train_reward_model(model: RewardModel, tokenizer: Tokenizer, settings: RewardModelSettings, seed: int, stage: str,
                       checkpoints: Checkpoints, progress: Progress,
                       monitor: Monitor | None = None) -> tuple[list[dict], Cost]:
    optimizer = settings.make_optimizer(model)

    def pairs_of(step: int) -> list[Document]:
        """Chosen and rejected documents in turn."""
        rng, documents = random.Random(f"{seed} {stage} {step}"), []
        pairs = preference_pairs(rng, "train", taught_kinds(settings.wishes), settings.pairs)
        while sum(len(d.ids) for d in documents) < settings.tokens_per_step:
            prompt, *answers = next(pairs)
            documents += [scored_document(prompt.prompt, answer, tokenizer) for answer in answers]
        return documents

    def step_gradient(step: int) -> tuple[Gradient, dict[str, float], Cost]:
        documents = pairs_of(step)
        lengths = [len(chosen.ids) + len(rejected.ids) for chosen, rejected in zip(documents[::2], documents[1::2])]
        micro = [pack_documents(documents, [d for i in chosen for d in (2 * i, 2 * i + 1)])
                 for chosen in micro_batches(lengths, settings.micro_batch_tokens, parts(model.backbone.device))]

        def loss_of(batch: PackedBatch, trace: RouterTrace) -> tuple[Tensor, dict[str, float]]:
            scores = model(batch.input_ids, batch.sequences, trace)
            chosen, rejected = scores[0::2], scores[1::2]
            share = len(chosen) / len(lengths)
            loss = preference_loss(chosen, rejected) * share
            right = float((chosen > rejected).float().mean()) * share
            return loss, {"loss": float(loss.detach()), "accuracy": right}

        gradient = accumulate(optimizer.parameters, micro, loss_of)
        return gradient, dict(gradient.metrics), Cost(tokens_trained=sum(lengths))

    return train(model, optimizer, settings.make_schedule(settings.steps), stage, step_gradient, checkpoints, progress,
                 after_step=(monitor or Monitor(stage)).after_step)


def held_out_accuracy(model: RewardModel, tokenizer: Tokenizer, pairs: int, seed: int, kind: Pairs = "form") -> float:
    """Share of held-out pairs whose chosen answer scores higher. kind: what they differ by, as in training."""
    drawn = preference_pairs(random.Random(f"{seed} held out pairs"), "held_out", pairs=kind)
    return _ordered_right(model, tokenizer, islice(drawn, pairs)) / pairs


def accuracy_by_difference(model: RewardModel, tokenizer: Tokenizer, pairs: int, seed: int) -> dict[str, float]:
    """Form, relevance, truth -> share of held-out pairs that differ by it alone and are ordered right."""
    rng = random.Random(f"{seed} held out differences")
    return {by: _ordered_right(model, tokenizer, islice(pairs_that_differ(rng, "held_out", by), pairs)) / pairs
            for by in DIFFERENCES}


def _ordered_right(model: RewardModel, tokenizer: Tokenizer, pairs: Iterable[tuple[GeneralPrompt, str, str]]) -> int:
    scores = score_answers(model, tokenizer, [(p.prompt, answer) for p, *answers in pairs for answer in answers])
    return sum(a > b for a, b in zip(scores[0::2], scores[1::2]))


@dataclass(frozen=True)
class Constant:
    """An answer given to every question of a language. score: its mean over those that it does not answer; right: that of good
    answers to them."""

    answer: str
    score: float
    right: float


def best_constant(model: RewardModel, tokenizer: Tokenizer, seed: int, kinds: Sequence[str], prompts: int = 48,
                  constants: int = 24) -> Constant:
    """The answer to a few questions that, given to all others, comes nearest to their right answers or passes them most: what
    RL would find where the score does not depend on the question. Tried in each language: answers to `constants` prompts, given
    to `prompts` of the training split."""
    rng, found = random.Random(f"{seed} constants"), []
    for language in LANGUAGES:
        asked = [sample_general(rng, language, "train", kinds) for _ in range(prompts)]
        answers = dict.fromkeys(good_answer(sample_general(rng, language, "train", kinds), rng) for _ in range(constants))
        right = score_answers(model, tokenizer, [(p.prompt, good_answer(p, rng)) for p in asked])
        for answer in answers:
            others = [(p.prompt, score) for p, score in zip(asked, right) if not has_content(p, answer)]
            scores = score_answers(model, tokenizer, [(prompt, answer) for prompt, _ in others])
            if others:
                found.append(Constant(answer, mean(scores), mean(score for _, score in others)))
    return max(found, key=lambda constant: constant.score - constant.right)
