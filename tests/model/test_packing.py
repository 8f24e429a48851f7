"""Packed attention against a masked product, and documents that must not see each other."""

import pytest
import tiny
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from spoutnik.model.attention import SHORT, packed_attention, packed_attention_plain
from spoutnik.model.packing import PackedSequences

documents = st.lists(st.one_of(st.integers(1, 40), st.integers(100, 150), st.integers(SHORT - 3, SHORT + 90)),
                     min_size=1, max_size=6)


def random_qkv(tokens: int, heads: int, groups: int, width: int, value_width: int):
    generator = torch.Generator().manual_seed(tokens)
    shapes = ((tokens, heads, width), (tokens, groups, width), (tokens, groups, value_width))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


@given(lengths=documents, shape=st.sampled_from([(2, 2, 6, 4), (4, 2, 4, 4), (3, 1, 5, 7)]), fill=st.booleans())
@example(lengths=[SHORT + 1, SHORT, 1, 1], shape=(2, 2, 6, 4), fill=True)
@example(lengths=[20] * 37, shape=(4, 2, 4, 4), fill=False)
def test_packed_attention_and_its_gradients_equal_the_plain_twin_s(lengths, shape, fill):
    packing = PackedSequences.of(lengths, pad=fill)
    qkv = random_qkv(sum(lengths) + packing.padding, *shape)
    fast, plain = (attend(*qkv, packing, 0.7) for attend in (packed_attention, packed_attention_plain))
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-4)
    upstream = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(*(torch.autograd.grad(out, qkv, upstream) for out in (fast, plain)), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_the_gradient_of_short_attention_is_that_of_finite_differences():
    packing = PackedSequences.of([5, 3, 9])
    qkv = [t.detach().double().requires_grad_(True) for t in random_qkv(17, 2, 1, 4, 3)]
    assert torch.autograd.gradcheck(lambda q, k, v: packed_attention_plain(q, k, v, packing, 0.5), qkv)
    # The fast one rounds its softmax to float32, hence the coarse step.
    assert torch.autograd.gradcheck(lambda q, k, v: packed_attention(q, k, v, packing, 0.5), qkv, eps=1e-2, atol=1e-3)


@given(lengths=documents, fill=st.booleans())
def test_every_token_has_one_cell_and_finds_itself_there(lengths, fill):
    packing = PackedSequences.of(lengths, pad=fill)
    stream = torch.arange(sum(lengths) + packing.padding)
    assert torch.equal(packing.rectangles.gather[packing.rectangles.scatter], stream)
    assert len(packing.rectangles.gather) == sum(rows * columns for rows, columns in packing.rectangles.shapes)
    assert packing.last_tokens.tolist() == [sum(lengths[:i + 1]) - 1 for i in range(len(lengths))]
    assert packing.position_ids[:sum(lengths)].tolist() == [p for length in lengths for p in range(length)]
    assert not fill or len(stream) % 128 == 0


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["mla", "gqa"])
def test_a_document_does_not_see_its_neighbours(base):
    model = tiny.model(base)
    a, b, c = tiny.tokens(30), tiny.tokens(21, seed=1), tiny.tokens(25, seed=2)
    other = tiny.tokens(21, seed=3)
    packing = PackedSequences.of([30, 21, 25])
    before, after = (model.logits(model.hidden(torch.cat([a, middle, c]), packing)) for middle in (b, other))
    unchanged = torch.cat([torch.arange(30), torch.arange(51, 76)])
    torch.testing.assert_close(after[unchanged], before[unchanged], atol=1e-6, rtol=0)
    assert (after[30:51] - before[30:51]).abs().max() > 0.1


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["mla", "gqa"])
def test_packing_changes_nothing_for_the_document(base):
    model = tiny.model(base)
    documents = [tiny.tokens(length, seed=length) for length in (30, 21, 64)]
    packed = model.logits(model.hidden(torch.cat(documents), PackedSequences.of([30, 21, 64])))
    alone = torch.cat([model(document[None])[0] for document in documents])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["mla", "gqa"])
def test_padding_changes_nothing(base):
    model = tiny.model(base)
    ids = tiny.tokens(51)
    plain, filled = PackedSequences.of([30, 21]), PackedSequences.of([30, 21], pad=True)
    assert filled.padding == 77
    states = model.hidden(torch.cat([ids, torch.zeros(77, dtype=torch.long)]), filled)
    torch.testing.assert_close(states[:51], model.hidden(ids, plain), atol=1e-5, rtol=1e-5)


def test_a_token_sees_no_token_after_it():
    model = tiny.model(tiny.DEEPSEEK)
    ids = tiny.tokens(1, 40)
    changed = ids.clone()
    changed[0, 25] = (ids[0, 25] + 1) % 64
    torch.testing.assert_close(model(changed)[:, :25], model(ids)[:, :25], atol=1e-6, rtol=0)
    assert (model(changed)[:, 25:] - model(ids)[:, 25:]).abs().amax(-1).min() > 1e-4
