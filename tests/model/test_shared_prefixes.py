"""Common beginnings computed once: the same states, losses and gradients as of documents one by one."""

import random

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.model.lora import LoraConfig, adapters_of, add_lora, can_share_prefixes
from spoutnik.model.moe import RouterTrace
from spoutnik.model.shared_prefixes import SharedPrefixes, common_beginnings
from spoutnik.native import operations
from spoutnik.train.batches import Document, pack_documents, pack_sharing
from spoutnik.train.language_model import next_token_loss
from spoutnik.train.settings import LanguageModelSettings

DENSE_MLA = tiny.DEEPSEEK | {"first_k_dense_replace": 3, "num_nextn_predict_layers": 0}


def documents(prompts: int = 3, each: int = 4, system: int = 11, longest: int = 30) -> list[Document]:
    """Completions of some prompts, which all begin alike, in random order; one document is like none of them."""
    rng, result = random.Random(0), []

    def ids(count: int) -> list[int]:
        return [rng.randrange(2, 64) for _ in range(count)]

    begin = ids(system)
    for _ in range(prompts):
        prompt = begin + ids(rng.randint(5, 20))
        result += [Document(prompt + ids(rng.randint(1, longest)), len(prompt)) for _ in range(each)]
    result.append(Document(ids(13), 4))
    rng.shuffle(result)
    return result


def adapted(base: dict, dropout: float = 0.0):
    model = add_lora(tiny.model(base), LoraConfig(4, 8.0, dropout), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for part in adapters_of(model).values():
            part.lora_B.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("base", [tiny.LLAMA, DENSE_MLA], ids=["llama", "mla"])
@pytest.mark.parametrize("way", ["native", "short", "long"])
def test_losses_and_gradients_are_those_of_documents_one_by_one(base, way, monkeypatch):
    if way != "native":
        monkeypatch.setattr(operations, "supports", lambda x: False)
    if way == "long":  # the way of long documents, and of GPUs
        monkeypatch.setattr("spoutnik.model.attention.SHORT", 8)
    model, docs = adapted(base), documents(longest=70 if way == "long" else 30)
    parameters = [p for p in model.parameters() if p.requires_grad]
    results = []
    for pack in (pack_sharing, pack_documents):
        batch = pack(docs, range(len(docs)))
        assert isinstance(batch.sequences, SharedPrefixes) == (pack is pack_sharing)
        tokens = sum(d.predicted for d in docs)
        loss, _ = next_token_loss(model, batch, RouterTrace(), tokens, len(docs), LanguageModelSettings(learning_rate=1))
        results.append([loss.detach(), batch.targets, *torch.autograd.grad(loss, parameters)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


def test_a_stream_holds_each_beginning_once():
    docs = documents()
    shared, whole = pack_sharing(docs, range(len(docs))), pack_documents(docs, range(len(docs)))
    real = [sum(batch.sequences.lengths) for batch in (shared, whole)]
    saved = sum(length * (len(members) - 1) for members, length in
                common_beginnings([d.ids for d in docs], [d.loss_from - 1 for d in docs]))
    assert real[0] == real[1] - saved < 0.7 * real[1] and len(shared.input_ids) < real[0] * 17 / 16


def test_documents_that_hardly_begin_alike_keep_their_kernel():
    docs = documents(prompts=4, each=1, system=2)
    assert not isinstance(pack_sharing(docs, range(len(docs))).sequences, SharedPrefixes)
    assert not isinstance(pack_sharing(docs[:1], [0]).sequences, SharedPrefixes)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12), st.randoms())
def test_groups_hold_every_document_once_and_what_they_share_is_common(ids, rng):
    at_most = [rng.randint(0, len(each) - 1) for each in ids]
    groups = common_beginnings(ids, at_most)
    assert sorted(i for members, _ in groups for i in members) == list(range(len(ids)))
    for members, shared in groups:
        assert len({tuple(ids[i][:shared]) for i in members}) == 1 and all(shared <= at_most[i] for i in members)
        assert len(members) > 1 or shared == 0


def test_the_prompts_of_groups_are_shared_rather_than_what_all_begin_with():
    docs = documents(prompts=2, each=6)
    groups = common_beginnings([d.ids for d in docs], [d.loss_from - 1 for d in docs])
    assert sorted(len(members) for members, _ in groups) == [1, 6, 6]
    assert all(shared == docs[members[0]].loss_from - 1 for members, shared in groups if len(members) == 6)


@pytest.mark.parametrize("model, expected", [
    (lambda: adapted(tiny.LLAMA), True), (lambda: tiny.model(tiny.LLAMA), False), (lambda: adapted(tiny.LLAMA, 0.1), False),
    (lambda: adapted(tiny.DEEPSEEK), False)], ids=["adapters", "whole", "dropout", "experts"])
def test_beginnings_are_shared_where_it_changes_nothing(model, expected):
    assert can_share_prefixes(model()) == expected
