"""What follows from counts alone comes out as it is printed; decoding on processors within a quarter; the published bills."""

import pytest

from spoutnik.model.presets import preset
from spoutnik.scale.closed_forms import (
    BILLS,
    CPU_SHARES,
    cpu_tokens_per_second,
    hours_6nd,
    key_value_bytes,
    logits_bytes,
    utilization,
)
from spoutnik.scale.costs import PlannedModel
from spoutnik.scale.hardware import GPUS

GIB = 2**30
V3_ACTIVE = 37e9  # as its report counts
R1_READ = 37.55e9  # parameters that a token's decoding reads
Q4_K_M, Q8_0 = 0.60, 1.0625  # bytes a parameter


def test_the_logits_of_grpo_are_those_that_unsloth_prints():
    llama = preset("deepseek-r1-distill-llama-8b").config  # the shape of Llama-3.1-8B
    assert logits_bytes(llama.vocab_size, 8, 20_480) / GIB == pytest.approx(78.3, abs=0.05)


def test_so_is_the_cache_of_a_completion():
    assert key_value_bytes(PlannedModel(preset("deepseek-r1-distill-llama-8b").config), 20_480) / GIB == 2.5


def test_v3_by_6nd():
    peak = GPUS["h800"].bf16
    mfu = utilization(V3_ACTIVE, 14.8e12, 2664e3, peak)
    assert mfu * peak / 1e12 == pytest.approx(343, abs=0.5)
    assert hours_6nd(V3_ACTIVE, 14.8e12, mfu, peak) == pytest.approx(2664e3)


# (name, published tokens/s, ours). The second and the third calibrate.
CPU_POINTS = [
    ("ktransformers, Xeon 6454S", 8.7, cpu_tokens_per_second(R1_READ, Q4_K_M, 307e9, "ktransformers")),
    ("ktransformers, EPYC 9654", 14, cpu_tokens_per_second(R1_READ, Q4_K_M, 461e9, "ktransformers")),
    ("llama.cpp, EPYC 7773X, Q4", 4.4, cpu_tokens_per_second(R1_READ, Q4_K_M, 205e9, "llama.cpp")),
    ("llama.cpp, EPYC 7773X, Q8", 3.0, cpu_tokens_per_second(R1_READ, Q8_0, 205e9, "llama.cpp")),
    ("ik_llama.cpp, EPYC 7773X, Q4", 5.2, cpu_tokens_per_second(R1_READ, Q4_K_M, 205e9, "llama.cpp")),
]


@pytest.mark.parametrize("name, published, ours", CPU_POINTS, ids=[point[0] for point in CPU_POINTS])
def test_671b_on_processors_within_a_quarter(name, published, ours):
    assert abs(ours / published - 1) < 0.25


@pytest.mark.parametrize("bill", BILLS, ids=[bill.name for bill in BILLS])
def test_the_published_bills_are_the_sums_of_their_parts(bill):
    assert bill.money == bill.total and bill.leaves_out
    assert all(line.assumed for line in bill.lines)


def test_a_share_is_a_share():
    assert all(0 < share < 1 for share in CPU_SHARES.values())
