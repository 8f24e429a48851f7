"""What LLM makes of texts and of a model's own settings: special tokens in prompts, sampling defaults, log-probabilities."""

import pytest
import tiny
import torch

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.model.weights import save_model

GREEDY = SamplingParams(temperature=0, max_tokens=4)


@pytest.fixture(scope="module")
def llm(tokenizer):
    return LLM(tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size), tokenizer, memory="16MB")


@pytest.fixture
def folder(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    save_model(tmp_path, tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=512))
    return tmp_path


# Special tokens in prompts

def test_a_rendered_conversation_is_read_as_such_on_request(llm, tokenizer):
    messages = [{"role": "user", "content": "1 + 1"}]
    rendered, ids = tokenizer.render(messages), tokenizer.chat_ids(messages)
    output, = llm.generate(rendered, GREEDY, parse_special=True)
    assert output.prompt_token_ids == ids  # with one beginning of sentence, which the text has
    assert output.outputs[0].token_ids == llm.chat(messages, GREEDY)[0].outputs[0].token_ids
    assert list(llm.stream(rendered, GREEDY, parse_special=True))[-1].prompt_token_ids == ids
    assert torch.equal(llm.embed(rendered, parse_special=True), llm.embed({"prompt_token_ids": ids}))


def test_where_it_is_read_as_plain_text_that_is_said_once(tokenizer, llm, capsys):
    fresh = LLM(llm.core.runner, type(tokenizer)(tokenizer.bpe, tokenizer.templates, tokenizer.config), memory="16MB")
    fresh.generate("a plain text < 3", GREEDY)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        output, = fresh.generate("<｜User｜>hi", GREEDY)
    assert tokenizer.user_id not in output.prompt_token_ids
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'<｜User｜>'" in said and "parse_special=True" in said and "LLM.chat" in said


@pytest.mark.parametrize("call", ["generate", "embed", "stream", "chat", "stop"])
def test_half_a_character_is_a_sentence(llm, call):
    with pytest.raises(UserError, match="holds half a character"):
        if call == "chat":
            llm.chat([{"role": "user", "content": "a\ud800"}])
        elif call == "stop":
            SamplingParams(stop="\udfff")
        else:
            list(getattr(llm, call)("a \ud800 b"))


# Sampling defaults

def test_where_no_parameters_are_given_generation_config_s_hold(folder):
    (folder / "generation_config.json").write_text('{"temperature": 0.25, "top_k": 7, "top_p": null, "do_sample": true}')
    llm = LLM(folder, memory="16MB")
    params = llm.get_default_sampling_params()
    assert (params.temperature, params.top_k, params.top_p) == (0.25, 7, 0.95)
    given, default = llm.generate(["1 + 1"] * 2, params, seed=5), llm.generate(["1 + 1"] * 2, seed=5)
    assert [o.outputs[0].token_ids for o in given] == [o.outputs[0].token_ids for o in default]
    other = llm.generate(["1 + 1"] * 2, SamplingParams(), seed=5)  # what is given is not mixed with the file's
    assert [o.outputs[0].token_ids for o in given] != [o.outputs[0].token_ids for o in other]
    messages = [{"role": "user", "content": "hi"}]
    assert llm.chat(messages, seed=5)[0].outputs[0].token_ids == llm.chat(messages, params, seed=5)[0].outputs[0].token_ids


def test_without_the_file_or_a_folder_they_are_r1_s(folder, llm):
    assert LLM(folder, memory="16MB").get_default_sampling_params() == llm.get_default_sampling_params() == SamplingParams()


@pytest.mark.parametrize("content, sentence", [
    ('{"temperature": "hot"}', "temperature = 'hot': must be in 0..10"), ('{"top_p": 3}', "top_p = 3: must be in"),
    ("[]", "must hold a JSON object")])
def test_a_damaged_file_is_named(folder, content, sentence):
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(RunError, match="generation_config.json: ") as error:
        LLM(folder, tokenizer=None, memory="16MB").generate("a")
    assert sentence in str(error.value)


# Log-probabilities

BIASED = {"logit_bias": {7: 5.0, 11: -100.0}, "presence_penalty": 1.5}


@pytest.mark.parametrize("mode", [None, "raw_logprobs", "processed_logprobs"])
@pytest.mark.parametrize("n", [2, 12])  # few rows, and many
def test_log_probabilities_are_the_model_s_own_or_those_sampled_from(llm, mode, n):
    params = SamplingParams(n=n, temperature=0.5, top_p=0.9, max_tokens=6, logprobs=3, logprobs_mode=mode, **BIASED)
    output, = llm.generate("1 + 1", params, seed=3)
    for completion in output.outputs:
        ids = output.prompt_token_ids + completion.token_ids
        counts = torch.zeros(llm.config.vocab_size)
        reported = zip(completion.token_ids, completion.logprobs, completion.top_logprobs)
        for position, (token, logprob, top) in enumerate(reported):
            logits = reference(llm, ids[:len(output.prompt_token_ids) + position])
            if mode == "processed_logprobs":
                logits[7], logits[11] = logits[7] + 5, logits[11] - 100
                logits = (logits - 1.5 * (counts > 0)) / 0.5
            counts[token] += 1
            expected = logits.log_softmax(-1)
            assert logprob == top[token] == pytest.approx(expected[token].item(), abs=1e-4)
            best = expected.topk(3)
            assert list(top)[:3] == best.indices.tolist()


def reference(llm, ids):
    """The model's logits after these ids, by way of a greedy request that reports all of them."""
    every = SamplingParams(temperature=0, max_tokens=1, logprobs=1000, logprobs_mode="raw_logprobs")
    top = llm.generate({"prompt_token_ids": ids}, every)[0].outputs[0].top_logprobs[0]
    return torch.tensor([top[i] for i in range(llm.config.vocab_size)])


def test_without_a_request_for_them_they_are_those_that_training_needs(llm):
    """Under the tempered distribution before truncation, whatever the mode."""
    def of(**more):
        params = SamplingParams(temperature=0.5, top_p=0.9, max_tokens=6, **more)
        return llm.generate("1 + 1", params, seed=3)[0].outputs[0].logprobs

    processed = of(logprobs=0, logprobs_mode="processed_logprobs")
    assert of() == of(logprobs_mode="raw_logprobs") == pytest.approx(processed, abs=1e-5)
    assert of(logprobs=0) != pytest.approx(processed, abs=1e-2)


def test_a_stream_reports_the_same(llm):
    params = SamplingParams(temperature=0.5, max_tokens=6, logprobs=1, seed=1)
    whole = llm.generate("1 + 1", params)[0].outputs[0].logprobs
    assert [p for part in llm.stream("1 + 1", params) for piece in part.outputs for p in piece.logprobs] == whole


def test_the_llm_s_mode_holds_where_a_request_says_none(llm, tokenizer):
    other = LLM(llm.core.runner, tokenizer, memory="16MB", logprobs_mode="processed_logprobs")
    params = SamplingParams(temperature=0.5, max_tokens=3, logprobs=0, seed=1)
    explicit = SamplingParams(**(vars(params) | {"logprobs_mode": "processed_logprobs"}))
    assert (other.generate("1 + 1", params)[0].outputs[0].logprobs == other.generate("1 + 1", explicit)[0].outputs[0].logprobs
            != llm.generate("1 + 1", params)[0].outputs[0].logprobs)


@pytest.mark.parametrize("make", [lambda: SamplingParams(logprobs_mode="raw"), lambda: LLM("x", logprobs_mode="raw_logits")])
def test_an_unknown_mode_is_named(make):
    with pytest.raises(UserError, match="logprobs_mode = 'raw.*': unknown. Choose raw_logprobs or processed_logprobs"):
        make()

