"""How fast a machine trains and samples a model, and the memory that it takes: what a plan is computed from.

A model of the recipe's own is small and rehearsed (`plan.rehearse`). One that is published may have billions of parameters, for
which a rehearsal would take longer than some stages: its speed follows from its parameters and from one product timed here.
"""

import time
from dataclasses import dataclass
from functools import cache

import torch

from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.native.bandwidth import read_bandwidth
from spoutnik.parallel import cores, on_all_cores

# Of the products' rate, measured on SmolLM2-135M: training and sampling many rows at once.
TRAIN_SHARE, GENERATE_SHARE = 0.6, 0.3
_SIDE = 1024  # of the matrices of the timed product
_NEWTON_SCHULZ = 30  # operations of Muon for each element of a matrix and each row of it
_MOVED_BYTES = 40  # of an AdamW step for each parameter: gradient, two moments and weight read, three of them written


@dataclass(frozen=True)
class Speed:
    """On this machine: tokens per second trained and generated, seconds for one step of each optimizer, and the process's peak
    memory doing so, beside weights, gradient and moments."""

    train: float
    generate: float
    step: dict[str, float]
    peak_memory_bytes: int


@cache
def product_rate(dtype: torch.dtype) -> float:
    """Operations per second of a product on all cores, each with one of its own. Takes a tenth of a second."""
    left, right = (torch.ones(_SIDE, _SIDE, dtype=dtype) for _ in range(2))
    work = range(2 * cores())

    def seconds() -> float:
        began = time.perf_counter()
        on_all_cores(lambda _: left @ right, work)
        return time.perf_counter() - began

    seconds()  # warm: oneDNN compiles its kernel
    return 2 * _SIDE ** 3 * len(work) / min(seconds() for _ in range(3))


def estimated_speed(config: ModelConfig, dtype: torch.dtype, micro_batch_tokens: int) -> Speed:
    """From the parameters. Sequences are taken to be short: attention costs nothing beside the products."""
    counts, rate = account(config), product_rate(dtype)
    parameters = counts.total_parameters + counts.mtp_parameters
    adamw = parameters * _MOVED_BYTES / read_bandwidth(256 << 20, 2)
    muon = adamw + _NEWTON_SCHULZ * parameters * config.hidden_size / rate
    return Speed(TRAIN_SHARE * rate / (3 * counts.flops_per_token), GENERATE_SHARE * rate / counts.flops_per_token,
                 {"adamw": adamw, "muon": muon}, _working_bytes(config, parameters, dtype, micro_batch_tokens))


def _working_bytes(config: ModelConfig, parameters: int, dtype: torch.dtype, tokens: int) -> int:
    """Beside weights, gradient and moments: each core's gradient, the activations of its micro-batch, and the weights once more
    in the type they are multiplied in (the sampler's copy)."""
    item = torch.empty(0, dtype=dtype).element_size()
    width = config.moe_intermediate_size * config.num_experts_per_tok if config.has_experts else config.intermediate_size
    activations = tokens * config.num_hidden_layers * (12 * config.hidden_size + 4 * width) * item
    return cores() * (4 * parameters + activations) + item * parameters
