"""Requests of megabytes are read without stopping anybody else."""

import asyncio
import json
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.serve import json_body
from spoutnik.serve.errors import ApiError
from spoutnik.serve.json_body import LARGE_BODY, off_loop, parse_json
from spoutnik.text import special_token_escape
from spoutnik.text.special_token_escape import SpecialTokens
from spoutnik.text.tokenizer import SHORT_TEXT, TextTooLong, Tokenizer

PATH, TOKENS = "/v1/chat/completions", "/tokenize"
LONG = "What is 12 + 30? " * (LARGE_BODY // 16)
JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20)


@given(JSON, st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_our_parser_reads_what_the_standard_one_reads(value, encoding):
    body = json.dumps(value, ensure_ascii=False).encode(encoding)
    assert parse_json(body) == json.loads(body) == value


@pytest.mark.parametrize("body", ["", "{", "[1,", '{"a" 1}', '"\\x"', "nul", "[1]2", '{"a": 1,}', "\u00e9"])
def test_and_refuses_what_that_refuses(body):
    with pytest.raises(json.JSONDecodeError) as standard:
        json.loads(body)
    with pytest.raises(json.JSONDecodeError) as ours:
        parse_json(body.encode())
    assert (ours.value.msg, ours.value.pos) == (standard.value.msg, standard.value.pos)


def test_other_threads_run_between_two_values(monkeypatch):
    """Every array is read by a call of its own, so that the interpreter can be handed on."""
    calls = []
    array = json_body.JSONArray
    monkeypatch.setattr(json_body, "JSONArray", lambda *arguments: calls.append(1) or array(*arguments))
    assert parse_json(json.dumps([[1]] * 1000).encode()) == [[1]] * 1000
    assert len(calls) == 1001


@pytest.mark.parametrize("value", [[1] * 20, [[]] * 10, {str(i): i for i in range(20)}, [{"a": 1}] * 7])
def test_values_are_counted(monkeypatch, value):
    monkeypatch.setattr(json_body, "MAX_VALUES", 20)
    with pytest.raises(ApiError, match="20 values") as refused:
        parse_json(json.dumps(value).encode())
    assert refused.value.status == 413


BODIES = [
    (PATH, {"messages": [{"role": "user", "content": LONG}]}, "messages", "context_length_exceeded"),
    (PATH, {"messages": [{"role": "user", "content": "Hi"}], "documents": [{"text": LONG}]}, "documents", None),
    (PATH, {"messages": [{"role": "user", "content": 5}] * 10_000}, "messages[0].content", None),
    (PATH, {"messages": [{"role": "user", "content": "Hi"}], "stop": [LONG, 5]}, "stop", None),
    (PATH, {"messages": [{"role": "user", "content": "Hi"}], "model": LONG}, "model", "model_not_found"),
    ("/v1/completions", {"prompt": LONG}, "prompt", "context_length_exceeded"),
    ("/v1/completions", {"prompt": ["a"] * 100_000}, "prompt", None),
    ("/v1/responses", {"input": LONG}, "input", "context_length_exceeded"),
    ("/v1/embeddings", {"input": LONG}, "input", None), (TOKENS, {"prompt": LONG}, "prompt", "context_length_exceeded")]


@pytest.mark.parametrize("path, body, param, code", BODIES)
def test_large_requests_are_read_off_the_loop_and_refused_as_small_ones(api, monkeypatch, path, body, param, code):
    """Their texts are refused by their length alone: nothing of this size is ever tokenized."""
    encode, threads = Tokenizer.encode_rendered, []
    parse = json_body.parse_json

    def encode_short(self, text):
        assert len(text) < LARGE_BODY // 2
        return encode(self, text)

    monkeypatch.setattr(Tokenizer, "encode_rendered", encode_short)
    monkeypatch.setattr(json_body, "parse_json", lambda data: threads.append(threading.current_thread()) or parse(data))

    async def work():
        async with api() as client:
            return await client.post(path, json=body)

    reply = asyncio.run(work())
    assert threads and threads[0].name.startswith("large-requests")
    error = reply.json()["error"]
    assert reply.status_code in (400, 404) and len(error["message"]) < 3000
    assert (error["param"], error["code"]) == (param, code), error


def test_while_one_is_read_everybody_else_is_served(api, monkeypatch):
    held, let_go = threading.Event(), threading.Event()
    parse = json_body.parse_json

    def slow(body):
        held.set()
        assert let_go.wait(60)
        return parse(body)

    monkeypatch.setattr(json_body, "parse_json", slow)

    async def work():
        async with api() as client:
            large = asyncio.create_task(client.post(PATH, json=BODIES[0][1]))
            await asyncio.to_thread(held.wait, 60)
            small = await client.post(PATH, json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
            assert small.status_code == 200 and not large.done()
            let_go.set()
            assert (await large).status_code == 400

    asyncio.run(work())


def test_only_one_is_computed_at_a_time(api, monkeypatch):
    """Several threads that compute in Python would each hold the interpreter in turn."""
    running, most = [], []
    parse = json_body.parse_json

    def watched(body):
        running.append(1)
        most.append(len(running))
        try:
            return parse(body)
        finally:
            running.pop()

    monkeypatch.setattr(json_body, "parse_json", watched)

    async def work():
        async with api() as client:
            await asyncio.gather(*(client.post(PATH, json=BODIES[0][1]) for _ in range(5)))
            assert (await off_loop(threading.current_thread)).name != "large-requests"  # others do not wait for them

    asyncio.run(work())
    assert most == [1] * 5


def test_tokenizing_a_long_text_lets_other_threads_run(tokenizer):
    """With the interpreter held there would be no step between its beginning and its end."""
    steps, over = 0, threading.Event()
    ids = []

    def encode():
        ids.extend(tokenizer.encode_rendered(LONG * 4))
        over.set()

    thread = threading.Thread(target=encode)
    thread.start()
    while not over.is_set():
        steps += 1
    thread.join()
    assert steps > 1000 and ids == tokenizer.bpe.encode(LONG * 4, add_special_tokens=False).ids


def test_a_text_that_may_just_fit_is_tokenized(tokenizer):
    longest = max(map(len, tokenizer.bpe.get_vocab()))
    assert tokenizer.encode("a" * (10 * longest), max_tokens=10)
    with pytest.raises(TextTooLong, match="more than 10 tokens"):
        tokenizer.encode("a" * (10 * longest + 1), max_tokens=10)


SPELLED = ["<a>", "<|user|>", "</think>", "<think>", "|>"]
PIECES = st.lists(st.sampled_from([*SPELLED, "<", "<|", "<|user", " ", "\n", "x", "<a", "</think"]), max_size=30).map("".join)


@given(PIECES, st.integers(1, 12))
def test_windows_change_nothing_about_where_tokens_are_spelled(text, window):
    tokens = SpecialTokens(SPELLED)
    complete = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in SPELLED)
    begun = "|".join(re.escape(token[0]) + rf"(?={re.escape(token[1:end])}\s*\Z)" for token in SPELLED
                     for end in range(1, len(token)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(special_token_escape, "WINDOW", window)
        assert "\0".join(tokens.pieces(text)) == re.sub(complete, lambda match: match[0] + "\0", text).strip("\0")
        assert tokens.marked_text(text, "\0") == re.sub(f"{complete}|{begun}", lambda match: match[0] + "\0", text)


@pytest.mark.parametrize("text", ["a" * (SHORT_TEXT - 1), "a" * SHORT_TEXT, "12 + 30 = 42. " * 300])
def test_short_and_long_texts_are_encoded_alike(tokenizer, text):
    assert tokenizer.encode_rendered(text) == tokenizer.bpe.encode(text, add_special_tokens=False).ids
