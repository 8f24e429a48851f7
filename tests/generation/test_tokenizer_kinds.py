"""What is made of a model's tokens in generation, for tokenizers of every kind."""

import json

import pytest
import tiny
import tokenizer_kinds

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.completion import CompletionPlan, Completions
from spoutnik.generation.grammar import structured_output
from spoutnik.generation.options import GenerationOptions, plan_chat
from spoutnik.text.tokenizer import Tokenizer

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["cats", "dogs"]}}, "required": ["a"], "additionalProperties": False}


@pytest.fixture(scope="module", params=[kind for kind in tokenizer_kinds.KINDS if kind != "unigram"])  # that has no braces
def llm(request, tmp_path_factory):
    tokenizer = Tokenizer.load(tokenizer_kinds.write(request.param, tmp_path_factory.mktemp(request.param)))
    return LLM(tiny.model(tiny.LLAMA, vocab_size=450), tokenizer, memory="16MB")


def test_answers_take_a_form(llm):
    make = structured_output(llm, {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}, after_thought=False)
    plan = CompletionPlan([llm.tokenizer.encode("the time")], SamplingParams(max_tokens=80, temperature=1.0), 3,
                          make_logits_processor=make)
    texts = []
    job = Completions(llm, "x", plan, lambda deltas: texts.extend(delta.answer for delta in deltas))
    job.start()
    while not job.done:
        llm.core.step()
        job.advance()
    assert json.loads("".join(texts))["a"] in ("cats", "dogs")


def test_a_prefill_is_read_as_the_whole_message_would_be(llm):
    """The prompt with a begun answer is a beginning of the conversation with that answer."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Once upon"}]
    plan = plan_chat(llm, messages, GenerationOptions(max_tokens=4))
    asked = llm.tokenizer.render(messages[:1])
    assert llm.tokenizer.decode(plan.prompt, keep_special=True) == llm.tokenizer.decode(
        llm.tokenizer.encode_rendered(asked + "Once upon"), keep_special=True)
    assert plan.prefill.answer == "Once upon"
