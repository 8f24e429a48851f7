"""A rehearsal of a recipe's own model: a training step and a short generation, timed by the processor's clock.

Core-seconds, since the wall clock errs with the load of the machine (by 7 times at a load of 6.5, docs/results.md), and
core-seconds by a fifth.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle

import torch

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.hardware import peak_memory
from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import cores
from spoutnik.recipe.estimate import BUSY, Speed
from spoutnik.recipe.work import PROMPT
from spoutnik.train.batches import Document
from spoutnik.train.language_model import language_model_gradient
from spoutnik.train.optimizer import Optimizer
from spoutnik.train.settings import LanguageModelSettings

SHORT, POSITIONS = 96, 2048  # tokens of a short document; of the longest that the rehearsed model reads
# Lengths of the documents of one step of mid-training, conversations among them: rows are padded to their batch's longest.
_MIXED = (*(24,) * 6, *(36,) * 12, *(44,) * 12, *(60,) * 10, *(85,) * 9, *(115,) * 8, *(170,) * 7, *(210,) * 3, 320, 951, 1297)
_STEPS = 48  # tokens of each sample that is generated
_TIMED = 16384  # tokens trained at least by what is timed
_SMALL, _FEW = 20_000_000, 16  # parameters of a model that is small, tokens of a document that is
_GRAIN = 256  # to which the tokens of a step are rounded


@dataclass(frozen=True)
class TrainingStep:
    """What a stage trains in one step. tokens: of all cores; micro_batch_tokens: that one core works on at a time; mixed: of
    documents of very different lengths, conversations among them; with_mtp: the MTP module learns too."""

    tokens: int
    micro_batch_tokens: int = 8192
    mixed: bool = False
    with_mtp: bool = True


def rehearse(config: ModelConfig, dtype: torch.dtype, training: TrainingStep | None = None) -> Speed:
    """The speed of a model of this configuration on this machine. Takes some seconds, once for each of these arguments.

    Args:
        training: steps of this size are rehearsed; None where nothing is trained (the speed of training is then 0). A core's
            part of a small step is small products: 1,024 tokens take 1.6 to 1.9 times as long a token as 8,192.
    """
    model = _model(config, dtype)
    speed = _rehearse_sampling(model, config, dtype)
    if training is None:
        return speed
    most = cores() * training.micro_batch_tokens  # more are several of these
    tokens = max(_GRAIN, _GRAIN * round(min(training.tokens, most) / _GRAIN))  # alike for steps of nearly one size
    training = replace(training, tokens=tokens, with_mtp=training.with_mtp and bool(model.mtp))
    rate = _rehearse_training(model, config, dtype, training)
    return replace(speed, train=rate, read=3 * rate, peak_memory_bytes=peak_memory())


@cache
def least_step_seconds(config: ModelConfig, dtype: torch.dtype) -> float:
    """Core-seconds of a step's gradient however few its tokens are: what the operations of a small model take beside their
    arithmetic, above all those of many small experts. 0 for a larger one, where this is little beside the arithmetic (and a
    model to time it with would take long to make)."""
    if account(config).total_parameters > _SMALL:
        return 0.0
    model = Transformer(config, dtype)
    model.init_weights(torch.Generator().manual_seed(0))
    documents = [Document([6] * _FEW) for _ in range(cores())]
    settings, parameters = LanguageModelSettings(learning_rate=1e-3), list(model.parameters())
    return _core_seconds(lambda: language_model_gradient(model, documents, parameters, settings))


@cache
def _model(config: ModelConfig, dtype: torch.dtype) -> Transformer:
    model = Transformer(config, dtype)
    model.init_weights(torch.Generator().manual_seed(0))
    # A whole micro-batch of long documents for each core, whatever the stage trains: that is what memory is for, since the
    # process of a run also evaluates, and one stage follows another in it.
    settings = LanguageModelSettings(learning_rate=1e-3)
    lengths = [length for length in _MIXED for _ in range(cores())]
    language_model_gradient(model, [Document([6] * length) for length in lengths], list(model.parameters()), settings)
    return model


@cache
def _rehearse_training(model: Transformer, config: ModelConfig, dtype: torch.dtype, training: TrainingStep) -> float:
    """Tokens per core-second of a step's gradient. Small steps are repeated: a tenth of a second tells little."""
    settings = LanguageModelSettings(learning_rate=1e-3, mtp_loss_weight=0.1 if training.with_mtp else 0.0,
                                     micro_batch_tokens=training.micro_batch_tokens)
    lengths = _MIXED if training.mixed else (SHORT,)
    words = torch.randint(6, config.vocab_size, (max(lengths),), generator=torch.Generator().manual_seed(0)).tolist()
    documents = []
    for length in cycle(lengths):
        documents.append(Document(words[:length]))
        if sum(len(document.ids) for document in documents) >= training.tokens:
            break
    parameters, repeats = list(model.parameters()), max(1, _TIMED // training.tokens)

    def steps() -> None:
        for _ in range(repeats):
            language_model_gradient(model, documents, parameters, settings)

    return repeats * sum(len(document.ids) for document in documents) / _core_seconds(steps)


@cache
def _rehearse_sampling(model: Transformer, config: ModelConfig, dtype: torch.dtype) -> Speed:
    """Of generating, and of the optimizers' steps."""
    step = {}
    for name in ("adamw", "muon"):
        optimizer = Optimizer(model, name, 1e-9, 0.0, 1.0)
        gradients = [torch.zeros_like(parameter) for parameter in optimizer.parameters]
        step[name] = _core_seconds(lambda optimizer=optimizer, gradients=gradients: optimizer.step(gradients, 1.0))
    llm = LLM(model, eos_token_ids=[], max_num_seqs=640, max_num_batched_tokens=8192)
    prompts = torch.randint(6, config.vocab_size, (128, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
    params = SamplingParams(n=4, temperature=1.0, top_p=1.0, max_tokens=_STEPS)
    generated = _core_seconds(lambda: llm.generate(prompts, params))
    return Speed(0.0, len(prompts) * 4 * _STEPS / generated, step, peak_memory(), BUSY * cores())


def _core_seconds(work: Callable[[], object]) -> float:
    """Core-seconds of some work, when it is warm."""
    work()  # oneDNN compiles its kernels
    began = time.process_time()
    work()
    return time.process_time() - began
