"""Answers with a form: whatever the model would rather say, what it says is JSON of the schema, or a call of a tool."""

import json
import random
import re

import pytest
import tiny
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stepping import step_to_end
from tokenizers import AddedToken

from spoutnik.engine.llm import LLM
from spoutnik.engine.request import Request
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.generation.answer_form import AnswerForm
from spoutnik.generation.generation import Generation
from spoutnik.generation.grammar import structured_output
from spoutnik.generation.options import GenerationOptions, plan_chat
from spoutnik.generation.tools.calls import ToolCallStream, whole_calls
from spoutnik.generation.tools.formats import DEEPSEEK_R1, HERMES, LLAMA3
from spoutnik.generation.tools.tool_set import MAX_CALLS, ToolSet
from spoutnik.text.chat_template import ChatTemplates

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer"}},
        "required": ["city"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": CITY}},
         {"type": "function", "function": {"name": "now"}}]
# Templates as far as they tell how calls are written.
TEMPLATES = {"hermes": "{{ tools }}<tool_call>", "deepseek": "<｜tool▁call▁begin｜>```json", "v31": "<｜tool▁call▁begin｜>",
             "llama": '{{ tools }}<|start_header_id|>"parameters": '}


def make_llm(template=None, marks=(), special=False):
    tokenizer = tiny.tokenizer()
    tokenizer.bpe.add_tokens([AddedToken(mark, special=special, normalized=False) for mark in marks])
    if template is not None:
        tokenizer.templates = ChatTemplates({"default": template}, "test")
    return LLM(tiny.model(tiny.QWEN, vocab_size=320, max_position_embeddings=512), tokenizer, max_num_seqs=8)


@pytest.fixture(scope="module")
def llm():
    return make_llm()


@pytest.fixture(scope="module")
def llms():
    llms = {"own": make_llm()}
    for name, template in TEMPLATES.items():
        llms[name] = make_llm(template)
    llms["tokens"] = make_llm(TEMPLATES["hermes"], HERMES.marks)
    llms["special tokens"] = make_llm(TEMPLATES["deepseek"], DEEPSEEK_R1.marks, special=True)
    return llms


def schema_format(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


def write(llm, make_processor, seed, most=400, end=0.3):
    """A random walk under the constraint; (text, has it ended)."""
    grammar, choose, ids = make_processor(), random.Random(seed), []
    while len(ids) < most:
        logits = torch.zeros(llm.config.vocab_size)
        grammar.apply(logits, len(ids))
        allowed = logits.isfinite().nonzero()[:, 0].tolist()
        ends = [token for token in allowed if token in llm.core.eos_ids]
        others = [token for token in allowed if token != llm.tokenizer.think_id and token not in ends]
        token = ends[0] if ends and (not others or choose.random() < end) else choose.choice(others)
        grammar.feed(token)
        if token in ends:
            return llm.tokenizer.decode(ids, keep_special=True), True
        ids.append(token)
    return llm.tokenizer.decode(ids, keep_special=True), False


def fits(value, schema):
    """The few words of JSON schema that these tests use."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if schema["type"] == "object":
        properties = schema["properties"]
        return set(schema["required"]) <= set(value) <= set(properties) and all(fits(value[k], properties[k]) for k in value)
    if schema["type"] == "array":
        return len(value) <= schema["maxItems"] and all(fits(one, schema["items"]) for one in value)
    return schema["type"] != "string" or len(value) <= schema["maxLength"]


leaves = st.sampled_from([{"type": "string", "maxLength": 5}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"},
                          {"enum": ["a", "é\n", 3, None]}])


@st.composite
def objects(draw, inner):
    properties = draw(st.dictionaries(st.text("abé \"", min_size=1, max_size=3), inner, max_size=3))
    required = draw(st.sets(st.sampled_from(sorted(properties)))) if properties else ()
    return {"type": "object", "properties": properties, "required": sorted(required), "additionalProperties": False}


schemas = st.recursive(leaves, lambda inner: st.one_of(
    objects(inner), st.builds(lambda items: {"type": "array", "items": items, "maxItems": 2}, inner),
    st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=2))), max_leaves=6)


@given(schema=schemas, seed=st.integers(0, 999))
def test_whatever_is_chosen_under_the_mask_is_json_of_the_schema(schema, seed, llm):
    text, ended = write(llm, structured_output(llm, schema_format(schema)), seed)
    if ended:
        assert fits(json.loads(text), schema)


@given(seed=st.integers(0, 999))
def test_an_object_without_a_schema(seed, llm):
    text, ended = write(llm, structured_output(llm, {"type": "json_object"}), seed, most=150)
    assert text.lstrip("\n")[0] == "{" and len(text) - len(text.lstrip()) <= 2
    assert not ended or isinstance(json.loads(text), dict)


def test_free_text_has_no_constraint(llm):
    assert structured_output(llm) is None and structured_output(llm, {"type": "text"}) is None
    assert structured_output(llm, None, ToolSet.parse(TOOLS, "none")) is None
    assert structured_output(llm, None, ToolSet.parse([])) is None


def test_a_complete_answer_can_only_end_and_no_mark_can_be_said(llm):
    tokenizer, grammar = llm.tokenizer, structured_output(llm, schema_format({"enum": ["</think>"]}))()
    for token in tokenizer.encode('"</think>"'):
        logits = torch.zeros(320)
        grammar.apply(logits, 0)
        allowed = set(logits.isfinite().nonzero()[:, 0].tolist())
        assert token in allowed and not allowed & {tokenizer.end_think_id, tokenizer.bos_id, tokenizer.user_id, 319}
        grammar.feed(token)
    grammar.apply(logits := torch.zeros(320), 9)
    assert logits.isfinite().nonzero()[:, 0].tolist() == [tokenizer.eos_id]


def test_a_thought_may_open_only_before_the_answer(llm):
    grammar, think = structured_output(llm, {"type": "json_object"})(), llm.tokenizer.think_id
    for token, may in ((think, True), (llm.tokenizer.encode("{")[0], True), (think, False)):
        grammar.apply(logits := torch.zeros(320), 0)
        assert bool(logits[token].isfinite()) == may
        if may:
            grammar.feed(token)


def test_where_others_forbade_all_that_may_come_the_form_wins(llm):
    grammar = structured_output(llm, {"type": "json_object"})()
    for token in llm.tokenizer.encode("{}"):
        grammar.feed(token)
    logits = torch.zeros(320)
    logits[llm.tokenizer.eos_id] = float("-inf")  # min_tokens
    grammar.apply(logits, 2)
    assert logits.argmax() == llm.tokenizer.eos_id and logits.isfinite().sum() == 1


def test_a_token_that_cannot_follow_fails_with_a_sentence(llm):
    grammar = structured_output(llm, {"type": "json_object"})()
    with pytest.raises(RunError, match="held to its form"):
        grammar.feed(llm.tokenizer.encode("x")[0])


@pytest.mark.parametrize(("schema", "where"), [
    ({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "array", "uniqueItems": True}}}},
     "at /properties/a/items it.*uniqueItems"),
    ({"$defs": {"b": {"type": "string", "pattern": "(?=a)b"}}, "anyOf": [{"type": "null"}, {"$ref": "#/$defs/b"}]},
     "look-around"),
    ({"type": "strin"}, "schema: it cannot be promised.*strin"), ({"$ref": "https://example.org/x"}, "example.org"),
    ({"enum": []}, "Unsatisfiable"), ({"type": "integer", "multipleOf": 999999937}, "response_format.* simpler"),
    (["string"], "must be a JSON schema"), (True, "must be a JSON schema")])
def test_what_cannot_be_promised_is_refused_with_its_place(schema, where, llm):
    with pytest.raises(UserError, match=where):
        structured_output(llm, schema_format(schema))


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from(
        ["object", "array", "string", "#", "#/$defs/a", "date", "a+", "(?=a)", "\ud800"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(
        ["type", "properties", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "enum", "const", "required", "pattern", "a",
         "format", "minItems", "maxLength", "minimum", "multipleOf", "additionalProperties", "prefixItems", "not",
         "x-guidance", "definitions", "patternProperties", "minProperties", "uniqueItems"]), inner, max_size=4)), max_leaves=12)


@settings(max_examples=150)
@given(schema=anything, strict=st.booleans())
def test_any_schema_is_compiled_or_refused(schema, strict, llm):
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": strict}}
    for given_format, tools in ((schema_format(schema), None), (None, [tool])):
        try:
            make_processor = structured_output(llm, given_format, ToolSet.parse(tools, "required" if tools else None))
        except UserError as error:
            assert re.match(r"response_format|tools", str(error))
            continue
        try:
            write(llm, make_processor, 1, most=20)
        except RunError as error:
            assert "held to its form" in str(error)


def test_nested_too_deeply(llm):
    for depth in (200, 3000):
        schema = {"type": "null"}
        for _ in range(depth):
            schema = {"type": "array", "items": schema}
        with pytest.raises(UserError, match="cannot be promised"):
            structured_output(llm, schema_format(schema))


@pytest.mark.parametrize("given", [{"type": "grammar"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": 3}])
def test_unknown_formats_are_refused(given, llm):
    with pytest.raises(UserError, match="response_format"):
        structured_output(llm, given)


A_STRING = {"type": "string", "maxLength": 3}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("schema", "reason"), [
    ({"properties": {"a": {"type": "array", "items": A_STRING, "uniqueItems": True}}}, "at /properties/a .*uniqueItems"),  # set
    ({"properties": {"a": {"type": "string", "format": "binary", "maxLength": 3}}}, "Unknown format: binary"),  # bytes
    ({"properties": {"a": {"type": "string", "format": "uuid"}}}, None),
    ({"properties": {"a": {"type": "string", "pattern": "(?=x)x"}}}, "look-around"),
    ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "does not exist"),
    ({"properties": {"a": {"$ref": "https://example.org/x"}}}, "example.org"),
    ({"properties": {"a": {"$ref": "#/$defs/b", "$defs": {"b": A_STRING}}}}, None),
    ({"properties": {"a": {"type": "array", "maxItems": 1, "items": {"$ref": "#/$defs/b"}, "$defs": {"b": A_STRING}}}}, None),
    ({"properties": {"a": {"$ref": "#/$defs/b", "description": "c"}}, "$defs": {"b": A_STRING}}, None),
    ({"properties": {"a": {"$ref": "#"}, "n": A_STRING}}, None),
    ({"patternProperties": {"^x_": A_STRING}, "additionalProperties": False}, None),
    ({"patternProperties": {"^(?!x)": A_STRING}}, "look-around"),
    ({"properties": {"a": {"type": "any"}}}, "Invalid type"),
    ({"properties": {}, "required": ["z"], "additionalProperties": False}, "unsatisfiable"),
    ({"properties": {"a": {"type": "integer", "multipleOf": 999999937}}}, "fuel"),
    ({"type": ["object", "null"], "if": {"required": ["a"]}, "then": {"required": ["b"]}}, '"if", "then"')])
def test_an_unusual_schema_refuses_nothing_and_is_kept_as_far_as_it_goes(schema, reason, strict, llm):
    kept = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 7, "maximum": 7}}, "required": ["n"],
            "additionalProperties": False}
    tools = ToolSet.parse([{"type": "function", "function": {"name": "f", "parameters": schema, "strict": strict}},
                           {"type": "function", "function": {"name": "g", "parameters": kept}}], "required")
    form = structured_output(llm, None, tools)
    assert len(form.loosened) == (reason is not None)
    assert reason is None or re.match(f"f: .*{reason}", form.loosened[0])
    for seed in range(4):
        reader = ToolCallStream(llm.tokenizer, tools)
        for call in whole_calls(reader.feed(write(llm, form, seed, most=200)[0])[1]):
            arguments = json.loads(call["function"]["arguments"])
            assert isinstance(arguments, dict) and (call["function"]["name"] == "f" or arguments == {"n": 7})


def test_only_the_part_that_cannot_be_kept_is_loosened(llm):
    schema = {"type": "object", "required": ["n", "a"], "additionalProperties": False, "properties": {
        "n": {"$ref": "#/$defs/seven"}, "a": {"type": "string", "pattern": "(?=x)x", "maxLength": 2}},
        "$defs": {"seven": {"enum": [7]}, "other": {"$ref": "#/$defs/nowhere"}}}
    form = structured_output(llm, None, ToolSet.parse([{"function": {"name": "f", "parameters": schema}}], "required"))
    for seed in range(5):
        text, ended = write(llm, form, seed, most=300, end=1.0)
        call = whole_calls(ToolCallStream(llm.tokenizer, ToolSet.parse([{"function": {"name": "f"}}])).feed(text)[1])[0]
        arguments = json.loads(call["function"]["arguments"])
        assert ended and arguments["n"] == 7 and len(arguments["a"]) <= 2


@settings(max_examples=100)
@given(schema=anything, strict=st.booleans())
def test_no_schema_of_an_object_is_refused_for_a_tool(schema, strict, llm):
    parameters = (schema if isinstance(schema, dict) else {"properties": {"a": schema}}) | {"type": "object"}
    tools = ToolSet.parse([{"function": {"name": "f", "parameters": parameters, "strict": strict}}], "required")
    assert structured_output(llm, None, tools) is not None


def test_calls_have_an_end(llms):
    """A model that would call for ever: all that the form lets it do is end."""
    for name, llm in llms.items():
        for parallel in (True, False):
            tools = ToolSet.parse([{"function": {"name": "now"}}], "required")
            text, ended = write(llm, structured_output(llm, None, tools, parallel), 0, most=1500, end=0.0)
            calls = whole_calls(ToolCallStream(llm.tokenizer, tools).feed(text)[1])
            assert ended and 1 <= len(calls) <= (MAX_CALLS if parallel and name != "llama" else 1)
            assert len(calls) == MAX_CALLS or not parallel or name not in ("own", "hermes")


@pytest.mark.parametrize("name", ["own", "tokens", "special tokens", *TEMPLATES])
@given(seed=st.integers(0, 999))
@example(seed=0)
def test_required_calls_are_calls(name, seed, llms):
    llm, schemas = llms[name], {tool["function"]["name"]: tool["function"].get("parameters") for tool in TOOLS}
    text, ended = write(llm, structured_output(llm, None, ToolSet.parse(TOOLS, "required")), seed, end=0.8)
    reader = ToolCallStream(llm.tokenizer, ToolSet.parse(TOOLS, "required"))
    parts = [reader.feed(text), reader.close()]
    calls = whole_calls(parts[0][1])
    assert not ended or (calls and not parts[0][0].strip() and not parts[1][0])
    for call in calls[:len(calls) if ended else -1]:
        arguments = json.loads(call["function"]["arguments"])
        schema = schemas[call["function"]["name"]]
        assert arguments == {} if schema is None else fits(arguments, schema)


@pytest.mark.parametrize("name", ["own", "tokens", "special tokens", *TEMPLATES])
def test_one_call_and_the_one_that_was_named(name, llms):
    llm, choice = llms[name], {"type": "function", "function": {"name": "now"}}
    for seed in range(5):
        text, ended = write(llm, structured_output(llm, None, ToolSet.parse(TOOLS, choice)), seed, end=0.0)
        reader = ToolCallStream(llm.tokenizer, ToolSet.parse(TOOLS, choice))
        calls = whole_calls(reader.feed(text)[1])
        assert ended and [call["function"]["name"] for call in calls] == ["now"]


@pytest.mark.parametrize("name", ["own", "tokens", "special tokens", *TEMPLATES])
def test_auto_is_free_until_a_call_begins(name, llms):
    llm = llms[name]
    format = ToolCallStream(llm.tokenizer, ToolSet.parse(TOOLS)).format
    make_processor = structured_output(llm, None, ToolSet.parse(TOOLS))

    def allowed(text):
        """Does the processor allow this text, and then its end?"""
        grammar = make_processor()
        for token in llm.tokenizer.encode_rendered(text):  # marks as single tokens, where they are
            grammar.apply(logits := torch.zeros(320), 0)
            if not logits[token].isfinite():
                return None
            grammar.feed(token)
        grammar.apply(logits := torch.zeros(320), 0)
        return bool(logits[llm.tokenizer.eos_id].isfinite())

    call = format.written([("weather", '{"city": "x"}')])
    assert allowed("A plain answer, 1 < 2.") is True and allowed(call) is True and allowed(call[:-1]) is not True
    assert allowed("\n\n" + call) is True
    assert allowed(format.written([("whether", '{"city": "x"}')])) is None
    assert allowed(format.written([("weather", '{"town": "x"}')])) is None
    if format is not LLAMA3:
        assert allowed("Let me see.\n" + call) is True
        assert allowed(format.written([("weather", '{"city": "x"}'), ("now", "{}")])) is True


def test_json_or_a_call(llms):
    make_processor = structured_output(llms["own"], schema_format(CITY), ToolSet.parse(TOOLS))
    heads = {write(llms["own"], make_processor, seed, most=60)[0].strip()[:6] for seed in range(30)}
    assert {head[0] for head in heads} == {"{", "<"}
    with pytest.raises(UserError, match="leave out tools|Leave out tools"):
        structured_output(llms["llama"], schema_format(CITY), ToolSet.parse(TOOLS))


def whole(llm, options):
    plan = plan_chat(llm, [{"role": "user", "content": "Now?"}], options)
    deltas = []
    reply, = step_to_end(llm, Generation(llm, "r", plan, deltas.extend), deltas)
    return reply


@given(seed=st.integers(0, 99), budget=st.integers(1, 80), thought=st.integers(0, 40))
def test_the_answer_alone_is_held_to_the_form(seed, budget, thought, llm):
    reply = whole(llm, GenerationOptions(SamplingParams(seed=seed, temperature=1.0, top_p=1.0), max_tokens=budget,
                                         max_thinking_tokens=thought,
                                         make_logits_processor=structured_output(llm, schema_format(CITY))))
    assert reply.answer and "<think>" not in reply.answer and reply.finish_reason in ("stop", "length")
    assert reply.answer.startswith("{")
    if reply.finish_reason == "stop":
        assert fits(json.loads(reply.answer), CITY)


@pytest.mark.parametrize("name", ["tokens", "special tokens"])
def test_marks_that_are_tokens_are_part_of_the_answer(name, llms):
    reply = whole(llms[name], GenerationOptions(SamplingParams(seed=1), max_tokens=400, make_logits_processor=structured_output(
        llms[name], None, ToolSet.parse(TOOLS, {"type": "function", "function": {"name": "now"}}), parallel=False)))
    reader = ToolCallStream(llms[name].tokenizer, ToolSet.parse(TOOLS))
    assert reply.finish_reason == "stop" and whole_calls(reader.feed(reply.answer)[1])[0]["function"]["name"] == "now"


def test_a_matcher_that_breaks_fails_this_reply_and_no_other(llm):
    class Broken:
        done = False

        def feed(self, token):
            raise RunError("the form broke.")

        def apply(self, logits, generated):
            pass

    failed = whole(llm, GenerationOptions(SamplingParams(seed=1), max_tokens=30, max_thinking_tokens=5,
                                          make_logits_processor=Broken))
    assert (failed.finish_reason, failed.stop_reason) == ("error", "the form broke.")
    assert whole(llm, GenerationOptions(SamplingParams(seed=1), max_tokens=30, max_thinking_tokens=5)).answer


# Forms other than JSON

@pytest.mark.parametrize("form, pattern", [
    (AnswerForm("choice", ["yes", "yes, but", 'a "quoted" one', "\u00e9t\u00e9"], "x"),
     'yes|yes, but|a "quoted" one|\u00e9t\u00e9'),
    (AnswerForm("regex", r"^\d{2}/\d{2}\n[A-C]+x$", "x"), r"\d{2}/\d{2}\n[A-C]+x"),
    (AnswerForm("regex", r"a\/b|(?i)never", "x"), "a/b|(?i:never)"),
    (AnswerForm("grammar", 'root ::= item ("," item){1,2}\nitem ::= [0-9] | "x"', "x"), "[0-9x](,[0-9x]){1,2}"),
    (AnswerForm("grammar", 'start: "(" start ")" | WORD\nWORD: /[ab]{2}/', "x"), r"\(*[ab]{2}\)*"),
    ({"type": "grammar", "grammar": 'root ::= "z"'}, "z"), ({"type": "regex", "value": "[xyz]w"}, "[xyz]w"),
    (AnswerForm.json('{"enum": [1, "b"]}', "x"), '1|"b"')], ids=str)
@pytest.mark.parametrize("after_thought", [True, False])
def test_other_forms(llm, form, pattern, after_thought):
    make = structured_output(llm, form, after_thought=after_thought)
    for seed in range(4):
        text = structured_text(llm, make, seed)
        assert re.fullmatch(pattern, text.strip("\n") if after_thought else text), text


def structured_text(llm, make, seed):
    """What a raw completion says under a form."""
    prompt = llm.tokenizer.encode("12")
    request = Request(f"form-{seed}", None, prompt, SamplingParams(max_tokens=200, temperature=1.0, n=2), seed, 0,
                      make_logits_processor=make)
    llm.core.add(request)
    while request.unfinished:
        llm.core.step()
    first, second = (sample.output(llm.tokenizer) for sample in request.samples)
    assert first.finish_reason == second.finish_reason == "stop"
    return first.text


@pytest.mark.parametrize("make, place", [
    (lambda: AnswerForm("choice", [], "guided_choice"), "guided_choice: must be a list"),
    (lambda: AnswerForm("choice", ["a", ""], "guided_choice"), "guided_choice: must be a list"),
    (lambda: AnswerForm("regex", "(?=a)b", "regex"), "regex: what is asked for cannot be promised .*look-around"),
    (lambda: AnswerForm("regex", "(a", "regex"), "regex: what is asked for"),
    (lambda: AnswerForm("grammar", "root ::= missing", "grammar"), "grammar: "),
    (lambda: AnswerForm("grammar", "nothing of the kind", "grammar"), "grammar: "),
    (lambda: AnswerForm.json("{", "guided_json"), "guided_json: is not JSON"),
    (lambda: AnswerForm.json("[]", "guided_json"), "guided_json: must be a JSON schema"),
    (lambda: {"type": "json_schema", "json_schema": {"type": "object"}}, "response_format.json_schema: must be .*schema under"),
    (lambda: {"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema: must be"),
    (lambda: {"type": "json_schema", "json_schema": {"schema": {}, "properties": {}}},
     "response_format.json_schema.properties"),
    (lambda: {"type": "json_schema"}, "response_format.json_schema: must be"),
    (lambda: {"type": "json_object", "properties": {}}, "response_format.properties: is not read"),
    (lambda: {"type": "text", "schema": {}}, "response_format.schema: is not read"),
    (lambda: {"type": "structural_tag"}, "response_format.type = 'structural_tag'"),
    (lambda: {"type": ["json"]}, "response_format.type"),
    (lambda: {"type": "json_object", "schema": {}, "json_schema": {"schema": {}}}, "response_format.schema: json_schema gives"),
])
def test_malformed_forms_are_refused_with_their_place(llm, make, place):
    with pytest.raises(UserError, match=f"^{place}"):
        structured_output(llm, make())


def test_a_schema_in_a_json_object_is_kept(llm):
    for form in ({"schema": {"enum": [7]}}, {"json_schema": {"schema": {"enum": [7]}}}):
        assert structured_text(llm, structured_output(llm, {"type": "json_object", **form}, after_thought=False), 1) == "7"
