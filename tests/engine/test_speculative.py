"""Speculation never changes a token: drafts of the MTP module and of prompt lookup, in every company."""

import pytest
import tiny
import torch

from spoutnik import LLM, SamplingParams
from spoutnik.engine.speculative import NgramIndex
from spoutnik.model.packing import PackedSequences
from spoutnik.native import library

EOS = 1
KINDS = pytest.mark.parametrize("kind, base", [("mtp", tiny.DEEPSEEK), ("prompt_lookup", tiny.DEEPSEEK),
                                               ("prompt_lookup", tiny.QWEN)], ids=["mtp", "lookup-mla", "lookup-gqa"])


def prompts(count: int) -> list[list[int]]:
    return [tiny.tokens(1 + 7 * i % 40, seed=i).tolist() for i in range(count)]


def llm(model, **options) -> LLM:
    return LLM(model, **{"eos_token_ids": [EOS], "speculate_up_to": 8} | options)


def following(token: int) -> int:
    """What the model below likes to say next: it goes round in circles of five."""
    return token if token < 2 or token > 61 else 2 + (token - 2) // 5 * 5 + (token - 1) % 5


def repeating(base=tiny.DEEPSEEK, certainty=1.4):
    """A model, and its MTP module, that mostly know what comes next, so that drafts are often right."""
    model = tiny.model(base)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight *= 0.1
            elif name.endswith("norm.weight"):
                weight.fill_(1.0)
        directions = torch.nn.functional.normalize(model.embed_tokens.weight, dim=1)
        model.lm_head.weight[[following(token) for token in range(64)]] = certainty * directions
        model.lm_head.weight[EOS] *= 0.2
        if model.mtp is not None:
            model.mtp.eh_proj.weight.copy_(torch.eye(32, 64))
    return model


def answers(engine, inputs, params, seed=3):
    return [[(c.token_ids, c.finish_reason, c.top_logprobs and len(c.top_logprobs)) for c in output.outputs]
            for output in engine.generate(inputs, params, seed=seed)]


@KINDS
@pytest.mark.parametrize("drafts", [1, 3])
def test_what_comes_out_is_what_plain_decoding_gives(kind, base, drafts, kernels):
    for model in (tiny.model(base), repeating(base)):
        engine, plain = llm(model, speculate=kind, num_speculative_tokens=drafts), llm(model)
        for number, options in ((5, dict(temperature=0)), (3, dict(temperature=1.5, top_p=1.0)),
                                (1, dict(temperature=0.8, top_k=7, n=2, logprobs=2))):
            params = SamplingParams(max_tokens=24, **options)
            assert answers(engine, prompts(number), params) == answers(plain, prompts(number), params)
        assert engine.core.scheduler.pool.num_free_blocks == engine.core.scheduler.pool.num_blocks
    assert 0.3 * engine.core.stats.drafted < engine.core.stats.accepted < engine.core.stats.drafted


@KINDS
def test_requests_of_all_kinds_beside_each_other(kind, base, kernels):
    kinds = [dict(temperature=0), dict(), dict(repetition_penalty=1.5), dict(logit_bias={3: 4.0}), dict(min_tokens=10),
             dict(stop_token_ids=[5, 6, 7, 8, 9]), dict(logprobs=1, prompt_logprobs=1)]
    params = [SamplingParams(max_tokens=5 + 3 * i, seed=i, **options) for i, options in enumerate(kinds)]
    model = repeating(base)
    engine = llm(model, speculate=kind, num_speculative_tokens=2)
    assert answers(engine, prompts(7), params) == answers(llm(model), prompts(7), params)
    assert engine.core.stats.drafted > 0


@KINDS
@pytest.mark.parametrize("up_to", [1, 3, 20])
def test_batches_grow_past_the_limit_and_shrink_again(kind, base, up_to):
    model = repeating(base)
    engine = llm(model, speculate=kind, num_speculative_tokens=2, speculate_up_to=up_to, max_num_seqs=12)
    params = [SamplingParams(temperature=0, max_tokens=3 + 4 * i, ignore_eos=True) for i in range(12)]
    for _ in range(2):  # the second time from the first's blocks
        assert answers(engine, prompts(12), params) == answers(llm(model), prompts(12), params)


@KINDS
def test_a_cache_that_is_too_small_and_chunked_prompts(kind, base):
    model = repeating(base)
    runner = llm(model).core.runner
    per_block = runner.bytes_per_block() * (model.config.num_hidden_layers + 1) // model.config.num_hidden_layers
    options = dict(memory=runner.weights_nbytes + 8 * per_block, max_num_batched_tokens=16, max_num_seqs=6)
    engine = llm(model, speculate=kind, num_speculative_tokens=3, **options)
    params = SamplingParams(n=2, temperature=1.0, max_tokens=40, ignore_eos=True)
    assert answers(engine, prompts(5), params) == answers(llm(model), prompts(5), params)
    assert engine.core.stats.preemptions > 0


def test_the_module_s_drafts_are_those_of_the_whole_forward_pass(kernels):
    """Each draft is what the module says about the sequence so far, computed without any cache: nothing is missing in it."""
    model = tiny.model(tiny.DEEPSEEK)
    engine = llm(model, speculate="mtp", eos_token_ids=[], max_num_batched_tokens=300)
    stream = engine.stream([*range(2, 40)], SamplingParams(temperature=0, max_tokens=25))
    sequence, checked = [*range(2, 40)], 0
    for part in stream:
        sequence += part.outputs[0].token_ids
        if not engine.core.input_batch.sequences:
            break
        drafts = engine.core.input_batch.sequences[0].sample.drafts
        if not drafts:
            continue
        packing = PackedSequences.of([len(sequence) - 1])
        ids = torch.tensor(sequence)
        with torch.no_grad():
            hidden = model.hidden(ids[:-1], packing)
            ahead = model.mtp.predict(hidden, model.embed(ids[1:]), model.rotary[packing.position_ids], packing, None)
            assert drafts == [int(model.logits(ahead[-1:]).argmax())]
        checked += 1
    assert checked >= 15


@KINDS
def test_acceptance_is_reported_for_each_request(kind, base):
    engine = llm(repeating(base), speculate=kind, num_speculative_tokens=2, eos_token_ids=[])
    outputs = engine.generate(prompts(4), SamplingParams(temperature=0, max_tokens=50))
    metrics, counts = [output.metrics for output in outputs], engine.core.stats
    assert sum(m.drafted for m in metrics) == counts.drafted > 0
    assert sum(m.accepted for m in metrics) == counts.accepted > 0
    assert all(0 <= m.acceptance <= 1 for m in metrics)
    assert counts.generated_tokens == 200 and counts.steps < 50 + counts.drafted


def test_accepted_drafts_save_steps():
    engine = llm(repeating(), speculate="prompt_lookup", num_speculative_tokens=4, eos_token_ids=[])
    engine.generate([2, 3, 4], SamplingParams(temperature=0, max_tokens=100))
    assert engine.core.stats.steps < 60
    assert engine.core.stats.steps == 100 - engine.core.stats.accepted


def test_requests_whose_logits_depend_on_more_than_the_model_get_no_drafts():
    engine = llm(repeating(), speculate="mtp", eos_token_ids=[])
    engine.generate([2, 3, 4], SamplingParams(temperature=0, max_tokens=30, presence_penalty=0.5))
    assert engine.core.stats.drafted == 0


def test_rows_that_were_in_a_large_batch_get_no_more_of_the_module_s_drafts():
    engine = llm(repeating(), speculate="mtp", speculate_up_to=1, eos_token_ids=[])
    short, long = SamplingParams(temperature=0, max_tokens=5), SamplingParams(temperature=0, max_tokens=30)
    first, second = engine.generate([[2, 3], [4, 5]], [short, long])
    assert second.metrics.drafted == 0
    again, = engine.generate([[6, 7]], [long])
    assert again.metrics.drafted > 0


@pytest.mark.skipif(library() is None, reason="no compiler here: no step is short")
def test_by_default_nothing_is_drafted_where_the_model_lies_in_the_caches():
    engine = llm(repeating(), speculate="mtp", speculate_up_to=None)
    assert (engine.core.drafter is None) == (engine.core.runner.max_multi_steps > 1)
    engine.core.runner._main.small = False
    assert LLM(engine.core.runner, speculate="mtp").core.drafter.speculate_up_to == 8


def test_lookup_finds_what_followed_the_last_tokens_where_they_stood_last():
    index = NgramIndex(2, 3, [1, 2, 3, 9, 1, 2, 3, 8, 7, 2, 3])
    assert index.continuation(3) == [8, 7, 2]  # [2, 3], as [7, 2, 3] is new
    index.extend([8])
    assert index.continuation(2) == [7, 2]
    index.extend([5, 5])
    assert index.continuation(2) == []
    index.extend([5])
    assert index.continuation(4) == [5]  # it may run into the end
