"""`spoutnik data`: what is shown of training data, by the model's own template, and what is learned of it."""

import json
from pathlib import Path

import plain_marks
import pytest
import tiny
from thought_templates import CHATML, QWEN3, with_template
from typer.testing import CliRunner

from spoutnik.commands.main import app
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.loading import load_traces
from spoutnik.train.data.preview import render_all, template_notes
from spoutnik.train.sft import trace_document

REAL = Path(__file__).parents[2] / "build" / "SmolLM2-135M-Instruct"  # make real-model
USER, REPLY = {"role": "user", "content": "What is 12 + 30?"}, {"role": "assistant", "content": "42"}
SYSTEM = {"role": "system", "content": "Add."}
TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
THINKING = REPLY | {"content": "<think>\nIt is 42.\n</think>\n\n42"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def model(tmp_path, tokenizer):
    folder = tmp_path / "model"
    tokenizer.save(folder)
    (folder / "config.json").write_text(json.dumps(tiny.QWEN | {"vocab_size": 300}))
    return folder


@pytest.fixture
def command(capsys):
    def run(*arguments: object) -> str:
        capsys.readouterr()
        app(["data", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_rows_are_shown_as_the_model_reads_and_learns_them(tmp_path, model, command, tokenizer):
    long = {"messages": [USER, REPLY | {"content": "z" * 500}]}
    path = write(tmp_path / "my.jsonl", {"messages": [SYSTEM, USER, THINKING], "id": 1}, {"messages": [USER, REPLY]}, long,
                 {"messages": [USER, REPLY]}, {"messages": [USER]})
    facts = json.loads(command(path, "--model", model, "--json"))
    assert facts["shape"] == ("my.jsonl: recognized as messages; thoughts between <think> and </think> in 1 row; not read: id")
    assert facts["positions"] == 128
    assert {key: facts["report"][key] for key in ("read", "used", "too_long", "duplicate", "no_reply")} == {
        "read": 5, "used": 2, "too_long": 1, "duplicate": 1, "no_reply": 1}
    first, second, third = facts["rows"]
    prompt = tokenizer.render([SYSTEM, USER])
    assert first["read"] == prompt and (first["thought"], first["answer"]) == ("It is 42.", "42")
    assert first["learned"] == tokenizer.decode(tiny.completion_ids(tokenizer, "It is 42.", "42"), keep_special=True)
    assert first["read_tokens"] == len(tokenizer.chat_ids([SYSTEM, USER]))
    assert second["fits"] and not third["fits"]
    assert facts["lengths"]["tokens"]["longest"] == third["read_tokens"] + third["learned_tokens"] > 128
    assert any("answer what an earlier one answers, with other words: 1." in note for note in facts["notes"])


def test_what_is_printed_is_plain_where_it_is_piped(tmp_path, model, command):
    path = write(tmp_path / "my.jsonl", *[{"q": f"What is {i}?", "a": "x"} for i in range(9)])
    text = command(path, "--model", model, "--columns", "prompt=q,answer=a", "--rows", "1")
    assert "recognized as prompt/answer (prompt from q, answer from a)" in text and "\x1b" not in text
    assert "[read]" in text and "[learned]" in text and "(the model has 128 positions)" in text
    assert text.count("--- trace") == 1 and "9 traces read, 9 used" in text
    assert "held out" in command(path, "--columns", "prompt=q,answer=a", "--held-out-share", "0.5")


def test_preferences_are_shown_as_such(tmp_path, command):
    path = write(tmp_path / "pairs.jsonl", {"prompt": "Why?", "chosen": "So.", "rejected": "No."})
    facts = json.loads(command(path, "--json"))
    assert "preference pairs" in facts["shape"] and facts["rows"][0]["rejected"]["answer"] == "No."
    assert "rejected" in command(path)


def test_wrong_requests_are_sentences(tmp_path, command):
    path = write(tmp_path / "my.jsonl", {"prompt": "a", "answer": "b"})
    for arguments, sentence in ((("--learn", "first"), "--learn first: must be last or all"),
                                (("--columns", "prompt"), "must be pairs with commas"),
                                (("--held-out-share", "1"), "must be below 1"), (("--stage", "x"), "--stage: is of a model")):
        with pytest.raises(UserError, match=sentence):
            command(path, *arguments)
    assert "Example: spoutnik data my.jsonl" in CliRunner().invoke(app, ["data", "--help"], prog_name="spoutnik").output


def rows_of(tmp_path, *conversations, **beside):
    return load_traces(write(tmp_path / "my.jsonl", *({"messages": list(each)} | beside for each in conversations)))


def test_what_a_template_does_not_show_is_said(tmp_path):
    silent = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    tokenizer = with_template(plain_marks.tokenizer(plain_marks.CHATML), silent)
    again = [SYSTEM, USER, THINKING, {"role": "user", "content": "Sure?"}, THINKING]
    notes = template_notes(rows_of(tmp_path, again, tools=TOOLS).rows, tokenizer)
    for sentence in ("knows no thoughts", "shows no tools: the model will not see those of 1 trace.", "shows no system text",
                     "leaves out the thoughts of earlier turns"):
        assert sum(sentence in note for note in notes) == 1, sentence
    shows = QWEN3.replace("{% for m in messages %}", "{{ tools or '' }}{% for m in messages %}", 1)
    assert template_notes(rows_of(tmp_path, again, tools=TOOLS).rows, with_template(tokenizer, shows)) == []


def test_tools_and_system_texts_reach_the_template(tmp_path):
    shows = "{{ tools | map(attribute='function.name') | join }}" + CHATML
    tokenizer = with_template(plain_marks.tokenizer(plain_marks.CHATML), shows)
    traces = rows_of(tmp_path, [SYSTEM, USER, REPLY], tools=TOOLS)
    document = trace_document(traces.rows[0], tokenizer)
    assert tokenizer.decode(document.ids[:document.loss_from], keep_special=True) == (
        "clock<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n")


def test_what_a_template_refuses_is_dropped_and_counted(tmp_path):
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    tokenizer = with_template(plain_marks.tokenizer(plain_marks.CHATML), strict)
    traces = rows_of(tmp_path, [SYSTEM, USER, REPLY], [USER, REPLY])
    refused, taken = render_all(traces, tokenizer, 128)
    assert "no system" in refused.refused and not refused.fits and taken.fits
    assert (traces.report.used, traces.report.refused) == (1, 1) and "1 refused by the chat template" in traces.report.counts()


@pytest.mark.skipif(not (REAL / "tokenizer.json").exists(), reason="needs the real model: make real-model")
def test_the_real_model_s_tokens_are_those_of_transformers(tmp_path, command):
    transformers = pytest.importorskip("transformers")
    oracle = transformers.AutoTokenizer.from_pretrained(REAL)
    messages = [SYSTEM, USER, REPLY, {"role": "user", "content": "And 1 more?"}, {"role": "assistant", "content": "43"}]
    (trace,) = rows_of(tmp_path, messages).rows
    document = trace_document(trace, Tokenizer.load(REAL))
    whole = oracle.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert list(document.ids) == whole[:len(document.ids)] and oracle.decode(whole[len(document.ids):]).strip() == ""
    assert oracle.decode(document.ids[document.loss_from:]) == "43<|im_end|>"
    facts = json.loads(command(write(tmp_path / "a.jsonl", {"messages": messages}), "--model", REAL, "--json"))
    assert facts["rows"][0]["learned"] == "43<|im_end|>" and facts["positions"] == 8192


def test_of_preferences_both_replies_are_shown_as_they_are_compared(tmp_path, model, command, tokenizer):
    rows = [{"prompt": USER["content"], "chosen": "42", "rejected": "It is, all in all, 42."},
            {"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "z" * 500}]
    path = write(tmp_path / "pairs.jsonl", *rows)
    facts = json.loads(command(path, "--model", model, "--json"))
    assert {key: facts["report"][key] for key in ("read", "used", "too_long", "unit")} == {
        "read": 2, "used": 1, "too_long": 1, "unit": "opinions"}
    first = facts["rows"][0]
    assert first["chosen"]["read"] == first["rejected"]["read"] == tokenizer.render([USER])
    assert first["chosen"]["learned"] == tokenizer.decode(tiny.completion_ids(tokenizer, "", "42"), keep_special=True)
    assert facts["lengths"]["rejected"]["longest"] > 128 > facts["lengths"]["chosen"]["longest"]
    assert "for kind dpo: 2 pairs." in facts["notes"] and "longer one in 0 of 2 pairs" in facts["notes"][1]
    text = command(path, "--model", model, "--rows", "1")
    assert text.count("[read]") == 1 and "[chosen]" in text and "[rejected]" in text and "--- opinion 1" in text
    assert "tokens read, " in text and " compared" in text
    thumbs = write(tmp_path / "thumbs.jsonl", {"prompt": "Why?", "completion": "So.", "label": True})
    assert "good" in json.loads(command(thumbs, "--json"))["rows"][0]
    assert "[good]" in command(thumbs, "--model", model) and "1 opinions read" in command(thumbs, "--held-out-share", "0")
