"""Whether a model fits a machine, and how fast it will be, before a byte of it is fetched. Does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig

# Bytes of a weight as the engine holds it, multipliers of blocks included: bfloat16 in 12 bits without loss, 8 and 4 bits.
WEIGHT_BYTES = {"bf16": 1.5, "int8": 1.0625, "int4": 0.5625}
HEAD_BYTES = WEIGHT_BYTES | {"int4": WEIGHT_BYTES["int8"]}
# Of the memory's measured bandwidth, what decoding at batch 1 reaches (0.83 to 0.87, docs/results.md, 28 November 2026).
BANDWIDTH_SHARE = 0.83
CONTEXT = 4096  # tokens of thought and answer that the estimate leaves space for
PROGRAM_BYTES = 400_000_000  # interpreter, libraries, activations
COMFORTABLE_RATE = 10  # tokens/s: faster than most people read


@dataclass(frozen=True)
class Fit:
    """A model at one precision. memory_bytes: with a cache of `CONTEXT` tokens. tokens_per_second: one conversation."""

    precision: str
    memory_bytes: int
    tokens_per_second: float


def estimate(config: ModelConfig, bandwidth: float) -> list[Fit]:
    """One Fit for each precision, the most precise first. bandwidth: bytes per second that the machine reads from memory."""
    counts = account(config)
    embedding = config.vocab_size * config.hidden_size
    beside_body = embedding * (1 if config.tie_word_embeddings else 2)  # the table, which also is the head or has one beside it
    body, active_body = counts.total_parameters - beside_body, counts.active_parameters - beside_body
    other = 2 * embedding + CONTEXT * counts.cache_bytes_per_token + PROGRAM_BYTES
    fits = []
    for name, size in WEIGHT_BYTES.items():
        head = embedding * HEAD_BYTES[name]
        fits.append(Fit(name, int(body * size + head + other), BANDWIDTH_SHARE * bandwidth / (active_body * size + head)))
    return fits


def best_fit(fits: Sequence[Fit], memory: int) -> Fit | None:
    """The most precise that fits `memory` bytes at a comfortable rate, else the fastest that fits; None where none does."""
    fitting = [fit for fit in fits if fit.memory_bytes <= memory]
    comfortable = [fit for fit in fitting if fit.tokens_per_second >= COMFORTABLE_RATE]
    return comfortable[0] if comfortable else max(fitting, key=lambda fit: fit.tokens_per_second, default=None)
