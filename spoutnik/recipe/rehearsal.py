"""A rehearsal of a recipe's own model: a training step and a short generation, timed by the processor's clock.

Core-seconds, since the wall clock errs with the load of the machine (by 7 times at a load of 6.5, docs/results.md), and
core-seconds by a fifth.
"""

import time
from collections.abc import Callable
from functools import cache

import torch

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.hardware import peak_memory
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


@cache
def rehearse(config: ModelConfig, dtype: torch.dtype) -> Speed:
    """The speed of a model of this configuration on this machine. Takes some seconds."""
    model = Transformer(config, dtype)
    model.init_weights(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    settings, alone = (LanguageModelSettings(learning_rate=1e-3, mtp_loss_weight=weight) for weight in (0.1, 0.0))
    rows = cores() * settings.micro_batch_tokens // SHORT  # a whole micro-batch for each core: that is what memory is for
    ids = torch.randint(6, config.vocab_size, (rows, SHORT), generator=generator).tolist()
    documents = [Document(row) for row in ids]
    words = [token for row in ids for token in row]
    mixed = [Document(words[:length]) for _ in range(cores()) for length in _MIXED]
    parameters = list(model.parameters())
    trained = _core_seconds(lambda: language_model_gradient(model, documents, parameters, settings))
    read_mixed = _core_seconds(lambda: language_model_gradient(model, mixed, parameters, settings))
    policy = _core_seconds(lambda: language_model_gradient(model, documents, parameters, alone)) if model.mtp else None
    step = {}
    for name in ("adamw", "muon"):
        optimizer = Optimizer(model, name, 1e-9, 0.0, 1.0)
        gradients = [torch.zeros_like(parameter) for parameter in optimizer.parameters]
        step[name] = _core_seconds(lambda optimizer=optimizer, gradients=gradients: optimizer.step(gradients, 1.0))
    llm = LLM(model, eos_token_ids=[], max_num_seqs=640, max_num_batched_tokens=8192)
    prompts = [row[:PROMPT] for row in ids[:128]]
    params = SamplingParams(n=4, temperature=1.0, top_p=1.0, max_tokens=_STEPS)
    generated = _core_seconds(lambda: llm.generate(prompts, params))
    return Speed(sum(map(len, ids)) / trained, len(prompts) * 4 * _STEPS / generated, step, peak_memory(),
                 BUSY * cores(), policy and sum(map(len, ids)) / policy,
                 cores() * sum(_MIXED) / read_mixed)


def _core_seconds(work: Callable[[], object]) -> float:
    """Core-seconds of some work, when it is warm."""
    work()  # oneDNN compiles its kernels
    began = time.process_time()
    work()
    return time.process_time() - began
