"""llama.cpp's endpoints about the server, and lists of models in the forms of several APIs."""

import asyncio
from types import SimpleNamespace

import pytest

ASK = [{"role": "user", "content": "Why?"}]


@pytest.fixture
def ask(api):
    def ask(*requests: tuple) -> list:
        async def work():
            async with api() as client:
                return [await client.request(method, path, json=body) for method, path, body in requests]

        return asyncio.run(work())

    return ask


def test_props_tell_context_template_and_defaults(ask, tokenizer):
    before, _, after = ask(("GET", "/props", None), ("POST", "/v1/chat/completions", {"messages": ASK, "max_tokens": 2}),
                           ("GET", "/props?model=tiny", None))
    for answer in (before, after):
        props = answer.json()
        assert props["default_generation_settings"]["n_ctx"] == 1024 and props["chat_template"] == tokenizer.chat_template
        assert props["model_alias"] == props["model_path"] == "tiny" and not any(props["modalities"].values())
        assert props["default_generation_settings"]["params"]["temperature"] == 0.6
        assert props["eos_token"] in tokenizer.special_tokens.values()
    assert after.json()["total_slots"] == 8


def test_slots(api):
    async def work():
        async with api() as client:
            await client.post("/v1/chat/completions", json={"messages": ASK, "max_tokens": 2})
            idle = (await client.get("/slots")).json()
            client.service.active["a"] = SimpleNamespace(served=client.service.default, replies=[None] * 2, abort=lambda: None)
            return idle, (await client.get("/slots")).json()

    idle, busy = asyncio.run(work())
    assert [slot["is_processing"] for slot in idle] == [False] * 8
    assert [slot["is_processing"] for slot in busy] == [True] * 2 + [False] * 6


def test_a_template_is_applied(ask, tokenizer):
    answer, = ask(("POST", "/apply-template", {"messages": ASK}))
    assert answer.json() == {"prompt": tokenizer.render(ASK)}


def test_errors_have_openai_s_form(ask):
    for answer in ask(("GET", "/props?model=nobody", None), ("GET", "/slots?model=nobody", None)):
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"


def test_models_in_the_forms_of_several_apis(api):
    async def work():
        async with api() as client:
            before = (await client.get("/v1/models/tiny")).json()
            await client.post("/v1/chat/completions", json={"messages": ASK, "max_tokens": 2})
            headers = {"anthropic-version": "2023-06-01"}
            return (before, (await client.get("/v1/models")).json(), (await client.get("/v1/models", headers=headers)).json(),
                    (await client.get("/v1/models/tiny", headers=headers)).json())

    before, listed, theirs, one = asyncio.run(work())
    assert before["meta"] is None and listed["data"][0]["meta"]["n_ctx"] == listed["data"][0]["max_model_len"] == 1024
    assert listed["data"][0]["meta"]["n_params"] > 0
    assert theirs["data"] == [one] and (theirs["first_id"], theirs["last_id"], theirs["has_more"]) == ("tiny", "tiny", False)
    assert one["type"] == "model" and one["id"] == one["display_name"] == "tiny" and one["created_at"].endswith("Z")
