"""The network against an implementation we did not write: transformers, reading the folder we wrote."""

import pytest
import tiny
import torch
import transformers
from transformers import AutoModelForCausalLM

from spoutnik.model.packing import PackedSequences
from spoutnik.model.weights import save_model

transformers.logging.set_verbosity_error()  # it reports the MTP layer's tensors, which its main model does not read
transformers.logging.disable_progress_bar()
NO_YARN = {"rope_scaling": None}
CASES = {
    "deepseek": (tiny.DEEPSEEK, {}),
    "deepseek without q_lora": (tiny.DEEPSEEK, {"q_lora_rank": None, "num_nextn_predict_layers": 0}),
    "deepseek without yarn": (tiny.DEEPSEEK, NO_YARN),
    "deepseek with unequal mscales": (tiny.DEEPSEEK, {"rope_scaling": tiny.YARN | {"mscale": 0.7}}),
    "deepseek of one group": (tiny.DEEPSEEK, {"n_group": 1, "topk_group": 1, "n_shared_experts": 2}),
    "deepseek without renormalised weights": (tiny.DEEPSEEK, {"norm_topk_prob": False}),
    "deepseek tied": (tiny.DEEPSEEK, {"tie_word_embeddings": True}),
    "deepseek with another eps and base": (tiny.DEEPSEEK, {"rms_norm_eps": 1e-3, "rope_theta": 500.0}),
    "qwen2 grouped": (tiny.QWEN, {}),
    "qwen2 tied, one key head": (tiny.QWEN, {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "qwen2 with another base": (tiny.QWEN, {"rope_theta": 1e6, "rms_norm_eps": 1e-3}),
    "qwen2 with yarn": (tiny.QWEN, {"rope_scaling": {key: tiny.YARN[key] for key in (
        "type", "factor", "original_max_position_embeddings")}}),
}


def theirs_of(model, folder):
    save_model(folder, model, torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers_beyond_the_original_context(case, tmp_path):
    base, changes = CASES[case]
    ours = tiny.model(base, **changes)
    ids = tiny.tokens(2, 100)
    theirs = theirs_of(ours, tmp_path)(ids).logits
    assert theirs.std() > 0.5  # the comparison would be worthless on vanishing logits
    assert (ours(ids) - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("case", ["deepseek", "deepseek without q_lora", "qwen2 grouped", "qwen2 tied, one key head"])
def test_gradients_equal_those_of_transformers(case, tmp_path):
    base, changes = CASES[case]
    ours = tiny.model(base, **changes)
    theirs = theirs_of(ours, tmp_path)
    ids = tiny.tokens(2, 40)
    for model, logits in ((ours, ours(ids)), (theirs, theirs(ids).logits)):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    their_gradients = {name.removeprefix("model."): p.grad for name, p in theirs.named_parameters()}
    compared = 0
    for name, parameter in ours.named_parameters():
        if not name.startswith("mtp."):
            torch.testing.assert_close(parameter.grad, their_gradients[name], atol=1e-5, rtol=1e-4)
            compared += 1
    assert compared == len(their_gradients)


def test_a_group_masked_out_matters_in_the_parity_configuration(tmp_path):
    """Guards the test above: with these biases, the group limit and the negative biases do change the routing."""
    ours = tiny.model(tiny.DEEPSEEK)
    free = tiny.model(tiny.DEEPSEEK, n_group=1, topk_group=1)
    ids = tiny.tokens(2, 40)
    assert all((r.e_score_correction_bias < 0).any() for r in ours.routers.values())
    assert (ours(ids) - free(ids)).abs().max() > 0.01


def test_the_mtp_module_equals_that_of_transformers(tmp_path):
    from transformers.cache_utils import MtpCache
    from transformers.modeling_layers import MtpModel

    ours = tiny.model(tiny.DEEPSEEK)
    theirs = theirs_of(ours, tmp_path)
    theirs._keys_to_ignore_on_load_unexpected = [r"model\.layers\.3\..*"]  # their own list knows V3's layer 61 only
    module = MtpModel.from_pretrained(theirs)
    ids = tiny.tokens(40)
    packing = PackedSequences.of([40])
    hidden = ours.hidden(ids, packing)
    mine = ours.logits(ours.mtp_hidden(hidden, ids, packing, None))[:-1]
    states = theirs.model(ids[None]).last_hidden_state[:, :-1]
    their_hidden = module.forward_layer(0, states, torch.arange(1, 40)[None], MtpCache(config=module.config),
                                        input_ids=ids[None, 1:])
    assert (mine - theirs.lm_head(their_hidden)[0]).abs().max() < 1e-4
