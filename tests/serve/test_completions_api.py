"""Completions of raw prompts, against the engine itself, and as lm-eval uses them."""

import asyncio
import json

import pytest
import tiny
import torch

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.serve.api.logprobs import TextOffsets, text_logprobs, token_bytes, token_text
from spoutnik.serve.api.schemas import Completion

PATH = "/v1/completions"
TEXTS = ["12 + 30 is", "the end of it", "Réponse :"]


@pytest.fixture(scope="module")
def llm(tokenizer):
    """The same model without a server."""
    return LLM(tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=1024), tokenizer, memory="64MB")


def post(api, *bodies: dict) -> list[dict]:
    async def work():
        async with api() as client:
            return [reply.json() for reply in [await client.post(PATH, json=body) for body in bodies]]

    return asyncio.run(work())


@pytest.fixture
def ask(api):
    return lambda *bodies: post(api, *bodies)


def test_texts_and_ids_give_what_the_engine_gives(ask, llm, tokenizer):
    ids = [tokenizer.start_ids + tokenizer.encode(text) for text in TEXTS]
    more = {"seed": 7, "max_tokens": 20, "n": 2, "temperature": 0.9, "stop": "e"}
    params = SamplingParams(n=2, seed=7, temperature=0.9, max_tokens=20, stop="e")
    expected = [sample for output in llm.generate(TEXTS, params) for sample in output.outputs]
    for reply in ask({"prompt": TEXTS} | more, {"prompt": ids} | more):
        Completion.model_validate(reply)
        assert [choice["index"] for choice in reply["choices"]] == list(range(6))
        assert [choice["text"] for choice in reply["choices"]] == [sample.text for sample in expected]
        assert [choice["finish_reason"] for choice in reply["choices"]] == [sample.finish_reason for sample in expected]
        assert reply["usage"]["prompt_tokens"] == sum(map(len, ids))
        assert reply["usage"]["completion_tokens"] == sum(len(sample.token_ids) for sample in expected)
    one, alone = ask({"prompt": TEXTS[0]} | more, {"prompt": ids[0]} | more)
    assert one["choices"] == alone["choices"] == reply["choices"][:2]


def test_openai_client(openai_client):
    request = dict(model="tiny", prompt=TEXTS[:2], seed=3, temperature=1.0)
    reply = openai_client.completions.create(**request)
    assert reply.object == "text_completion" and reply.id.startswith("cmpl-")
    assert len(reply.choices) == 2 and 2 <= reply.usage.completion_tokens <= 32
    chunks = list(openai_client.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    texts = ["", ""]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in reply.choices] and len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == [] and chunks[-1].usage == reply.usage


@pytest.mark.parametrize("most", [0, 1])
def test_log_likelihoods_as_lm_eval_asks_for_them(ask, llm, tokenizer, most):
    prompts = [tokenizer.encode(text) for text in TEXTS]
    body = {"prompt": prompts, "max_tokens": most, "logprobs": 1, "echo": True, "temperature": 0, "seed": 1234}
    reply, = ask(body)
    for prompt, choice in zip(prompts, sorted(reply["choices"], key=lambda choice: choice["index"]), strict=True):
        with torch.no_grad():
            model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
            expected = model(torch.tensor([prompt]))[0].log_softmax(-1)
        logprobs = choice["logprobs"]
        assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"]) == len(prompt) + most
        assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
        own = expected[range(len(prompt) - 1), prompt[1:]]
        torch.testing.assert_close(torch.tensor(logprobs["token_logprobs"][1:len(prompt)]), own, atol=1e-4, rtol=0)
        greedy = [at[token] == max(at.values()) for at, token in zip(logprobs["top_logprobs"][1:], logprobs["tokens"][1:])]
        assert greedy[:len(prompt) - 1] == (expected[:-1].argmax(-1) == torch.tensor(prompt[1:])).tolist()
        assert choice["text"].startswith(tokenizer.decode(prompt))


def test_offsets_find_the_tokens_in_the_text(ask):
    text = "12 + 30 is 42"
    choice = ask({"prompt": text, "echo": True, "logprobs": 0, "max_tokens": 0})[0]["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"] == text
    for token, offset in list(zip(logprobs["tokens"], logprobs["text_offset"]))[1:]:
        assert text[offset:].startswith(token)


def test_streams_hold_the_same_log_probabilities(ask, api):
    body = {"prompt": TEXTS, "echo": True, "logprobs": 2, "seed": 1, "max_tokens": 6}

    async def work():
        async with api() as client:
            return (await client.post(PATH, json=body | {"stream": True})).text

    chunks = [json.loads(line[6:]) for line in asyncio.run(work()).splitlines() if line.startswith("data: {")]
    for whole in ask(body)[0]["choices"]:
        parts = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == whole["index"]]
        assert "".join(part["text"] for part in parts) == whole["text"]
        for name, values in whole["logprobs"].items():
            assert [value for part in parts for value in part["logprobs"][name]] == values
        assert parts[-1]["finish_reason"] == whole["finish_reason"]


def test_special_tokens_are_read_unless_told_otherwise(ask, tokenizer):
    text = "<think>a"
    read, plain = ask({"prompt": text, "max_tokens": 1}, {"prompt": text, "max_tokens": 1, "parse_special": False})
    assert read["usage"]["prompt_tokens"] == 1 + 1 + len(tokenizer.encode("a"))
    assert plain["usage"]["prompt_tokens"] == 1 + len(tokenizer.encode(text))
    begun, = ask({"prompt": tokenizer.special_tokens["bos_token"] + text, "max_tokens": 1})
    assert begun["usage"]["prompt_tokens"] == read["usage"]["prompt_tokens"]


@pytest.mark.parametrize("more, param", [
    ({"suffix": "x"}, "suffix"), ({"best_of": 2}, "best_of"), ({"max_tokens": -3}, "max_tokens"), ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"), ({"prompt": [[]]}, None), ({"prompt": [[999999]]}, None), ({"prompt": [-1]}, None),
    ({"prompt": None}, "prompt"), ({"prompt": [1, "a"]}, "prompt"), ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": ["a"] * 2000, "n": 2}, "prompt"), ({"logprobs": 21}, "logprobs"), ({"logprobs": True}, "logprobs"),
    ({"logit_bias": {"x": 1}}, "logit_bias"), ({"stream_options": {}}, "stream_options"), ({"top_p": 0}, "top_p")], ids=str)
def test_what_is_refused(ask, more, param):
    refused, = ask({"prompt": "a"} | more)
    assert refused["error"]["type"] == "invalid_request_error" and refused["error"]["param"] == param, refused


def test_what_does_not_fit(ask):
    for more in ({"prompt": [5] * 1024}, {"prompt": [5] * 1024, "max_tokens": 1}):
        refused, = ask({"prompt": "a"} | more)
        assert refused["error"]["code"] == "context_length_exceeded" and refused["error"]["param"] == "prompt"
    clamped, = ask({"prompt": [5] * 1000, "max_tokens": 1024, "ignore_eos": True, "return_applied": True})
    assert clamped["usage"]["completion_tokens"] == clamped["applied"]["max_tokens"] == 24
    assert "max_tokens = 1024" in clamped["warning"] and f"{clamped['warning']}." == clamped["applied"]["notes"][0]
    unbounded, nothing = ask({"prompt": [5] * 1000, "max_tokens": -1, "ignore_eos": True}, {"prompt": "a", "max_tokens": 0})
    assert unbounded["usage"]["completion_tokens"] == 24 and "warning" not in unbounded
    assert (nothing["choices"][0]["text"], nothing["choices"][0]["finish_reason"]) == ("", "length")
    assert nothing["usage"]["completion_tokens"] == 0
    fits, = ask({"prompt": [5] * 1020, "ignore_eos": True})
    assert fits["usage"]["completion_tokens"] == 4  # of the 16 that nobody asked for


def test_offsets_do_not_depend_on_where_a_stream_is_cut(tokenizer):
    text = "é€ x"
    ids = tokenizer.encode(text)
    for cut in range(len(ids) + 1):
        offsets = TextOffsets()
        starts = [text_logprobs(tokenizer, part, [None] * len(part), offsets)["text_offset"] for part in (ids[:cut], ids[cut:])]
        assert sum(starts, []) == [0, 0, 1, 1, 1, *range(2, 2 + len(ids) - 5)] and offsets.end == len(text)


def test_parts_of_characters_have_their_bytes(tokenizer):
    ids = tokenizer.encode("é€")
    assert bytes(b for token in ids for b in token_bytes(tokenizer, token)).decode() == "é€"
    texts = [token_text(tokenizer, token) for token in tokenizer.encode("€")]
    assert texts == [r"bytes:\xe2", r"bytes:\x82", r"bytes:\xac"]
