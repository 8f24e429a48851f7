"""Templates render as transformers renders them, and a hostile one gets nowhere."""

import datetime
import json

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from spoutnik.errors import RunError, UserError
from spoutnik.text.chat_template import ChatTemplates, Conversation

TOKENS = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}


def call(name, arguments='{"city": "Paris"}'):
    return {"type": "function", "id": "1", "function": {"name": name, "arguments": arguments}}


def tool(name):
    return {"type": "function", "function": {"name": name, "description": "L'été <b> & \"so\"", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


SYSTEM, HI = {"role": "system", "content": "Be kind.\n"}, {"role": "user", "content": " Hi {{ 猫 }}\n"}
HELLO = {"role": "assistant", "content": "<think>\nhm </think> no\n</think>\n\nHello"}
ASK = {"role": "assistant", "content": None, "tool_calls": [call("weather")]}
ASK_TWICE = {"role": "assistant", "content": None, "tool_calls": [call("weather"), call("time", "{}")]}
SUN, NOON = {"role": "tool", "content": "sun"}, {"role": "tool", "content": "noon"}
CONVERSATIONS = {
    "one turn": [HI], "system": [SYSTEM, HI], "late system": [HI, HELLO, SYSTEM, HI],
    "several turns": [HI, HELLO, HI, HELLO, HI],
    "ends with the assistant": [HI, HELLO], "empty answer": [HI, {"role": "assistant", "content": ""}, HI],
    "tool call": [HI, ASK], "tool output": [SYSTEM, HI, ASK, SUN], "after the tool": [HI, ASK, SUN, HELLO, HI],
    "two tools": [HI, ASK_TWICE, SUN, NOON], "after two tools": [HI, ASK_TWICE, SUN, NOON, HELLO, HI, ASK, NOON],
    "tool twice": [HI, ASK, SUN, ASK, NOON, HELLO],
}


def ours(source, messages, tools=None, documents=None, variables=None, prompt=False):
    conversation = Conversation.of(messages, tools, documents, variables, prompt)
    return ChatTemplates({"default": source}, "here.jinja").render(conversation, TOKENS)


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("case", CONVERSATIONS)
@pytest.mark.parametrize("name", ["deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
                                  "llama-cpp-deepseek-r1"])
def test_r1_s_own_templates_render_as_in_transformers(name, case, prompt, tokenizer_data):
    source = (tokenizer_data / f"{name}.jinja").read_text()
    for tools in (None, [tool("weather")], [tool("weather"), tool("time")]):
        if tools and name == "llama-cpp-deepseek-r1":
            continue  # prints a generator as JSON: llama.cpp's jinja can, the real one cannot
        # Below `apply_chat_template`, which since transformers 5 drops a content of None: R1's templates then fail.
        expected = render_jinja_template([CONVERSATIONS[case]], tools, None, source, add_generation_prompt=prompt, **TOKENS)
        assert ours(source, CONVERSATIONS[case], tools, prompt=prompt) == expected[0][0]


@pytest.mark.parametrize("shape", ["r1", "llama3", "qwen3", "chatml"])
@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
def test_templates_of_other_families_render_as_in_transformers(shape, variables, checkpoints):
    _, oracle = checkpoints[shape]
    plain = [conversation for conversation in CONVERSATIONS.values() if all(m["content"] is not None for m in conversation)]
    with_calls = [[HI, {"role": "assistant", "tool_calls": [call("weather", {"city": "Orléans"})]}, SUN]]
    reasoned = [[HI, {"role": "assistant", "content": "Hello", name: "hm"}] for name in ("reasoning_content", "reasoning")]
    for messages in [*plain, *reasoned, *(with_calls if shape in ("llama3", "qwen3") else [])]:
        for tools in (None, [tool("weather")], [tool("weather"), tool("time")]):
            for prompt in (False, True):
                expected = oracle.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt,
                                                      **variables)
                conversation = Conversation.of(messages, tools, None, variables, prompt)
                templates = ChatTemplates({"default": oracle.chat_template}, "")
                assert templates.render(conversation, oracle.special_tokens_map) == expected


@pytest.mark.parametrize("source", [
    "{{ tools | tojson }}", "{{ tools | tojson(indent=2) }}", "{{ tools | tojson(ensure_ascii=true) }}",
    "{{ tools | tojson(separators=(',', ':'), sort_keys=true) }}", "{{ messages | tojson(indent=4, sort_keys=true) }}",
    "{{ strftime_now('%d %B %Y') }}",
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}\n  {% generation %}\n  {{ m.content }}{% set x = 1 %}{% endgeneration %}|{{ x }}\n{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m.content|length %}{% endfor %}{{ ns.n }}",
    "{% set ns = namespace({'a b': 2}, c=3) %}{{ ns['a b'] + ns.c }}",
    "{{ dict(a=1, **{'b': 2}) }}{{ dict.fromkeys('ab', 0) }}",
    "{{ bos_token }}{{ pad_token }}{{ eos_token is defined }}{{ pad_token is defined }}{{ tools is none }}{{ documents }}",
    "{{ documents | map(attribute='text') | join(', ') }}", "{{ answer }} {{ add_generation_prompt }} {{ missing }}",
    "  {% if true %}\n  yes\n  {% endif %}\n\n",
    "{%- macro say(x) -%}[{{ x }}]{%- endmacro -%}{{ say(messages[-1]['content']) }}",
    "{{ messages[0].content.strip().split(' ') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ '<b>' | e }}{{ messages[0]['content'] | trim }}{{ 'x' ~ 1 }}{{ '%s' | format(2) }}",
    "{{ thinking }}{{ messages[1] }}",
])
def test_each_helper_does_what_it_does_in_transformers(source):
    given = {"messages": [SYSTEM, HI, {"role": "assistant", "content": "x", "thinking": "hm"}], "tools": [tool("weather")],
             "documents": [{"title": "a", "text": "b"}, {"title": "c", "text": "d"}],
             "variables": {"answer": 42, "bos_token": "<other>"}, "prompt": True}
    expected = render_jinja_template([given["messages"]], given["tools"], given["documents"], source,
                                     add_generation_prompt=True, **TOKENS | given["variables"])[0][0]
    assert ours(source, **given) == expected


def test_the_date_is_today_s():
    before = datetime.date.today().isoformat()
    assert before <= ours("{{ strftime_now('%Y-%m-%d') }}", [HI]) <= datetime.date.today().isoformat()


def test_none_values_are_dropped_unless_the_template_asks_for_them(checkpoints):
    _, oracle = checkpoints["chatml"]
    messages = [{"role": "user", "content": "a", "name": None}, {"role": "assistant", "content": None}]
    source = "{% for m in messages %}{{ m.keys() | list }}{% endfor %}"
    assert ours(source, messages) == oracle.apply_chat_template(messages, chat_template=source, tokenize=False)
    asking = source + "{{ messages[1]['content'] is none }}"
    assert ours(asking, messages) == "['role', 'content']['role', 'content']True"


@pytest.mark.parametrize("source", [
    "{{ messages.__class__.__mro__ }}", "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ messages.append(1) }}", "{{ messages[0].update(role='system') }}", "{% set _ = messages.pop() %}",
    "{{ raise_exception.__globals__['json'] }}", "{{ dict.__call__.__globals__ }}",
    "{{ dict.update(messages[0], role='system') }}",
    "{{ self.__init__.__globals__ }}", "{{ cycler.__init__.__globals__ }}",
    "{% set ns = namespace() %}{% set ns.__html__ = 1 %}", "{{ namespace(__html__=1) }}", "{{ namespace({'_x': 1}) }}",
    "{{ (messages | attr('__class__')).mro() }}", "{{ range(999999999) | list }}",
])
def test_a_template_cannot_leave_its_sandbox(source):
    messages = [dict(HI), dict(HELLO)]
    with pytest.raises(UserError, match=r"^here\.jinja: the chat template refuses this conversation \(.+\)\. Change"):
        ours(source, messages)
    assert messages == [HI, HELLO]


@pytest.mark.parametrize("source", ["{{ messages.__class__ }}", "{{ raise_exception.__globals__ }}",
                                    "{{ messages | attr('__class__') }}", "{{ '{0.__class__}'.format(messages) }}"])
def test_what_a_template_must_not_see_is_empty(source):
    assert ours(source, [HI]) == ""


def test_what_a_template_raises_is_in_the_sentence():
    source = "{% if messages[0].role != 'user' %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    with pytest.raises(UserError, match=r"here\.jinja: .*\(Conversation roles must alternate\)"):
        ours(source, [SYSTEM])
    assert ours(source, [HI]) == ""


@pytest.mark.parametrize("source", ["{{ 'a' + 1 }}", "{{ messages[0].content.x.y }}", "{{ 1 / 0 }}",
                                    "{{ messages[7].role }}", "{{ messages | nofilter }}", "{% include 'x' %}"])
def test_a_template_that_fails_is_a_sentence(source):
    with pytest.raises((UserError, RunError), match=r"^here\.jinja: "):
        ours(source, [HI])


def test_a_template_that_is_not_jinja_is_named_with_its_line():
    with pytest.raises(RunError, match=r"here\.jinja: is not a valid jinja template \(its line 2: "):
        ours("fine\n{% for m in %}", [HI])


@pytest.mark.parametrize("messages, sentence", [
    ([], "at least one message"), ([{"content": "a"}], "has no role"), (["hi"], "has no role"),
    ([{"role": "user", "content": object()}], "holds a object"),
    ([{"role": "user", "content": "\ud800"}], "half a character"),
])
def test_what_is_no_conversation_is_refused(messages, sentence):
    with pytest.raises(UserError, match=sentence):
        ours("{{ messages }}", messages)


def test_tools_and_documents_are_objects():
    with pytest.raises(UserError, match="tools: "):
        ours("x", [HI], tools=["weather"])
    with pytest.raises(UserError, match="documents: "):
        ours("x", [HI], documents=["text"])


# Where a checkpoint keeps its templates

def load(folder):
    path = folder / "tokenizer_config.json"
    return ChatTemplates.load(folder, json.loads(path.read_text()) if path.exists() else {})


@pytest.mark.parametrize("with_tools", [False, True])
def test_a_list_of_templates_has_one_for_tools(with_tools, tmp_path, checkpoints):
    _, oracle = checkpoints["chatml"]
    named = {"default": "plain", "tool_use": "with tools", "rag": "with documents"}
    oracle.chat_template, kept = named, oracle.chat_template
    try:
        expected = oracle.get_chat_template(tools=[tool("weather")] if with_tools else None)
    finally:
        oracle.chat_template = kept
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"chat_template": [{"name": name, "template": source} for name, source in named.items()]}))
    templates = load(tmp_path)
    assert templates.choose(with_tools) == expected
    templates.save(tmp_path / "saved")
    assert load(tmp_path / "saved").sources == named


def test_a_file_of_its_own_goes_before_the_json_files(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "third"}')
    assert load(tmp_path).sources == {"default": "third"}
    (tmp_path / "chat_template.json").write_text('{"chat_template": "second"}')
    assert load(tmp_path).sources == {"default": "second"}
    (tmp_path / "chat_template.jinja").write_text("first")
    assert load(tmp_path).sources == {"default": "first"}


def test_the_mark_of_an_editor_begins_no_prompt(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("\ufeffHello")
    assert load(tmp_path).sources == {"default": "Hello"}


def test_an_empty_template_is_none(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": " "}')
    assert load(tmp_path).sources == {}
    (tmp_path / "chat_template.jinja").write_text("\n")
    assert load(tmp_path).sources == {}


@pytest.mark.parametrize("value", [3, [3], [{"name": "default"}], [{"name": "../x", "template": "a"}],
                                   [{"name": "a", "template": 3}]])
def test_a_template_of_the_wrong_kind_is_named(value, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(RunError, match=r"tokenizer_config\.json: chat_template must be"):
        load(tmp_path)


def test_no_template_is_fine_until_somebody_chats(tmp_path):
    with pytest.raises(UserError, match="gives no chat template"):
        load(tmp_path).render(Conversation.of([HI], None, None, None, True), TOKENS)
