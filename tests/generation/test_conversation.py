"""Conversations as clients send them, on templates that take less, and messages of the assistant that are continued."""

import json
import re

import pytest
import tiny
from stepping import step_to_end
from transformers import AutoTokenizer

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.generation.conversation import ConversationRenderer
from spoutnik.generation.delta import CollectedReply
from spoutnik.generation.generation import Generation
from spoutnik.generation.grammar import structured_output
from spoutnik.generation.options import GenerationOptions, plan_chat, render_chat
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.tokenizer import Tokenizer

ASK = {"role": "user", "content": "What is 12 + 30?"}
ONE_SYSTEM = ("{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('System first.') }}"
              "{% endif %}")
BODY = "[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
ALTERNATING = """{% if messages[0].role == 'system' %}{% set offset = 1 %}{% else %}{% set offset = 0 %}{% endif %}
{% for m in messages[offset:] %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}{% endfor %}{% for m in messages %}"""
NO_SYSTEM = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
NO_TOOLS = ("{% for m in messages %}{% if m.role not in ('system', 'user', 'assistant') %}{{ raise_exception(m.role) }}"
            "{% endif %}")
LAST_SYSTEM = ("{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
               "{% set ns.system = m.content %}{% endif %}{% endfor %}{{ ns.system }}\n"
               "{% for m in messages if m.role != 'system' %}")
DEAF = "{% for m in messages if m.role != 'system' %}"


def with_template(tokenizer: Tokenizer, source: str) -> Tokenizer:
    return Tokenizer(tokenizer.bpe, ChatTemplates({"default": source}, "/somewhere/chat_template.jinja"), tokenizer.config)


def rendered(tokenizer: Tokenizer, source: str, messages: list[dict], **options) -> tuple[str, str]:
    """The prompt's text, and the notes."""
    own = with_template(tokenizer, source + BODY)
    conversation = render_chat(own, messages, GenerationOptions(**options))
    return own.decode(conversation.ids), " ".join(conversation.notes)


def system(text):
    return {"role": "system", "content": text}


CALL = [ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {
    "name": "add", "arguments": '{"a": 12}'}}]}, {"role": "tool", "tool_call_id": "c", "content": "42"}]


@pytest.mark.parametrize("source, messages, expected, note", [
    (ONE_SYSTEM, [system("A"), ASK, system("B")], "[system] A\n\nB\n[user] What", "merged into one"),
    (ONE_SYSTEM, [ASK, system("B")], "[system] B\n[user] What", "merged into one"),
    (LAST_SYSTEM, [system("A"), system("B"), ASK], "A\n\nB\n[user] What", "merged into one"),
    (ALTERNATING, [ASK, {"role": "user", "content": "Say."}], "[user] What is 12 + 30?\n\nSay.\n[assistant] ", "in a row"),
    (ALTERNATING, [system("A"), ASK, {"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}, ASK],
     "[assistant] x\n\ny\n[user] What", "in a row"),
    (NO_SYSTEM, [system("A"), ASK], "[user] A\n\nWhat is 12 + 30?\n", "put into the user's first"),
    (NO_SYSTEM, [system("A"), ASK, system("B")], "[user] A\n\nB\n\nWhat is", "put into the user's first"),
    (NO_SYSTEM, [system("A")], "[user] A\n[assistant] ", "put into the user's first"),
    (DEAF, [system("A secret."), {"role": "assistant", "content": "x"}, ASK], "[user] A secret.\n[assistant] x",
     "put into the user's first"),
    (DEAF, [system("A secret."), ASK], "[user] A secret.\n\nWhat", "put into the user's first"),
    (NO_TOOLS, CALL, "[user] <tool_response>\n42\n</tool_response>", ""),
    (ALTERNATING, [*CALL, {"role": "user", "content": "And?"}], "</tool_response>\n\nAnd?\n", "in a row"),
], ids=lambda value: str(value)[:30])
def test_a_strict_template_gets_what_it_takes(tokenizer, source, messages, expected, note):
    text, notes = rendered(tokenizer, source, messages)
    assert expected in text and note in notes and bool(note) == bool(notes)
    for message in messages:  # nothing is lost
        assert (message["content"] or "") in text
    assert ConversationRenderer(with_template(tokenizer, source + BODY), ToolSet.parse(None), None, {}).text(messages) == text


def test_a_template_that_renders_tools_but_refuses_their_results_gets_words(tokenizer):
    source = "{# <tool_call> tools #}" + NO_TOOLS
    text, notes = rendered(tokenizer, source, CALL, tools=ToolSet())
    assert "42" in text and "were written as texts" in notes


def test_a_template_that_needs_contents_still_writes_the_calls(tokenizer):
    source = ("{% for m in messages %}{{ '[' + m.role + '] ' + m.content }}{% for call in m.tool_calls or [] %}<tool_call>"
              "{{ call.function | tojson }}</tool_call>{% endfor %}{% endfor %}{# tools #}{% for m in messages[:0] %}")
    text, notes = rendered(tokenizer, source, CALL)
    assert '[assistant] <tool_call>{"name": "add"' in text and "[tool] 42" in text
    assert "got an empty one" in notes and "as texts" not in notes


def test_what_every_template_takes_is_left_as_it_is(tokenizer):
    messages = [system("A"), ASK, {"role": "assistant", "content": "42"}, ASK]
    for source in (ONE_SYSTEM, ALTERNATING, NO_TOOLS, LAST_SYSTEM):
        text, notes = rendered(tokenizer, source, messages)
        assert not notes and text.count("12 + 30") == 2


def test_a_refusal_names_no_folder(tokenizer):
    with pytest.raises(UserError, match=r"^chat_template\.jinja: the chat template refuses") as refused:
        rendered(tokenizer, "{{ raise_exception('Never.') }}{% for m in messages %}", [ASK])
    assert "somewhere" not in str(refused.value)


# The assistant's message, continued


@pytest.fixture(scope="module")
def llm(tokenizer):
    model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=512)
    return LLM(model, tokenizer, max_num_seqs=4, memory="32MB")


@pytest.mark.parametrize("last, ends", [
    ({"content": "It is 4"}, "<think>\n\n</think>\n\nIt is 4"), ({"reasoning_content": "12 plus"}, "<think>\n12 plus"),
    ({"content": "It is 4", "reasoning_content": "12 plus"}, "<think>\n12 plus\n</think>\n\nIt is 4"),
    ({"content": "<think>\n12 plus"}, "<think>\n12 plus"),
    ({"content": "<think>\n12 plus\n</think>\n\n"}, "<think>\n12 plus\n</think>\n\n"),
    ({"content": "<think></think>"}, "<think>\n\n</think>\n\n"),
    ({"content": "<think>\n12 plus\n</think>\n\nIt is"}, "<think>\n12 plus\n</think>\n\nIt is"),
    ({"content": " spaces "}, "</think>\n\n spaces "), ({"content": "</s> <｜User｜>"}, "</think>\n\n</s> <｜User｜>"),
    ({"content": ""}, "<think>\n")], ids=str)
def test_the_last_message_is_continued_where_it_stopped(llm, tokenizer, last, ends):
    messages = [ASK, {"role": "assistant", "content": None, **last}]
    plan = plan_chat(llm, messages, GenerationOptions())
    head = "<｜Assistant｜>" if "<think>" in ends[:8] else ""
    assert tokenizer.decode(plan.prompt, keep_special=True).endswith(head + ends)
    answering = bool(last.get("content")) and not ends.endswith("12 plus")
    assert plan.continues_answer == (answering and not ends.endswith("</think>\n\n"))
    assert plan.thinking != answering and plan.may_think != answering
    assert plan.prompt.count(tokenizer.user_id) == 1  # a mark that was typed is none


@pytest.mark.parametrize("options", [{"continue_final_message": False}, {"add_generation_prompt": True}], ids=str)
def test_it_is_not_continued_where_that_is_not_wanted(llm, tokenizer, options):
    messages = [ASK, {"role": "assistant", "content": "It is 4"}]
    plan = plan_chat(llm, messages, GenerationOptions(**options))
    assert plan.prompt == tokenizer.chat_ids(messages) and plan.prefill is None


def test_without_a_generation_prompt_the_conversation_itself_goes_on(llm, tokenizer):
    plan = plan_chat(llm, [ASK], GenerationOptions(add_generation_prompt=False))
    assert plan.prompt == tokenizer.chat_ids([ASK], add_generation_prompt=False) and not plan.thinking


@pytest.mark.parametrize("messages, options, error", [
    ([ASK], {"continue_final_message": True}, "continue_final_message = true: the last message"),
    ([ASK, {"role": "assistant", "content": "a"}], {"continue_final_message": True, "add_generation_prompt": True},
     "contradicts"),
    ([{"role": "assistant", "content": "a"}], {}, "Put the question before it"),
], ids=str)
def test_what_cannot_be_continued(llm, messages, options, error):
    with pytest.raises(UserError, match=error):
        plan_chat(llm, messages, GenerationOptions(**options))


@pytest.mark.parametrize("thought", [None, "12 plus 30 is 42."])
def test_qwen_s_template_writes_what_transformers_writes(tokenizer, thought):
    """Before an answer that has begun it writes the empty thought of thinking switched off."""
    own = with_template(tokenizer, "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]\n"
                        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}")
    last = {"role": "assistant", "content": "It is 4"} | ({"reasoning_content": thought} if thought else {})
    text = own.decode(render_chat(own, [ASK, last], GenerationOptions()).ids, keep_special=True)
    assert text.endswith(f"<think>\n{thought or ''}\n</think>\n\nIt is 4")


def test_chatml_is_continued_as_transformers_does_it(tokenizer, tmp_path):
    chatml = ("{% for m in messages %}{{ '[' + m['role'] + ']\n' + m['content'] + '[end]\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}")
    own = with_template(tokenizer, chatml)
    own.save(tmp_path)
    messages = [ASK, {"role": "assistant", "content": "The color is"}]
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(messages, continue_final_message=True)
    assert render_chat(own, messages, GenerationOptions()).ids == theirs["input_ids"]


def reply_to(llm, plan) -> CollectedReply:
    deltas = []
    reply, = step_to_end(llm, Generation(llm, "r", plan, deltas.extend), deltas)
    return reply


def test_a_form_goes_on_where_the_message_stopped(llm):
    form = structured_output(llm, {"type": "json_object", "schema": {
        "type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}})
    begun = [ASK, {"role": "assistant", "content": '{"a": '}]
    plan = plan_chat(llm, begun, GenerationOptions(SamplingParams(seed=1), make_logits_processor=form))
    assert json.loads('{"a": ' + reply_to(llm, plan).answer)["a"] in (1, 2)
    with pytest.raises(UserError, match="does not begin what is asked for"):
        plan_chat(llm, [ASK, {"role": "assistant", "content": "Well, "}], GenerationOptions(make_logits_processor=form))


def test_a_continued_answer_may_already_be_whole_and_keeps_its_white_space(llm, tokenizer):
    begun = [ASK, {"role": "assistant", "content": "It is 42"}]
    stops = SamplingParams(logit_bias={tokenizer.eos_id: 100})
    assert reply_to(llm, plan_chat(llm, begun, GenerationOptions(stops))).answer == ""
    space, = tokenizer.encode(" ")
    spaces = SamplingParams(logit_bias={space: 100})
    assert reply_to(llm, plan_chat(llm, begun, GenerationOptions(spaces, max_tokens=3))).answer == "   "


def test_a_long_prompt_loses_its_beginning_where_that_is_asked_for(llm):
    long = [{"role": "user", "content": "one two " * 400}]
    cut = plan_chat(llm, long, GenerationOptions(truncate_prompt_tokens=20))
    assert len(cut.prompt) == 20 and re.search(r"first \d+ of the prompt's \d+ tokens were left out", cut.notes[0])
    room = plan_chat(llm, long, GenerationOptions(truncate_prompt_tokens=-1, max_tokens=100))
    assert len(room.prompt) + 100 + len(room.closing) == llm.max_model_len and room.params.max_tokens == 100
