"""Calls of tools: read from any chunking of a text, never lost; histories with calls through templates of every kind."""

import json
import re
from itertools import pairwise

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.generation.tools.calls import CallAwareStops, ToolCallStream, whole_calls
from spoutnik.generation.tools.formats import DEEPSEEK_R1, DEEPSEEK_V31, HERMES, LLAMA3, UNFINISHED, convention, match_prefix
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.text.chat_template import ChatTemplates

# Templates of the published kinds, as far as tools go: what they tell of tools, and how they write calls and results.
QWEN = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for m in messages %}
    {%- if m.role == 'tool' %}<|im_start|>user
<tool_response>{{ m.content }}</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}
        {%- for call in m.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
        {%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}"""
R1 = """{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% endif %}
{%- if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}{% endif %}
{%- if m['role'] == 'assistant' and m['content'] is none %}<｜Assistant｜><｜tool▁calls▁begin｜>
{%- for call in m['tool_calls'] %}<｜tool▁call▁begin｜>{{ call['type'] + '<｜tool▁sep｜>' + call['function']['name'] }}
```json
{{ call['function']['arguments'] + '\n```<｜tool▁call▁end｜>' }}{% endfor %}<｜tool▁calls▁end｜>{% endif %}
{%- if m['role'] == 'assistant' and m['content'] is not none %}<｜Assistant｜>{{ m['content'] }}{% endif %}
{%- if m['role'] == 'tool' %}<｜tool▁output▁begin｜>{{ m['content'] }}<｜tool▁output▁end｜>{% endif %}{% endfor %}"""
V31 = """{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% endif %}
{%- if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}{% endif %}
{%- if m['role'] == 'assistant' %}{{ '' if m['content'] is none else m['content'] }}
{%- for call in m['tool_calls'] %}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{{ call['function']['name'] + '<｜tool▁sep｜>'
    + call['function']['arguments'] }}<｜tool▁call▁end｜><｜tool▁calls▁end｜>{% endfor %}{% endif %}
{%- if m['role'] == 'tool' %}<｜tool▁output▁begin｜>{{ m['content'] }}<｜tool▁output▁end｜>{% endif %}{% endfor %}"""
LLAMA = """{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for m in messages %}<|start_header_id|>{{ m.role }}
{%- if m.tool_calls %}{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{
    m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}{% endfor %}"""
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
KINDS = {"hermes": (QWEN, HERMES), "r1": (R1, DEEPSEEK_R1), "v31": (V31, DEEPSEEK_V31), "llama": (LLAMA, LLAMA3),
         "plain": (PLAIN, HERMES)}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": CITY}},
         {"type": "function", "function": {"name": "weather_now"}}]
ARGUMENTS = '{"city": "Or\\"l}é{ans", "days": [1, {"a": 2}]}'
ASKED = {"role": "user", "content": "How is the weather?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "sun"}


@pytest.fixture(scope="module")
def tokenizers():
    tokenizers = {}
    for name, (template, _) in KINDS.items():
        tokenizers[name] = tiny.tokenizer()
        tokenizers[name].templates = ChatTemplates({"default": template}, "test")
    return tokenizers | {"own": tiny.tokenizer()}


def read(tokenizer, pieces, tools=TOOLS, choice=None):
    """(content, calls without their ids)."""
    stream = ToolCallStream(tokenizer, ToolSet.parse(tools, choice))
    given = [stream.feed(piece) for piece in pieces] + [stream.close()]
    calls = whole_calls([delta for _, deltas in given for delta in deltas])
    assert len({call["id"] for call in calls}) == len(calls) <= stream.began
    return "".join(content for content, _ in given), [(c["function"]["name"], c["function"]["arguments"]) for c in calls]


def test_each_template_has_its_convention(tokenizers):
    for name, (_, format) in KINDS.items():
        known = convention(tokenizers[name])
        assert (known.format, known.renders) == (format, name != "plain")
        assert known.describes == (name in ("hermes", "llama"))
    assert convention(tokenizers["own"]) == convention(tokenizers["plain"])


@pytest.mark.parametrize("name", KINDS)
def test_calls_are_read_as_they_are_written(name, tokenizers):
    format = KINDS[name][1]
    calls = [("weather_now", "{}"), ("weather", ARGUMENTS)][:1 if format.between is None else 2]
    written = format.written(calls)
    assert read(tokenizers[name], [written]) == ("", calls)
    assert read(tokenizers[name], list(written)) == ("", calls)
    assert read(tokenizers[name], [f"\n{written}\n"]) == ("", calls)
    if not format.at_start:
        assert read(tokenizers[name], [f"Let me see.\n\n{written}"]) == ("Let me see.", calls)
        assert read(tokenizers[name], [f"{written}\nThat is it."]) == ("\nThat is it.", calls)


def test_white_space_in_a_call_is_free(tokenizers):
    tight = '<tool_call>{"name":"weather","arguments":{"city":"x"}}</tool_call>'
    wide = '<tool_call>\n\n{ "name" : "weather" ,\n "arguments":  { "city" : "x" } }\n</tool_call>'
    assert read(tokenizers["own"], [tight]) == ("", [("weather", '{"city":"x"}')])
    assert read(tokenizers["own"], [wide]) == ("", [("weather", '{ "city" : "x" }')])


@pytest.mark.parametrize("text", [
    "1 < 2 <tool", '<tool_call>\n{"name": "whether", "arguments": {}}\n</tool_call>', "<tool_call>\nno call\n</tool_call>",
    '<tool_call>\n{"name": "weather", "arguments": []}\n</tool_call>', '<tool_call>{"name": "weather"}</tool_call>',
    '<tool_call>{"name": "weather", "argu', 'See <tool_call><tool_call>{"name": "wea ther", "arguments": {}}'])
def test_what_is_no_call_is_content(text, tokenizers):
    assert read(tokenizers["own"], [text]) == read(tokenizers["own"], list(text)) == (text, [])


@pytest.mark.parametrize("text", ["{}", 'As JSON: {"name": "weather", "parameters": {}}', '{"name": "weather"}', '{"name": "w'])
def test_llama_s_calls_begin_the_answer(text, tokenizers):
    assert read(tokenizers["llama"], list(text)) == (text, [])


def test_a_call_after_one_that_was_none(tokenizers):
    broken, call = "<tool_call>oops</tool_call>\n", HERMES.written([("weather", "{}")])
    assert read(tokenizers["own"], [broken + call]) == (broken.rstrip(), [("weather", "{}")])


@pytest.mark.parametrize("name", KINDS)
def test_a_call_that_is_cut_off_is_neither_content_nor_a_call(name, tokenizers):
    """Wherever it is cut; calls before it stay. (A text that ends in half a mark may be anything.)"""
    format, call = KINDS[name][1], ("weather", '{"city": "Orléans"}')
    first = format.written([call]) if format.between is not None else ""
    written = format.written([call])
    for end in range(1, written.index(format.middle) + len(format.middle) + 10):
        stream = ToolCallStream(tokenizers[name], ToolSet.parse(TOOLS))
        given = [stream.feed(first + written[:end]), stream.close(cut=True)]
        assert "".join(content for content, _ in given).strip() == ""
        assert len(whole_calls([delta for _, deltas in given for delta in deltas])) == bool(first)


@given(parts=st.lists(st.one_of(st.text("ab stop\n", max_size=6), st.sampled_from(["stop", "<tool_call>", '{"a": "stop"}'])),
                      max_size=5), argument=st.sampled_from(["stop", "a", "</tool_call>", "stop\\n\\nstop"]),
       cuts=st.lists(st.integers(0, 90), max_size=6))
def test_stop_texts_are_looked_for_outside_of_calls(parts, argument, cuts, tokenizers):
    call = HERMES.written([("weather", f'{{"city": "{argument}"}}')])
    before, after = "".join(parts[:2]), "".join(parts[2:])
    text = before + call + after
    edges = [0, *sorted(min(at, len(text)) for at in cuts), len(text)]
    stops = CallAwareStops(tokenizers["own"], ToolSet.parse(TOOLS), ["stop"])
    passed = "".join(stops.feed(text[a:b]) for a, b in pairwise(edges)) + stops.close()
    if "stop" in before:
        assert (passed, stops.stopped) == (before.partition("stop")[0], "stop")
    else:
        assert passed == before + call + after.partition("stop")[0] and stops.stopped == ("stop" if "stop" in after else None)


def test_arguments_come_as_they_are_made(tokenizers):
    stream = ToolCallStream(tokenizers["own"], ToolSet.parse(TOOLS))
    begin = stream.feed('<tool_call>\n{"name": "weather", "arguments": {')[1]
    assert [delta["function"] for delta in begin] == [{"name": "weather", "arguments": "{"}]
    assert begin[0]["index"] == 0 and begin[0]["type"] == "function" and re.fullmatch(r"call_[0-9a-f]{24}", begin[0]["id"])
    assert stream.feed('"city"') == ("", [{"index": 0, "function": {"arguments": '"city"'}}])


def test_a_call_has_one_delta_in_a_piece(tokenizers):
    text = HERMES.written([("weather", '{"city": "Oslo"}'), ("weather", "{}")])
    for cut in range(len(text)):
        stream = ToolCallStream(tokenizers["own"], ToolSet.parse(TOOLS))
        for deltas in (stream.feed(text[:cut])[1], stream.feed(text[cut:])[1]):
            indices = [delta["index"] for delta in deltas]
            assert indices == sorted(set(indices))


def test_which_tools_count(tokenizers):
    text = HERMES.written([("weather", "{}")])
    assert read(tokenizers["own"], [text], choice="none") == read(tokenizers["own"], [text], None) == (text, [])
    named = {"type": "function", "function": {"name": "weather_now"}}
    assert read(tokenizers["own"], [text], choice=named) == (text, [])


pieces = st.sampled_from([
    "<", "tool_call", ">", "<tool_call>", "</tool_call>", '{"name": "', "weather", "_now", '", "arguments": ', "{", "}", '"',
    "\\", " ", "\n", "é", "}\n</tool_call>", '{"name": "weather", "arguments": {"a": "}"}}', '", "parameters": {',
    "\n```json\n", "\n```", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "function<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>"])


@pytest.mark.parametrize("name", KINDS)
@given(parts=st.lists(pieces, max_size=14), data=st.data())
def test_any_chunking_gives_the_same(name, parts, data, tokenizers):
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)])]
    content, calls = read(tokenizers[name], [text])
    assert read(tokenizers[name], chunks) == read(tokenizers[name], list(text)) == (content, calls)
    if not calls:
        assert content == text


@given(st.text('<ab"{ \n', max_size=12), st.text('<ab"{ \n', min_size=1, max_size=4))
def test_matching_needs_no_second_look(text, form):
    """What was decided on a beginning holds for the whole."""
    verdicts = [match_prefix(text[:end], form) for end in range(len(text) + 1)]
    decided = [verdict for verdict in verdicts if verdict != UNFINISHED]
    assert len(set(decided)) <= 1 and verdicts == [UNFINISHED] * (len(verdicts) - len(decided)) + decided


# Histories

def rendered(tokenizer, messages, tools=TOOLS, choice=None):
    rendered, tools = ToolSet.parse(tools, choice).conversation(tokenizer, messages)
    return tokenizer.render(rendered, tools=tools)


HISTORY = [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT]


@pytest.mark.parametrize("name", KINDS)
def test_a_history_holds_calls_as_the_model_writes_them(name, tokenizers):
    text = rendered(tokenizers[name], HISTORY)
    written = KINDS[name][1].written([("weather", ARGUMENTS)])
    assert written in text and "sun" in text and "None" not in text
    as_object = json.loads(json.dumps(HISTORY))
    as_object[1]["tool_calls"][0]["function"]["arguments"] = json.loads(ARGUMENTS)
    assert rendered(tokenizers[name], as_object) == text
    assert "Of a city." in text and '"city"' in text.split(written)[0]
    untold = rendered(tokenizers[name], HISTORY, choice="none")
    assert written in untold and "Of a city." not in untold


@pytest.mark.parametrize("name", KINDS)
def test_a_message_may_say_something_and_call(name, tokenizers):
    text = rendered(tokenizers[name], [ASKED, {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}, RESULT])
    assert KINDS[name][1].written([("weather", ARGUMENTS)]) in text
    assert "I look." in text or name == "llama"


def test_without_tools_nothing_changes(tokenizers):
    assert ToolSet.parse(None).conversation(tokenizers["r1"], [ASKED]) == ([ASKED], None)
    assert ToolSet.parse(TOOLS, "none").conversation(tokenizers["r1"], [ASKED]) == ([ASKED], None)
    old = [ASKED, {"role": "assistant", "content": "Sun.", "tool_calls": []}]
    assert rendered(tokenizers["hermes"], old, None).count("Sun.") == 1


def test_tools_join_the_system_message_where_the_template_knows_none(tokenizers):
    rendered, tools = ToolSet.parse(TOOLS).conversation(tokenizers["own"], [{"role": "system", "content": "Be brief."}, ASKED])
    assert tools is None and [message["role"] for message in rendered] == ["system", "user"]
    assert rendered[0]["content"].startswith("Be brief.\n\nYou can call") and "<tool_call>" in rendered[0]["content"]


def test_several_results_are_one_message_for_a_template_that_knows_no_tools(tokenizers):
    rendered, _ = ToolSet.parse(None).conversation(tokenizers["own"], [*HISTORY, RESULT, ASKED])
    assert [message["role"] for message in rendered] == ["user", "assistant", "user", "user"]
    assert rendered[2]["content"].count("<tool_response>\nsun\n</tool_response>") == 2
    assert tokenizers["own"].chat_ids(rendered)


def test_arguments_that_are_no_json_stay_what_they_are(tokenizers):
    call = {"function": {"name": "weather", "arguments": "{oops"}}
    assert "{oops" in rendered(tokenizers["hermes"], [ASKED, {"role": "assistant", "tool_calls": [call]}])


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_some_tools_may_be_called_and_all_are_described(mode):
    names = [tool["function"]["name"] for tool in TOOLS]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [
        {"type": "function", "function": {"name": names[-1]}}]}}
    tools = ToolSet.parse(TOOLS, choice)
    assert [function.name for function in tools.described] == names and len(names) > 1
    assert [function.name for function in tools.callable] == names[-1:]
    assert tools.required == (mode == "required") and tools.max_calls == ToolSet.parse(TOOLS).max_calls
    assert ToolSet.parse(TOOLS, "any") == ToolSet.parse(TOOLS, "required")


@pytest.mark.parametrize(("tools", "choice", "sentence"), [
    ([{"type": "web_search"}], None, r"tools\[0\]: must be"), ([{"type": "function", "function": {}}], None, "function.name"),
    ([TOOLS[0], TOOLS[0]], None, r"tools\[1\].function.name"),
    ([{"function": {"name": "a b"}}], None, "'a b': must be"),
    ([{"function": {"name": "f", "parameters": {"type": "array"}}}], None, "parameters: must be"),
    (TOOLS, "maybe", "tool_choice = 'maybe'"), (TOOLS, {"type": "function", "function": {"name": "f"}}, "no tool 'f'"),
    (TOOLS, {"type": "function", "function": "f"}, "no tool None"), ([], "required", "no tools to call"),
    (TOOLS, {"type": "allowed_tools"}, "allowed_tools: must be"), (TOOLS, {"type": "function_tools"}, "unknown"),
    (TOOLS, {"type": "allowed_tools", "allowed_tools": {"tools": []}}, "name one tool at least"),
    (TOOLS, {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "function", "function": {"name": "f"}}]}},
     "no tool 'f'")])
def test_what_is_not_of_the_api_s_form_is_refused(tools, choice, sentence):
    with pytest.raises(UserError, match=sentence):
        ToolSet.parse(tools, choice)
