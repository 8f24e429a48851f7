"""The base model: next-token prediction on the nano corpus (plain text, no conversation format, no chosen style), and
mid-training: the same on longer and other documents."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pydantic import Field

from spoutnik.model.transformer import Transformer
from spoutnik.tasks import FIRST_FAMILIES, Family
from spoutnik.tasks.catalog import find_tasks
from spoutnik.tasks.corpus import documents
from spoutnik.tasks.family import HeldOut
from spoutnik.tasks.general_text import Wishes
from spoutnik.tasks.midtraining import midtraining_documents
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.batches import Document
from spoutnik.train.language_model import take_tokens, train_language_model
from spoutnik.train.loop import Checkpoints, Cost, Progress
from spoutnik.train.monitor import Monitor
from spoutnik.train.settings import LanguageModelSettings, young


class PretrainSettings(LanguageModelSettings):
    """The corpus is endless, so `steps` x `tokens_per_step` tokens are all different documents."""

    steps: int = Field(gt=0)
    """Optimizer steps."""
    forum_thought_share: float | None = young(None, ge=0, le=1)
    """Of the forum's replies to problems, so many think first, as carefully as a textbook and as right, and the others answer
    at once, a quarter of them wrong. Without it some think quickly, and a thought does not pay: see docs/zero.md."""


def encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Document]:
    for text in texts:
        yield Document([*tokenizer.start_ids, *tokenizer.encode(text), tokenizer.eos_id])


def corpus_documents(tokenizer: Tokenizer, rng: random.Random, families: Sequence[Family],
                     forum_thought_share: float | None = None) -> Iterator[Document]:
    return encoded(documents(rng, families, forum_thought_share), tokenizer)


def pretrain(model: Transformer, tokenizer: Tokenizer, families: Sequence[Family], settings: PretrainSettings, seed: int,
             stage: str, checkpoints: Checkpoints, progress: Progress,
             monitor: Monitor | None = None) -> tuple[list[dict], Cost]:
    def documents_of(step: int) -> list[Document]:
        rng = random.Random(f"{seed} {stage} {step}")
        return take_tokens(corpus_documents(tokenizer, rng, families, settings.forum_thought_share), settings.tokens_per_step,
                           model.config.max_position_embeddings)

    return train_language_model(model, documents_of, settings, settings.steps, stage, checkpoints, progress, monitor)


def midtrain(model: Transformer, tokenizer: Tokenizer, families: Sequence[Family], settings: PretrainSettings, seed: int,
             stage: str, checkpoints: Checkpoints, progress: Progress, monitor: Monitor | None = None,
             echo_share: float = 0.0, wishes: Wishes = "listed") -> tuple[list[dict], Cost]:
    """echo_share, wishes: of the documents (`midtraining_documents`)."""
    def documents_of(step: int) -> list[Document]:
        texts = midtraining_documents(random.Random(f"{seed} {stage} {step}"), families, echo_share, wishes,
                                      settings.forum_thought_share)
        return take_tokens(encoded(texts, tokenizer), settings.tokens_per_step, model.config.max_position_embeddings)

    return train_language_model(model, documents_of, settings, settings.steps, stage, checkpoints, progress, monitor)


TOKENIZER_DOCUMENTS = 20_000


def train_tokenizer(seed: int, vocab_size: int, sample_documents: int = TOKENIZER_DOCUMENTS,
                    held_out: HeldOut = "instance") -> Tokenizer:
    """BPE on the first documents of the corpus of the first families."""
    texts = documents(random.Random(f"{seed} tokenizer"), find_tasks(FIRST_FAMILIES, held_out))
    return Tokenizer.train(islice(texts, sample_documents), vocab_size)
