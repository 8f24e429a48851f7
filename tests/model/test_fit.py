"""What fits a machine, and the speed to expect, against what was measured (docs/results.md)."""

import pytest

from spoutnik.model.fit import CONTEXT, best_fit, estimate
from spoutnik.model.presets import offered_presets, preset

QWEN = preset("deepseek-r1-distill-qwen-1.5b").config


def test_weights_a_token_and_rates_are_those_that_were_measured():
    """28 November 2026, 50 GB/s: 18.8 and 25.3 tokens/s, 2,319, 1,640 and (the head in 4 bits then) 868 MB a token."""
    fits = estimate(QWEN, 50e9)
    assert [fit.tokens_per_second for fit in fits[:2]] == pytest.approx([18.8, 25.3], rel=0.06)
    read = [0.83 * 50e9 / fit.tokens_per_second for fit in fits]
    assert read == pytest.approx([2319e6, 1640e6, 868e6 + 151_936 * 1536 * 0.5], rel=0.01)


def test_the_memory_is_that_of_weights_embedding_cache_and_program():
    by_hand = 1_543_714_304 * 0.5625 + 151_936 * 1536 * 0.5 + 2 * 151_936 * 1536 + CONTEXT * 28_672 + 400_000_000
    assert estimate(QWEN, 50e9)[2].memory_bytes == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.parametrize("memory, bandwidth, precision", [
    (64e9, 50e9, "bf16"),  # fits and is quick
    (64e9, 15e9, "int4"),  # anything else is slower than 10 tokens/s
    (64e9, 24e9, "int8"),
    (2.2e9, 400e9, "int4"),  # more precise ones do not fit
    (64e9, 1e9, "int4"),  # none is quick: the fastest
])
def test_the_most_precise_that_fits_and_is_quick_enough_is_the_best(memory, bandwidth, precision):
    assert best_fit(estimate(QWEN, bandwidth), int(memory)).precision == precision


def test_a_model_larger_than_the_memory_does_not_fit():
    assert best_fit(estimate(preset("deepseek-r1").config, 50e9), 24_000_000_000) is None


@pytest.mark.parametrize("offered", offered_presets(), ids=lambda offered: offered.name)
def test_what_is_offered_says_what_it_is(offered):
    offer, parameters = offered.offer, offered.config
    assert set(offer.about) == {"en", "fr"} and all(len(text) <= 80 for text in offer.about.values())
    assert offer.repository in offered.source and parameters.model_type in ("qwen2", "qwen3", "llama")
    weights = estimate(parameters, 1e9)[0].tokens_per_second  # of 0.83e9 bytes, at 1.5 bytes a weight
    least = 2 * 0.83e9 / weights / 1.5  # bytes of a bfloat16 file of what is read for a token
    assert least <= offer.download_bytes <= 1.6 * least + 20e6


def test_the_list_goes_from_small_to_large():
    sizes = [offered.offer.download_bytes for offered in offered_presets()]
    assert sizes == sorted(sizes) and len(sizes) >= 10
