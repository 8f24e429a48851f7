"""Adapters beside the base, several in one batch: the same tokens as the models that they are merged into."""

from dataclasses import replace

import pytest
import tiny
import torch
import transformers
from asking import llm, prompts, tokens_of
from lora_parts import adapter_folder, random_parts, summed
from ragged import batch_of
from transformers import AutoModelForCausalLM

from spoutnik import LLM, SamplingParams
from spoutnik.engine import adapters
from spoutnik.errors import UserError
from spoutnik.model.adapter_file import Adapter, write_adapter
from spoutnik.model.lora import LowRank
from spoutnik.model.weights import load_model, save_model
from spoutnik.native import library

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
BASES = pytest.mark.parametrize("base", list(tiny.ALL.values()), ids=list(tiny.ALL))
ODD = tiny.DEEPSEEK | {"hidden_size": 38, "kv_lora_rank": 14, "v_head_dim": 7, "vocab_size": 67, "q_lora_rank": 9,
                       "moe_intermediate_size": 18, "qk_nope_head_dim": 5, "qk_rope_head_dim": 6}
TWO_FORMS = pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["mla", "gqa"])
GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
NAMES = [None, "law", "tickets", "law", None, "tickets"]


def engine_of(model, *names: str, **options) -> LLM:
    engine = llm(model=model, **options)
    for seed, name in enumerate(names):
        engine.load_adapter(name, random_parts(model, seed, rank=3 + seed))
    return engine


def one_each(model, names, inputs, params=GREEDY, **options):
    """What each name's own model says, base and adapter summed, prompt by prompt."""
    models = {name: summed(model, random_parts(model, seed, rank=3 + seed)) for seed, name in enumerate(("law", "tickets"))}
    engines = {name: llm(model=one, **options) for name, one in (models | {None: model}).items()}
    return [engines[name].generate(prompt, params)[0] for name, prompt in zip(names, inputs)]


@BASES
def test_a_mixed_batch_says_what_each_merged_model_says(base, kernels):
    model = tiny.model(base)
    outputs = engine_of(model, "law", "tickets").generate(prompts(6), GREEDY, adapter=NAMES)
    expected = one_each(model, NAMES, prompts(6))
    assert tokens_of(outputs) == tokens_of(expected)
    assert len({tuple(one[0]) for one in tokens_of(expected)}) == 6
    for output, other in zip(outputs, expected):
        torch.testing.assert_close(torch.tensor(output.outputs[0].logprobs), torch.tensor(other.outputs[0].logprobs),
                                   atol=1e-4, rtol=0)


@pytest.mark.skipif(library() is None, reason="no compiler here: the plain twin is what runs")
@pytest.mark.parametrize("base", [ODD, tiny.DEEPSEEK | {"q_lora_rank": None}, tiny.QWEN | {"num_key_value_heads": 1}],
                         ids=["sizes of no block", "no q_lora", "one key head"])
def test_large_models_and_sizes_of_no_block(base):
    """As threads share a model that does not fit the caches; maps of one input whose outputs do not end with a block."""
    model = tiny.model(base)
    engine = engine_of(model, "law", "tickets")
    engine.core.runner._main.small = False
    assert tokens_of(engine.generate(prompts(6), GREEDY, adapter=NAMES)) == tokens_of(one_each(model, NAMES, prompts(6)))


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",), ("up_proj",)], ids=str)
def test_adapters_of_some_maps(targets, kernels):
    model = tiny.model(tiny.LLAMA)
    parts = random_parts(model, 4, targets=targets)
    engine = llm(model=model)
    engine.load_adapter("law", parts)
    expected = llm(model=summed(model, parts)).generate(prompts(4), GREEDY)
    assert tokens_of(engine.generate(prompts(4), GREEDY, adapter="law")) == tokens_of(expected)


def test_adapters_of_the_absorbed_map_alone(kernels):
    """kv_b_proj of latent attention: in decoding its halves lie in the query and behind the attention."""
    model = tiny.model(tiny.DEEPSEEK)
    parts = random_parts(model, 4, targets=("kv_b_proj",), scale=2.0)
    engine, plain = llm(model=model), tokens_of(llm(model=model).generate(prompts(4), GREEDY))
    engine.load_adapter("law", parts)
    said = tokens_of(engine.generate(prompts(4), GREEDY, adapter="law"))
    assert said == tokens_of(llm(model=summed(model, parts)).generate(prompts(4), GREEDY)) != plain


@TWO_FORMS
def test_transformers_says_the_same_with_the_sum_in_its_weights(base, kernels, tmp_path):
    model = tiny.model(base | {"num_nextn_predict_layers": 0})
    folder = tmp_path / "base"
    save_model(folder, model, torch.float32)
    parts = random_parts(model, 7)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for name, part in parts.items():
            theirs.get_parameter(f"model.{name}.weight").add_(part.scale * part.lora_B @ part.lora_A)
    engine = llm(model=model)
    engine.load_adapter("law", parts)
    for output in engine.generate(prompts(2), GREEDY, adapter="law"):
        ids = list(output.prompt_token_ids)
        for _ in range(GREEDY.max_tokens):
            with torch.no_grad():
                ids.append(int(theirs(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        assert output.outputs[0].token_ids == ids[len(output.prompt_token_ids):]


@pytest.mark.skipif(library() is None, reason="quantized weights need the native kernels")
@pytest.mark.parametrize("kind", ["int8", "int4", "bfloat16"])
def test_beside_quantized_weights_the_adapter_stays_exact(kind):
    """Nearer to the adapter beside the exact base than the base's own error: what the adapter adds is not rounded."""
    base = tiny.QWEN | {"hidden_size": 64, "intermediate_size": 96}
    model = tiny.model(base)
    model.compute_dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    exact = tiny.model(base)
    ids, params = tiny.tokens(40).tolist(), SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    distance = []
    for name in (None, "law"):
        rough = engine_of(model, "law", quantize=None if kind == "bfloat16" else kind).generate(ids, params, adapter=name)
        true = engine_of(exact, "law").generate(ids, params, adapter=name)
        one, other = (torch.tensor([next(iter(at.values())) for at in out[0].prompt_logprobs[1:]]) for out in (rough, true))
        distance.append(float((one - other).abs().mean()))
    assert 0 < distance[1] < 2 * distance[0]


@TWO_FORMS
@pytest.mark.parametrize("speculate", ["mtp", "prompt_lookup"])
def test_drafts_change_no_token(base, speculate, kernels):
    if speculate == "mtp" and base is tiny.QWEN:
        pytest.skip("it has no MTP module")
    model = tiny.model(base)
    engine = engine_of(model, "law", "tickets", speculate=speculate, speculate_up_to=8, num_speculative_tokens=2)
    plain = engine_of(model, "law", "tickets")
    expected = tokens_of(plain.generate(prompts(6), GREEDY, adapter=NAMES))
    assert tokens_of(engine.generate(prompts(6), GREEDY, adapter=NAMES)) == expected
    assert engine.core.stats.drafted > 0


@TWO_FORMS
def test_a_token_is_the_same_alone_and_in_any_company(base, kernels):
    model, params = tiny.model(base), SamplingParams(temperature=1.0, top_p=1.0, max_tokens=8, seed=3, n=2)
    engine = engine_of(model, "law", "tickets", max_num_seqs=5, max_num_batched_tokens=9)
    together = tokens_of(engine.generate(prompts(4), params, adapter=NAMES[:4]))
    single = engine_of(model, "law", "tickets", enable_prefix_caching=False)
    assert together == [tokens_of(single.generate(prompt, params, adapter=name))[0] for prompt, name in zip(prompts(4), NAMES)]


@pytest.mark.skipif(library() is None, reason="no compiler here: the plain twin is what runs")
def test_the_kernels_refuse_a_number_that_no_adapter_has():
    runner = engine_of(tiny.model(tiny.QWEN), "law").core.runner
    for number in (0, 7, -2):  # none is in use
        with pytest.raises(ValueError, match="adapter is not set"):
            runner.forward(replace(batch_of([tiny.tokens(3)], [0], True, torch.tensor([[0]])), adapters=torch.tensor([number])))


# The prefix cache

def cached(engine, ids, adapter=None) -> int:
    return engine.generate(ids, SamplingParams(temperature=0, max_tokens=2), adapter=adapter)[0].num_cached_tokens


def test_blocks_are_shared_within_an_adapter_alone():
    model = tiny.model(tiny.QWEN)
    engine, ids = engine_of(model, "law", "tickets"), tiny.tokens(60).tolist()
    assert [cached(engine, ids, name) for name in (None, "law", "tickets")] == [0, 0, 0]
    assert [cached(engine, ids, name) for name in (None, "law", "tickets")] == [48, 48, 48]


def test_another_adapter_of_the_same_name_finds_nothing_of_the_first():
    model = tiny.model(tiny.QWEN)
    engine, ids = engine_of(model, "law"), tiny.tokens(60).tolist()
    first = tokens_of(engine.generate(ids, GREEDY, adapter="law"))
    engine.unload_adapter("law")
    parts = random_parts(model, 9)
    engine.load_adapter("law", parts)
    output, = engine.generate(ids, GREEDY, adapter="law")
    assert output.num_cached_tokens == 0
    assert tokens_of([output]) == tokens_of(llm(model=summed(model, parts)).generate(ids, GREEDY)) != first


def test_what_is_embedded_has_the_adapter_in_it(kernels):
    model = tiny.model(tiny.DEEPSEEK)
    parts, ids = random_parts(model, 0), [tiny.tokens(20).tolist()]
    engine = llm(model=model)
    engine.load_adapter("law", parts)
    base = engine.embed(ids)
    torch.testing.assert_close(engine.embed(ids, adapter="law"), llm(model=summed(model, parts)).embed(ids), atol=1e-5, rtol=0)
    torch.testing.assert_close(engine.embed(ids), base, atol=0, rtol=0)
    assert (engine.embed(ids, adapter="law") - base).abs().max() > 0.01


# Loading and unloading

def test_an_unloaded_adapter_serves_those_that_have_it_to_their_end(kernels):
    model = tiny.model(tiny.QWEN)
    engine, other = engine_of(model, "law"), random_parts(model, 9)
    expected = tokens_of(engine.generate(prompts(2), GREEDY, adapter="law"))
    requests = engine.requests_of(prompts(2), GREEDY, None, adapter="law")
    for request in requests:
        engine.core.add(request)
    engine.core.step()
    engine.unload_adapter("law")
    engine.load_adapter("law", other)
    with pytest.raises(UserError, match="tickets"):
        engine.generate(prompts(1), GREEDY, adapter="tickets")
    beside, = engine.generate(prompts(2)[1], GREEDY, adapter="law")  # of the new one, in the same batch
    while engine.core.requests:
        engine.core.step()
    assert [[sample.token_ids for sample in request.samples] for request in requests] == expected
    assert tokens_of([beside]) == tokens_of(llm(model=summed(model, other)).generate(prompts(2)[1:], GREEDY))
    assert not engine.core.adapters._in_use


def test_a_view_keeps_its_adapter():
    model = tiny.model(tiny.QWEN)
    engine = engine_of(model, "law")
    view, expected = engine.with_adapter("law"), tokens_of(engine.generate(prompts(2), GREEDY, adapter="law"))
    engine.unload_adapter("law")
    assert tokens_of(view.generate(prompts(2), GREEDY)) == expected
    assert tokens_of(engine.generate(prompts(2), GREEDY)) != expected


def test_streams_and_conversations_take_an_adapter():
    model, tokenizer = tiny.model(tiny.QWEN | {"vocab_size": 512}), tiny.tokenizer()
    engine = llm(model=model, tokenizer=tokenizer)
    parts = random_parts(model, 0)
    engine.load_adapter("law", parts)
    merged = llm(model=summed(model, parts), tokenizer=tokenizer)
    message = [{"role": "user", "content": "what is 12 + 30?"}]
    assert tokens_of(engine.chat(message, GREEDY, adapter="law")) == tokens_of(merged.chat(message, GREEDY))
    streamed = [token for part in engine.stream(message, GREEDY, adapter="law") for token in part.outputs[0].token_ids]
    assert [streamed] == tokens_of(merged.chat(message, GREEDY))[0]


def test_the_caller_s_model_stays_as_it_is(plain_kernels):
    model = tiny.model(tiny.QWEN).requires_grad_(False)
    before = model(tiny.tokens(1, 10))
    engine_of(model, "law").generate(prompts(2), GREEDY, adapter="law")
    assert all(module.adapter is None for module in model.modules() if hasattr(module, "adapter"))
    assert torch.equal(model(tiny.tokens(1, 10)), before)


# What cannot be

@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    model, other = tiny.model(tiny.QWEN), tiny.model(tiny.QWEN, seed=5)
    save_model(root / "base", model, torch.float32)
    adapter_folder(root / "law", model, 0)
    adapter_folder(root / "of another base", other, 0)
    adapter_folder(root / "of another kind", tiny.model(tiny.DEEPSEEK), 0)
    adapter_folder(root / "of another size", tiny.model(tiny.QWEN | {"intermediate_size": 40}), 0)
    parts = random_parts(model, 0)
    write_adapter(root / "dora", Adapter({name: LowRank(part.lora_A.detach(), part.lora_B.detach(), 1.0,
                                                        torch.ones(len(part.lora_B))) for name, part in parts.items()}))
    generator = torch.Generator().manual_seed(0)
    write_adapter(root / "thick", Adapter({"layers.0.self_attn.k_proj": LowRank(
        torch.randn(20, 32, generator=generator), torch.randn(16, 20, generator=generator), 1.0)}))
    return root


@pytest.mark.parametrize("name, sentence", [
    ("of another base", "was trained on other weights than this model's"), ("of another kind", "which this model has not"),
    ("of another size", "is for a layer of 32 x 40, and this model's is 32 x 48"),
    ("dora", "has DoRA's magnitudes, .* Merge it at load"), ("thick", "has rank 20, which is more than the layer has, 16 x 32"),
    ("nowhere", "holds no adapter_config.json")])
def test_adapters_that_do_not_fit_are_refused_before_weights_are_read(name, sentence, folders, monkeypatch):
    engine = LLM(folders / "base")
    with pytest.raises(UserError, match=sentence):
        engine.load_adapter("law", folders / name)
    monkeypatch.setattr("spoutnik.engine.llm.make_runner", lambda *_: pytest.fail("the model was read"))
    with pytest.raises(UserError, match=sentence):
        LLM(folders / "base", adapters={"law": folders / name})


def test_folders_are_read_at_the_start(folders):
    model = load_model(folders / "base")
    engine = LLM(folders / "base", adapters={"law": folders / "law"}, eos_token_ids=[1])
    expected = llm(model=summed(model, random_parts(model, 0))).generate(prompts(3), GREEDY)
    assert tokens_of(engine.generate(prompts(3), GREEDY, adapter="law")) == tokens_of(expected)


def test_names(folders):
    engine = LLM(folders / "base", adapters={"law": folders / "law"})
    with pytest.raises(UserError, match="'law': one of this name is loaded already"):
        engine.load_adapter("law", folders / "law")
    with pytest.raises(UserError, match="must have a name"):
        engine.load_adapter("", folders / "law")
    with pytest.raises(UserError, match="no adapter of this name is loaded. Did you mean 'law'"):
        engine.generate([5, 6], GREEDY, adapter="lav")
    with pytest.raises(UserError, match="no adapter of this name"):
        engine.unload_adapter("tickets")
    with pytest.raises(UserError, match="2 names for 1 prompts"):
        engine.generate([5, 6], GREEDY, adapter=["law", None])


def test_a_merged_base_takes_no_further_adapters(folders):
    with pytest.raises(UserError, match="summed with one already"):
        LLM(folders / "base", adapter=folders / "law", adapters={"law": folders / "law"})
    with pytest.raises(UserError, match="summed with one already"):
        LLM(folders / "base", adapter=folders / "law").load_adapter("law", folders / "law")


def test_zeros_that_fill_to_a_common_rank_are_left_out():
    a, b = torch.randn(4, 6), torch.randn(5, 4)
    a[2:], b[:, 2:] = 0, 0
    parts = adapters.trimmed({"x": LowRank(a, b, 1.0), "zero": LowRank(torch.randn(2, 6), torch.zeros(5, 2), 1.0)})
    assert list(parts) == ["x"] and parts["x"].rank == 2
    torch.testing.assert_close(parts["x"].delta(), b @ a)
