"""The native forward pass against its plain twin, the model's own modules."""

from dataclasses import replace

import pytest
import tiny
import torch
from ragged import batch_of, plain_logits, sequences

from spoutnik.engine.quantization.packed_matrix import KINDS
from spoutnik.engine.runners import native_runner
from spoutnik.engine.runners.base import BLOCK_SIZE, DecodeBatch, decode_multi_step, draft_multi_step
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.model.packing import PackedSequences
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
    "mla with biases": (tiny.DEEPSEEK, {"attention_bias": True}),
    "mla with biases, without q_lora": (tiny.DEEPSEEK, {"attention_bias": True, "q_lora_rank": None}),
    "v2": (tiny.V2, {}), "v2 greedy": (tiny.V2, {"topk_method": "greedy"}),
    "qwen2": (tiny.QWEN, {}), "one key head": (tiny.QWEN, {"num_key_value_heads": 1}),
    "qwen2 tied": (tiny.QWEN, {"tie_word_embeddings": True}), "qwen3": (tiny.QWEN3, {}), "llama": (tiny.LLAMA, {}),
    "llama with biases": (tiny.LLAMA, {"attention_bias": True, "mlp_bias": True}),
    "sizes of no block": (tiny.DEEPSEEK, {"hidden_size": 38, "kv_lora_rank": 14, "v_head_dim": 7, "vocab_size": 67,
                                          "moe_intermediate_size": 18, "qk_nope_head_dim": 5, "qk_rope_head_dim": 6}),
}


def runner_of(model, dtype=torch.float32, small: bool | None = None, mtp: bool = False, **options) -> NativeRunner:
    model.compute_dtype = dtype
    runner = NativeRunner.of_model(model, **options)
    if small is not None:
        runner._main.small = small
    runner.allocate(32, mtp)
    for cache in runner.caches:
        cache.normal_()  # what was there before must not matter
    return runner


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_whole_prompts(case, small):
    model = tiny.model(CASES[case][0], **CASES[case][1])
    ids, tables = sequences(vocabulary=model.config.vocab_size)
    expected = plain_logits(model, ids)
    logits, _ = runner_of(model, small=small).forward(batch_of(ids, [0] * 3, True, tables))
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize("case", CASES)
def test_token_by_token_after_a_prompt(case):
    """A prompt, then single tokens, then several generated ones at once."""
    model = tiny.model(CASES[case][0], **CASES[case][1])
    ids, tables = sequences((20, 41), model.config.vocab_size)
    expected = torch.cat([plain_logits(model, [part]) for part in ids]).split([len(part) for part in ids])
    runner = runner_of(model)
    runner.forward(batch_of([part[:12] for part in ids], [0, 0], True, tables))
    for at in range(12, 15):
        logits, _ = runner.forward(batch_of([part[at:at + 1] for part in ids], [at, at], False, tables))
        torch.testing.assert_close(logits, torch.stack([part[at] for part in expected]), atol=3e-5, rtol=3e-5)
    logits, _ = runner.forward(batch_of([part[15:] for part in ids], [15, 15], False, tables))
    torch.testing.assert_close(logits, torch.cat([part[15:] for part in expected]), atol=3e-5, rtol=3e-5)


def test_bfloat16_stays_close():
    for base in (tiny.DEEPSEEK, tiny.QWEN3):
        model = tiny.model(base)
        ids, tables = sequences()
        expected = plain_logits(model, ids)
        logits, _ = runner_of(model, torch.bfloat16).forward(batch_of(ids, [0] * 3, True, tables))
        assert (logits - expected).norm() < 0.06 * expected.norm()


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["deepseek", "qwen"])
def test_bfloat16_in_12_bits_gives_the_very_numbers(base, monkeypatch):
    model, (ids, tables) = tiny.model(base), sequences()
    model.to(torch.bfloat16)
    prompts = batch_of(ids, [0] * 3, True, tables)
    plain, _ = runner_of(model, torch.bfloat16).forward(prompts)
    monkeypatch.setattr(native_runner, "_MAX_CACHED_NBYTES", 0)
    bf12 = runner_of(model, torch.bfloat16, small=False)
    kinds = [packed.kind for packed in bf12.packed.values()]
    assert (KINDS["bf12"] in kinds) == bool(library().spoutnik_has_fast_bf12())
    assert torch.equal(bf12.forward(prompts)[0], plain)


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN])
def test_a_token_s_numbers_are_the_same_in_any_batch_to_the_last_bit(base, quantize):
    model = tiny.model(base)
    ids, tables = sequences((3, 50, 17, 30))
    runner = runner_of(model, torch.bfloat16, quantize=quantize)
    runner.forward(batch_of([part[:-1] for part in ids], [0] * 4, True, tables))
    last, contexts = [part[-1:] for part in ids], [len(part) - 1 for part in ids]
    together, _ = runner.forward(batch_of(last, contexts, False, tables))
    runner._main.small = False
    again, _ = runner.forward(batch_of(last, contexts, False, tables))
    alone = torch.cat([runner.forward(batch_of([last[s]], [contexts[s]], False, tables[s:s + 1]))[0] for s in range(4)])
    assert torch.equal(together, alone) and torch.equal(together, again)


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN])
def test_a_prompt_s_numbers_do_not_depend_on_its_chunks(base):
    model = tiny.model(base, max_position_embeddings=700)
    ids, tables = sequences((600,))
    runner = runner_of(model, torch.bfloat16)
    runner.allocate(64)
    whole, _ = runner.forward(batch_of(ids, [0], True, tables))
    runner.allocate(64)
    parts = [runner.forward(batch_of([ids[0][a:b]], [a], True, tables))[0]
             for a, b in ((0, 1), (1, 130), (130, 256), (256, 300), (300, 301), (301, 600))]
    assert torch.equal(torch.cat(parts), whole)


def test_draft_module():
    model = tiny.model(tiny.DEEPSEEK)
    ids, tables = sequences((20, 33))
    joined, packing = torch.cat(ids), PackedSequences.of([20, 33])
    with torch.no_grad():
        hidden = model.hidden(joined, packing)
        expected = model.logits(model.mtp_hidden(hidden, joined, packing, None))
    runner = runner_of(model, mtp=True)
    batch = batch_of(ids, [0, 0], True, tables)
    _, states = runner.forward(batch)
    torch.testing.assert_close(states, hidden, atol=3e-5, rtol=3e-5)
    following = torch.cat([torch.cat([part[1:], part[-1:]]) for part in ids])
    logits, ahead = runner.draft(batch, states, following)
    torch.testing.assert_close(logits, expected, atol=5e-5, rtol=5e-5)
    assert ahead.shape == states.shape


def test_only_wanted_logits_are_made_and_blocks_are_copied():
    model = tiny.model(tiny.DEEPSEEK)
    ids, tables = sequences((20, 33))
    runner = runner_of(model)
    every, _ = runner.forward(batch_of(ids, [0, 0], True, tables))
    last, _ = runner.forward(batch_of(ids, [0, 0], True, tables, all_logits=False))
    assert torch.equal(last, every[[19, 52]])
    free = torch.tensor([b for b in range(32) if b not in tables.flatten().tolist()][:2])
    runner.copy_blocks(tables[0, :2], free)
    step = [tiny.tokens(1, seed=9)]
    a, _ = runner.forward(batch_of(step, [20], False, tables[:1]))
    b, _ = runner.forward(batch_of(step, [20], False, free[None]))
    assert torch.equal(a, b)


@pytest.mark.parametrize("ahead", [1, 3])
def test_drafts_in_one_call_are_those_of_the_module_run_again_and_again(ahead):
    model = tiny.model(tiny.DEEPSEEK)
    ids, tables = sequences((20, 33))
    found = []
    for ways in (NativeRunner.draft_multi_step, draft_multi_step):
        runner = runner_of(model, mtp=True)
        batch = batch_of(ids, [0, 0], [True, False], tables)
        _, states = runner.forward(batch)
        following = torch.cat([torch.cat([part[1:], part[-1:]]) for part in ids])
        batch.logits_indices = torch.tensor([19, 50])  # of the second, not the last
        settings = torch.tensor([[1.0, 0.0], [0.9, 1.0], [0, 0], [0, 0], [0.3, 0.6]]).expand(ahead, -1, -1)
        found.append(ways(runner, batch, states, following, settings))
    assert torch.equal(*found) and found[0].shape == (ahead, 2)
    assert runner.draft_multi_step(replace(batch, logits_indices=batch.logits_indices[:0]), states, following, settings[...,
                                                                                                        :0]).shape == (ahead, 0)


def decoding_of(runner, ids, tables, rows: int) -> DecodeBatch:
    """`rows` sequences that go on after the same prompts, with all kinds of settings, ends and limits."""
    runner.forward(batch_of([part[:-1] for part in ids], [0] * len(ids), True, tables))
    which, each = torch.arange(rows) % len(ids), torch.arange(rows)
    own = runner.caches[0].shape[0] - rows + each  # their last block: they write there
    tables, contexts = tables[which].clone(), torch.tensor([len(part) - 1 for part in ids])[which]
    runner.copy_blocks(tables[each, contexts // BLOCK_SIZE], own)
    tables[each, contexts // BLOCK_SIZE] = own
    kinds = torch.tensor([[0.0, 1, 0, 0], [1, 1, 0, 0], [0.7, 0.9, 0, 0], [1.3, 1, 5, 0], [1, 0.8, 20, 0.1]])
    generated, last = each % 7, torch.stack([part[-1] for part in ids])
    return DecodeBatch(last[which], contexts, tables, 1000 + each, generated, generated + 1 + each % 5,
                       torch.tensor([[3, -1], [5, 9]])[each % 2], kinds[each % len(kinds)].T)


@pytest.mark.parametrize("rows", [5, 120], ids=["few", "many"])
@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_generated_in_one_call_is_what_single_steps_give(base, dtype, rows):
    model = tiny.model(base, initializer_range=0.1)
    ids, tables = sequences((4, 20, 35))
    with torch.no_grad():
        model.embed_tokens.weight[7] = float("nan")  # whoever says 7 is broken from then on
    found = []
    for ways in (NativeRunner.decode_multi_step, decode_multi_step):
        runner = runner_of(model, dtype)
        runner.allocate(32 + rows)
        found.append(ways(runner, decoding_of(runner, ids, tables, rows), 8))
    native, plain = found
    assert native.counts.equal(plain.counts) and native.broken.equal(plain.broken)
    there = torch.arange(8) < plain.counts[:, None]
    assert native.tokens[there].equal(plain.tokens[there]) and native.logprobs[there].equal(plain.logprobs[there])
    assert len(plain.counts.unique()) > 2 and (rows < 100 or bool(plain.broken.any()))
