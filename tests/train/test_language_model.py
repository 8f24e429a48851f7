"""The gradient of a step against a slow reference, and its independence of how the work is cut."""

import random

import pytest
import tiny
import torch
import torch.nn.functional as F

from spoutnik.model.moe import RouterTrace
from spoutnik.model.packing import PackedSequences
from spoutnik.tasks import FAMILIES
from spoutnik.train.batches import Document
from spoutnik.train.language_model import cut_metrics, language_model_gradient, take_tokens
from spoutnik.train.loop import Checkpoints
from spoutnik.train.pretrain import PretrainSettings, corpus_documents, pretrain

SETTINGS = PretrainSettings(steps=1, learning_rate=0.01, mtp_loss_weight=0.3, balance_loss_alpha=0.5)


def documents() -> list[Document]:
    return [Document(tiny.tokens(length, seed=length).tolist(), loss_from)
            for length, loss_from in ((40, 1), (12, 5), (3, 1), (25, 20), (2, 1), (60, 1))]


def loss_by_hand(model):
    """Document by document: cross-entropy of the next token, of the one after, and the balance loss (V3 eq. 17-25)."""
    main = mtp = balance = 0.0
    for document in documents():
        ids = torch.tensor(document.ids)
        trace, packing = RouterTrace(True), PackedSequences.of([len(ids)])
        hidden = model.hidden(ids, packing, trace)
        main += F.cross_entropy(model.logits(hidden)[document.loss_from - 1:-1], ids[document.loss_from:],
                                reduction="sum")
        ahead = model.mtp_hidden(hidden, ids, packing, trace)
        mtp += F.cross_entropy(model.logits(ahead)[document.loss_from - 1:-2], ids[document.loss_from + 1:],
                               reduction="sum")
        balance += torch.stack(trace.balance_losses).sum()
    tokens = sum(len(d.ids) - d.loss_from for d in documents())
    return (main + 0.3 * mtp) / tokens + 0.5 * balance / len(documents()), main / tokens, mtp / tokens


def test_a_step_s_loss_and_gradient_are_those_of_the_documents_one_by_one():
    model = tiny.model(tiny.DEEPSEEK)
    parameters = list(model.parameters())
    step, cost = language_model_gradient(model, documents(), parameters, SETTINGS)
    loss, main, mtp = loss_by_hand(model)
    assert step.metrics["loss"] == pytest.approx(float(main.detach()), rel=1e-5)
    assert step.metrics["mtp_loss"] == pytest.approx(float(mtp.detach()), rel=1e-5)
    for a, b in zip(step.gradients, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert cost.tokens_trained == 142


@pytest.mark.parametrize("micro_batch_tokens", [1, 45, 100])
def test_a_step_does_not_depend_on_the_size_of_its_micro_batches(micro_batch_tokens):
    model = tiny.model(tiny.DEEPSEEK)
    parameters = list(model.parameters())
    whole, _ = language_model_gradient(model, documents(), parameters, SETTINGS)
    cut, _ = language_model_gradient(model, documents(), parameters, SETTINGS.model_copy(
        update={"micro_batch_tokens": micro_batch_tokens}))
    for a, b in zip(cut.gradients, whole.gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert cut.metrics == pytest.approx(whole.metrics, rel=1e-5)
    assert all(torch.equal(cut.loads[name], whole.loads[name]) for name in whole.loads)


def test_every_router_s_load_is_k_choices_for_every_real_token():
    step, _ = language_model_gradient(tiny.model(tiny.DEEPSEEK), documents(), [torch.zeros(1, requires_grad=True)],
                                      SETTINGS)
    assert {name: int(load.sum()) for name, load in step.loads.items()} == dict.fromkeys(
        ("layers.1", "layers.2", "layers.3"), 3 * 142)


def test_a_model_of_fewer_than_127_positions_trains():
    model = tiny.model(tiny.QWEN, max_position_embeddings=64)
    language_model_gradient(model, documents(), list(model.parameters()), SETTINGS)


def test_take_tokens_cuts_long_documents_and_stops_when_full():
    stream = iter([Document([1] * 50), Document([2]), Document([3] * 10), Document([4] * 10)])
    taken = take_tokens(stream, 35, 30)
    assert [len(d.ids) for d in taken] == [30, 10]
    lost = sum(d.cut for d in taken)
    assert lost > 0 and cut_metrics(taken) == {"cut_documents": 1, "cut_tokens": lost / (lost + 40)}
    assert cut_metrics(taken[1:]) == {}


def test_corpus_documents_are_framed_by_both_ends_of_a_sentence(tokenizer):
    stream = corpus_documents(tokenizer, random.Random(0), list(FAMILIES.values()))
    for _ in range(20):
        ids = next(stream).ids
        assert ids[0] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id and not set(ids[1:-1]) & set(range(6))


def test_pretraining_lowers_the_loss(tokenizer, tmp_path):
    model = tiny.model(tiny.QWEN, vocab_size=300, initializer_range=0.02)
    settings = PretrainSettings(steps=25, tokens_per_step=600, learning_rate=0.02, warmup=2)
    log, cost = pretrain(model, tokenizer, list(FAMILIES.values()), settings, 0, "base", Checkpoints(tmp_path), tiny.silent)
    assert log[0]["loss"] == pytest.approx(5.7, abs=0.3)  # ln 300: it starts knowing nothing
    assert log[-1]["loss"] < 4.6
    assert cost.tokens_trained >= 25 * 600 and [row["step"] for row in log] == list(range(25))
