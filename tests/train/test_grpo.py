"""GRPO from reward to gradient: who gets which advantage, on-policy ratios, resume, and that it learns."""

import random

import pytest
import tiny
import torch
from pydantic import ValidationError
from small_grpo import ARITHMETIC, model, settings

from spoutnik.engine.llm import LLM
from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.model.lora import LoraConfig, add_lora, without_adapters
from spoutnik.tasks import FAMILIES, Problem, sample
from spoutnik.tasks.catalog import find_tasks
from spoutnik.tasks.general import GeneralPrompt, sample_general
from spoutnik.text.thought import Reply
from spoutnik.train import grpo as module
from spoutnik.train import rewards as grading
from spoutnik.train import sampling
from spoutnik.train.batches import Document, pack_documents
from spoutnik.train.grpo import grpo, policy_batches, policy_gradient, refuse_mismatch, with_reference
from spoutnik.train.loop import Checkpoints
from spoutnik.train.rewards import Rollouts, grade_rollouts
from spoutnik.train.rollouts import GradedCompletion, PolicyEngine
from spoutnik.train.sampling import roll_out, step_prompts

EOS = 1


def even_share(asked, tokenizer, rule="lenient", style="chat") -> list[GradedCompletion]:
    return [even_share_of(completion) for _, completion in asked]


def even_share_of(completion) -> GradedCompletion:
    """A judge that likes even token ids: any model can learn that, and its reward differs inside a group."""
    ids = completion.reply_ids
    share = sum(t % 2 == 0 for t in ids) / max(len(ids), 1)
    return GradedCompletion(completion, Reply("", "", False, 0), share, 0.0)


@pytest.fixture
def likes_even(monkeypatch):
    monkeypatch.setattr(grading, "grade", even_share)


def rollouts_of(policy, tokenizer, chosen, seed=0) -> Rollouts:
    problems = step_prompts(chosen, ARITHMETIC, 0, "rl", 0, False)
    return roll_out(LLM(policy, eos_token_ids=[EOS]), tokenizer, problems, chosen, seed, None)


def completion(ids, logprobs, finish_reason) -> CompletionOutput:
    return CompletionOutput(0, "", ids, logprobs, finish_reason=finish_reason)


# Rewards

def worked(tokenizer, answer="", thought="ok", finished=True) -> CompletionOutput:
    ids = tiny.completion_ids(tokenizer, thought, answer)
    ids = ids if finished else ids[:-1]
    return completion(ids, [-1.0] * len(ids), "stop" if finished else "length")


def test_a_reward_is_accuracy_plus_format_plus_language_each_with_its_weight(tokenizer):
    family = FAMILIES["arithmetic"]
    problem = sample(family, random.Random(0), 1, "fr", "train")
    wrong = str(int(problem.answer) + 1)
    french, english = "donc voici la réponse", "the answer is"
    group = [worked(tokenizer, problem.answer, french), worked(tokenizer, problem.answer, english),
             worked(tokenizer, wrong, french), worked(tokenizer, problem.answer, finished=False)]
    chosen = settings(rewards={"accuracy": 1.0, "format": 0.25, "language": 0.5})
    judged = grade_rollouts([[0]], [group], [problem], tokenizer, chosen, None)
    assert judged.rewards.tolist() == [[1.75, 1.25, 0.75, 0.0]]
    assert judged.metrics["accuracy"] == 0.5 and judged.metrics["truncated"] == 0.25
    assert judged.metrics["well_formed"] == 0.75


def test_the_reward_model_judges_the_answers_of_general_prompts_in_their_place(tokenizer):
    rng = random.Random(0)
    general, problem = sample_general(rng, "en", "train"), sample(FAMILIES["arithmetic"], rng, 1, "en", "train")
    group = [worked(tokenizer, "short"), worked(tokenizer, "cut", finished=False), worked(tokenizer, "long answer"),
             worked(tokenizer, "other")]
    heard = []

    def scorer(pairs):
        heard.extend(pairs)
        return [len(answer) / 100 for _, answer in pairs]

    judged = grade_rollouts([[0], [0]], [group, group], [problem, general], tokenizer, settings(), scorer)
    assert heard == [(general.prompt, answer) for answer in ("short", "long answer", "other")]
    assert judged.rewards[1].tolist() == pytest.approx([0.15, 0.0, 0.21, 0.15])


# Batches

def test_every_token_carries_its_completion_s_advantage_weight_and_sampled_log_probability():
    groups = [[completion([*range(10 * s, 10 * s + 2 + s), *([EOS] if s != 3 else [])],
                          [-0.1 * (g * 4 + s)] * (2 + s + (s != 3)), "length" if s == 3 else "stop") for s in range(4)]
              for g in range(2)]
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
    rollouts = Rollouts([[7, 8, 9], [5]], groups, rewards, {})
    batches, wasted = policy_batches(rollouts, settings(micro_batch_tokens=20))
    seen, total = 0, sum(len(c.logprobs) for group in groups for c in group)
    for batch in batches:
        start = 0
        for document in batch.packed.documents:
            sampled = groups[document // 4][document % 4]
            expected = sampled.token_ids
            here = slice(start, start + len(expected))
            assert batch.packed.targets[here].tolist() == expected
            torch.testing.assert_close(batch.sampler_log_probs[here], torch.tensor(sampled.logprobs))
            centred = rewards[document // 4, document % 4] - rewards[document // 4].mean()
            torch.testing.assert_close(batch.advantages[here], centred.expand(len(expected)))
            torch.testing.assert_close(batch.weights[here], torch.full((len(expected),), 1 / total))
            start += len(expected)
            seen += 1
        assert start == len(batch.advantages)
    assert seen == 8 and wasted == 0 and len(batches) > 1


@pytest.mark.parametrize("zero_variance, kept, wasted", [("drop", 4, 12), ("keep", 8, 0)])
def test_groups_of_equal_rewards_are_dropped_or_kept_in_the_count(zero_variance, kept, wasted):
    groups = [[completion([5, 6, 7], [-1.0] * 3, "length") for _ in range(4)] for g in range(2)]
    rewards = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    rollouts = Rollouts([[7], [5]], groups, rewards, {})
    batches, lost = policy_batches(rollouts, settings(zero_variance=zero_variance))
    assert sum(len(b.packed.documents) for b in batches) == kept and lost == wasted
    torch.testing.assert_close(torch.cat([b.weights for b in batches]), torch.full((3 * kept,), 1 / (3 * kept)))


# Gradient

@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["deepseek", "qwen2"])
def test_on_policy_a_step_is_reinforce_on_the_whole_forward_pass(base, tokenizer, likes_even):
    policy, chosen = model(base), settings(temperature=0.8, length_normalisation="sequence")
    rollouts = rollouts_of(policy, tokenizer, chosen)
    parameters = list(policy.parameters())
    step = policy_gradient(policy, policy_batches(rollouts, chosen)[0], parameters, chosen)
    loss = 0.0
    for prompt, group, rewards in zip(rollouts.prompts, rollouts.groups, rollouts.rewards, strict=True):
        for completion, advantage in zip(group, rewards - rewards.mean(), strict=True):
            tokens = completion.token_ids
            logits = policy(torch.tensor([prompt + tokens]))[0, len(prompt) - 1:-1]
            log_probs = (logits / 0.8).log_softmax(-1)[range(len(tokens)), tokens]
            loss = loss - advantage * log_probs.mean() / 12
    for a, b in zip(step.gradients, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, atol=1e-5, rtol=1e-3)
    assert step.metrics["mismatch_kl"] < 1e-9 and step.metrics["clipped"] == 0


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_step_does_not_depend_on_the_size_of_its_micro_batches(alpha, tokenizer, likes_even):
    policy = model(tiny.DEEPSEEK)
    chosen = settings(balance_loss_alpha=alpha, kl_coefficient=0.0, max_tokens=30)
    rollouts = rollouts_of(policy, tokenizer, chosen)
    for kept, completion in enumerate((c for group in rollouts.groups for c in group), start=3):
        completion.token_ids, completion.logprobs = completion.token_ids[:2 * kept], completion.logprobs[:2 * kept]
    whole, cut = (policy_gradient(policy, policy_batches(rollouts, each)[0], list(policy.parameters()), each)
                  for each in (chosen, chosen.model_copy(update={"micro_batch_tokens": 200})))
    for a, b in zip(cut.gradients, whole.gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    assert cut.metrics == pytest.approx(whole.metrics, abs=1e-6)


def test_the_reference_model_s_log_probabilities_are_those_of_its_own_samples(tokenizer, likes_even):
    policy, chosen = model(tiny.DEEPSEEK), settings(temperature=0.8)
    batches, _ = policy_batches(rollouts_of(policy, tokenizer, chosen), chosen)
    for batch in with_reference(policy, batches, 0.8):
        torch.testing.assert_close(batch.reference_log_probs, batch.sampler_log_probs, atol=1e-4, rtol=0)


# The whole loop

def run(folder, tokenizer, chosen, base=tiny.QWEN, progress=tiny.silent, seed=0, **others):
    policy = model(base)
    log, cost = grpo(policy, tokenizer, ARITHMETIC, chosen, seed, "rl", Checkpoints(folder, 0.0), progress, **others)
    return policy, log, cost


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["deepseek", "qwen2"])
def test_the_reward_rises_within_a_few_steps(base, tokenizer, likes_even, tmp_path):
    ends = []
    for seed in range(3):  # one run is at the mercy of a sample: the last digit of a logit decides it
        _, log, cost = run(tmp_path / str(seed), tokenizer, settings(steps=12, group_size=8), base, seed=seed)
        first, last = ([row["reward"] for row in part] for part in (log[:2], log[-3:]))
        assert sum(first) / 2 < 0.62
        ends.append(sum(last) / 3)
        assert max(row.get("mismatch_kl", 0.0) for row in log) < 1e-6  # absent where no group disagrees
        assert cost.tokens_generated == sum(row["tokens"] for row in log) > 0
    assert sum(ends) / 3 > 0.8


def test_an_adapter_learns_from_rollouts_of_itself_and_leaves_its_base(tokenizer, likes_even, tmp_path):
    policy = add_lora(model(), LoraConfig(8, 32.0), torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items() if ".adapter." not in name}
    log, _ = grpo(policy, tokenizer, ARITHMETIC, settings(steps=25, prompts_per_step=4, group_size=8, max_tokens=16), 0, "rl",
                  Checkpoints(tmp_path), tiny.silent)
    assert sum(row["reward"] for row in log[-3:]) / 3 > sum(row["reward"] for row in log[:2]) / 2 + 0.2
    assert max(row.get("mismatch_kl", 0.0) for row in log) < 1e-6
    assert all(torch.equal(policy.state_dict()[name], tensor) for name, tensor in before.items())


def test_in_bfloat16_an_adapter_s_rollouts_are_of_the_policy_that_learns(tokenizer, likes_even, tmp_path):
    """Beside the base nothing of the adapter is rounded away; the sum in bfloat16 would be nearly the base."""
    base = model()
    base.compute_dtype = torch.bfloat16
    policy = add_lora(base, LoraConfig(8, 32.0), torch.Generator().manual_seed(0))
    engine = PolicyEngine(policy, tokenizer)
    log, _ = grpo(policy, tokenizer, ARITHMETIC, settings(steps=4, prompts_per_step=4, group_size=8, max_tokens=16,
                                                          learning_rate=1e-2), 0, "rl", Checkpoints(tmp_path), tiny.silent,
                  engine=engine)
    sampled = engine.current().generate([tiny.tokens(8).tolist()], SamplingParams(n=8, max_tokens=12, temperature=1.0), seed=1)
    documents = [Document([*sampled[0].prompt_token_ids, *c.token_ids], loss_from=8) for c in sampled[0].outputs]
    batch = pack_documents(documents, list(range(8)))
    recorded = torch.cat([torch.tensor(c.logprobs) for c in sampled[0].outputs])
    with torch.no_grad():
        drift = {name: float((module._log_probs(one, batch, 1.0)[0] - recorded).abs().mean()) for name, one in
                 (("policy", policy), ("base", without_adapters(policy)))}
    assert max(row.get("mismatch_kl", 0.0) for row in log) < 0.01
    assert drift["policy"] < 0.02 and drift["base"] > 5 * drift["policy"], drift
    assert engine.current().core is engine.current().core  # the base is packed once


def test_a_run_killed_and_run_again_ends_with_the_same_bytes(tokenizer, likes_even, tmp_path):
    chosen = settings(steps=6, optimizer="muon", balance_loss_alpha=0.01, bias_update_speed=0.01)

    class Killed(BaseException):
        pass

    def kill(done, total, tokens, note):
        if done > 3:
            raise Killed

    straight, straight_log, _ = run(tmp_path / "a", tokenizer, chosen, tiny.DEEPSEEK)
    with pytest.raises(Killed):
        run(tmp_path / "b", tokenizer, chosen, tiny.DEEPSEEK, kill)
    resumed, resumed_log, _ = run(tmp_path / "b", tokenizer, chosen, tiny.DEEPSEEK)
    a, b = straight.state_dict(), resumed.state_dict()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert [row | {"seconds": 0} for row in straight_log] == [row | {"seconds": 0} for row in resumed_log]


def test_the_kl_penalty_holds_the_policy_near_its_reference(tokenizer, likes_even, tmp_path):
    def distance(kl_coefficient):
        reference = model()
        chosen = settings(steps=32, learning_rate=0.005, kl_coefficient=kl_coefficient, kl_estimator="k2")
        policy, _, _ = run(tmp_path / str(kl_coefficient), tokenizer, chosen, reference=reference)
        ids = tiny.tokens(4, 30, vocab=300)
        with torch.no_grad():
            p, q = (m(ids).log_softmax(-1) for m in (policy, reference))
        return float((p.exp() * (p - q)).sum(-1).mean())

    free, held = distance(0.0), distance(50.0)
    assert held < 0.2 * free, (held, free)


def test_reinforcement_learning_leaves_the_mtp_module_alone(tokenizer, likes_even, tmp_path):
    policy, _, _ = run(tmp_path, tokenizer, settings(steps=2, weight_decay=0.1), tiny.DEEPSEEK)
    before = model(tiny.DEEPSEEK)
    assert all(torch.equal(a, b) for a, b in zip(policy.mtp.parameters(), before.mtp.parameters(), strict=True))


def test_a_step_whose_groups_all_agree_leaves_the_weights_alone(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(grading, "grade", even_share)
    twice = []

    def then_constant(asked, tokenizer, rule, style):
        twice.append(1)
        judged = even_share(asked, tokenizer)
        return judged if len(twice) == 1 else [GradedCompletion(each.completion, each.reply, 0.5, 0.0) for each in judged]

    monkeypatch.setattr(grading, "grade", then_constant)
    once, _, _ = run(tmp_path / "a", tokenizer, settings(steps=1))
    twice.clear()
    both, log, _ = run(tmp_path / "b", tokenizer, settings(steps=2))
    assert log[1]["zero_variance"] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), both.parameters(), strict=True))


def test_a_sampler_that_disagrees_with_the_trainer_stops_the_stage():
    refuse_mismatch("rl", 3, 0.04, 0.05)
    with pytest.raises(RunError) as error:
        refuse_mismatch("rl", 3, 0.07, 0.05)
    message = str(error.value)
    assert "rl: sampler and trainer disagree at step 3" in message
    assert "0.07" in message and "max_mismatch_kl = 0.05" in message and "float32" in message


def test_a_stage_whose_sampler_is_wrong_stops_before_it_moves_the_weights(tokenizer, likes_even, tmp_path, monkeypatch):
    real = sampling.grade_rollouts

    def wrong(*arguments):
        rollouts = real(*arguments)
        for group in rollouts.groups:
            for completion in group:
                completion.logprobs = [p - 1.0 for p in completion.logprobs]
        return rollouts

    monkeypatch.setattr(sampling, "grade_rollouts", wrong)
    policy = model()
    with pytest.raises(RunError, match="sampler and trainer disagree at step 0"):
        grpo(policy, tokenizer, ARITHMETIC, settings(), 0, "rl", Checkpoints(tmp_path), tiny.silent)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), model().parameters(), strict=True))


def test_a_step_s_prompts_depend_on_seed_and_step_alone():
    chosen = settings(prompts_per_step=8)
    first, again, next_step, other_seed = (
        [p.prompt for p in step_prompts(chosen, find_tasks(["arithmetic", "letters"]), seed, "rl", step, False)]
        for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0)))
    assert first == again and first != next_step and first != other_seed


def test_general_prompts_come_only_from_their_share_of_the_steps_on():
    chosen = settings(steps=10, prompts_per_step=8, general_share=0.25, general_from=0.5)
    counts = [sum(isinstance(p, GeneralPrompt) for p in step_prompts(chosen, ARITHMETIC, 0, "rl", step, True))
              for step in range(10)]
    assert counts == [0] * 5 + [2] * 5
    assert all(isinstance(p, Problem) for p in step_prompts(chosen, ARITHMETIC, 0, "rl", 9, False))


@pytest.mark.parametrize("changes", [{"group_size": 1}, {"temperature": 0}, {"mtp_loss_weight": 0.1}, {"steps": 0},
                                     {"clip_epsilon": 0}, {"learning_rat": 1}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ValidationError):
        settings(**changes)
