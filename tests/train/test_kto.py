"""Learning from good and bad replies: how steps are composed, what moves, what is refused."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.train.batches import Document
from spoutnik.train.kto import KTOSettings, compose_steps, has_two_prompts, kto, measured_thumbs, mismatched
from spoutnik.train.loop import Checkpoints
from spoutnik.train.monitor import Monitor
from spoutnik.train.preferences import Thumb
from spoutnik.train.sft import trace_document

SETTINGS = {"epochs": 4, "tokens_per_step": 600, "learning_rate": 0.01, "optimizer": "adamw"}
shapes = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=30)  # prompt, length of the reply


def thumb(prompt: int, length: int, good: bool = True) -> Thumb:
    return Thumb(Document([prompt, 7, *range(10, 10 + length)], loss_from=2), good)


@given(shape=shapes, tokens=st.integers(1, 120), seed=st.integers(0, 3))
def test_every_reply_is_in_one_step_and_every_step_has_two_prompts(shape, tokens, seed):
    thumbs = [thumb(*each) for each in shape]
    steps = compose_steps(thumbs, tokens, seed)
    assert sorted(i for step in steps for i in step) == list(range(len(thumbs)))
    if has_two_prompts(thumbs):
        assert all(has_two_prompts([thumbs[i] for i in step]) for step in steps)
    assert steps == compose_steps(thumbs, tokens, seed)


@given(shape=shapes)
def test_mismatched_replies_follow_another_prompt_and_fit(shape):
    thumbs = [thumb(*each) for each in shape]
    if not has_two_prompts(thumbs):
        return
    for one, other in zip(thumbs, mismatched(thumbs, 6)):
        assert list(other.ids[:2]) == one.prompt and 3 <= len(other.ids) <= 6 and other.predicted > 0


def test_the_reply_of_the_next_other_prompt_is_taken():
    thumbs = [thumb(0, 1), thumb(0, 2), thumb(1, 3)]
    assert [list(document.ids) for document in mismatched(thumbs, 99)] == [[0, 7, 10, 11, 12], [0, 7, 10, 11, 12], [1, 7, 10]]


def thumbs_of(tokenizer, count=8) -> list[Thumb]:
    return [Thumb(trace_document({"prompt": f"What is {i}?", "thought": "", "answer": answer}, tokenizer), good)
            for i in range(count) for answer, good in ((str(i), True), (f"the sum of it is {i}, and the end", False))]


def trained(folder, thumbs, progress=tiny.silent, **changes):
    model, monitor = tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=256), Monitor("liked")
    log, cost = kto(model, thumbs, KTOSettings(**SETTINGS | changes), 0, "liked", Checkpoints(folder, 0.0), progress,
                    monitor=monitor)
    return model, log, cost, monitor


def test_good_replies_become_likelier_than_bad_ones(tokenizer, tmp_path):
    _, log, cost, monitor = trained(tmp_path, thumbs_of(tokenizer))
    assert log[0]["loss"] == pytest.approx(0.5, abs=1e-3) and log[0]["kl"] == pytest.approx(0, abs=1e-3)
    assert log[-1]["loss"] < 0.4 and log[-1]["margin"] > 0.5 and log[-1]["kl"] >= 0
    assert monitor.comparisons[-1].before == pytest.approx([0.5] * len(monitor.comparisons[-1].before))
    assert monitor.comparisons[-1].is_better() and cost.tokens_trained > 0


def test_a_killed_stage_ends_with_the_same_bytes(tokenizer, tmp_path):
    def kill(done, total, tokens, note):
        if done == 5:
            raise KeyboardInterrupt

    thumbs = thumbs_of(tokenizer)
    straight, log, _, _ = trained(tmp_path / "a", thumbs)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", thumbs, kill)
    resumed, again, _, _ = trained(tmp_path / "b", thumbs)
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in straight.state_dict().items())
    assert [row["loss"] for row in again] == [row["loss"] for row in log]


@pytest.mark.parametrize("thumbs, what", [
    ([thumb(0, 1), thumb(1, 2)], "has no bad reply"), ([thumb(0, 1, False), thumb(1, 2, False)], "has no good reply"),
    ([thumb(0, 1), thumb(0, 2, False)], "all replies that are trained on answer the same question"),
    ([], "no reply fits the model's 256 positions")], ids=["good alone", "bad alone", "one question", "none"])
def test_what_cannot_be_learned_from_is_refused(tmp_path, thumbs, what):
    with pytest.raises(UserError, match=what):
        trained(tmp_path, thumbs)


def test_held_out_replies_are_measured_against_z():
    thumbs = [thumb(0, 2), thumb(1, 2), thumb(0, 2, False), thumb(1, 2, False)]
    before, after = torch.tensor([-4.0, -4.0, -2.0, -2.0]), torch.tensor([-1.0, -3.6, -2.0, -1.0])
    measured = measured_thumbs(thumbs, before, after, torch.tensor(0.5), KTOSettings(**SETTINGS, beta=0.1))
    assert measured == pytest.approx({"accuracy": 0.5, "kl": 0.5, "chosen_change": 0.85, "margin": 0.12,
                                      "likelier_before": 0.0, "likelier": 0.25})
