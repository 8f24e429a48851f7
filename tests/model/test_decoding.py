"""Decoding over the cache against the whole forward pass."""

import pytest
import tiny
import torch

from spoutnik.model.cache import Cache
from spoutnik.model.packing import PackedSequences

BASES = pytest.mark.parametrize("base", [*tiny.ALL.values(), tiny.DEEPSEEK | {"q_lora_rank": None}],
                                ids=[*tiny.ALL, "V3 without q_lora"])


def step_by_step(model, documents, prompts):
    """Logits of every position from its document's prompt on, decoded together: a list of (steps, V) per document."""
    cache = Cache.empty(model.config, len(documents), max(len(d) for d in documents), torch.float32)
    ids = torch.cat([d[:p] for d, p in zip(documents, prompts, strict=True)])
    states = [model.prefill(ids, PackedSequences.of(prompts), cache)]
    steps = min(len(d) - p for d, p in zip(documents, prompts, strict=True))
    for step in range(steps):
        token = torch.stack([d[p + step] for d, p in zip(documents, prompts, strict=True)])
        states.append(model.decode(token, cache))
    return model.logits(torch.stack(states)).unbind(1), cache


@BASES
def test_absorbed_decoding_equals_the_expanded_forward_pass(base):
    model = tiny.model(base)
    documents, prompts = [tiny.tokens(length, seed=length) for length in (60, 45, 41)], [20, 5, 1]
    with torch.no_grad():
        decoded, _ = step_by_step(model, documents, prompts)
        for document, prompt, logits in zip(documents, prompts, decoded, strict=True):
            whole = model(document[None])[0, prompt - 1:prompt - 1 + len(logits)]
            torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)


@BASES
def test_a_row_does_not_depend_on_the_rows_beside_it(base):
    model = tiny.model(base)
    document, other = tiny.tokens(40), tiny.tokens(60, seed=1)
    with torch.no_grad():
        (alone, *_), _ = step_by_step(model, [document], [10])
        (together, *_), _ = step_by_step(model, [document, other], [10, 30])
    torch.testing.assert_close(together, alone[:len(together)], atol=1e-5, rtol=1e-5)


@BASES
def test_several_tokens_at_once_see_what_one_by_one_they_see(base):
    model = tiny.model(base)
    documents, prompts, new = [tiny.tokens(length, seed=length) for length in (30, 22)], [20, 12], 5
    cache = Cache.empty(model.config, 2, 40, torch.float32)
    ids = torch.cat([d[:p] for d, p in zip(documents, prompts, strict=True)])
    with torch.no_grad():
        model.prefill(ids, PackedSequences.of(prompts), cache)
        together = torch.stack([d[p:p + new] for d, p in zip(documents, prompts, strict=True)])
        logits = model.logits(model.extend(together, cache))
        cache.advance(torch.tensor([3, 5]))  # only three of the first row's count
        assert cache.lengths.tolist() == [23, 17]
        for row, (document, prompt) in enumerate(zip(documents, prompts, strict=True)):
            whole = model(document[None])[0, prompt:prompt + new]
            torch.testing.assert_close(logits[row], whole, atol=1e-5, rtol=1e-5)
        after = model.logits(model.decode(torch.stack([documents[0][23], documents[1][17]]), cache))
        torch.testing.assert_close(after[0], model(documents[0][None])[0, 23], atol=1e-5, rtol=1e-5)


def test_the_cache_keeps_one_latent_vector_per_token():
    config = tiny.config(tiny.DEEPSEEK)
    cache = Cache.empty(config, 2, 9, torch.float32)
    assert [layer.shape for layer in cache.layers] == [(2, 9, 12 + 8)] * 3
