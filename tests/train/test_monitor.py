"""What looks on while a stage trains: warnings once, start and result measured, the best checkpoint kept, weights untouched."""

import random

import pytest
import tiny
import torch

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.tasks import FAMILIES, sample
from spoutnik.tasks.grading import checked_grade
from spoutnik.text.thought import Reply
from spoutnik.train import monitor as module
from spoutnik.train import rewards
from spoutnik.train.batches import Document
from spoutnik.train.grpo import grpo
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.loop import Checkpoints
from spoutnik.train.monitor import Monitor, Validation, compared_documents, document_losses
from spoutnik.train.pretrain import PretrainSettings
from spoutnik.train.rollouts import GradedCompletion, sample_problems
from spoutnik.train.sft import SFTSettings, sft, trace_document

ROW = {"prompt": "What is 2 + 2?", "thought": "2 and 2 is 4.", "answer": "4"}


def even_share(asked, tokenizer, rule="lenient", style="chat") -> list[GradedCompletion]:
    return [even_share_of(completion) for _, completion in asked]


def even_share_of(completion) -> GradedCompletion:
    ids = completion.reply_ids
    return GradedCompletion(completion, Reply("", "", True, 0), sum(t % 2 == 0 for t in ids) / max(len(ids), 1), 0.0)


@pytest.fixture
def likes_even(monkeypatch):
    monkeypatch.setattr(rewards, "grade", even_share)
    monkeypatch.setattr(module, "grade", even_share)


def student():
    return tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=512)


def trained(folder, tokenizer, validated=True, progress=tiny.silent, learning_rate=0.02, say=lambda text: None):
    """An RL stage of six steps, validated at its start, after two, four and six."""
    settings = GRPOSettings(steps=6, prompts_per_step=3, group_size=4, max_tokens=8, learning_rate=learning_rate,
                            optimizer="adamw", warmup=0, bias_update_speed=0.0)
    policy = student()
    problems = sample_problems(random.Random("validation"), [FAMILIES["arithmetic"]], 12, "train")
    validation = Validation(policy, tokenizer, problems, SamplingParams(max_tokens=8), 0, folder / "validation", 6, 2, kept=2)
    monitor = Monitor("rl", say, validation if validated else None)
    log, cost = grpo(policy, tokenizer, [FAMILIES["arithmetic"]], settings, 0, "rl", Checkpoints(folder, 0.0), progress,
                     monitor=monitor)
    return policy, log, cost, monitor


def test_validation_looks_and_changes_nothing(tokenizer, likes_even, tmp_path):
    plain, plain_log, plain_cost, _ = trained(tmp_path / "a", tokenizer, validated=False)
    seen, log, cost, monitor = trained(tmp_path / "b", tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), seen.parameters(), strict=True))
    assert [row["step"] for row in log if "validation_accuracy" in row] == [1, 3, 5]
    assert not any("validation_accuracy" in row for row in plain_log)
    assert 4 * 12 <= cost.tokens_generated - plain_cost.tokens_generated <= 4 * 12 * 8
    accuracy, form = monitor.comparisons
    assert (accuracy.measure, form.measure) == ("right answers", "well-formed replies")
    assert len(accuracy.before) == len(accuracy.after) == 12 and accuracy.before != accuracy.after
    assert log[-1]["validation_accuracy"] == pytest.approx(sum(accuracy.after) / 12, abs=1e-9)


def test_the_best_checkpoint_is_kept_and_the_last_only_where_it_is_not_the_best(tokenizer, likes_even, tmp_path, monkeypatch):
    policy, log, _, monitor = trained(tmp_path / "rising", tokenizer)
    looks = {row["step"] + 1: row["validation_accuracy"] for row in log if "validation_accuracy" in row}
    summary = monitor.validation.summary("best")
    assert summary["best_accuracy"] == max(looks.values()) and summary["last"] == pytest.approx(looks[6])
    # One whose second look is the best.
    scores = iter([0.1, 0.5, 0.9, 0.3])
    measured = []

    def measure(self, done):
        measured.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return {"right": [next(scores)], "well_formed": [1.0]}, module.Cost()

    monkeypatch.setattr(Validation, "_measure", measure)
    policy, _, _, monitor = trained(tmp_path / "falling", tokenizer)
    summary, best = monitor.validation.summary("best"), monitor.validation.best_model()
    assert (summary["best_step"], summary["best_accuracy"], summary["best"], summary["last"]) == (4, 0.9, "best", 0.3)
    assert all(torch.equal(tensor, measured[2][name]) for name, tensor in best.state_dict().items())
    assert not all(torch.equal(a, b) for a, b in zip(best.parameters(), policy.parameters(), strict=True))


def test_a_stage_killed_and_run_again_has_the_same_measurements_and_the_same_best(tokenizer, likes_even, tmp_path):
    class Killed(BaseException):
        pass

    def kill(done, total, tokens, note):
        if done == 5:  # after the look of step 4, with the checkpoint of step 4
            raise Killed

    _, _, _, whole = trained(tmp_path / "a", tokenizer)
    with pytest.raises(Killed):
        trained(tmp_path / "b", tokenizer, progress=kill)
    _, _, _, resumed = trained(tmp_path / "b", tokenizer)
    assert resumed.comparisons == whole.comparisons
    assert resumed.validation.summary("best") == whole.validation.summary("best")
    along = whole.validation.along()
    assert resumed.validation.along() == along
    prompts = [problem.prompt for problem in whole.validation.problems[:2]]
    assert [(row["prompt"], row["step"]) for row in along] == [(prompt, step) for prompt in prompts for step in (0, 2, 4, 6)]


def test_each_kind_of_warning_is_said_once_with_its_step(tokenizer, tmp_path):
    said = []
    trained(tmp_path, tokenizer, validated=False, say=said.append)  # an untrained model: nothing ends in eight tokens
    assert len(said) == len(set(said)) >= 1
    assert any("rl, step 5: " in text and "Raise max_tokens" in text for text in said)
    assert sum("cut at max_tokens" in text for text in said) == 1


def test_fine_tuning_compares_the_losses_of_its_documents(tokenizer, tmp_path):
    traces = [ROW | {"prompt": f"What is {i}?"} for i in range(6)]
    monitor, model = Monitor("sft"), student()
    documents = [trace_document(row, tokenizer) for row in traces]
    before = document_losses(model, documents, 8192)
    settings = SFTSettings(epochs=10, tokens_per_step=200, learning_rate=0.02, warmup=0)
    sft(model, documents, settings, 0, "sft", Checkpoints(tmp_path), tiny.silent, monitor)
    (loss,) = monitor.comparisons
    assert sorted(loss.before) == pytest.approx(sorted(before)) and loss.better == (6, 0)  # each of ten epochs' documents once
    ids = torch.tensor([documents[0].ids])
    log_probs = model(ids)[0].log_softmax(-1)[range(ids.shape[1] - 1), ids[0, 1:]][documents[0].loss_from - 1:]
    assert document_losses(model, documents, 100)[0] == pytest.approx(-float(log_probs.detach().mean()), rel=1e-4)


def test_compared_documents_are_of_the_last_steps():
    steps = [[Document([step, i]) for i in range(30)] for step in range(5)]
    chosen = compared_documents(steps.__getitem__, 5)
    assert len(chosen) == 64 and chosen[:30] == steps[4] and chosen[30:60] == steps[3]
    a, b = Document([1, 2]), Document([1, 3])
    assert compared_documents([[a, b], [b], [b]].__getitem__, 3) == [b, a]


@pytest.mark.parametrize("grade", [float("nan"), float("inf"), -1.0, 2.0, None, "1"])
def test_a_grade_that_is_no_number_from_0_to_1_is_the_verifier_s_error(grade):
    problem = sample(FAMILIES["arithmetic"], random.Random(0), 1, "en", "train")
    assert checked_grade(problem, "4", 1) == 1.0 and checked_grade(problem, "4", True) == 1.0
    with pytest.raises(RunError, match="verifier of task 'arithmetic' gives .* for the answer '4'"):
        checked_grade(problem, "4", grade)


def test_a_warm_up_longer_than_the_stage_is_refused_and_none_given_fits():
    with pytest.raises(ValueError, match="warmup = 50 is longer than the stage, which has 6 steps"):
        PretrainSettings(steps=6, learning_rate=0.1, warmup=50)
    with pytest.raises(UserError, match="second_sft: warmup = 50 is longer than the stage, which has 6 steps"):
        SFTSettings(learning_rate=0.1, warmup=50).make_schedule(6, "second_sft")
    assert SFTSettings(learning_rate=0.1).make_schedule(6).warmup == 3
    assert SFTSettings(learning_rate=0.1).make_schedule(500).warmup == 10
    assert PretrainSettings(steps=6, learning_rate=0.1, warmup=6).make_schedule(6).factor(5) == 1.0
