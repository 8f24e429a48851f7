"""Fine-tuning: every trace once an epoch, only the assistant's words learned."""

import random

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.model.packing import PackedSequences
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.catalog import find_tasks
from spoutnik.text.thought import read_reply
from spoutnik.train import sft as module
from spoutnik.train.language_model import language_model_gradient
from spoutnik.train.loop import Checkpoints
from spoutnik.train.sft import (
    ColdStartSettings,
    SFTSettings,
    fit,
    general_traces,
    plan_steps,
    sft,
    solver_traces,
    trace_document,
)
from spoutnik.train.traces import Traces

ROW = {"prompt": "What is 2 + 2?", "thought": "2 and 2 is 4.", "answer": "4"}
lengths = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(lengths=lengths, epochs=st.integers(1, 3), tokens=st.integers(1, 200))
def test_every_trace_comes_once_in_every_epoch(lengths, epochs, tokens):
    order = [i for step in plan_steps(lengths, tokens, epochs, 0) for i in step]
    for epoch in range(epochs):
        assert sorted(order[epoch * len(lengths):(epoch + 1) * len(lengths)]) == list(range(len(lengths)))
    assert len(order) == epochs * len(lengths)


@given(lengths=lengths, tokens=st.integers(1, 200))
def test_no_step_is_empty_or_too_long_unless_for_one_trace(lengths, tokens):
    steps = plan_steps(lengths, tokens, 1, 0)
    assert all(len(step) == 1 or 0 < sum(lengths[i] for i in step) <= tokens for step in steps)


@pytest.mark.parametrize("epochs, passes", [(0.5, 20), (1.5, 60), (2.25, 90)])
def test_a_fraction_of_an_epoch_is_that_fraction_of_the_traces(epochs, passes):
    order = [i for step in plan_steps([5] * 40, 50, epochs, 0) for i in step]
    assert len(order) == passes and len(set(order[-(passes % 40):])) == passes % 40


def test_epochs_differ_in_order_and_seeds_too():
    order, again, other = ([i for step in plan_steps([5] * 30, 50, 2, seed) for i in step] for seed in (0, 0, 1))
    assert order == again and order != other and order[:30] != order[30:]


def test_only_what_the_assistant_writes_is_predicted(tokenizer):
    document = trace_document(ROW, tokenizer)
    assert document.ids[document.loss_from:] == tiny.completion_ids(tokenizer, "2 and 2 is 4.", "4")
    assert document.ids[:document.loss_from] == tokenizer.chat_ids([{"role": "user", "content": ROW["prompt"]}])


def test_a_trained_trace_reads_back_as_it_was_written(tokenizer):
    document = trace_document(ROW, tokenizer)
    reply = read_reply(document.ids[document.loss_from:-1], tokenizer, True)
    assert (reply.thought, reply.answer, reply.well_formed) == (ROW["thought"], ROW["answer"], True)


def test_fine_tuning_learns_its_traces(tokenizer, tmp_path):
    student = tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=512)
    traces = [ROW | {"prompt": f"What is {i}?", "answer": "4"} for i in range(6)]
    settings = SFTSettings(epochs=25, tokens_per_step=200, learning_rate=0.02, warmup=0, schedule="constant")
    documents = [trace_document(row, tokenizer) for row in traces]
    log, cost = sft(student, documents, settings, 0, "sft", Checkpoints(tmp_path), tiny.silent)
    assert log[-1]["loss"] < 0.1 * log[0]["loss"]
    assert cost.tokens_trained == 25 * sum(len(document.ids) for document in documents)


def test_traces_longer_than_the_model_are_left_out_and_counted(tokenizer):
    long = ROW | {"thought": "z" * 200}
    sources = [Traces.of("a", [long, ROW, long]), Traces.of("b", [ROW])]
    documents = fit(sources, tokenizer, 128, random.Random(0))
    assert [document.ids for document in documents] == [trace_document(ROW, tokenizer).ids] * 2
    assert [(s.report.read, s.report.used, s.report.too_long) for s in sources] == [(3, 1, 2), (1, 1, 0)]


def test_a_text_that_cannot_fit_is_not_tokenized(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "trace_document", lambda row, tokenizer: pytest.fail("tokenized"))
    source = Traces.of("a", [ROW | {"thought": "z " * 30_000_000}])
    assert fit([source], tokenizer, 128, random.Random(0)) == [] and source.report.too_long == 1


def test_no_trace_that_fits_is_an_error(tmp_path):
    student = tiny.model(tiny.QWEN, vocab_size=300)
    with pytest.raises(UserError, match="sft: no trace fits the model's 128 positions"):
        sft(student, [], SFTSettings(epochs=1, learning_rate=0.01), 0, "sft", Checkpoints(tmp_path), tiny.silent)


def test_solver_traces_are_right_well_mixed_and_repeatable():
    names = ["arithmetic", "letters", "bases"]
    rows = solver_traces(ColdStartSettings(traces=120, careful_share=0.25), find_tasks(names), 0)
    assert rows == solver_traces(ColdStartSettings(traces=120, careful_share=0.25), find_tasks(names), 0)
    assert [row["family"] for row in rows[:6]] == names * 2
    assert 15 < sum(row["style"] == "careful" for row in rows) < 50
    assert 40 < sum(row["language"] == "fr" for row in rows) < 80
    assert {row["level"] for row in rows if row["family"] == "arithmetic"} == set(FAMILIES["arithmetic"].levels)


def test_general_traces_have_an_empty_thought_and_an_answer():
    rows = general_traces(20, 0)
    assert len(rows) == 20 and all(row["thought"] == "" and row["answer"] for row in rows)


def test_the_prompt_s_tokens_get_no_gradient_of_their_own(tokenizer):
    """The head's row of a token that only prompts contain is pushed down as a wrong answer, never up as a right one."""
    student = tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=512)
    document = trace_document(ROW | {"prompt": "@@@@", "thought": "a", "answer": "b"}, tokenizer)
    step, _ = language_model_gradient(student, [document], [student.lm_head.weight], SFTSettings(learning_rate=0.1))
    hidden = student.hidden(torch.tensor(document.ids), PackedSequences.of([len(document.ids)]))
    p = student.logits(hidden)[document.loss_from - 1:-1].softmax(-1)
    token = tokenizer.encode("@")[0]
    expected = (p[:, token, None] * hidden[document.loss_from - 1:-1]).mean(0)
    torch.testing.assert_close(step.gradients[0][token], expected, atol=1e-6, rtol=1e-3)
