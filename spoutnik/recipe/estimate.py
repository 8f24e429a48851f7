"""How fast a machine trains and samples a model, and the memory that it takes: what a plan is computed from.

A model of the recipe's own is small and rehearsed (`rehearsal.rehearse`). One that is published may have billions of
parameters, for which a rehearsal would take longer than some stages: its speed follows from its parameters and from one product
timed here.
"""

import time
from dataclasses import dataclass, replace
from functools import cache

import torch

from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.native.bandwidth import read_bandwidth
from spoutnik.parallel import cores, on_all_cores

# Measured on SmolLM2-135M with an adapter, in float32 without and in bfloat16 with AMX (docs/results.md). Products run at a
# share of the timed one's rate, in training and in sampling many rows at once; what stands beside them (norms, rotations,
# attention; the loss) costs a time of its own for each number that a layer makes of a token, and for each word of the
# vocabulary, half of it in the forward pass.
PRODUCT_SHARE, GENERATE_SHARE = 0.95, 0.3
_BESIDE, _OF_WORD, _FORWARD = 2.2e-9, 1e-8, 0.5
# Core-seconds for each parameter: to load a model and pack it for sampling; to load it for training, and to sum, round, write
# and hash what came out, of an adapter's stage and of another one.
_OPENED, _KEPT_SUM, _KEPT = 12e-9, 28e-9, 8e-9
BUSY = 0.85  # of the cores compute at a time, on average over a stage, where nothing else does (docs/results.md)
_READ_BYTES, _READ_RUNS = 256 << 20, 8  # of memory, how often
_SIDE = 1024  # of the matrices of the timed product
_NEWTON_SCHULZ = 30  # operations of Muon for each element of a matrix and each row of it
_OPTIMIZER_BYTES = 16  # per parameter: weights, gradient, two moments, float32
_FROZEN_BYTES = 2  # per parameter of a frozen base, which is held as its files hold it
_MOVED_BYTES = 40  # of an AdamW step for each parameter: gradient, two moments and weight read, three of them written


@dataclass(frozen=True)
class Speed:
    """On this machine: tokens per core-second trained and generated, core-seconds for one step of each optimizer, and the
    process's peak memory doing so, beside weights, gradient and moments. parallel: how many cores work at a time. read: tokens
    per core-second without a gradient. decode_step: core-seconds of one step of generation beside its tokens, since the weights
    are read for it; 0 where `generate` has it."""

    train: float
    generate: float
    step: dict[str, float]
    peak_memory_bytes: int
    parallel: float = 1.0
    read: float = float("inf")
    decode_step: float = 0.0


def frozen(speed: Speed, share: float) -> Speed:
    """The speed of a whole model's training for an adapter beside it, which has this share of its parameters: without the
    gradient of the weights, a third of the products."""
    return replace(speed, train=1.5 * speed.train, step={name: share * seconds for name, seconds in speed.step.items()})


@cache
def product_rate(dtype: torch.dtype) -> float:
    """Operations per core-second of a product, where each core has one of its own. Takes a tenth of a second."""
    left, right = (torch.ones(_SIDE, _SIDE, dtype=dtype) for _ in range(2))
    work = range(2 * cores())

    def seconds() -> float:
        began = time.process_time()
        on_all_cores(lambda _: left @ right, work)
        return time.process_time() - began

    seconds()  # warm: oneDNN compiles its kernel
    return 2 * _SIDE ** 3 * len(work) / min(seconds() for _ in range(3))


@cache
def read_seconds() -> float:
    """Core-seconds for each byte that is read from memory while all cores read. By the processor's clock: beside others that
    compute, the wall's would say of a fast memory that it is slow. Takes half a second."""
    def spent(runs: int) -> float:
        began = time.process_time()
        read_bandwidth(_READ_BYTES, runs)
        return time.process_time() - began

    once = min(spent(1) for _ in range(2))  # filled and read once; the first may load the kernels
    return max(spent(1 + _READ_RUNS) - once, 1e-3) / (_READ_RUNS * _READ_BYTES)


def estimated_speed(config: ModelConfig, dtype: torch.dtype, micro_batch_tokens: int, adapter: int | None = None,
                    recomputed: bool = False) -> Speed:
    """From the parameters. Sequences are taken to be short: attention costs nothing beside the products.

    Args:
        micro_batch_tokens: that one core works on at a time.
        adapter: how many parameters the adapter has that is trained while the model is frozen; None where all of it is trained.
        recomputed: with gradient checkpointing.
    """
    counts, rate = account(config), product_rate(dtype)
    parameters = counts.total_parameters + counts.mtp_parameters
    trained = parameters if adapter is None else adapter
    adamw = trained * _MOVED_BYTES * read_seconds()
    muon = adamw + _NEWTON_SCHULZ * trained * config.hidden_size / rate
    # Forward, the gradient of what goes in, and that of the weights, which frozen ones do without.
    work = 3 * counts.flops_per_token if adapter is None else 2 * counts.flops_per_token + 6 * adapter
    beside = _BESIDE * config.num_hidden_layers * _kept_values(config, adapter) + _OF_WORD * config.vocab_size
    read = counts.flops_per_token / (PRODUCT_SHARE * rate) + _FORWARD * beside
    train = work / (PRODUCT_SHARE * rate) + beside + (read if recomputed else 0)
    memory = _working_bytes(config, parameters, dtype, micro_batch_tokens, adapter, recomputed)
    item = torch.empty(0, dtype=dtype).element_size()
    return Speed(1 / train, GENERATE_SHARE * rate / counts.flops_per_token, {"adamw": adamw, "muon": muon}, memory,
                 BUSY * cores(), 1 / read, item * counts.active_parameters * read_seconds())


def opening_seconds(config: ModelConfig) -> float:
    """Core-seconds to load a published model and make it ready to sample."""
    return _OPENED * account(config).total_parameters


def keeping_seconds(config: ModelConfig, adapter: int | None) -> float:
    """Core-seconds to load a published model for training, and to keep what was made of it."""
    return (_KEPT if adapter is None else _KEPT_SUM) * account(config).total_parameters


def _kept_values(config: ModelConfig, adapter: int | None) -> int:
    """Numbers that a layer makes of a token, and training keeps."""
    width = config.moe_intermediate_size * config.num_experts_per_tok if config.has_experts else config.intermediate_size
    values = 12 * config.hidden_size + 4 * width
    if adapter is not None:  # what the thin products read and give
        values += 5 * config.hidden_size + 4 * width
    return values


def _working_bytes(config: ModelConfig, parameters: int, dtype: torch.dtype, tokens: int, adapter: int | None,
                   recomputed: bool) -> int:
    """Beside what `held_bytes` counts: each core's gradient, the activations of its micro-batch, and the weights once more in
    the type they are multiplied in (the sampler's copy). Beside an adapter that copy is of the sum of both, and each core's
    backward pass holds the frozen weights in that type too."""
    item = torch.empty(0, dtype=dtype).element_size()
    values, layers = _kept_values(config, adapter), config.num_hidden_layers
    activations = tokens * (layers * config.hidden_size + values if recomputed else layers * values) * item
    if adapter is None:
        return cores() * (4 * parameters + activations) + item * parameters
    return cores() * (4 * adapter + activations + item * parameters) + item * parameters


def held_bytes(config: ModelConfig, adapter: int | None = None) -> int:
    """Weights, gradient and two moments of what is trained, float32; beside an adapter the frozen base in 16 bits."""
    counts = account(config)
    parameters = counts.total_parameters + counts.mtp_parameters
    return _OPTIMIZER_BYTES * parameters if adapter is None else _FROZEN_BYTES * parameters + _OPTIMIZER_BYTES * adapter


def tree_bytes(virtual_shards: int, config: ModelConfig, adapter: int | None = None) -> int:
    """Sums that wait for their neighbors in the tree of virtual shards: a gradient on each of its levels."""
    counts = account(config)
    trained = counts.total_parameters + counts.mtp_parameters if adapter is None else adapter
    return 4 * trained * (virtual_shards.bit_length() - 1)
