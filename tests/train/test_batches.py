"""Packed micro-batches: nothing lost, nothing twice, no target across a border."""

from hypothesis import example, given
from hypothesis import strategies as st

from spoutnik.train.batches import Document, micro_batches, pack_documents

lengths = st.lists(st.integers(1, 90), min_size=1, max_size=40)


@given(lengths=lengths, max_tokens=st.integers(1, 200), parts=st.integers(1, 4))
@example(lengths=[90], max_tokens=10, parts=2)
@example(lengths=[1] * 7, max_tokens=3, parts=4)
def test_every_document_is_in_one_micro_batch_and_none_is_too_long_unless_alone(lengths, max_tokens, parts):
    groups = micro_batches(lengths, max_tokens, parts)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or sum(lengths[i] for i in group) <= max_tokens for group in groups)
    assert all(groups)


def test_work_is_dealt_out_evenly_to_the_cores():
    groups = micro_batches([50, 40, 30, 50, 20, 60, 50, 40, 30, 30] * 4, 100_000, parts=2)
    sizes = [sum(([50, 40, 30, 50, 20, 60, 50, 40, 30, 30] * 4)[i] for i in group) for group in groups]
    assert len(groups) == 2 and max(sizes) < 1.1 * min(sizes)


def test_no_documents_make_no_micro_batches():
    assert micro_batches([], 100, 2) == []


@given(data=st.data(), lengths=st.lists(st.integers(2, 60), min_size=1, max_size=10))
def test_targets_are_each_document_s_next_tokens_from_its_loss_on(data, lengths):
    documents, first = [], 1
    for length in lengths:
        documents.append(Document(list(range(first, first + length)), data.draw(st.integers(1, length - 1))))
        first += length + 1000  # so that a token tells its document and its place
    chosen = data.draw(st.permutations(range(len(documents))))
    batch = pack_documents(documents, chosen)
    pairs = list(zip(batch.input_ids[batch.positions].tolist(), batch.targets.tolist(), strict=True))
    expected = [(documents[i].ids[p - 1], documents[i].ids[p]) for i in chosen
                for p in range(documents[i].loss_from, len(documents[i].ids))]
    assert pairs == expected
    assert sum(documents[i].predicted for i in chosen) == len(pairs)
    assert batch.sequences.lengths == tuple(len(documents[i].ids) for i in chosen)


def test_padding_is_never_a_target():
    batch = pack_documents([Document([7, 8, 9])], [0])
    assert len(batch.input_ids) == 128 and batch.targets.tolist() == [8, 9]
