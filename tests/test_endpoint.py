"""The client of OpenAI-compatible endpoints: replies of every form, failures that pass and that stay, and the key."""

import asyncio
import json
import threading

import pytest
from endpoint_server import Answer, completion, endpoint_server, failure

from spoutnik.endpoint import Endpoint, EndpointRequest
from spoutnik.errors import RunError, UserError

HELLO = [{"role": "user", "content": "Hello"}]


class Pauses(list):
    """The seconds that an endpoint would have slept."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def ask(url: str, **settings: object):
    return asyncio.run(Endpoint(url, "m", sleep=Pauses(), **settings).complete(HELLO))


def test_a_reply_with_all_its_parts():
    with endpoint_server([completion("Hi", reasoning_content="A greeting.")]) as server:
        reply = asyncio.run(Endpoint(server.url + "/", "m").complete(HELLO, temperature=0.6, top_p=0.95, max_tokens=64, seed=3,
                                                                      stop=("\n\n",)))
    assert (reply.text, reply.reasoning, reply.finish_reason, reply.attempts) == ("Hi", "A greeting.", "stop", 1)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 7)
    headers, body = server.requests[0]
    assert headers["path"] == "/v1/chat/completions" and "Authorization" not in headers
    assert body == {"model": "m", "messages": HELLO, "stream": False, "temperature": 0.6, "top_p": 0.95, "max_tokens": 64,
                    "seed": 3, "stop": ["\n\n"]}


def test_what_is_not_asked_for_is_not_sent():
    with endpoint_server([completion("Hi")]) as server:
        ask(server.url)
    assert server.requests[0][1].keys() == {"model", "messages", "stream"}


@pytest.mark.parametrize("message, text, reasoning", [
    ({"content": None, "reasoning": "Cut."}, "", "Cut."),
    ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}, "ab", None),
    ({"content": "x", "reasoning_content": 7}, "x", None)])
def test_other_forms_of_a_message(message, text, reasoning):
    with endpoint_server([Answer(200, json.dumps({"choices": [{"message": message}]}).encode())]) as server:
        reply = ask(server.url)
    assert (reply.text, reply.reasoning, reply.finish_reason, reply.usage.prompt_tokens) == (text, reasoning, "unknown", None)


def test_a_long_pause_is_told_with_its_reason(capsys, monkeypatch):
    monkeypatch.setenv("KEY_OF_A_TEST", "sk-very-secret")
    busy = [failure(503, "loading"), failure(429, "sk-very-secret has used up its minute", Retry_After="17"),
            failure(429, "slow down", Retry_After="20"), completion("Hi")]
    with endpoint_server(busy) as server:
        asyncio.run(Endpoint(server.url, "m", "KEY_OF_A_TEST", sleep=Pauses()).complete(HELLO))
    told = capsys.readouterr().err.splitlines()  # the first pause is short, the third follows at once here
    assert told == [f"{server.url}, model m: HTTP 429, '*** has used up its minute'. Asked again in 17 s (attempt 3 of 7)."]


def test_failures_that_pass_are_waited_out_with_growing_pauses():
    pauses = Pauses()
    busy = [failure(503, "loading"), failure(429, "slow down", Retry_After="17"), Answer(200, b"<html>bad gateway</html>"),
            Answer(200, completion("Hi").body, cut=True), completion("Hi")]
    with endpoint_server(busy) as server:
        reply = asyncio.run(Endpoint(server.url, "m", sleep=pauses).complete(HELLO))
    assert reply.attempts == 5 and len(server.requests) == 5
    assert 1 <= pauses[0] <= 1.5 and pauses[1] == 17 and 4 <= pauses[2] <= 6 and 8 <= pauses[3] <= 12


@pytest.mark.parametrize("answer, sentence", [
    (failure(401, "no such key"), "HTTP 401, 'no such key'. Name the environment variable"),
    (failure(404, "no such model"), "HTTP 404, 'no such model'. Correct the address, which usually ends in /v1, or the model"),
    (failure(400, "context of 8 tokens"), "HTTP 400, 'context of 8 tokens'. Correct the request"),
    (Answer(302, b"", {"Location": "http://127.0.0.1:1/"}), "HTTP 302, it is empty. The endpoint has moved"),
    (Answer(422, b'{"detail": "messages: missing"}'), "HTTP 422, 'messages: missing'. Correct"),
    (failure(429, "insufficient_quota"), "HTTP 429, 'insufficient_quota'. Ask for fewer"),
    (failure(429, "tomorrow", Retry_After="90000"), "HTTP 429, 'tomorrow'; it asks to wait 90000 s. Ask for fewer")])
def test_failures_that_stay_are_told_at_once(answer, sentence):
    with endpoint_server([answer]) as server, pytest.raises(RunError) as error:
        ask(server.url)
    assert f"{server.url}, model m: {sentence}" in str(error.value)


@pytest.mark.parametrize("body, sentence", [
    (b"", "the answer is not JSON, it is empty (3 attempts). Try again"),
    (b"\xff\x00<html>", "the answer is not JSON, it begins with"),
    (b"[" * 100_000, "the answer is not JSON, it begins with"),
    (b"{}", "the answer is no chat completion, it begins with '{}'"),
    (b"[]", "no chat completion"), (b"null", "no chat completion"), (b'{"choices": []}', "no chat completion"),
    (b'{"choices": [{"message": {"content": 7}}]}', "no chat completion"),
    (b'{"choices": [{"message": {"content": ["a"]}}]}', "no chat completion"),
    (b'{"error": {"message": "upstream is gone"}}', "an error with a good status, 'upstream is gone'")])
def test_garbage_is_asked_for_again_and_told_in_the_end(body, sentence):
    with endpoint_server(lambda _: Answer(200, body)) as server, pytest.raises(RunError) as error:
        ask(server.url, retries=2)
    assert sentence in str(error.value) and len(server.requests) == 3


def test_no_endpoint_at_all():
    with endpoint_server([]) as server:
        url = server.url
    with pytest.raises(RunError, match=r"no connection: .*\(2 attempts\)\. Start the endpoint, or correct its address\."):
        ask(url, retries=1)


def test_an_endpoint_that_does_not_answer_in_time():
    released = threading.Event()

    def respond(_):
        released.wait(60)
        return completion("late")

    with endpoint_server(respond) as server:
        try:
            with pytest.raises(RunError, match=r"no whole answer within 0.05 s|timed out"):
                ask(server.url, timeout=0.05, retries=0)
        finally:
            released.set()


def test_the_newer_name_of_the_limit():
    refused = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    with endpoint_server(lambda body: failure(400, refused) if "max_tokens" in body else completion("Hi")) as server:
        endpoint = Endpoint(server.url, "m")
        replies = endpoint.complete_all([EndpointRequest(HELLO, max_tokens=9)] * 2, concurrency=1)
    assert [reply.text for reply in replies] == ["Hi", "Hi"]
    assert [body.get("max_completion_tokens") for _, body in server.requests] == [None, 9, 9]


def test_many_replies_come_in_order_and_within_the_limit():
    together = threading.Barrier(3)  # nobody is answered before three are under way
    arrived = []

    def respond(body):
        together.wait(60)
        return completion(body["messages"][0]["content"].upper(), reasoning_content=str(body["seed"]))

    requests = [EndpointRequest([{"role": "user", "content": word}], seed=number) for number, word in enumerate("abcdefghi")]
    with endpoint_server(respond) as server:
        replies = Endpoint(server.url, "m").complete_all(requests, concurrency=3,
                                                         on_reply=lambda index, reply: arrived.append((index, reply.text)))
    assert [reply.text for reply in replies] == list("ABCDEFGHI")
    assert sorted(arrived) == list(enumerate("ABCDEFGHI")) and server.most_at_once == 3


def test_no_requests_are_no_replies():
    assert Endpoint("http://127.0.0.1:9/v1", "m").complete_all([]) == []


def test_a_failure_among_many_keeps_what_has_arrived():
    arrived = []

    def respond(body):
        word = body["messages"][0]["content"]
        return failure(400, "too long") if word == "c" else completion(word)

    requests = [EndpointRequest([{"role": "user", "content": word}]) for word in "abcd"]
    with endpoint_server(respond) as server, pytest.raises(RunError, match="too long"):
        Endpoint(server.url, "m").complete_all(requests, 1, lambda index, reply: arrived.append(reply.text))
    assert arrived == ["a", "b"] and len(server.requests) == 3


def test_half_a_surrogate_pair_is_sent():
    with endpoint_server([completion("Hi")]) as server:
        asyncio.run(Endpoint(server.url, "m").complete([{"role": "user", "content": "\ud83d"}]))
    assert server.requests[0][1]["messages"][0]["content"] == "\ud83d"


def test_the_key_is_sent_and_shown_nowhere(monkeypatch):
    monkeypatch.setenv("KEY_OF_A_TEST", "sk-very-secret")
    with endpoint_server(lambda _: failure(401, "The key sk-very-secret is unknown")) as server:
        endpoint = Endpoint(server.url, "m", key_variable="KEY_OF_A_TEST")
        with pytest.raises(RunError) as error:
            asyncio.run(endpoint.complete(HELLO))
    assert server.requests[0][0]["Authorization"] == "Bearer sk-very-secret"
    assert "The key *** is unknown" in str(error.value) and "Correct the key in KEY_OF_A_TEST" in str(error.value)
    assert "secret" not in repr(endpoint) + str(vars(endpoint))


@pytest.mark.parametrize("value", [None, "  ", "two words", "a\nb", "clé"])
def test_a_key_that_is_missing_or_none_at_all(monkeypatch, value):
    monkeypatch.delenv("KEY_OF_A_TEST", raising=False)
    if value is not None:
        monkeypatch.setenv("KEY_OF_A_TEST", value)
    with pytest.raises(UserError, match="^KEY_OF_A_TEST: ") as error:
        Endpoint("http://127.0.0.1:9/v1", "m", key_variable="KEY_OF_A_TEST")
    assert value is None or not value.strip() or value not in str(error.value)


@pytest.mark.parametrize("address", ["", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://[::1/v1", "file:///etc/passwd"])
def test_an_address_that_is_none(address):
    with pytest.raises(UserError, match="is no address of an endpoint"):
        Endpoint(address, "m")


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(UserError) as error:
        Endpoint("http://me:hush@host/v1", "m")
    assert "hush" not in str(error.value) and "environment variable" in str(error.value)


def test_a_proxy_that_cannot_be_used(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "nonsense://proxy:1")
    with pytest.raises(UserError, match="The proxy that HTTP_PROXY"):
        ask("http://example.invalid/v1")
