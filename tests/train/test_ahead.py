"""Rollouts by older weights: which weights sample which step is a rule, and what they sampled is part of a checkpoint."""

import pytest
import tiny
import torch

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.errors import RunError
from spoutnik.tasks.catalog import find_tasks
from spoutnik.text.thought import Reply
from spoutnik.train import rewards
from spoutnik.train.ahead import RolloutsAhead
from spoutnik.train.grpo import GRPOSettings, grpo, refuse_mismatch
from spoutnik.train.loop import Checkpoints
from spoutnik.train.losses import PolicyLoss, Staleness, importance_weights, policy_loss
from spoutnik.train.rollouts import DoneRollouts, GradedCompletion


def groups_of(step: int) -> list[list[CompletionOutput]]:
    return [[CompletionOutput(index, "", [step, index, 1], [-0.5, -0.25 * step, -1.0], finish_reason=reason)
             for index, reason in enumerate(("stop", "length"))] for _ in range(3)]


class Began:
    """Remembers which steps began to be sampled, and when."""

    def __init__(self):
        self.now, self.began = 0, []

    def __call__(self, step: int) -> DoneRollouts:
        self.began.append((self.now, step))
        return DoneRollouts(groups_of(step))


@pytest.mark.parametrize(["staleness", "began", "ages"], [
    (0, [(0, 0), (1, 1), (2, 2), (3, 3)], [0, 0, 0, 0]),
    (1, [(0, 0), (0, 1), (1, 2), (2, 3)], [0, 1, 1, 1]),
    (2, [(0, 0), (0, 1), (0, 2), (1, 3)], [0, 1, 2, 2]),
])
def test_a_step_is_sampled_by_the_weights_that_are_max_staleness_steps_older(staleness, began, ages):
    begin = Began()
    ahead = RolloutsAhead(begin, staleness, 4)
    taken = []
    for begin.now in range(4):
        groups, age = ahead.take(begin.now)
        assert groups == groups_of(begin.now)
        taken.append(age)
    assert begin.began == began and taken == ages


def test_a_restart_goes_on_with_what_was_sampled_before_it(tmp_path):
    whole, begin = Began(), Began()
    undisturbed, ahead = RolloutsAhead(whole, 2, 6), RolloutsAhead(begin, 2, 6)
    for whole.now in range(6):
        undisturbed.take(whole.now)
    for begin.now in range(3):
        ahead.take(begin.now)
    ahead.save(tmp_path)
    again = RolloutsAhead(begin, 2, 6)
    again.load(tmp_path)
    ages = []
    for begin.now in range(3, 6):
        groups, age = again.take(begin.now)
        assert groups == groups_of(begin.now)
        ages.append(age)
    assert begin.began == whole.began and ages == [2, 2, 2]


def logs(*values: float) -> torch.Tensor:
    return torch.tensor(values).log()


@pytest.mark.parametrize(["correction", "weights", "cut"], [
    ("tis", [1.0, 0.25, 2.0, 2.0], [0.0, 0.0, 0.0, 1.0]),
    ("mask", [1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 1.0]),
])
def test_importance_weights_are_ratios_up_to_a_cap(correction, weights, cut):
    found = importance_weights(logs(0.5, 0.1, 0.8, 0.9), logs(0.5, 0.4, 0.4, 0.1), Staleness(1, correction, 2.0))
    torch.testing.assert_close(found[0], torch.tensor(weights))
    assert found[1].tolist() == cut


def test_the_gradient_by_older_weights_is_the_policy_gradient_times_the_importance():
    log_probs = logs(0.5, 0.1, 0.8, 0.9).requires_grad_()
    advantages, weights = torch.tensor([1.0, -2.0, 3.0, 1.0]), torch.full((4,), 0.25)
    loss, cut = policy_loss(log_probs, logs(0.5, 0.4, 0.4, 0.1), advantages, weights, PolicyLoss(), None,
                            Staleness(1, "tis", 2.0))
    gradient, = torch.autograd.grad(loss, log_probs)
    torch.testing.assert_close(gradient, -0.25 * advantages * torch.tensor([1.0, 0.25, 2.0, 2.0]))
    assert float(cut) == 0.25


def test_without_a_drift_the_step_is_the_on_policy_one():
    """Where both ratios are 1, PPO's surrogate and the corrected one have one gradient."""
    log_probs = logs(0.5, 0.1).requires_grad_()
    arguments = log_probs, log_probs.detach(), torch.tensor([1.0, -2.0]), torch.full((2,), 0.5), PolicyLoss(), None
    gradients = [torch.autograd.grad(policy_loss(*arguments, staleness)[0], log_probs)[0]
                 for staleness in (None, Staleness(1), Staleness(1, "mask"))]
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


def test_a_policy_that_has_moved_too_far_from_its_sampler_is_refused_with_the_setting_that_lets_it():
    with pytest.raises(RunError, match=r"rl: at step 3 the policy has moved too far .* 0.1 passes max_mismatch_kl = 0.05. "
                                       r"Lower learning_rate, or max_staleness \(it is 2\)"):
        refuse_mismatch("rl", 3, 0.1, 0.05, 2)


def likes_even(asked, tokenizer, rule="lenient", style="chat") -> list[GradedCompletion]:
    return [GradedCompletion(c, Reply("", "", False, 0), sum(t % 2 == 0 for t in c.token_ids) / len(c.token_ids), 0.0)
            for _, c in asked]


class StopsAt(Exception):
    """A power cut."""


def train(folder, tokenizer, staleness, dies_at=None):
    """The weights and the log of a short run, whose process dies once."""
    settings = GRPOSettings(steps=5, prompts_per_step=2, group_size=4, max_tokens=6, learning_rate=0.003, optimizer="adamw",
                            warmup=0, max_mismatch_kl=10.0)
    model = tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=512)

    def progress(done, total, tokens, note):
        if done == dies_at:
            raise StopsAt

    log, _ = grpo(model, tokenizer, find_tasks(["arithmetic"]), settings, 0, "rl", Checkpoints(folder, 0.0), progress,
                  staleness=staleness)
    return model.state_dict(), log


def test_a_run_by_older_weights_ends_with_the_same_bytes_after_a_restart(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(rewards, "grade", likes_even)
    on_policy, _ = train(tmp_path / "fresh", tokenizer, Staleness())
    whole, log = train(tmp_path / "whole", tokenizer, Staleness(2))
    with pytest.raises(StopsAt):
        train(tmp_path / "cut", tokenizer, Staleness(2), dies_at=4)
    resumed, _ = train(tmp_path / "cut", tokenizer, Staleness(2))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], on_policy[name]) for name in whole)
    assert [row["staleness"] for row in log] == [0, 1, 2, 2, 2]
    assert all(0 <= row["tis_cut"] <= 1 for row in log) and log[-1]["mismatch_kl"] > 0
