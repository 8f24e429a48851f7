"""Checkpoints written by transformers give the same numbers here: logits, greedy continuation, gradients, for every type.

Where transformers is different from the published code, the test says so and compares with a plain reference.
"""

import pytest
import tiny
import torch
import transformers
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from spoutnik.model.cache import Cache
from spoutnik.model.packing import PackedSequences
from spoutnik.model.weights import load_model

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "max_position_embeddings": 256, "initializer_range": 0.2}
MLA = SMALL | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
               "v_head_dim": 6, "moe_intermediate_size": 16, "n_routed_experts": 16, "n_shared_experts": 1,
               "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1}
V2 = MLA | {"topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0, "n_shared_experts": 2}
GQA = SMALL | {"num_key_value_heads": 2}


def yarn(**changes):
    return {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32,
            "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0} | changes


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
V3_PAIR, V2_PAIR = (DeepseekV3Config, DeepseekV3ForCausalLM), (DeepseekV2Config, DeepseekV2ForCausalLM)
QWEN2_PAIR, QWEN3_PAIR = (Qwen2Config, Qwen2ForCausalLM), (Qwen3Config, Qwen3ForCausalLM)
LLAMA_PAIR = (LlamaConfig, LlamaForCausalLM)
CASES = {
    "V3": (V3_PAIR, MLA, {"rope_parameters": yarn()}),
    "V3 without q_lora": (V3_PAIR, MLA, {"q_lora_rank": None, "rope_parameters": yarn()}),
    "V3 without yarn, weights not renormalised": (V3_PAIR, MLA, {"norm_topk_prob": False}),
    "V3 with biases": (V3_PAIR, MLA, {"attention_bias": True, "rope_parameters": yarn()}),
    "V3 dense": (V3_PAIR, MLA, {"first_k_dense_replace": 3, "tie_word_embeddings": True}),
    "V2": (V2_PAIR, V2, {"rope_parameters": yarn()}),
    "V2-Lite": (V2_PAIR, V2, {"q_lora_rank": None, "topk_method": "greedy", "n_group": 1, "topk_group": 1,
                              "routed_scaling_factor": 1.0, "rope_parameters": yarn(mscale=0.707, mscale_all_dim=0.707)}),
    "V2 with null groups and biases": (V2_PAIR, V2, {"topk_method": "greedy", "n_group": None, "topk_group": None,
                                                     "attention_bias": True}),
    "Qwen2": (QWEN2_PAIR, GQA, {}),
    "Qwen2 tied": (QWEN2_PAIR, GQA, {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "Qwen2 with yarn": (QWEN2_PAIR, GQA, {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32}}),
    "Qwen2 with a given attention factor": (QWEN2_PAIR, GQA, {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
        "attention_factor": 0.8}}),
    "Qwen3": (QWEN3_PAIR, GQA, {"head_dim": 12}),
    "Qwen3 tied, with biases": (QWEN3_PAIR, GQA, {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
    "Llama 3": (LLAMA_PAIR, GQA, {"rms_norm_eps": 1e-5, "rope_parameters": LLAMA3}),
    "Llama with biases": (LLAMA_PAIR, GQA, {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    "Llama stretched linearly, tied": (LLAMA_PAIR, GQA, {"tie_word_embeddings": True, "rope_parameters": {
        "rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
}


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """(transformers' model, ours read from its folder), random everywhere: norms, biases and correction biases too."""
    (config, network), base, changes = CASES[request.param]
    theirs = network(config(**base | changes, attn_implementation="eager"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            scale = 0.3 if parameter.dim() == 1 else 0.2
            offset = 1.0 if parameter.dim() == 1 and parameter.mean() > 0.5 else 0.0
            parameter.copy_(offset + scale * torch.randn(parameter.shape, generator=generator))
        for name, buffer in theirs.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.4 * torch.randn(buffer.shape, generator=generator))
                assert (buffer < 0).any() and (buffer > 0).any()
    folder = tmp_path_factory.mktemp("checkpoint")
    theirs.save_pretrained(folder)
    return theirs.eval(), load_model(folder)


def test_logits(pair):
    """100 positions: past the 32 that YaRN and Llama 3's scaling start from."""
    theirs, ours = pair
    ids = tiny.tokens(3, 100)
    expected = theirs(ids).logits.detach()
    assert expected.std() > 0.3  # the comparison would be worthless on vanishing logits
    assert (ours(ids) - expected).abs().max().item() < 1e-4 * max(1, float(expected.std()))


def test_greedy_continuation_with_our_cache(pair):
    theirs, ours = pair
    prompt = tiny.tokens(20, seed=1)
    expected = theirs.generate(prompt[None], max_new_tokens=40, min_new_tokens=40, do_sample=False, pad_token_id=0)[0, 20:]
    cache = Cache.empty(ours.config, 1, 60, torch.float32)
    with torch.no_grad():
        logits = ours.logits(ours.prefill(prompt, PackedSequences.of([20]), cache))
        tokens = []
        for _ in range(40):
            logits[:, ours.config.eos_token_ids] = -torch.inf  # min_new_tokens does so there
            tokens.append(logits.argmax(-1))
            logits = ours.logits(ours.decode(tokens[-1], cache))
    assert torch.cat(tokens).tolist() == expected.tolist()


def test_gradients(pair):
    theirs, ours = pair
    ids = tiny.tokens(2, 60, seed=2)
    for model, logits in ((ours, ours(ids)), (theirs, theirs(ids).logits)):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    expected = {name.removeprefix("model."): p.grad for name, p in theirs.named_parameters()}
    compared = {name: p.grad for name, p in ours.named_parameters()}
    assert compared.keys() == expected.keys()
    for name, grad in compared.items():
        assert (grad - expected[name]).norm() <= 1e-4 * expected[name].norm() + 1e-8, name
