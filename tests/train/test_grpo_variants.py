"""What an experiment varies in GRPO: prompt styles, controls, several updates per batch of rollouts, refilled groups, prompts
that are computed once."""

import random

import pytest
import tiny
import torch
from pydantic import ValidationError
from small_grpo import ARITHMETIC, model, settings

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.errors import UserError
from spoutnik.model.packing import PackedSequences
from spoutnik.tasks import FAMILIES, sample
from spoutnik.tasks.corpus import FORUM, write
from spoutnik.tasks.reflection import checks_or_retries, thought_measures
from spoutnik.text.r1_zero import r1_zero_prompt
from spoutnik.text.thought import Reply
from spoutnik.train import rewards as grading
from spoutnik.train.grpo import grpo, policy_batches, policy_gradient
from spoutnik.train.grpo_settings import RewardSettings
from spoutnik.train.health import Comparison, stage_health
from spoutnik.train.loop import Checkpoints
from spoutnik.train.prompt_style import prompt_ids, read_completion
from spoutnik.train.rewards import grade_rollouts
from spoutnik.train.rollouts import GradedCompletion, PolicyEngine
from spoutnik.train.sampling import WASTE, RolloutSource, roll_out, step_prompts


def run(folder, tokenizer, chosen, base=tiny.QWEN, progress=tiny.silent, **others):
    policy = model(base)
    log, cost = grpo(policy, tokenizer, ARITHMETIC, chosen, 0, "rl", Checkpoints(folder, 0.0), progress, **others)
    return policy, log, cost


def even_share(asked, tokenizer, rule="lenient", style="chat") -> list[GradedCompletion]:
    """A judge that likes even token ids: any model can learn that, and its reward differs inside a group."""
    shares = [sum(t % 2 == 0 for t in c.reply_ids) / max(len(c.reply_ids), 1) for _, c in asked]
    return [GradedCompletion(c, Reply("", "", False, 0), share, 0.0) for (_, c), share in zip(asked, shares, strict=True)]


@pytest.fixture
def likes_even(monkeypatch):
    monkeypatch.setattr(grading, "grade", even_share)


def completion(ids, finished=True) -> CompletionOutput:
    return CompletionOutput(0, "", ids, [-1.0] * len(ids), finish_reason="stop" if finished else "length")


def written(tokenizer, text: str, finished=True) -> CompletionOutput:
    return completion([*tokenizer.encode(text, continues=True), *([tokenizer.eos_id] if finished else [])], finished)


# Prompt styles

def test_plain_prompts_are_those_of_the_corpus_and_of_the_paper(tokenizer):
    problem = sample(FAMILIES["arithmetic"], random.Random(0), 1, "fr", "train")
    forum, paper = (prompt_ids([problem], tokenizer, style)[0] for style in ("forum", "r1-zero"))
    assert tokenizer.decode(forum) == f"Question : {problem.prompt}\n" and forum[:1] == [tokenizer.bos_id]
    assert tokenizer.decode(paper) == r1_zero_prompt(problem.prompt)
    document = tokenizer.encode(write(FORUM["fr"], problem.prompt, "donc.", "4"))
    assert document[:len(forum) - 1] == forum[1:]  # the base has read it so


@pytest.mark.parametrize("style, right, wrong", [
    ("forum", "Thinking: well.\nAnswer: {}", "So {}"),
    ("r1-zero", "<think> well. </think> <answer> {} </answer>", "<answer> {} </answer>")])
def test_a_plain_completion_is_rewarded_by_its_style(style, right, wrong, tokenizer):
    problem = sample(FAMILIES["arithmetic"], random.Random(0), 1, "en", "train")
    group = [written(tokenizer, right.format(problem.answer)), written(tokenizer, right.format("x")),
             written(tokenizer, wrong.format(problem.answer)), written(tokenizer, right.format(problem.answer), False)]
    chosen = settings(prompt_style=style, rewards={"accuracy": 1, "format": 1, "language": 0})
    judged = grade_rollouts([[0]], [group], [problem], tokenizer, chosen, None)
    assert judged.rewards.tolist() == [[2.0, 1.0, 0.0, 0.0]] and judged.metrics["accuracy"] == 0.25
    assert read_completion(group[0], tokenizer, style).thought == "well."


def test_r1_zero_s_marks_count_as_tokens_too(tokenizer):
    ids = [tokenizer.think_id, *tokenizer.encode(" so "), tokenizer.end_think_id, *tokenizer.encode(" <answer> 4 </answer>")]
    reply = read_completion(completion([*ids, tokenizer.eos_id]), tokenizer, "r1-zero")
    assert (reply.thought, reply.answer, reply.well_formed) == ("so", "4", True)


def test_plain_rollouts_learn_and_resume_like_others(tokenizer, likes_even, tmp_path):
    _, log, _ = run(tmp_path, tokenizer, settings(prompt_style="forum", steps=2))
    assert max(row["mismatch_kl"] for row in log) < 1e-6


@pytest.mark.parametrize("changes, said", [
    ({"prompt_style": "forum", "dialogue_share": 0.5}, "no place for earlier turns"),
    ({"refill_rounds": 2}, "refill_rounds is of zero_variance: refill"),
    ({"rewards": {"random": 0.5, "format": 0.1}}, "format would be ignored"),
    ({"rewards": {"accuracy": 0, "format": 0, "language": 0}}, "are all 0"),
    ({"rewards": {"random": 0.5}, "general_share": 0.5}, "no reward model is asked"),
    ({"updates_per_rollout": 0}, "greater than 0")])
def test_what_would_be_ignored_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        settings(**changes)


# Controls

def test_a_coin_rewards_by_seed_and_step_alone(tokenizer, tmp_path):
    chosen = settings(rewards={"random": 0.25}, prompts_per_step=8, group_size=8, steps=3, learning_rate=1e-4)
    source = RolloutSource(chosen, ARITHMETIC, tokenizer, PolicyEngine(model(), tokenizer), 0, "rl", None)
    first, second = source.of_step(0)[0], source.of_step(1)[0]
    other = RolloutSource(chosen, ARITHMETIC, tokenizer, PolicyEngine(model(seed=1), tokenizer), 0, "rl", None).of_step(0)[0]
    assert torch.equal(first.rewards, other.rewards) and not torch.equal(first.rewards, second.rewards)
    assert set(first.rewards.unique().tolist()) == {0.0, 1.0} and 0.1 < float(first.rewards.mean()) < 0.4
    assert first.metrics["accuracy"] == 0  # what it is worth is measured all the same


def test_rewards_of_form_alone_are_a_control_and_so_is_a_coin():
    assert settings(rewards={"accuracy": 0}).is_control and settings(rewards={"random": 0.5}).is_control
    assert not settings().is_control and not settings(rewards={"accuracy": 0}, general_share=0.5).is_control


def test_a_control_that_learned_nothing_is_sealed_and_another_stage_is_not():
    rows = [{"step": step, "loss": 0.0, "reward": 0.1, "zero_variance": 1.0, "truncated": 0.0, "accuracy": 0.0,
             "well_formed": 1.0} for step in range(12)]
    worse = [Comparison("right answers", [1.0] * 20, [0.0] * 20), Comparison("well-formed replies", [1.0] * 20, [1.0] * 20)]
    assert len(stage_health(rows, worse)["refusals"]) >= 2
    health = stage_health(rows, worse, is_control=True)
    assert health["refusals"] == [] and health["line"].startswith("control; warned: ")
    warned = health["warnings"]
    assert len(warned) == len(set(warned)) and any("right answers fell" in sentence for sentence in warned)
    cut = [row | {"truncated": 1.0} for row in rows]
    assert len(stage_health(cut, (), is_control=True)["refusals"]) == 1  # it measured nothing


# Several updates per batch of rollouts

def test_from_the_second_update_on_the_policy_has_moved_and_the_clip_acts(tokenizer, likes_even, tmp_path):
    chosen = settings(updates_per_rollout=2, steps=4, learning_rate=0.05, clip_epsilon=0.01, clip_epsilon_high=0.01)
    _, log, _ = run(tmp_path, tokenizer, chosen)
    assert [("mismatch_kl" in row, "moved_kl" in row) for row in log] == [(True, False), (False, True)] * 2
    assert log[0]["mismatch_kl"] < 1e-6 and log[0]["clipped"] == 0
    assert log[1]["moved_kl"] > 1e-4 and log[1]["clipped"] > 0


def test_the_steps_of_a_batch_are_sampled_by_the_policy_before_the_first(tokenizer, likes_even):
    policy, chosen = model(), settings(updates_per_rollout=2, steps=3)
    source = RolloutSource(chosen, ARITHMETIC, tokenizer, PolicyEngine(policy, tokenizer), 0, "rl", None)
    alone = RolloutSource(settings(), ARITHMETIC, tokenizer, PolicyEngine(policy, tokenizer), 0, "rl", None)
    first = source.of_step(0)[0]
    assert first.prompts == alone.of_step(0)[0].prompts
    with torch.no_grad():
        policy.lm_head.weight.zero_()  # a later policy, which must not be asked
    second, expected = source.of_step(1)[0], step_prompts(chosen, ARITHMETIC, 0, "rl", 1, False)
    assert second.prompts == prompt_ids(expected, tokenizer)
    assert min(p for group in second.groups for c in group for p in c.logprobs) < -6  # of an even policy all are -5.7
    last = source.of_step(2)[0]  # the third step begins a batch, of the one step that is left
    assert len(last.groups) == 3 and all(abs(p + 5.704) < 1e-2 for group in last.groups for c in group for p in c.logprobs)


def test_a_run_killed_within_a_batch_ends_with_the_same_bytes(tokenizer, likes_even, tmp_path):
    chosen = settings(steps=7, updates_per_rollout=3, optimizer="muon", zero_variance="refill")

    class Killed(BaseException):
        pass

    def kill(done, total, tokens, note):
        if done == 5:
            raise Killed

    straight, straight_log, cost = run(tmp_path / "a", tokenizer, chosen, tiny.DEEPSEEK)
    with pytest.raises(Killed):
        run(tmp_path / "b", tokenizer, chosen, tiny.DEEPSEEK, kill)
    resumed, resumed_log, again = run(tmp_path / "b", tokenizer, chosen, tiny.DEEPSEEK)
    a, b = straight.state_dict(), resumed.state_dict()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert [row | {"seconds": 0} for row in straight_log] == [row | {"seconds": 0} for row in resumed_log]
    assert cost.tokens_generated == again.tokens_generated == sum(row["tokens"] for row in straight_log)


# Groups that teach nothing

def constant_for(*, prompts: int, monkeypatch) -> None:
    """A judge of which the first `prompts` groups that it ever sees agree, and the others do not."""
    seen = []

    def judge(asked, tokenizer, rule, style):
        judged = even_share(asked, tokenizer)
        for number, (_, one) in enumerate(asked):
            if len(seen) < 4 * prompts:
                judged[number] = GradedCompletion(one, Reply("", "", True, 0), 1.0, 0.0)
            seen.append(1)
        return judged

    monkeypatch.setattr(grading, "grade", judge)


def test_groups_without_variance_are_replaced_and_counted_by_cause(tokenizer, monkeypatch):
    def source(**changes):
        chosen = settings(prompts_per_step=6, **changes)
        return RolloutSource(chosen, ARITHMETIC, tokenizer, PolicyEngine(model(), tokenizer), 0, "rl", None)

    constant_for(prompts=6 + 2, monkeypatch=monkeypatch)  # all of the first draw, and two of the six that replace them
    filled = source(zero_variance="refill").of_step(0)[0]
    assert len(filled.groups) == 6 and bool((filled.rewards.std(dim=1) > 0).all())
    assert (filled.metrics["drawn"], filled.metrics["refilled"]) == (6 + 6 + 2, 6)
    assert filled.metrics["zero_variance"] == pytest.approx(8 / 14)
    assert filled.wasted["wasted_right"] > 0 and filled.wasted["wasted_wrong"] == filled.wasted["wasted_other"] == 0
    assert filled.metrics["accuracy"] == 1.0  # of the first draw alone: what replaces it is chosen
    kept = sum(len(c.token_ids) for group in filled.groups for c in group)
    assert filled.generated == kept + filled.wasted["wasted_right"]
    constant_for(prompts=1000, monkeypatch=monkeypatch)
    empty = source(zero_variance="refill", refill_rounds=2).of_step(0)[0]
    assert empty.groups == [] and empty.metrics["drawn"] == 18 and policy_batches(empty, settings()) == ([], 0)


def test_a_refilled_run_logs_its_waste_and_a_step_without_any_group_leaves_the_weights(tokenizer, monkeypatch, tmp_path):
    constant_for(prompts=1000, monkeypatch=monkeypatch)
    policy, log, cost = run(tmp_path, tokenizer, settings(steps=1, zero_variance="refill", refill_rounds=1))
    assert log[0]["tokens"] == log[0]["wasted_right"] == cost.tokens_wasted == cost.tokens_generated > 0
    assert log[0]["zero_variance"] == 1 and log[0]["grad_norm"] == 0
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), model().parameters(), strict=True))


def test_without_refill_the_waste_is_of_what_is_dropped(tokenizer, likes_even, monkeypatch, tmp_path):
    constant_for(prompts=2, monkeypatch=monkeypatch)
    _, (dropped,), cost = run(tmp_path / "drop", tokenizer, settings(steps=1))
    assert dropped["wasted_right"] == cost.tokens_wasted > 0 and sum(dropped[cause] for cause in WASTE) == cost.tokens_wasted
    constant_for(prompts=2, monkeypatch=monkeypatch)
    _, (kept,), cost = run(tmp_path / "keep", tokenizer, settings(steps=1, zero_variance="keep"))
    assert sum(kept[cause] for cause in WASTE) == cost.tokens_wasted == 0


# Prompts computed once

@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["deepseek", "qwen2"])
def test_prompts_computed_once_give_the_same_step(base, tokenizer, likes_even):
    policy, plain = model(base), settings(balance_loss_alpha=0.1, max_tokens=24, prompts_per_step=4)
    shared = plain.model_copy(update={"share_prompts": True, "micro_batch_tokens": 200})
    rollouts = roll_out(PolicyEngine(policy, tokenizer).current(), tokenizer,
                        step_prompts(plain, ARITHMETIC, 0, "rl", 0, False), plain, 0, None)
    parameters = [p for name, p in policy.named_parameters() if not name.startswith("mtp")]
    steps = []
    for chosen in (plain, shared):
        batches = policy_batches(rollouts, chosen)[0]
        steps.append((policy_gradient(policy, batches, parameters, chosen), sum(len(b.packed.input_ids) for b in batches)))
    (one, tokens), (other, fewer) = steps
    assert fewer < 0.8 * tokens
    for a, b in zip(one.gradients, other.gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    assert other.metrics == pytest.approx(one.metrics, abs=1e-6)
    assert one.loads.keys() == other.loads.keys() and bool(one.loads) == (base is tiny.DEEPSEEK)
    assert all(torch.equal(one.loads[name], other.loads[name]) for name in one.loads)


def test_by_default_the_stream_is_the_one_that_it_always_was(tokenizer, likes_even):
    chosen = settings()
    rollouts = roll_out(PolicyEngine(model(tiny.DEEPSEEK), tokenizer).current(), tokenizer,
                        step_prompts(chosen, ARITHMETIC, 0, "rl", 0, False), chosen, 0, None)
    for batch in policy_batches(rollouts, chosen)[0]:
        assert type(batch.packed.sequences) is PackedSequences


# What thoughts are like

def test_reflection_is_counted_per_thought_and_per_token():
    measured = thought_measures([("Wait, 4 + 2 = 6. Check: yes.", 20), ("so 4.", 5), ("", 0), ("however it is", 5)])
    assert measured == {"thought_share": 0.75, "thought_tokens": 7.5, "reflections": 0.75, "reflections_per_100": 10.0,
                        "checks_or_retries": pytest.approx(1 / 3)}
    assert checks_or_retries("Mais non. Attends, 3.") and not checks_or_retries("But 3.")
    assert thought_measures([]) == dict.fromkeys(measured, 0.0)


def test_a_coin_s_settings_stay_out_of_the_keys_of_others():
    assert "random" not in RewardSettings().model_dump() and RewardSettings(random=0.5).model_dump()["random"] == 0.5


@pytest.mark.parametrize("extra", [{"updates_per_rollout": 2}, {"zero_variance": "refill"}])
def test_older_weights_are_refused_beside_what_needs_those_of_now(tokenizer, extra):
    with pytest.raises(UserError, match=f"rl: {next(iter(extra))}.* with scale.max_staleness = 1"):
        RolloutSource(settings(**extra), ARITHMETIC, tokenizer, PolicyEngine(model(), tokenizer), 0, "rl", None, staleness=1)
