"""The native decoding step against its plain twin, Transformer.decode."""

import pytest
import tiny
import torch

from spoutnik.engine.generate import Engine
from spoutnik.engine.native_decoder import NativeDecoder
from spoutnik.engine.sampling import SamplingParams
from spoutnik.model.cache import Cache
from spoutnik.model.packing import Packing
from spoutnik.native import library

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here: the plain twin is what runs")

CASES = {
    "mla": (tiny.DEEPSEEK, {}), "mla without q_lora": (tiny.DEEPSEEK, {"q_lora_rank": None}),
    "no shared expert": (tiny.DEEPSEEK, {"n_shared_experts": 0}),
    "two shared experts": (tiny.DEEPSEEK, {"n_shared_experts": 2}),
    "one group": (tiny.DEEPSEEK, {"n_group": 1, "topk_group": 1}),
    "groups of four": (tiny.DEEPSEEK, {"n_group": 2, "topk_group": 1}),
    "weights not renormalised": (tiny.DEEPSEEK, {"norm_topk_prob": False}),
    "no experts": (tiny.DEEPSEEK, {"n_routed_experts": 0}),
    "unequal mscales": (tiny.DEEPSEEK, {"rope_scaling": tiny.YARN | {"mscale": 0.7}}),
    "another eps": (tiny.DEEPSEEK, {"rms_norm_eps": 1e-2}), "tied": (tiny.DEEPSEEK, {"tie_word_embeddings": True}),
    "gqa": (tiny.QWEN, {}), "gqa, one key head": (tiny.QWEN, {"num_key_value_heads": 1}),
    "gqa tied": (tiny.QWEN, {"tie_word_embeddings": True}),
    "sizes of no block": (tiny.DEEPSEEK, {"hidden_size": 38, "kv_lora_rank": 14, "v_head_dim": 7, "vocab_size": 67,
                                          "moe_intermediate_size": 18, "qk_nope_head_dim": 5, "qk_rope_head_dim": 6}),
}


def twins(base, changes, dtype=torch.float32, rows: int = 3, steps: int = 12):
    """Logits (steps, rows, V) and final caches of the native step and of its twin, fed the same tokens."""
    model = tiny.model(base, **changes)
    model.compute_dtype = dtype
    engine = Engine(model, eos_ids=1)
    assert engine.native is not None
    lengths = [3 + 5 * row for row in range(rows)]
    ids, vocabulary = tiny.tokens(sum(lengths), seed=1), model.config.vocab_size
    results = []
    for native in (True, False):
        cache = Cache.empty(model.config, rows, max(lengths) + steps, dtype)
        with torch.no_grad():
            engine.model.prefill(ids, Packing.of(lengths), cache)
            logits = []
            for step in range(steps):
                tokens = tiny.tokens(rows, vocab=vocabulary, seed=100 + step)
                logits.append(engine.native.logits(tokens, cache) if native
                              else engine.model.logits(engine.model.decode(tokens, cache)))
        results.append((torch.stack(logits), cache))
    return results


@pytest.mark.parametrize("case", CASES)
def test_logits_and_cache_equal_the_plain_twin_s(case):
    (native, native_cache), (plain, plain_cache) = twins(*CASES[case])
    assert plain.std() > 0.5
    torch.testing.assert_close(native, plain, atol=2e-5, rtol=2e-5)
    for a, b in zip(native_cache.layers, plain_cache.layers, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)
    assert torch.equal(native_cache.lengths, plain_cache.lengths)


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["mla", "gqa"])
def test_many_rows_give_what_few_rows_give(base):
    (native, _), (plain, _) = twins(base, {}, rows=19, steps=3)
    torch.testing.assert_close(native, plain, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("base", [tiny.DEEPSEEK | {"n_routed_experts": 0}, tiny.QWEN], ids=["mla", "gqa"])
def test_in_bfloat16_it_is_no_further_from_the_exact_logits_than_its_twin(base):
    """Without experts: a near-tie may route either way, and the logits then differ by more than rounding."""
    (native, _), (plain, _) = twins(base, {}, torch.bfloat16)
    (exact, _), _ = twins(base, {})
    error, twin_error = ((each - exact).abs().mean() for each in (native, plain))
    assert error < 1.2 * twin_error


def test_a_model_of_odd_widths_is_decoded_all_the_same():
    odd = tiny.DEEPSEEK | {"hidden_size": 37, "kv_lora_rank": 13, "moe_intermediate_size": 11, "intermediate_size": 45}
    model, params = tiny.model(odd), SamplingParams(temperature=0, max_tokens=6)
    ids = tiny.tokens(9).tolist()
    completion = Engine(model, eos_ids=-1).generate([ids], params)[0][0]
    with torch.no_grad():
        best = model(torch.tensor([ids + completion.token_ids]))[0, 8:-1].argmax(-1)
    assert completion.token_ids == best.tolist()


def test_a_model_whose_weights_are_of_another_type_than_it_computes_in_is_left_to_the_twin():
    model = tiny.model(tiny.QWEN)
    model.compute_dtype = torch.bfloat16
    assert not NativeDecoder.serves(model)
