"""Embeddings, as OpenAI's own client and plain HTTP see them."""

import asyncio
import base64

import numpy as np
import openai
import pytest

PATH = "/v1/embeddings"
TEXTS = ["12 + 30 is 42.", "Réponse : 12."]


def post(api, **body):
    async def work():
        async with api() as client:
            return await client.post(PATH, json=body)

    return asyncio.run(work())


def test_openai_s_client_gets_vectors_of_length_one(openai_client):
    result = openai_client.embeddings.create(model="tiny", input=TEXTS)  # asks for base64
    vectors = np.array([item.embedding for item in result.data])
    assert [item.index for item in result.data] == [0, 1] and vectors.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert result.model == "tiny" and result.usage.total_tokens == result.usage.prompt_tokens > 10


def test_floats_and_base64_say_the_same(api):
    floats = post(api, input=TEXTS[0], encoding_format="float").json()
    packed = post(api, input=TEXTS[0], encoding_format="base64").json()
    vector = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(vector, np.array(floats["data"][0]["embedding"], dtype=np.float32))
    assert floats["usage"] == packed["usage"] and floats["object"] == "list"
    assert post(api, input=TEXTS[0]).json()["data"][0] == floats["data"][0]


def test_token_ids_are_texts_too(api, tokenizer):
    ids = [tokenizer.start_ids + tokenizer.encode(text) for text in TEXTS]
    texts, lists = post(api, input=TEXTS).json(), post(api, input=ids).json()
    assert texts == lists and len(texts["data"]) == 2
    assert post(api, input=ids[0]).json()["data"] == post(api, input=TEXTS[0]).json()["data"]
    assert texts["usage"]["prompt_tokens"] == len(ids[0]) + len(ids[1])


@pytest.mark.parametrize(("body", "param"), [
    ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": ["a", ""]}, "input"), ({"input": [[]]}, "input"),
    ({"input": [3, -1]}, "input"), ({"input": [10 ** 9]}, "input"), ({"input": [1] * 1024}, "input"),
    ({"input": ["a"] * 2049}, "input"), ({"input": None}, "input"), ({}, "input"), ({"input": {"a": 1}}, "input"),
    ({"input": [True]}, "input"), ({"input": "a", "dimensions": 8}, "dimensions"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format")])
def test_what_cannot_be_served_is_refused_with_its_field(body, param, api):
    answer = post(api, **body)
    assert answer.status_code == 400 and answer.json()["error"]["param"].partition(".")[0] == param
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_an_unknown_model(openai_client):
    with pytest.raises(openai.NotFoundError):
        openai_client.embeddings.create(model="nobody", input="a")


def test_vectors_are_made_while_replies_go_on(api):
    ask = {"messages": [{"role": "user", "content": "How many?"}], "max_tokens": 200, "seed": 1}

    async def work():
        async with api() as client:
            requests = [client.post("/v1/chat/completions", json=ask) for _ in range(3)]
            requests += [client.post(PATH, json={"input": [text] * 4}) for text in TEXTS]
            return await asyncio.gather(*requests)

    answers = asyncio.run(work())
    assert [answer.status_code for answer in answers] == [200] * 5
    assert answers[3].json()["data"][0]["embedding"] == post(api, input=TEXTS[0]).json()["data"][0]["embedding"]
