"""Multi-token prediction: what each state sees, and where its gradient goes. Its values: test_parity.py."""

import tiny

from spoutnik.model.packing import PackedSequences


def mtp_states(model, ids, lengths, hidden):
    return model.mtp_hidden(hidden, ids, PackedSequences.of(lengths), None)


def changed(ids, position):
    other = ids.clone()
    other[position] = (ids[position] + 1) % 64
    return other


def test_the_state_at_i_reads_the_token_at_i_plus_1_and_not_the_one_after():
    model, ids = tiny.model(tiny.DEEPSEEK), tiny.tokens(20)
    hidden = model.hidden(ids, PackedSequences.of([20]))  # kept fixed: only the embeddings of the next tokens change
    before, after = (mtp_states(model, each, [20], hidden) for each in (ids, changed(ids, 11)))
    moved = (after - before).abs().amax(-1)
    assert moved[10] > 1e-3
    assert moved[:10].max() < 1e-6


def test_through_the_main_model_too_the_state_at_i_sees_nothing_after_i_plus_1():
    model, ids = tiny.model(tiny.DEEPSEEK), tiny.tokens(20)
    packing = PackedSequences.of([20])
    before, after = (mtp_states(model, each, [20], model.hidden(each, packing)) for each in (ids, changed(ids, 12)))
    moved = (after - before).abs().amax(-1)
    assert moved[:11].max() < 1e-6 and moved[11] > 1e-3


def test_mtp_does_not_look_into_the_next_document():
    model, ids = tiny.model(tiny.DEEPSEEK), tiny.tokens(20)
    packing = PackedSequences.of([12, 8])
    before, after = (mtp_states(model, each, [12, 8], model.hidden(each, packing)) for each in (ids, changed(ids, 12)))
    assert (after - before)[:12].abs().max() < 1e-6


def test_the_mtp_loss_reaches_its_own_weights_the_main_model_and_the_shared_embedding():
    model, ids = tiny.model(tiny.DEEPSEEK), tiny.tokens(20)
    states = mtp_states(model, ids, [20], model.hidden(ids, PackedSequences.of([20])))
    model.logits(states).log_softmax(-1)[:-2].gather(1, ids[2:, None]).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []
