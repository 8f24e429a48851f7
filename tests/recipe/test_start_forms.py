"""Checkpoints that a recipe asks to write thoughts in another form: other marks, or R1-Zero's template. What fine-tuning
teaches is read back by training, evaluation and chat, and goes with every model."""

import json

import published
import pytest
import torch
import yaml
from small_recipe import Listening
from transformers import AutoTokenizer

import spoutnik
from spoutnik.engine.llm import LLM
from spoutnik.errors import UserError
from spoutnik.export.writer import export
from spoutnik.files import read_json
from spoutnik.generation.model_card import read_model_card
from spoutnik.gguf_folder import gguf_folder
from spoutnik.recipe import start_forms
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.start_forms import StartForm, in_form
from spoutnik.text.r1_zero import r1_zero_prompt
from spoutnik.text.thought import read_reply, thought_stream
from spoutnik.text.thought_format import opens_thought, thought_format
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.preference_preview import render_preferences
from spoutnik.train.data.preferences import fit_preferences, load_preferences
from spoutnik.train.sft import trace_document

QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]
FORMS = {"zero": StartForm(None, "r1-zero"), "marks": StartForm(("<reason>", "</reason>")),
         "both": StartForm(("[THINK]", "[/THINK]"), "r1-zero")}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(start_forms, "cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Without tokens for thoughts (llama), with some (qwen3), and a base without a template."""
    folder = tmp_path_factory.mktemp("starts")
    return {"llama": published.write(folder / "llama"), "qwen3": published.write(folder / "qwen3", "qwen3"),
            "base": published.write(folder / "base", template="", max_position_embeddings=1024)}


def pieces(tokenizer, prompt, ids, size):
    stream = thought_stream(tokenizer, prompt, opens_thought(prompt, tokenizer))
    shown = [stream.feed(ids[start:start + size]) for start in range(0, len(ids), size)] + [stream.close()]
    return tuple("".join(parts).strip() for parts in zip(*shown))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "base"])
@pytest.mark.parametrize("thought, answer", [("3 and 4 is 7.", "7"), ("", "7"), ("a\n\n< b", "x </ans y\n\nz <"), ("é", "<b>")])
def test_what_is_taught_is_read_back(starts, form, kind, thought, answer):
    if (kind, form) == ("base", "marks"):
        pytest.skip("a base without a template does not converse")
    tokenizer = Tokenizer.load(in_form(starts[kind], FORMS[form]))
    document = trace_document({"prompt": QUESTION[0]["content"], "thought": thought, "answer": answer}, tokenizer)
    prompt, ids = document.ids[:document.loss_from], document.ids[document.loss_from:]
    assert ids[-1] in thought_format(tokenizer).end_ids
    reply = read_reply(ids[:-1], tokenizer, True)
    assert (reply.thought, reply.answer, reply.well_formed) == (thought, answer, True)
    for size in (1, 3, 100):
        assert pieces(tokenizer, prompt, ids[:-1], size) == (thought, answer)
    if form != "marks":
        text = tokenizer.decode(ids[:-1], keep_special=True)
        assert text.endswith(f" <answer> {answer} </answer>") and (not thought or tokenizer.marks.start in text)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "base"])
def test_the_prompt_is_the_paper_s_and_transformers_writes_it_too(starts, kind):
    folder = in_form(starts[kind], FORMS["zero"])
    tokenizer, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.render(QUESTION) == r1_zero_prompt("What is 3 + 4?")
    assert theirs.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True) == r1_zero_prompt("What is 3 + 4?")
    talk = [*QUESTION, {"role": "assistant", "content": "7", "reasoning_content": "easy"}, *QUESTION]
    assert tokenizer.render(talk).endswith("User: What is 3 + 4?. Assistant: <answer> 7 </answer><|im_end|>\n"
                                           "User: What is 3 + 4?. Assistant:")
    assert theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == tokenizer.render(talk)


@pytest.mark.parametrize("text, answer, well_formed", [
    ("<think> a </think> <answer> 7 </answer>", "7", True), ("<think> a </think>\n<answer>7</answer>\n", "7", True),
    ("<think> a </think> 7", "7", False), ("<think> a </think> <answer> 7", "7", False),
    ("<think> a </think> <answer> 7 </answer> User: more", "7", False), ("<answer> 7 </answer>", "7", True),
    ("<think> a <answer> 7 </answer>", "", False)])
def test_what_stands_beside_the_tags_is_no_answer_and_not_well_formed(starts, text, answer, well_formed):
    tokenizer = Tokenizer.load(in_form(starts["llama"], FORMS["zero"]))
    reply = read_reply(tokenizer.encode(text), tokenizer, True)
    assert (reply.answer, reply.well_formed) == (answer, well_formed)


def test_a_form_changes_nothing_but_its_files_and_is_kept(starts):
    start, folder = starts["llama"], in_form(starts["llama"], FORMS["marks"])
    before = (folder / "tokenizer_config.json").stat().st_mtime_ns
    assert in_form(start, FORMS["marks"]) == folder and (folder / "tokenizer_config.json").stat().st_mtime_ns == before
    assert in_form(start, StartForm()) == start
    for file in start.iterdir():
        if file.name != "tokenizer_config.json":
            assert (folder / file.name).resolve() == file.resolve()
    assert read_json(folder / "tokenizer_config.json") == read_json(start / "tokenizer_config.json") | {
        "thought": {"start": "<reason>", "end": "</reason>"}}


def test_a_pair_that_spells_a_mark_of_the_form_is_left_out_and_counted(starts, tmp_path):
    pairs = [{"prompt": "Why?", "chosen": chosen, "rejected": "No."} for chosen in ("So.", "<reason> so.")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    for form, used, marks in ((FORMS["marks"], 1, 1), (StartForm(), 2, 0)):
        loaded = load_preferences(tmp_path / "pairs.jsonl", "pairs")
        assert len(fit_preferences(loaded, Tokenizer.load(in_form(starts["llama"], form)), 256)) == used
        shown = load_preferences(tmp_path / "pairs.jsonl", "pairs")
        assert [each.fits for each in render_preferences(shown, Tokenizer.load(in_form(starts["llama"], form)), 256)] == [
            True, not marks]
        for report in (loaded.report, shown.report):
            assert (report.used, report.marks, report.too_long, report.refused) == (used, marks, 0, 0)


def test_a_gguf_file_keeps_the_form(starts, tmp_path):
    for name, form in FORMS.items():
        folder = in_form(starts["llama"], form)
        before = Tokenizer.load(folder)
        after = Tokenizer.load(gguf_folder(export(folder, "gguf", tmp_path / f"{name}.gguf").path))
        assert after.marks == before.marks and thought_format(after).closing == thought_format(before).closing


def recipe(folder, start, entry):
    rows = [{"prompt": QUESTION[0]["content"], "thought": "3 and 4.", "answer": "7"},
            {"prompt": "What?", "thought": "has </answer> or </reason> in it", "answer": "7"}]
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"name": "form", "dtype": "float32", "models": {"start": {"checkpoint": str(start), **entry}}, "stages": {
        "taught": {"kind": "sft", "from": "start", "file": "traces.jsonl", "settings": {
            "epochs": 60, "learning_rate": 1e-2, "tokens_per_step": 64, "optimizer": "adamw", "warmup": 1}}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


@pytest.mark.parametrize("kind, entry, words", [
    ("base", {"template": "r1-zero"}, "between <think> and </think>, as plain text, and its answers between <answer> and"),
    ("llama", {"thought": {"start": "<reason>", "end": "</reason>"}}, "between <reason> and </reason>, as plain text")],
    ids=["zero", "marks"])
def test_a_model_that_was_taught_it_is_read_as_a_native_one(starts, tmp_path, kind, entry, words):
    path, listening = recipe(tmp_path, starts[kind], entry), Listening()
    run_recipe(path, tmp_path / "run", listening)
    folder = next((tmp_path / "run" / "artifacts").glob("taught-*"))
    assert words in read_model_card(folder).description["en"] and not (folder / "tokenizer_config.json").is_symlink()
    llm = LLM(folder, dtype="float32")
    ids = llm.tokenizer.chat_ids(QUESTION)
    reply = llm.generate([ids], spoutnik.SamplingParams(temperature=0, max_tokens=60))[0].outputs[0]
    assert reply.finish_reason == "stop"
    read = read_reply([token for token in reply.token_ids if token not in llm.tokenizer.eos_ids], llm.tokenizer, True)
    assert (read.thought, read.answer, read.well_formed) == ("3 and 4.", "7", True)
    # The row that spells a mark of this form teaches nothing, and is counted.
    assert any("2 traces read, 1 used, 1 with marks of thought inside" in line for line in listening.said)
    assert torch.isfinite(spoutnik.load(folder)(torch.tensor([ids]))).all()


@pytest.mark.parametrize("entry, words", [
    ({"template": "r1"}, "models.start.template: 'r1' is none of"),
    ({"thought": {"start": "<a>"}}, "must be a mapping with start and end"),
    ({"thought": {"start": "<a>", "end": "<a>"}}, "must not hold each other"),
    ({"thought": {"start": " <a>", "end": "</a>"}}, "white space"), ({"thoughts": 1}, "models.start.thoughts")],
    ids=["template", "missing", "same", "space", "unknown"])
def test_other_values_are_refused(starts, tmp_path, entry, words):
    with pytest.raises(UserError) as caught:
        load_recipe(recipe(tmp_path, starts["llama"], entry))
    assert words in str(caught.value)
