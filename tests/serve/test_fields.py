"""No field that changes the answer is passed over: each one is honored, harmless, or refused by name, and in the table of
docs/serve.md."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.api.completions import COMPLETION_REFUSED, CompletionRequest
from spoutnik.serve.api.embeddings import EmbeddingRequest
from spoutnik.serve.api.fields import CHAT_REFUSED, EMBEDDING_REFUSED, HARMLESS, REFUSED, TOKENIZE_REFUSED

ASK = [{"role": "user", "content": "What is 12 + 30?"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BASE = {CHAT: {"messages": ASK, "seed": 1, "max_tokens": 12, "max_thinking_tokens": 4},
        TEXT: {"prompt": "12 + 30 is", "seed": 1}}
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
PICK = {"type": "function", "function": {"name": "pick", "parameters": SCHEMA}}
FOREIGN = {"nobody": ["has", "this"]}  # a value that asks for something, whatever the field


def answers(api, *requests: tuple[str, dict]) -> list[tuple[int, dict]]:
    """(status, body) of each, one after the other."""
    async def ask():
        async with api() as client:
            replies = [await client.post(path, json=body) for path, body in requests]
            return [(reply.status_code, reply.json()) for reply in replies]

    return asyncio.run(ask())


def said(reply: dict) -> list[dict]:
    """Of a reply, what does not change from one time to the next."""
    return [choice | {"message": {key: value for key, value in choice.get("message", {}).items() if key != "tool_calls"}}
            for choice in reply["choices"]]


def content(reply: dict) -> str:
    choice = reply["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_harmless_fields_change_nothing_and_unknown_ones_are_told(api, path):
    names = sorted(HARMLESS)
    (_, plain), *others, (status, unknown) = answers(
        api, (path, BASE[path]), *((path, BASE[path] | {name: FOREIGN}) for name in names),
        (path, BASE[path] | {"no_such_field": 1, "speculative.n_max": 4}))
    for name, (status, reply) in zip(names, others):
        assert status == 200 and said(reply) == said(plain) and "no_such" not in reply.get("warning", ""), (name, reply)
        assert reply.get("warning") == plain.get("warning"), name
    assert status == 200 and said(unknown) == said(plain) and unknown["warning"].startswith("no_such_field: unknown here")


@pytest.mark.parametrize("path, table", [(CHAT, CHAT_REFUSED), (TEXT, COMPLETION_REFUSED)])
def test_what_is_not_served_is_refused_by_name_unless_it_asks_for_nothing(api, path, table):
    asked = [(name, FOREIGN) for name in table] + [(name, value) for name in table for value in (None, *table[name])]
    replies = answers(api, *((path, BASE[path] | {"max_tokens": 1, name: value}) for name, value in asked))
    for (name, value), (status, reply) in zip(asked, replies):
        if value == FOREIGN:
            assert status == 400 and reply["error"]["param"] == name, (name, reply)
            assert reply["error"]["message"].startswith(f"{name}: is not served here."), reply
        else:
            assert status == 200, (name, value, reply)


@pytest.mark.parametrize("path, body, table", [("/tokenize", {"prompt": "a"}, TOKENIZE_REFUSED),
                                               ("/v1/embeddings", {"input": "a"}, EMBEDDING_REFUSED | {"dimensions": ()})])
def test_other_endpoints_refuse_by_name_too(api, path, body, table):
    for (name, _), (status, reply) in zip(table.items(), answers(api, *((path, body | {name: FOREIGN}) for name in table))):
        assert status == 400 and reply["error"]["param"] == name, (name, reply)
    for status, reply in answers(api, (path, body | {"user": "u"}), *((path, body | {name: value}) for name in table
                                                                      for value in table[name])):
        assert status == 200, reply


# Honored fields: what each does to the reply. Both endpoints have the first ones.

def applies(name, value, under=None):
    return {name: value}, lambda reply, _: reply["applied"][under or name] == value


def forms(fields, pattern):
    return fields, lambda reply, _: re.fullmatch(pattern, content(reply)) is not None


JSON = r'\{\s*"a"\s*:\s*[12]\s*\}'
SAMPLING = {
    "max_tokens": applies("max_tokens", 3), "max_new_tokens": applies("max_new_tokens", 3, "max_tokens"),
    "n_predict": applies("n_predict", 3, "max_tokens"),
    "max_completion_tokens": applies("max_completion_tokens", 3, "max_tokens"),
    "min_tokens": applies("min_tokens", 2), "min_new_tokens": applies("min_new_tokens", 2, "min_tokens"),
    "temperature": applies("temperature", 0.125), "top_p": applies("top_p", 0.5), "top_k": applies("top_k", 3),
    "min_p": applies("min_p", 0.25), "presence_penalty": applies("presence_penalty", 1.5),
    "frequency_penalty": applies("frequency_penalty", -1.5), "repetition_penalty": applies("repetition_penalty", 1.25),
    "repeat_penalty": applies("repeat_penalty", 1.25, "repetition_penalty"), "seed": applies("seed", 99),
    "random_seed": applies("random_seed", 99, "seed"), "stop": applies("stop", ["e", "a"]),
    "stop_token_ids": applies("stop_token_ids", [44]), "ignore_eos": applies("ignore_eos", True),
    "logit_bias": applies("logit_bias", {"44": 5.0}), "n": applies("n", 2), "bad_words": applies("bad_words", ["the"]),
    "allowed_token_ids": applies("allowed_token_ids", [44, 45]),
    "response_format": forms({"response_format": {"type": "json_object", "schema": SCHEMA}}, JSON),
    "structured_outputs": forms({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
    "guided_json": forms({"guided_json": json.dumps(SCHEMA)}, JSON),
    "guided_regex": forms({"guided_regex": r"^\d{3}/[ab]$"}, r"\d{3}/[ab]"),
    "guided_choice": forms({"guided_choice": ["yes", "yesterday"]}, "yes|yesterday"),
    "guided_grammar": forms({"guided_grammar": 'start: a "!"\na: "x" | "y"'}, "[xy]!"),
    "json_schema": forms({"json_schema": SCHEMA}, JSON), "regex": forms({"regex": "(ab){2}"}, "abab"),
    "grammar": forms({"grammar": 'root ::= "x" [0-9] | "y"'}, "x[0-9]|y"), "ebnf": forms({"ebnf": 'root ::= "xyz"'}, "xyz"),
    "format": forms({"format": SCHEMA}, JSON),
    "prompt_logprobs": ({"prompt_logprobs": 2}, lambda reply, _: (reply.get("prompt_logprobs")
                                                                 or reply["choices"][0]["prompt_logprobs"])[0] is None),
    "truncate_prompt_tokens": ({"truncate_prompt_tokens": 3}, lambda reply, _: reply["usage"]["prompt_tokens"] == 3
                               and "truncate_prompt_tokens" in reply["warning"]),
    "return_applied": ({"return_applied": False}, lambda reply, _: "applied" not in reply),
}
THOUGHT = {  # a thought of no tokens, or of two; the base has four
    **{name: ({"max_thinking_tokens": None, name: 2}, lambda reply, _: reply["applied"]["max_thinking_tokens"] == 2)
       for name in ("max_thinking_tokens", "thinking_token_budget", "thinking_budget", "thinking_budget_tokens",
                    "reasoning_budget", "reasoning_budget_tokens")},
    **{name: ({"max_thinking_tokens": None, name: value}, lambda reply, _: reply["applied"]["enable_thinking"] is False
              and "reasoning" not in reply["choices"][0]["message"])
       for name, value in (("enable_thinking", False), ("think", False), ("thinking", {"type": "disabled"}),
                           ("reasoning_effort", "none"), ("reasoning", {"enabled": False}),
                           ("chat_template_kwargs", {"thinking": False}))},
    "include_reasoning": ({"include_reasoning": False}, lambda reply, _: "reasoning" not in reply["choices"][0]["message"]),
    "reasoning_format, raw": ({"reasoning_format": "raw"}, lambda reply, _: content(reply).startswith("<think>")),
    "reasoning_format, hidden": ({"reasoning_format": "hidden"},
                                 lambda reply, _: "reasoning" not in reply["choices"][0]["message"]),
    "reasoning_format": ({"reasoning_format": "none"}, lambda reply, _: content(reply).startswith("<think>")),
    "separate_reasoning": ({"separate_reasoning": False}, lambda reply, _: content(reply).startswith("<think>")),
    "detect_loops": applies("detect_loops", False),
}
PREFILL = [*ASK, {"role": "assistant", "content": "It is 4"}]
CHAT_ONLY = {
    "logprobs": ({"logprobs": True}, lambda reply, _: len(reply["choices"][0]["logprobs"]["content"]) > 0),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 2},
                     lambda reply, _: len(reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2),
    "n_thoughts": ({"n_thoughts": 2}, lambda reply, _: reply["agreement"] <= 1),
    "tools": ({"tools": [PICK]}, lambda reply, plain: reply["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]),
    "tool_choice": ({"tools": [PICK], "tool_choice": "none"},
                    lambda reply, plain: reply["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]),
    "parallel_tool_calls": applies("parallel_tool_calls", False),
    "continue_final_message": ({"messages": PREFILL, "continue_final_message": False},
                               lambda reply, _: "reasoning" in reply["choices"][0]["message"]),
    "add_generation_prompt": ({"add_generation_prompt": False},
                              lambda reply, plain: reply["usage"]["prompt_tokens"] < plain["usage"]["prompt_tokens"]),
    "echo": ({"messages": PREFILL, "echo": True}, lambda reply, _: content(reply).startswith("It is 4")),
}
TEXT_ONLY = {
    "logprobs": ({"logprobs": 2}, lambda reply, _: len(reply["choices"][0]["logprobs"]["tokens"]) > 0),
    "echo": ({"echo": True}, lambda reply, _: content(reply).startswith("12 + 30 is")),
    "best_of": ({"n": 2, "best_of": 2}, lambda reply, _: len(reply["choices"]) == 2),
    "add_special_tokens": ({"add_special_tokens": False}, lambda reply, plain: reply["usage"]["prompt_tokens"]
                           == plain["usage"]["prompt_tokens"] - 1),
    "parse_special": ({"prompt": "<think>", "parse_special": False}, lambda reply, _: reply["usage"]["prompt_tokens"] > 2),
    "include_stop_str_in_output": ({"stop": ["z"], "logit_bias": {"z": 100}, "include_stop_str_in_output": True},
                                   lambda reply, _: content(reply).endswith("z")),
    "skip_special_tokens": ({"logit_bias": {"<think>": 100}, "skip_special_tokens": False},
                            lambda reply, _: content(reply).startswith("<think>")),
}
# Tried by tests of their own (of streams, of models, of messages), or by the refusals above.
ELSEWHERE = {"model", "messages", "prompt", "stream", "stream_options", "resumable", "modalities", "documents", "suffix"}


def named_ids(body: dict, tokenizer) -> dict:
    """The body with biases by id where they are by text."""
    bias = {key if key.isdigit() else str(tokenizer.bpe.token_to_id(key)): value
            for key, value in (body.get("logit_bias") or {}).items()}
    return body | ({"logit_bias": bias} if bias else {})


@pytest.mark.parametrize("path, request_type, cases", [
    (CHAT, ChatRequest, SAMPLING | THOUGHT | CHAT_ONLY), (TEXT, CompletionRequest, SAMPLING | TEXT_ONLY)])
def test_every_honored_field_does_something(api, tokenizer, path, request_type, cases):
    assert cases.keys() | ELSEWHERE >= request_type.model_fields.keys()
    base = BASE[path] | {"return_applied": True, "max_tokens": 40}
    several = {"max_new_tokens", "n_predict", "max_completion_tokens", "random_seed"}
    bodies = [named_ids({key: value for key, value in (base | more).items() if not (
        name in several and key in ("max_tokens", "seed"))}, tokenizer) for name, (more, _) in cases.items()]
    (_, plain), *replies = answers(api, (path, base), *((path, body) for body in bodies))
    for (name, (_, check)), (status, reply) in zip(cases.items(), replies):
        assert status == 200, (name, reply)
        assert check(reply, plain), (name, reply)


def test_a_budget_that_the_template_does_not_read_is_heard_and_not_called_unread(api):
    kwargs = {"thinking_budget": 3, "reasoning_effort": "low", "no_such": 1}
    (status, reply), = answers(api, (CHAT, {"messages": ASK, "seed": 1, "max_tokens": 40, "return_applied": True,
                                            "chat_template_kwargs": kwargs}))
    assert status == 200 and reply["applied"]["max_thinking_tokens"] == 3
    assert [note for note in reply["applied"]["notes"] if "chat_template_kwargs" in note] == [
        "chat_template_kwargs.no_such: this model's template does not read it."]


def test_a_whole_number_may_be_written_with_a_point(api):
    whole = {"max_tokens": 3, "top_k": 5, "n": 2, "stop_token_ids": [44], "min_tokens": 1, "truncate_prompt_tokens": 4}
    floats = {name: [float(part) for part in value] if isinstance(value, list) else float(value)
              for name, value in whole.items()}
    for path in (CHAT, TEXT):
        (_, ints), (status, points) = answers(api, (path, BASE[path] | whole), (path, BASE[path] | floats))
        assert status == 200 and said(points) == said(ints)
    (_, ints), (status, points), (wrong, _) = answers(api, *((TEXT, {"prompt": prompt, "seed": 1}) for prompt in (
        [9, 44], [9.0, 44.0], [9.5, 44.0])))
    assert status == 200 and said(points) == said(ints) and wrong == 400


def test_the_table_of_the_documentation_has_every_field():
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    table = set(re.findall(r"`([A-Za-z_]+)`", text.partition("## Fields")[2]))
    fields = ChatRequest.model_fields.keys() | CompletionRequest.model_fields.keys() | EmbeddingRequest.model_fields.keys()
    assert fields | HARMLESS | REFUSED.keys() <= table, sorted((fields | HARMLESS | REFUSED.keys()) - table)
