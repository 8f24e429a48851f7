"""Health of a stage from its log and its measurements: what warns, what refuses, and what chance may do."""

import math
import random

import pytest

from spoutnik.train.health import (
    Comparison,
    constant_findings,
    health_line,
    kept_findings,
    pair_findings,
    refusals_of,
    shorter_thoughts,
    sign_test,
    stage_health,
    warnings_of,
)

HEALTHY = {"loss": 0.01, "reward": 0.6, "accuracy": 0.5, "well_formed": 0.95, "truncated": 0.03, "zero_variance": 0.4,
           "entropy": 0.3, "mismatch_kl": 1e-4, "thought_tokens": 40.0, "grad_norm": 0.2}


def rl(steps: int = 40, **changes) -> list[dict]:
    """A healthy log with a little noise. changes: numbers, or functions of the step in [0, 1]."""
    rng = random.Random(0)
    rows = []
    for step in range(steps):
        row = {key: value * rng.uniform(0.95, 1.05) for key, value in HEALTHY.items()} | {"step": step}
        for key, value in changes.items():
            row[key] = value(step / (steps - 1)) if callable(value) else value
        rows.append(row)
    return rows


def supervised(steps: int = 40, loss=lambda t: 3 - 2 * t, **changes) -> list[dict]:
    rng = random.Random(0)
    return [{"step": s, "loss": loss(s / (steps - 1)) + rng.uniform(-0.05, 0.05), "grad_norm": 1.0} | changes
            for s in range(steps)]


def kinds(findings) -> set[str]:
    return {finding.kind for finding in findings}


def test_healthy_logs_neither_warn_nor_refuse():
    for rows in (rl(), rl(reward=lambda t: 0.2 + t, accuracy=lambda t: 0.1 + 0.8 * t), supervised(), supervised(3), []):
        for end in range(len(rows) + 1):
            assert warnings_of(rows[:end]) == []
        assert warnings_of(rows, ended=True) == [] == refusals_of(rows)
        assert stage_health(rows, ())["line"].startswith("healthy")


@pytest.mark.parametrize("changes, kind, remedy", [
    ({"truncated": 0.7}, "truncated", "Raise max_tokens"),
    ({"zero_variance": 0.97, "reward": 0.1, "accuracy": 0.01}, "zero variance", "group_size"),
    ({"zero_variance": 0.97, "accuracy": 0.99}, "zero variance", "too easy"),
    ({"zero_variance": 0.97, "reward": 0.0, "accuracy": 0.0}, "zero variance", "SFT first"),
    ({"well_formed": 0.2}, "ill-formed", "learning_rate"),
    ({"mismatch_kl": 0.02}, "mismatch", "float32"),
    ({"mismatch_kl": 0.02, "staleness": 1}, "mismatch", "max_staleness"),
    ({"entropy": lambda t: 0.5 * (1 - t) + 0.005}, "entropy", "temperature"),
    ({"entropy": lambda t: 0.5 + 4 * t}, "entropy", "learning_rate"),
    ({"reward": lambda t: 0.6 - 0.4 * t}, "reward", "learning_rate"),
    ({"thought_tokens": lambda t: 28 - 17 * t}, "shorter thoughts", "rewards.format")])
def test_each_ill_of_reinforcement_learning_has_its_warning_and_remedy(changes, kind, remedy):
    found = warnings_of(rl(**changes), ended=True)
    assert kinds(found) == {kind} and remedy in found[0].sentence and not found[0].refuses
    assert f"warned: {kind}" in stage_health(rl(**changes), ())["line"]


def test_warnings_come_while_the_stage_runs():
    rows = rl(truncated=0.9)
    assert [bool(warnings_of(rows[:end])) for end in (1, 4, 5, 12)] == [False, False, True, True]
    falling = rl(64, reward=lambda t: 0.8 - 0.7 * t)
    assert "reward" in kinds(warnings_of(falling[:32])) and "reward" not in kinds(warnings_of(falling[:33]))


def test_shorter_thoughts_are_no_ill_where_accuracy_rises():
    """28 to 11 tokens: the form reward alone makes thoughts short; so does a model that has found a better way."""
    shrinking = {"thought_tokens": lambda t: 28 - 17 * t}
    assert kinds(warnings_of(rl(**shrinking, accuracy=lambda t: 0.2 + 0.6 * t), ended=True)) == set()
    rows = rl(**shrinking)
    sentence = shorter_thoughts(rows[:13], rows[-13:])[0].sentence
    assert "from 25 to 14 tokens" in sentence and "beyond chance (50 % to 50 %)" in sentence


@pytest.mark.parametrize("rows, kind, words", [
    (rl(truncated=1.0, reward=0.0, zero_variance=1.0, grad_norm=0.0, well_formed=0.0), "truncated", "max_tokens"),
    (rl(5, truncated=1.0, reward=0.0, zero_variance=1.0, grad_norm=0.0), "truncated", "max_tokens"),
    (rl(zero_variance=1.0, grad_norm=0.0), "zero variance", "in 40 of its 40 steps"),
    (rl(zero_variance=lambda t: 0.9 if t > 0.95 else 1.0), "zero variance", "in 38 of its 40 steps"),
    (rl(reward=math.nan), "not finite", "reward"), (supervised(loss=lambda t: math.nan), "not finite", "loss"),
    (supervised(grad_norm=0.0), "no update", "none of its 40 steps")])
def test_a_stage_that_learned_nothing_is_not_done(rows, kind, words):
    found = refusals_of(rows)
    assert kinds(found) == {kind} and words in found[0].sentence and found[0].refuses
    health = stage_health(rows, ())
    assert health["refusals"] and health["line"].startswith(f"not done: {kind}")
    assert not any(words in sentence for sentence in health["warnings"])


def test_half_of_the_steps_without_variance_are_no_refusal():
    assert refusals_of(rl(zero_variance=lambda t: 1.0 if t < 0.5 else 0.5)) == []


# Start and result

def right(before: int, after: int, of: int = 96, seed: int = 0) -> Comparison:
    """Shares of right answers on the same problems, of which chance decides some anew."""
    rng = random.Random(seed)
    return Comparison("right answers", [float(rng.random() < before / of) for _ in range(of)],
                      [float(rng.random() < after / of) for _ in range(of)])


def test_a_result_that_is_worse_beyond_chance_is_not_done():
    worse = Comparison("right answers", [1.0] * 60 + [0.0] * 36, [0.0] * 20 + [1.0] * 40 + [0.0] * 36)
    found = refusals_of(rl(), [worse])
    assert kinds(found) == {"worse right answers"} and found[0].refuses
    assert "from 62 % to 42 % (20 got worse, 0 better: beyond chance)" in found[0].sentence


def test_chance_refuses_one_stage_in_a_hundred_at_most():
    refused = sum(bool(refusals_of((), [right(48, 48, seed=2 * seed), right(48, 48, seed=2 * seed + 1)]))
                  for seed in range(1000))
    assert refused <= 17  # 10 expected at most; 17 has a chance of 2 %


def test_a_large_fall_is_seen():
    assert sum(right(62, 30, seed=seed).is_worse(2) for seed in range(50)) >= 40


def test_a_loss_that_rose_is_not_done_and_rounding_is_no_rise():
    before = [2.0 + 0.01 * i for i in range(64)]
    blown = refusals_of(supervised(), [Comparison("loss", before, [38.9] * 64)])
    assert kinds(blown) == {"worse loss"} and "is 38.9, where it was 2.3" in blown[0].sentence
    assert refusals_of(supervised(), [Comparison("loss", before, [value + 1e-4 for value in before])]) == []
    assert refusals_of(supervised(), [Comparison("loss", before, [math.nan] * 64)])
    assert not refusals_of(supervised(), [Comparison("loss", before, [1.0] * 64)])
    assert not refusals_of(supervised(), [Comparison("loss", [2.0, 2.0], [2.5, 2.5])])  # of two documents nothing follows


def test_a_loss_that_blew_up_on_its_way_is_not_done_unless_all_is_won_back():
    """A learning rate of 1 on a young model: 5.1, up to 9.1, and at the end 4.7."""
    def spike(end: float):
        return supervised(loss=lambda t: 38.9 if 0.2 < t < 0.4 else 5.1 if t < 0.2 else end)

    (found,) = refusals_of(spike(4.7))
    assert found.kind == "blew up" and "to 38.9 at step" in found.sentence and "ended at 4.7" in found.sentence
    log = [5.1, 5.1, 6.7, 4.7, 7.5, 5.3, 8.1, 5.0, 6.3, 7.4, 6.7, 9.1, 7.9, 8.0, 7.6, 7.4, 6.3, 5.1, 4.8, 4.7]
    assert kinds(refusals_of([{"step": s, "loss": loss, "grad_norm": 1.0} for s, loss in enumerate(log)])) == {"blew up"}
    assert refusals_of(spike(1.0)) == [] == refusals_of(supervised(loss=lambda t: 5 + 2 * t * (1 - t)))


def test_the_sign_test_is_exact():
    assert sign_test(0, 0) == 1.0 and sign_test(5, 0) == 1 / 32 and sign_test(0, 5) == 1.0
    assert sign_test(8, 2) == pytest.approx(56 / 1024)


@pytest.mark.parametrize("share, refuses", [(0.30, True), (0.0, True), (0.49, False), (0.53, False)])
def test_a_reward_model_is_compared_with_a_coin(share, refuses):
    found = pair_findings(share, 512)
    assert found[0].refuses == refuses and "coin" in found[0].sentence
    assert pair_findings(0.6, 512) == []


def test_an_answer_to_everything_warns_and_refuses_where_relevance_was_taught():
    assert constant_findings("Hello!", 0.5, 0.5, True) == constant_findings("Hello!", 0.3, 0.6, True) == []
    for taught in (True, False):
        (finding,) = constant_findings("Hello!", 0.86, 0.55, taught)
        assert finding.refuses == taught and "'Hello!', scores 0.86" in finding.sentence
        assert ("pairs: relevance" in finding.sentence) != taught


def test_documents_that_are_cut_are_counted_and_warned_of():
    rows = [row | {"cut_documents": 2, "cut_tokens": 0.12} if row["step"] % 2 else row for row in supervised()]
    assert "cut documents" in kinds(warnings_of(rows, ended=True))
    assert f"{2 * (len(rows) // 2)} documents cut at the model's positions" in health_line(rows, [], [])
    few = [row | {"cut_documents": 1, "cut_tokens": 0.01} for row in rows]
    assert "cut documents" not in kinds(warnings_of(few, ended=True)) and "(1.0 % of the tokens)" in health_line(few, [], [])


def test_rejection_sampling_that_keeps_next_to_nothing_warns():
    assert kept_findings(0.3) == [] and "0.1 %" in kept_findings(0.001)[0].sentence


def test_the_line_holds_the_numbers():
    rows = [HEALTHY | {"step": step, "reward": 0.5 + 0.02 * step} for step in range(20)]
    comparison = Comparison("right answers", [0.0] * 60 + [1.0] * 40, [0.0] * 30 + [1.0] * 69 + [0.0])
    assert health_line(rows, [comparison], []) == (
        "healthy; reward 0.51 to 0.87; truncated 3 %; groups without variance 40 %; well-formed 95 % to 95 %; thoughts 40 to "
        "40 tokens; entropy 0.30 to 0.30; mismatch 1.0e-04; right answers on 100 validation problems 40 % to 69 % (30 better, "
        "1 worse)")
    assert health_line(supervised(), [Comparison("loss", [3.0], [1.0])], []).endswith(
        "loss on 1 documents 3.00 to 1.00 (1 better, 0 worse)")


def test_general_prompts_that_come_late_are_no_fall_of_the_reward():
    noise = random.Random(0)
    problems = [HEALTHY | {"reward": 0.92 + noise.gauss(0, 0.02)} for _ in range(45)]
    general = [HEALTHY | {"reward": 0.70 + noise.gauss(0, 0.02), "preference": 0.6} for _ in range(15)]
    assert "reward" not in kinds(warnings_of(problems + general, ended=True))
    assert "reward 0.91 to 0.92, with general prompts 0.72 to 0.69;" in stage_health(problems + general, [])["line"]
    for part in (problems, general):
        for index, row in enumerate(part):
            row["reward"] -= 0.3 * index / len(part)
        (fall,) = [each for each in warnings_of(problems + general, ended=True) if each.kind == "reward"]
        assert fall.sentence.startswith("the reward with general prompts fell" if part is general else "the reward fell")
        for index, row in enumerate(part):
            row["reward"] += 0.3 * index / len(part)
