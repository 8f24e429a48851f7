"""Fields of ours whose result another API's answers could not hold, and errors in the form that a client reads."""

import asyncio

import httpx
import pytest

CHAT = {"messages": [{"role": "user", "content": "What is 12 + 30?"}]}
BODIES = {"/v1/messages": CHAT | {"max_tokens": 8}, "/v1/responses": {"input": "What is 12 + 30?", "max_output_tokens": 8},
          "/api/chat": CHAT | {"stream": False, "options": {"num_predict": 8}},
          "/api/generate": {"prompt": "Hi", "stream": False, "options": {"num_predict": 8}}}


@pytest.fixture
def call(api):
    def call(method: str, path: str, **more) -> httpx.Response:
        async def work():
            async with api() as client:
                return await client.request(method, path, **more)

        return asyncio.run(work())

    return call


@pytest.mark.parametrize("path, field", [
    *((path, {"n_thoughts": 3}) for path in BODIES), ("/v1/messages", {"logprobs": True}), ("/v1/messages", {"n": 2}),
    ("/v1/messages", {"top_logprobs": 1}), ("/api/chat", {"prompt_logprobs": 1}),
    ("/v1/responses", {"n": 2}),
    *((path, field) for path in ("/api/chat", "/api/generate")
      for field in ({"n": 2}, {"echo": True}, {"prompt_logprobs": 0}, {"resumable": True}))])
def test_what_an_answer_has_no_place_for_is_refused_by_name(call, path, field):
    answer = call("POST", path, json=BODIES[path] | field)
    assert answer.status_code == 400 and next(iter(field)) in answer.text


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("field", [{"n": 1}, {"n_thoughts": 1}, {"echo": False}, {"n": None}])
def test_what_asks_for_nothing_is_let_pass(call, path, field):
    assert call("POST", path, json=BODIES[path] | field).status_code == 200


@pytest.mark.parametrize("method, path, kind", [("GET", "/v1/models/none", "not_found_error"),
                                                ("GET", "/v1/none", "not_found_error"),
                                                ("POST", "/v1/models", "invalid_request_error")])
def test_anthropics_clients_get_errors_in_their_form_everywhere(call, method, path, kind):
    error = call(method, path, headers={"anthropic-version": "2023-06-01"}).json()
    assert error["type"] == "error" and error["error"]["type"] == kind
    assert "type" not in call(method, path).json()


@pytest.mark.parametrize("spaces", [0, 200_000])
def test_a_number_of_too_many_digits_is_named(call, spaces):
    body = b'{"messages": [{"role": "user", "content": "hi"}], "seed": ' + b" " * spaces + b"9" * 5000 + b"}"
    answer = call("POST", "/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "digits" in answer.json()["error"]["message"]
