"""One rule for the thought of every chat template: what fine-tuning teaches is what generation sees and what is read back."""

import pytest
import tiny
from thought_templates import CHATML, GLM, QWEN3, QWEN3_THINKING, V31, expected, published, with_template

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.text.special_token_escape import END_THINK, THINK
from spoutnik.text.thought import read_reply, thought_stream
from spoutnik.text.thought_format import opens_thought, thought_format
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.loop import Checkpoints
from spoutnik.train.prompt_style import conversation_ids
from spoutnik.train.rollouts import rollout_llm
from spoutnik.train.sft import SFTSettings, sft, trace_document

NAMES = ["nano", "r1", "qwen3", "qwen3_first", "qwen3_thinking", "glm", "v31", "chatml_with_marks", "chatml", "llama3",
         "plain_opening", "plain_chatml", "roles_in_words"]


@pytest.fixture(scope="module")
def shapes(checkpoints):
    return {name: Tokenizer.load(folder) for name, (folder, _) in checkpoints.items()} | {"nano": tiny.tokenizer()}


@pytest.fixture(scope="module")
def cases(shapes):
    return expected(shapes)


@pytest.mark.parametrize("name", NAMES)
def test_the_format_is_the_template_s(name, cases):
    tokenizer, wanted = cases[name]
    form = thought_format(tokenizer)
    assert form.opened_by == wanted.opened_by
    assert tokenizer.bpe.id_to_token(form.end_id) == wanted.end and form.end_id in form.end_ids
    assert set(tokenizer.eos_ids) <= set(form.end_ids)
    for thought, text in (("T", wanted.with_thought), ("", wanted.without), (" \n", wanted.without)):
        ids = form.completion_ids(thought, "A", tokenizer)
        assert tokenizer.decode(ids[:-1], keep_special=True) == text and ids[-1] == form.end_id


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("thought, answer", [
    ("2 and 2 is 4.", "4"), ("", "4"), ("a\n\nb", "  x\n"), ("Hmm, 12 + 30?\nWait.", "It is 42.\n\nYes"), ("\n lines \n", "é")])
def test_what_is_taught_is_read_back_in_training_evaluation_and_chat(name, thought, answer, cases):
    tokenizer, _ = cases[name]
    document = trace_document({"prompt": "What is 2 + 2?", "thought": thought, "answer": answer}, tokenizer)
    prompt, ids = document.ids[:document.loss_from], document.ids[document.loss_from:-1]
    assert prompt == conversation_ids((), "What is 2 + 2?", tokenizer)  # what is sampled and evaluated begins there, too
    reply = read_reply(ids, tokenizer, True)
    assert (reply.thought, reply.answer, reply.well_formed) == (thought.strip(), answer.strip(), True)
    assert reply == read_reply(ids, tokenizer, True, opens_thought(prompt, tokenizer))
    stream = thought_stream(tokenizer, prompt, opens_thought(prompt, tokenizer))
    shown = ["".join(parts) for parts in zip(stream.feed(ids), stream.close())]
    assert (shown[0].strip(), shown[1].strip()) == (reply.thought, reply.answer)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_thinking", "glm"])
@pytest.mark.parametrize("thought", ["2 and 2 is 4.", ""])
def test_where_the_template_renders_thoughts_the_target_is_its_own_rendering(name, thought, cases):
    tokenizer, _ = cases[name]
    messages = [{"role": "user", "content": "What is 2 + 2?"},
                {"role": "assistant", "content": "4", "reasoning_content": thought}]
    document = trace_document({"prompt": "What is 2 + 2?", "thought": thought, "answer": "4"}, tokenizer)
    rendered = tokenizer.render(messages, add_generation_prompt=False)
    assert tokenizer.decode(document.ids, keep_special=True) + "\n" == rendered


@pytest.mark.parametrize("name", ["chatml", "llama3", "chatml_with_marks", "plain_chatml"])
def test_where_it_knows_none_the_target_is_the_rendering_of_marks_and_answer(name, cases):
    tokenizer, _ = cases[name]
    document = trace_document({"prompt": "What?", "thought": "hm", "answer": "4"}, tokenizer)
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": f"{THINK}\nhm\n{END_THINK}\n\n4"}]
    rendered = tokenizer.render(messages, add_generation_prompt=False)
    assert rendered.startswith(tokenizer.decode(document.ids, keep_special=True))


def test_published_templates_of_r1_begin_completions_inside_the_thought(shapes, tokenizer_data):
    templates = published(tokenizer_data, shapes["r1"])
    assert len(templates) >= 3
    for tokenizer in templates.values():
        form = thought_format(tokenizer)
        assert (form.opened_by, form.opening, form.closing) == ("prompt", "", "\n</think>\n\n")
        document = trace_document({"prompt": "What?", "thought": "hm", "answer": "4"}, tokenizer)
        text = tokenizer.decode(document.ids, keep_special=True)
        assert text.endswith("<｜Assistant｜><think>\nhm\n</think>\n\n4<｜end▁of▁sentence｜>") and text.count(THINK) == 1


def test_a_template_s_end_of_turn_ends_completions_though_no_file_names_it(shapes):
    """A base's eos with the turns of ChatML."""
    base = with_template(shapes["qwen3"], CHATML, eos_token="<|endoftext|>")
    form = thought_format(base)
    assert [base.bpe.id_to_token(i) for i in form.end_ids] == ["<|endoftext|>", "<|im_end|>"]
    assert base.eos_ids == [form.end_ids[0]] and form.end_id == form.end_ids[1]


def test_every_end_of_sentence_ends_a_completion(cases):
    tokenizer, _ = cases["llama3"]
    names = {tokenizer.bpe.id_to_token(i) for i in thought_format(tokenizer).end_ids}
    assert names == {"<|end_of_text|>", "<|eot_id|>"}


def test_a_thought_that_spells_marks_or_ends_teaches_none(cases):
    tokenizer, _ = cases["qwen3"]
    ids = thought_format(tokenizer).completion_ids("a </think> b <|im_end|>", "c <think>", tokenizer)
    assert (ids.count(tokenizer.think_id), ids.count(tokenizer.end_think_id), ids.count(tokenizer.eos_id)) == (1, 1, 1)
    reply = read_reply(ids[:-1], tokenizer, True)
    assert (reply.thought, reply.answer) == ("a </think> b <|im_end|>", "c <think>")


@pytest.mark.parametrize("template", [QWEN3, GLM, CHATML])
def test_an_end_of_thought_that_nothing_began_is_ill_formed(template, shapes):
    """What fine-tuning on such a template once taught: training took it for well formed, evaluation did not."""
    tokenizer = with_template(shapes["qwen3"], template)
    ids = [*tokenizer.encode("hm\n"), tokenizer.end_think_id, *tokenizer.encode("\n\n4")]
    assert not read_reply(ids, tokenizer, True).well_formed


def test_a_thought_opened_after_white_space_is_one(shapes):
    tokenizer = with_template(shapes["qwen3"], GLM)
    ids = [*tokenizer.encode("\n"), tokenizer.think_id, *tokenizer.encode("hm"), tokenizer.end_think_id, *tokenizer.encode("4")]
    reply = read_reply(ids, tokenizer, True)
    assert (reply.thought, reply.answer, reply.well_formed) == ("hm", "4", True)
    ids[0] = tokenizer.encode("x")[0]
    assert not read_reply(ids, tokenizer, True).well_formed


def test_a_template_that_closes_the_thought_unasked_is_asked_to_think(shapes):
    form = thought_format(with_template(shapes["qwen3"], V31))
    assert form.variables["thinking"] and form.opened_by == "prompt" and form.closing == END_THINK
    assert not thought_format(with_template(shapes["qwen3"], QWEN3_THINKING)).variables


def test_a_base_model_has_a_format_of_plain_answers(shapes):
    base = with_template(shapes["chatml"], "")
    form = thought_format(base)
    assert (form.opened_by, form.no_thought, form.end_ids) == ("nobody", "", tuple(base.eos_ids))


@pytest.mark.parametrize("name", ["nano", "qwen3", "glm", "v31", "chatml", "llama3"])
def test_a_model_that_was_taught_by_a_template_writes_so_and_ends_there(name, cases, tmp_path):
    """From fine-tuning through the engine of reinforcement learning and evaluation: the same reply, well formed."""
    tokenizer, wanted = cases[name]
    model = tiny.model(tiny.QWEN, vocab_size=400, max_position_embeddings=512)
    row = {"prompt": "What is 2 + 2?", "thought": "2 and 2", "answer": "4"}
    settings = SFTSettings(epochs=40, tokens_per_step=200, learning_rate=0.02, warmup=0, schedule="constant")
    sft(model, [trace_document(row, tokenizer)], settings, 0, "sft", Checkpoints(tmp_path), tiny.silent)
    output = rollout_llm(model, tokenizer).generate([conversation_ids((), row["prompt"], tokenizer)],
                                                    SamplingParams(temperature=0, max_tokens=60))[0].outputs[0]
    text = wanted.with_thought.replace("T", "2 and 2").replace("A", "4") + wanted.end
    assert tokenizer.decode(output.token_ids, keep_special=True) == text and output.finished
    reply = read_reply(output.reply_ids, tokenizer, output.finished)
    assert (reply.thought, reply.answer, reply.well_formed) == ("2 and 2", "4", True)
