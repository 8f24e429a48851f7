"""Streams, aborts, conversations, and the sentences that refuse what cannot be served."""

import pytest
import tiny
import torch
from asking import llm, memory_for, prompts, sampled, tokens_of

from spoutnik import LLM, SamplingParams
from spoutnik.engine.logits_processors import BadWordsProcessor
from spoutnik.engine.runners.select import bytes_of
from spoutnik.errors import RunError, UserError

BASES = pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["mla", "gqa"])


@BASES
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_stream_gives_what_generating_gives(base, temperature, tokenizer):
    engine = LLM(tiny.model(base, vocab_size=300), tokenizer)
    for seed, params in enumerate((sampled(temperature=temperature), sampled(n=3, logprobs=1, stop=["a", "1", " "]))):
        parts = list(engine.stream("12 + 30", params, seed=seed))
        whole, = engine.generate("12 + 30", params, seed=seed)
        assert [part.finished for part in parts] == [False] * (len(parts) - 1) + [True]
        for completion in whole.outputs:
            mine = [c for part in parts for c in part.outputs if c.index == completion.index]
            assert "".join(c.text for c in mine) == completion.text
            assert sum((c.token_ids for c in mine), []) == completion.token_ids
            assert sum((c.logprobs for c in mine), []) == completion.logprobs
            assert sum((c.top_logprobs or [] for c in mine), []) == (completion.top_logprobs or [])
            assert (mine[-1].finish_reason, mine[-1].stop_reason) == (completion.finish_reason, completion.stop_reason)
            assert all(c.finish_reason is None for c in mine[:-1])


def test_streams_interleave_with_each_other_and_with_batches():
    model = tiny.model(tiny.DEEPSEEK)
    engine = llm(model=model)
    streams = [engine.stream(prompt, sampled(seed=i)) for i, prompt in enumerate(prompts(3))]
    collected = [[], [], []]
    for _ in range(3):
        for into, stream in zip(collected, streams):
            into += [t for c in next(stream).outputs for t in c.token_ids]
    between = tokens_of(engine.generate(prompts(2), sampled(seed=7)))
    for into, stream in zip(collected, streams):
        into += [t for part in stream for c in part.outputs for t in c.token_ids]
    assert [[tokens] for tokens in collected] == [tokens_of(llm(model=model).generate(prompt, sampled(seed=i)))[0]
                                                  for i, prompt in enumerate(prompts(3))]
    assert between == tokens_of(llm(model=model).generate(prompts(2), sampled(seed=7)))


def test_leaving_a_stream_ends_the_request_and_frees_its_blocks():
    engine = llm(eos_token_ids=[])
    for part in engine.stream([3, 4, 5], sampled(n=3, max_tokens=50)):
        if part.outputs[0].token_ids:
            break
    del part
    assert not engine.core.requests and engine.core.scheduler.pool.num_free_blocks == engine.core.scheduler.pool.num_blocks
    assert len(engine.core.input_batch) == 0


def test_an_aborted_request_gives_back_what_it_has_and_the_others_go_on():
    model = tiny.model(tiny.QWEN)
    engine = llm(model=model, eos_token_ids=[], max_num_seqs=2)
    engine.core.max_multi_steps = 1
    steps = []

    def after_five(tokens, ended):
        steps.append(tokens)
        if len(steps) == 5:
            engine.abort("0")
            engine.abort("2")  # still waiting
            engine.abort("no such request")

    inputs = [[5, 6], [7, 8], [9, 10]]
    first, second, third = engine.generate(inputs, sampled(max_tokens=20), seed=1, on_progress=after_five)
    expected = llm(model=model, eos_token_ids=[]).generate(inputs, sampled(max_tokens=20), seed=1)
    assert first.outputs[0].finish_reason == "abort" and first.outputs[0].token_ids == expected[0].outputs[0].token_ids[:5]
    assert second.outputs[0].token_ids == expected[1].outputs[0].token_ids
    assert (third.outputs[0].finish_reason, third.outputs[0].token_ids) == ("abort", [])
    assert engine.core.scheduler.pool.num_free_blocks == engine.core.scheduler.pool.num_blocks


def test_an_interrupted_call_leaves_nothing_behind():
    engine = llm()

    def interrupt(tokens, ended):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(prompts(3), sampled(), on_progress=interrupt)
    assert not engine.core.requests and engine.core.scheduler.unfinished == 0
    assert engine.generate(prompts(3), sampled(max_tokens=2))


def test_a_conversation_goes_through_the_template(tokenizer):
    engine = LLM(tiny.model(tiny.QWEN, vocab_size=300), tokenizer)
    messages = [{"role": "user", "content": "12 + 30"}]
    ids = tokenizer.chat_ids(messages)
    one, = engine.chat(messages, sampled(seed=1))
    both = engine.chat([messages, messages], sampled(seed=1))
    plain, = engine.generate({"prompt_token_ids": ids}, sampled(seed=1))
    streamed = [t for part in engine.stream(messages, sampled(seed=1)) for c in part.outputs for t in c.token_ids]
    assert one.prompt_token_ids == ids and tokens_of([one, *both]) == tokens_of([plain] * 3) == [[streamed]] * 3
    assert one.outputs[0].text == tokenizer.decode(one.outputs[0].reply_ids)


def test_prompts_may_be_texts_ids_or_both(tokenizer):
    engine = LLM(tiny.model(tiny.QWEN, vocab_size=300), tokenizer)
    ids = tokenizer.start_ids + tokenizer.encode("12")
    outputs = engine.generate(["12", ids, {"prompt": "12"}, {"prompt_token_ids": ids}], sampled(seed=0))
    assert [output.prompt for output in outputs] == ["12", None, "12", None]
    assert all(output.prompt_token_ids == ids for output in outputs) and len({str(t) for t in tokens_of(outputs)}) == 1
    assert engine.generate([]) == []


# What is refused

def test_a_bad_request_is_refused_before_any_work_begins():
    engine = llm()
    for bad in ([5] * 127, [], [64]):
        with pytest.raises(UserError):
            engine.generate([[5], bad], sampled())
    assert engine.core.stats.steps == 0 and not engine.core.requests


@pytest.mark.parametrize("call", [lambda e, p, s: e.generate([p], s), lambda e, p, s: e.stream(p, s)],
                         ids=["generate", "stream"])
@pytest.mark.parametrize("prompt, params, sentence", [
    ([], {}, "a prompt is empty: give it at least one token"),
    ([5] * 29, {"max_tokens": 100},
     "max_tokens = 100: with a prompt of 29 tokens it passes the model's 128 positions. Lower max_tokens to 99"),
    ([5] * 128, {}, "a prompt has 128 tokens: the model's 128 positions leave no room for a reply. Shorten it to 127"),
    ([5, 64], {}, "a prompt has the token id 64: the model's are 0 to 63"),
    ([5, -1], {}, "a prompt has the token id -1"),
    ([5, 1.5], {}, "a prompt has the token id 1.5"),
    (7.5, {}, "a prompt = 7.5: must be a text, a list of token ids"),
    ({"ids": [5]}, {}, "must have the one key prompt_token_ids, or prompt"),
    ("text", {}, "a prompt is text, and this model came without a tokenizer"),
    ([5], {"stop": "END"}, r"stop = \['END'\]: needs a tokenizer"),
    ([5], {"stop_token_ids": [64]}, "stop_token_ids: the token id 64 is not the model's, which are 0 to 63"),
    ([5], {"logit_bias": {99: 1.0}}, "logit_bias: the token id 99 is not the model's"),
])
def test_requests_that_cannot_be_served_are_refused_in_a_sentence(call, prompt, params, sentence):
    with pytest.raises(UserError, match=sentence):
        call(llm(), prompt, sampled(**params))


@pytest.mark.parametrize("call, sentence", [
    (lambda e: e.generate(7), "prompts = 7: must be a text"),
    (lambda e: e.generate([[5]], [sampled(), sampled()]), "sampling_params: 2 of them for 1 prompts"),
    (lambda e: e.generate([[5]], {"n": 2}), "must be a SamplingParams, or a list of them"),
    (lambda e: e.chat("Hi"), "messages = 'Hi': must be a list of messages"),
    (lambda e: e.chat([["Hi"]]), r"messages = \['Hi'\]: must be a list of messages"),
    (lambda e: e.chat([{"role": "user", "content": "Hi"}]), "a conversation needs a tokenizer"),
])
def test_calls_that_make_no_sense_are_refused_in_a_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call(llm())


@pytest.mark.parametrize("options, sentence", [
    (dict(speculate="magic"), "speculate = 'magic': unknown. Choose mtp or prompt_lookup"),
    (dict(speculate="mtp"), "needs a model with an MTP module"),
    (dict(speculate="prompt_lookup", num_speculative_tokens=0), "num_speculative_tokens = 0: must be at least 1"),
    (dict(max_num_seqs=0), "max_num_seqs = 0"),
    (dict(max_num_batched_tokens=3), "max_num_batched_tokens = 3: must be at least max_num_seqs = 256"),
    (dict(memory="some"), "memory = 'some': is not an amount of memory"),
    (dict(memory=0), "memory = 0"),
    (dict(memory="1KB"), "memory = 1,000 bytes: the weights alone take"),
    (dict(quantize="int2"), "quantize = 'int2': unknown. Choose int8 or int4"),
    (dict(dtype="float32"), "dtype and device are those of the model given"),
])
def test_engines_that_cannot_be_made_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence):
        llm(**options)


def test_a_request_that_the_cache_could_never_hold_is_refused():
    small = llm(memory=memory_for(llm(), 3))
    assert small.generate([5] * 9, sampled(max_tokens=40, ignore_eos=True))  # the last token is never stored
    with pytest.raises(UserError, match="max_tokens = 41: with a prompt of 9 tokens it needs 4 blocks .* which has 3"):
        small.generate([5] * 9, sampled(max_tokens=41))


def test_the_longest_sequence_is_that_of_the_model_or_of_the_cache():
    assert llm().max_model_len == 128 and llm(memory=memory_for(llm(), 3)).max_model_len == 48


@pytest.mark.parametrize("params", [dict(temperature=0), dict(temperature=1.0, top_p=1.0), dict()], ids=str)
def test_damaged_weights_are_said_to_be(params, kernels):
    model = tiny.model(tiny.QWEN)
    with torch.no_grad():
        model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(RunError, match="logits are not finite numbers: its weights are damaged"):
        llm(model=model).generate([5, 6], SamplingParams(max_tokens=9, **params))
    with pytest.raises(RunError, match="not finite"):
        list(llm(model=model).stream([5, 6], SamplingParams(max_tokens=9, **params)))


@pytest.mark.parametrize("count", [2, 12], ids=["few", "many"])
def test_a_request_whose_logits_break_ends_and_the_others_do_not_notice(count):
    model = tiny.model(tiny.QWEN)
    engine, good = llm(model=model, eos_token_ids=[]), llm(model=model, eos_token_ids=[])
    engine.core.max_multi_steps = 1
    forward, calls = engine.core.runner.forward, []

    def breaks(batch):
        logits, hidden = forward(batch)
        calls.append(batch)
        if len(calls) == 4:
            logits[1] = float("nan")
        return logits, hidden

    engine.core.runner.forward = breaks
    arguments = dict(prompts=prompts(count), sampling_params=sampled(max_tokens=9), seed=1)
    outputs, expected = engine.generate(**arguments), good.generate(**arguments)
    for number, (one, other) in enumerate(zip(outputs, expected)):
        if number == 1:
            assert one.outputs[0].finish_reason == "error" and "not finite" in one.outputs[0].stop_reason
            assert one.outputs[0].token_ids == other.outputs[0].token_ids[:3] and len(one.outputs[0].logprobs) == 3
        else:
            assert one.outputs[0].token_ids == other.outputs[0].token_ids


@BASES
def test_a_bfloat16_model_generates(base, kernels):
    model = tiny.model(base)
    model.compute_dtype = torch.bfloat16
    assert all(c.token_ids for output in llm(model=model).generate(prompts(3), sampled(n=2)) for c in output.outputs)


@pytest.mark.parametrize("written, size", [("16GB", 16 * 10**9), ("512MiB", 512 * 2**20), (" 1.5 g ", 1_500_000_000),
                                           (99, 99)])
def test_amounts_of_memory(written, size):
    assert bytes_of(written) == size


# What may come


def test_only_allowed_tokens_come_and_bad_words_never(tokenizer):
    engine = LLM(tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size), tokenizer)
    for n in (1, 3):
        output, = engine.generate("12 + 30", sampled(allowed_token_ids=[9, 44, 45], n=n), seed=1)
        assert all(set(sample.token_ids) <= {9, 44, 45} and len(sample.token_ids) == 20 for sample in output.outputs)
    loved = {"temperature": 0, "max_tokens": 8, "logit_bias": {44: 50.0}}
    for words, count in (([], 8), ([tokenizer.decode([44])], 0), ([tokenizer.decode([44, 44])], 4)):
        output, = engine.generate("12 + 30", sampled(**loved, bad_words=words))
        assert output.outputs[0].token_ids.count(44) == count
    line, = tokenizer.encode("\n")
    output, = engine.generate("12 + 30", sampled(**loved | {"logit_bias": {line: 50.0}}, bad_words=["\n"]))
    assert line not in output.outputs[0].token_ids


def test_a_bad_word_of_several_tokens_is_free_up_to_its_last():
    processor = BadWordsProcessor([(5, 6, 7), (9,)])
    for token, forbidden in ((5, {9}), (6, {7, 9}), (6, {9}), (5, {9})):
        processor.feed(token)
        logits = torch.zeros(12)
        processor.apply(logits, 0)
        assert set((logits == float("-inf")).nonzero()[:, 0].tolist()) == forbidden


def test_a_sample_that_may_say_nothing_fails_and_no_other(tokenizer):
    engine = LLM(tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size), tokenizer)
    word = tokenizer.decode([44])
    stuck, free = engine.generate(["12", "30"], [sampled(allowed_token_ids=[44], bad_words=[word]), sampled(max_tokens=3)])
    assert stuck.outputs[0].finish_reason == "error" and "no token can follow" in stuck.outputs[0].stop_reason
    assert len(free.outputs[0].token_ids) == 3


def test_a_model_may_be_held_to_fewer_positions(tokenizer):
    engine = LLM(tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size), tokenizer, max_model_len=32)
    assert engine.max_model_len == 32
    with pytest.raises(UserError, match="the model's 32 positions"):
        engine.generate([[5] * 32], sampled(max_tokens=1))
    for wrong in (0, 1, 129, 2.0, True):
        with pytest.raises(UserError, match="max_model_len = .*: must be 2 to 128"):
            LLM(tiny.model(tiny.QWEN), max_model_len=wrong)
