"""Numbers of a plan that follow from counts alone, and what is printed of them elsewhere. Does not import torch.

They need no calibration, so that a published value must come out to the digit (tests/scale/test_closed_forms.py): what differs
is another count. Decoding on a processor is the exception: it has one share of the memory's bandwidth per engine.
"""

from dataclasses import dataclass

from spoutnik.scale.costs import PlannedModel

HOUR = 3600.0


def logits_bytes(vocab_size: int, group_size: int, length: int, copies: int = 2, element: int = 2) -> int:
    """Of GRPO's log-probabilities where all logits of a group exist at once: `copies` (the policy's and the reference's) of
    group_size x length x vocabulary."""
    return copies * element * group_size * length * vocab_size


def key_value_bytes(model: PlannedModel, tokens: int, element: int = 2) -> int:
    """Of the cache of keys and values (of MLA, its latents) of so many tokens."""
    return tokens * model.config.num_hidden_layers * model.config.cache_width * element


def flops_6nd(active_parameters: float, tokens: float) -> float:
    """Of training, by the usual count: 6 for each active parameter and token (Kaplan et al. 2020, section 2.1)."""
    return 6 * active_parameters * tokens


def utilization(active_parameters: float, tokens: float, gpu_hours: float, peak: float) -> float:
    """Model FLOPs utilization (MFU) of a training that took so many GPU-hours. peak: FLOP/s of one GPU."""
    return flops_6nd(active_parameters, tokens) / (gpu_hours * HOUR * peak)


def hours_6nd(active_parameters: float, tokens: float, mfu: float, peak: float) -> float:
    """GPU-hours at a utilization: the inverse of `utilization`."""
    return flops_6nd(active_parameters, tokens) / (mfu * peak * HOUR)


# Of a processor's memory bandwidth, decoding one sequence. Calibrated on one published point each: ktransformers on EPYC 9654
# (461 GB/s) with a GPU, 14 tokens/s of R1 in Q4_K_M (its issue 314); llama.cpp on EPYC 7773X (205 GB/s), 4.4 tokens/s.
# Across two sockets, where a core reads the other's memory half of the time: llama.cpp, 4.5 tokens/s at 596 GB/s.
CPU_SHARES = {"ktransformers": 0.686, "llama.cpp": 0.485, "llama.cpp, two sockets": 0.17}


def cpu_tokens_per_second(active_parameters: float, bytes_per_parameter: float, bandwidth: float, engine: str) -> float:
    """Tokens per second of one sequence: each reads the active parameters once.

    Args:
        bandwidth: bytes/s of the processor's memory, by its data sheet.
        engine: a key of CPU_SHARES.
    """
    return CPU_SHARES[engine] * bandwidth / (active_parameters * bytes_per_parameter)


@dataclass(frozen=True)
class BillLine:
    """A part of a published bill. derived: how its hours follow from other numbers, "" where they are printed."""

    what: str
    gpu_hours: float
    assumed: str = ""


@dataclass(frozen=True)
class PublishedBill:
    """A bill by its parts. price: of a GPU-hour, assumed by its authors. total: as they print it."""

    name: str
    source: str
    gpu: str
    price: float
    total: float
    lines: tuple[BillLine, ...]
    leaves_out: str

    @property
    def money(self) -> float:
        return self.price * sum(line.gpu_hours for line in self.lines)


BILLS = (
    PublishedBill(
        "DeepSeek-V3", "DeepSeek-V3, table 1", "h800", 2.0, 5.576e6,
        (BillLine("pretraining, 14.8T tokens", 2664e3, "180K hours for each 10^12 tokens, 2,048 GPUs for less than two months"),
         BillLine("context extension to 128K", 119e3, "printed"), BillLine("post-training", 5e3, "printed")),
        "earlier research, ablations on architectures, algorithms and data; machines are rented, not owned"),
    PublishedBill(
        "DeepSeek-R1", "R1 v2, table 7", "h800", 2.0, 294e3,
        (BillLine("R1-Zero", 101e3, "512 GPUs x 198 hours = 101,376"), BillLine("making the data for SFT", 5e3, "printed"),
         BillLine("R1", 41e3, "512 GPUs x 80 hours = 40,960 (the text says 'about 4 days', which would be 96)")),
        "the base model (DeepSeek-V3: 2.788M hours, $5.576M; both together $5.87M), experiments with smaller models on A100, "
        "failed runs"))
