"""The LLM against plain loops over the whole forward pass, and independence of everything that only concerns speed."""

import pytest
import tiny
import torch
from asking import EOS, llm, memory_for, prompts, sampled, tokens_of

from spoutnik import LLM, SamplingParams
from spoutnik.engine.logits_processors import PenaltyProcessor

BASES = pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["mla", "gqa"])


def whole_logits(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


# What is generated

@BASES
def test_greedy_tokens_are_the_argmax_of_the_whole_forward_pass(base, kernels):
    model = tiny.model(base)
    for output in llm(model=model).generate(prompts(6), SamplingParams(temperature=0, max_tokens=12)):
        ids = list(output.prompt_token_ids)
        while len(ids) < len(output.prompt_token_ids) + 12 and ids[-1] != EOS:
            ids.append(int(whole_logits(model, ids)[-1].argmax()))
        assert output.outputs[0].token_ids == ids[len(output.prompt_token_ids):]


@BASES
@pytest.mark.parametrize("temperature, top_p", [(0.7, 1.0), (0.7, 0.9), (0.0, 1.0)])
def test_recorded_log_probabilities_are_those_of_the_whole_forward_pass(base, temperature, top_p, kernels):
    model = tiny.model(base)
    params = SamplingParams(n=3, temperature=temperature, top_p=top_p, max_tokens=15)
    for output in llm(model=model).generate(prompts(4), params, seed=5):
        for sample in output.outputs:
            logits = whole_logits(model, output.prompt_token_ids + sample.token_ids)[len(output.prompt_token_ids) - 1:-1]
            expected = (logits / (temperature or 1)).log_softmax(-1)[range(len(sample.token_ids)), sample.token_ids]
            torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=1e-4, rtol=0)
            assert sample.cumulative_logprob == pytest.approx(float(expected.sum()), abs=1e-3)


def mixed(count: int) -> list[SamplingParams]:
    kinds = [dict(temperature=0), dict(temperature=1.0, top_p=1.0), dict(), dict(top_k=5), dict(min_p=0.1, temperature=1.5),
             dict(repetition_penalty=1.3), dict(logit_bias={3: 5.0}), dict(n=2, temperature=1.2), dict(logprobs=2)]
    return [SamplingParams(**{"max_tokens": 3 + 5 * i % 23, "seed": 100 + i} | kinds[i % len(kinds)]) for i in range(count)]


@BASES
def test_a_request_gives_the_same_tokens_alone_and_in_a_batch_of_64(base, kernels):
    engine, params = llm(base), mixed(64)
    together = tokens_of(engine.generate(prompts(64), params))
    for i in range(0, 64, 5):
        assert tokens_of(engine.generate(prompts(64)[i], params[i])) == together[i:i + 1]


@pytest.mark.parametrize("options", [dict(max_num_seqs=1), dict(max_num_seqs=3), dict(max_num_seqs=5, max_num_batched_tokens=5),
                                     dict(enable_prefix_caching=False)], ids=str)
def test_tokens_do_not_depend_on_how_the_work_is_cut(options):
    model = tiny.model(tiny.DEEPSEEK)
    arguments = dict(prompts=prompts(12), sampling_params=sampled(n=2), seed=1)
    assert tokens_of(llm(model=model, **options).generate(**arguments)) == tokens_of(llm(model=model).generate(**arguments))


@BASES
@pytest.mark.parametrize("memory", [None, 9], ids=["large cache", "small cache"])
def test_rows_left_alone_for_some_steps_give_the_same_tokens(base, memory):
    model = tiny.model(base)
    results, arguments = [], dict(prompts=prompts(12), sampling_params=sampled(n=2, max_tokens=40), seed=1)
    for most in (1, 3, 16):
        engine = llm(model=model)
        if memory is not None:
            engine = llm(model=model, memory=memory_for(engine, memory))
        engine.core.max_multi_steps = most
        outputs = engine.generate(**arguments)
        results.append([[(c.token_ids, c.logprobs, c.finish_reason) for c in output.outputs] for output in outputs])
        assert engine.core.scheduler.pool.num_free_blocks == engine.core.scheduler.pool.num_blocks
        assert engine.core.stats.generated_tokens == sum(len(tokens) for output in results[-1] for tokens, *_ in output)
    assert results[0] == results[1] == results[2]
    assert {reason for output in results[0] for *_, reason in output} == {"length", "stop"}


@BASES
def test_a_cache_that_is_too_small_gives_the_same_tokens_later(base, kernels):
    model = tiny.model(base)
    arguments = dict(prompts=prompts(6), sampling_params=sampled(n=3, max_tokens=40), seed=1)
    wide = llm(model=model)
    narrow = llm(model=model, memory=memory_for(wide, 9))
    assert tokens_of(narrow.generate(**arguments)) == tokens_of(wide.generate(**arguments))
    counts = narrow.core.stats
    assert counts.preemptions > 0 and counts.recomputed_tokens > 0 and wide.core.stats.preemptions == 0
    assert narrow.core.scheduler.pool.num_free_blocks == 9


def test_seeds_are_those_of_the_request_the_call_or_the_llm():
    model, prompt = tiny.model(tiny.QWEN), [5, 6, 7]
    engine = llm(model=model, seed=3)
    first, second = (tokens_of(engine.generate(prompt, sampled())) for _ in range(2))
    assert first != second  # numbered on from call to call
    assert tokens_of(llm(model=model, seed=3).generate([prompt, prompt], sampled())) == first + second
    assert tokens_of(engine.generate(prompt, sampled(), seed=3)) == first
    own = sampled(seed=3)
    assert tokens_of(engine.generate([[9], prompt], own, seed=8))[1:] == first  # as the first request of that seed
    assert len({tuple(c.token_ids) for c in engine.generate(prompt, sampled(n=8))[0].outputs}) == 8


def test_the_first_token_follows_the_model_s_distribution(kernels):
    model, n = tiny.model(tiny.DEEPSEEK), 3000
    group = llm(model=model).generate([5, 9], sampled(n=n, max_tokens=1), seed=2)[0].outputs
    seen = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=64) / n
    p = whole_logits(model, [5, 9])[-1].softmax(-1)
    assert ((seen - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt() + 1e-3).all()


# How it ends

def test_a_completion_ends_with_the_end_of_sentence_or_at_max_tokens():
    outputs = llm(tiny.DEEPSEEK).generate(prompts(10), SamplingParams(n=8, temperature=1.5, top_p=1.0, max_tokens=30), seed=0)
    samples = [c for output in outputs for c in output.outputs]
    assert {c.finish_reason for c in samples} == {"stop", "length"}
    for c in samples:
        assert EOS not in c.reply_ids and len(c.logprobs) == len(c.token_ids) <= 30
        assert c.finished == (c.token_ids[-1] == EOS) and (c.finished or len(c.token_ids) == 30)
    assert [c.index for c in outputs[0].outputs] == list(range(8)) and outputs[3].request_id == "3"


def test_an_end_of_sentence_as_the_very_first_token_gives_an_empty_reply():
    model, greedy = tiny.model(tiny.QWEN), SamplingParams(temperature=0, max_tokens=3)
    first = llm(model=model).generate([7, 8], greedy)[0].outputs[0].token_ids[0]
    sample = llm(model=model, eos_token_ids=[first]).generate([7, 8], greedy)[0].outputs[0]
    assert (sample.token_ids, sample.reply_ids, sample.finish_reason, sample.stop_reason) == ([first], [], "stop", None)


def test_several_tokens_may_end_a_completion_and_stop_tokens_say_which():
    model = tiny.model(tiny.QWEN)
    free = llm(model=model, eos_token_ids=[]).generate([5, 6], sampled(max_tokens=60), seed=0)[0].outputs[0].token_ids
    ends = [free[9], free[4]]
    expected = free[:min(map(free.index, ends)) + 1]
    sample = llm(model=model, eos_token_ids=ends).generate([5, 6], sampled(max_tokens=60), seed=0)[0].outputs[0]
    assert (sample.token_ids, sample.finish_reason, sample.stop_reason) == (expected, "stop", None)
    params = sampled(max_tokens=60, stop_token_ids=ends)
    sample = llm(model=model, eos_token_ids=[]).generate([5, 6], params, seed=0)[0].outputs[0]
    assert (sample.token_ids, sample.finish_reason, sample.stop_reason) == (expected, "stop", expected[-1])
    assert sample.reply_ids == expected[:-1]
    params = sampled(max_tokens=60, ignore_eos=True)
    sample = llm(model=model, eos_token_ids=ends).generate([5, 6], params, seed=0)[0].outputs[0]
    assert sample.token_ids == free


def test_a_request_may_fill_the_model_s_positions_to_the_last(kernels):
    sample = llm(eos_token_ids=[]).generate([5] * 28, SamplingParams(temperature=0, max_tokens=100))[0].outputs[0]
    assert len(sample.token_ids) == 100


@pytest.fixture(scope="module")
def texts(tokenizer):
    """A model of texts; (LLM, a sample of 40 tokens without any stop)."""
    engine = LLM(tiny.model(tiny.QWEN, vocab_size=300), tokenizer, eos_token_ids=[])
    return engine, engine.generate("12 + 30", sampled(max_tokens=40, seed=4))[0].outputs[0]


def test_a_stop_text_ends_it_wherever_tokens_end(texts, tokenizer):
    engine, free = texts
    clean = [i for i, c in enumerate(free.text) if c.isascii() and c.isprintable()]
    tried = 0
    for at in clean:
        stop = free.text[at:at + 3]
        if len(stop) < 3 or "\ufffd" in stop:
            continue
        tried += 1
        sample = engine.generate("12 + 30", sampled(max_tokens=40, seed=4, stop=[stop, "never said"]))[0].outputs[0]
        assert sample.text == free.text[:free.text.find(stop)] and (sample.finish_reason, sample.stop_reason) == ("stop", stop)
        assert sample.token_ids == free.token_ids[:len(sample.token_ids)] and sample.reply_ids == sample.token_ids
        params = sampled(max_tokens=40, seed=4, stop=stop, include_stop_str_in_output=True)
        kept = engine.generate("12 + 30", params)[0].outputs[0]
        assert kept.text == sample.text + stop
    assert tried > 3


def test_min_tokens_hold_back_every_end(texts):
    engine, free = texts
    stop = next(character for character in free.text if character.isalpha() and character.isascii())
    sample = engine.generate("12 + 30", sampled(max_tokens=40, min_tokens=40, seed=4, stop=stop))[0].outputs[0]
    assert len(sample.token_ids) == 40
    model = tiny.model(tiny.QWEN)
    first = llm(model=model).generate([7, 8], SamplingParams(temperature=0, max_tokens=3))[0].outputs[0].token_ids[0]
    params = SamplingParams(temperature=0, max_tokens=9, min_tokens=4)
    outputs = llm(model=model, eos_token_ids=[first]).generate([7, 8], params)
    assert first not in outputs[0].outputs[0].token_ids[:4] and len(outputs[0].outputs[0].token_ids) >= 4


# What is reported

def plain_loop(model, prompt: list[int], params: SamplingParams) -> list[int]:
    """Greedy with penalties over the whole forward pass."""
    processor, tokens = PenaltyProcessor(params, prompt, [EOS], 64), []
    while len(tokens) < params.max_tokens and EOS not in tokens:
        logits = whole_logits(model, prompt + tokens)[-1].clone()
        processor.apply(logits, len(tokens))
        tokens.append(int(logits.argmax()))
        processor.feed(tokens[-1:])
    return tokens


@BASES
@pytest.mark.parametrize("options", [dict(repetition_penalty=1.5), dict(presence_penalty=1.5), dict(frequency_penalty=0.7),
                                     dict(logit_bias={9: 100.0}), dict(min_tokens=15), dict(repetition_penalty=0.8)], ids=str)
def test_changed_logits_are_those_of_a_plain_loop(base, options):
    model, params = tiny.model(base), SamplingParams(temperature=0, max_tokens=15, **options)
    for output in llm(model=model).generate(prompts(3), params):
        assert output.outputs[0].token_ids == plain_loop(model, output.prompt_token_ids, params)


def test_likely_tokens_are_the_untouched_model_s(kernels):
    model, params = tiny.model(tiny.QWEN), sampled(n=2, logprobs=3, prompt_logprobs=2, repetition_penalty=2.0, max_tokens=8)
    engine = llm(model=model, max_num_seqs=4, max_num_batched_tokens=6)  # prompts come in chunks
    for output in engine.generate(prompts(4, longest=40) * 2, params, seed=1):
        count = len(output.prompt_token_ids)
        assert output.num_cached_tokens == 0
        for sample in output.outputs:
            expected = whole_logits(model, output.prompt_token_ids + sample.token_ids).log_softmax(-1)
            assert len(sample.top_logprobs) == len(sample.token_ids)
            for place, (token, top) in enumerate(zip(sample.token_ids, sample.top_logprobs)):
                assert set(top) == {token, *expected[count - 1 + place].topk(3).indices.tolist()}
                assert top == pytest.approx({i: float(expected[count - 1 + place, i]) for i in top}, abs=1e-4)
        assert output.prompt_logprobs[0] is None and len(output.prompt_logprobs) == count
        for place, top in enumerate(output.prompt_logprobs[1:]):
            assert set(top) == {output.prompt_token_ids[place + 1], *expected[place].topk(2).indices.tolist()}
            assert top == pytest.approx({i: float(expected[place, i]) for i in top}, abs=1e-4)


def test_times_come_in_order():
    metrics = llm().generate([3, 4], sampled())[0].metrics
    assert 0 <= metrics.first_scheduled <= metrics.first_token <= metrics.finish


def test_listeners_hear_of_every_token_and_every_end():
    calls = []
    outputs = llm().generate(prompts(5), sampled(n=4, temperature=1.5), seed=0, on_progress=lambda *new: calls.append(new))
    samples = [c for output in outputs for c in output.outputs]
    assert [sum(column) for column in zip(*calls)] == [sum(len(c.token_ids) for c in samples), len(samples)]


# What is shared

def test_a_group_costs_one_prefill_and_a_next_turn_what_is_new():
    engine, prompt = llm(tiny.DEEPSEEK, eos_token_ids=[]), tiny.tokens(40).tolist()
    group, = engine.generate(prompt, sampled(n=16, max_tokens=24), seed=0)
    assert engine.core.stats.prompt_tokens == 40 and group.num_cached_tokens == 0
    turn = prompt + group.outputs[3].token_ids + [9, 9, 9]  # 67 tokens, of which 63 were computed: 3 whole blocks
    follow, = engine.generate(turn, sampled(max_tokens=5), seed=1)
    assert (follow.num_cached_tokens, engine.core.stats.prompt_tokens) == (48, 40 + 67 - 48)
    alone, = llm(tiny.DEEPSEEK, eos_token_ids=[]).generate(turn, sampled(max_tokens=5), seed=1)
    assert tokens_of([follow]) == tokens_of([alone])


@BASES
def test_shared_beginnings_change_nothing(base, kernels):
    start = tiny.tokens(33).tolist()
    inputs = [start + tail for tail in ([], [4], [5, 6], [4, 5, 6], list(range(2, 30)))]
    model = tiny.model(base)
    shared, apart = llm(model=model), llm(model=model, enable_prefix_caching=False)
    for _ in range(2):
        tokens = [tokens_of(engine.generate(inputs, sampled(n=3), seed=2)) for engine in (shared, apart)]
        assert tokens[0] == tokens[1]
    assert shared.core.stats.prompt_tokens < apart.core.stats.prompt_tokens


def test_the_llm_s_weights_do_not_follow_the_trainer_s(kernels):
    model = tiny.model(tiny.DEEPSEEK)
    engine, params = llm(model=model), SamplingParams(temperature=0, max_tokens=8)
    before = tokens_of(engine.generate(prompts(3), params))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert tokens_of(engine.generate(prompts(3), params)) == before
