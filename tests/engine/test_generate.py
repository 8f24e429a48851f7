"""Generation against the whole forward pass, and independence of everything that only concerns speed."""

import pytest
import tiny
import torch

from spoutnik.engine import generate
from spoutnik.engine.generate import Engine
from spoutnik.engine.sampling import SamplingParams
from spoutnik.errors import UserError

BASES = pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["mla", "gqa"])
EOS = 1


def prompts(count: int, longest: int = 20) -> list[list[int]]:
    return [tiny.tokens(1 + 7 * i % longest, seed=i).tolist() for i in range(count)]


def flat(groups):
    return [(c.prompt, c.token_ids, c.finish_reason) for group in groups for c in group]


@BASES
def test_greedy_tokens_are_the_argmax_of_the_whole_forward_pass(base, kernels):
    model, params = tiny.model(base), SamplingParams(temperature=0, max_tokens=12)
    for group, prompt in zip(Engine(model, EOS).generate(prompts(6), params), prompts(6), strict=True):
        ids, expected = list(prompt), []
        with torch.no_grad():
            while len(expected) < 12 and (token := int(model(torch.tensor([ids]))[0, -1].argmax())) != EOS:
                expected.append(token)
                ids.append(token)
        assert group[0].token_ids == expected


@BASES
def test_recorded_log_probabilities_are_those_of_the_whole_forward_pass(base, kernels):
    model = tiny.model(base)
    for completion in sum(Engine(model, EOS).generate(prompts(4), SamplingParams(0.7, 0.9, 15), n=3, seed=5), []):
        prompt = prompts(4)[completion.prompt]
        sampled = completion.token_ids + [EOS] * completion.finished
        with torch.no_grad():
            logits = model(torch.tensor([prompt + sampled]))[0, len(prompt) - 1:-1]
        expected = (logits / 0.7).log_softmax(-1)[range(len(sampled)), sampled]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


@BASES
def test_a_request_gives_the_same_tokens_alone_and_in_a_batch(base):
    engine, params = Engine(tiny.model(base), EOS), SamplingParams(1.0, 0.95, 15)
    together = engine.generate(prompts(9), params, n=2, seed=3)
    shorter = engine.generate(prompts(9)[:1], params, n=2, seed=3)
    assert flat(shorter) == flat(together[:1])
    assert flat(engine.generate(prompts(9)[:5], params, n=1, seed=3)) == flat([group[:1] for group in together[:5]])


@pytest.mark.parametrize("max_rows", [1, 4, 16])
def test_tokens_do_not_depend_on_how_many_rows_are_decoded_together(max_rows):
    model, params = tiny.model(tiny.DEEPSEEK), SamplingParams(1.0, 1.0, 10)
    wide = Engine(model, EOS).generate(prompts(12), params, n=2, seed=1)
    assert flat(Engine(model, EOS, max_rows).generate(prompts(12), params, n=2, seed=1)) == flat(wide)


def test_prompts_that_wait_for_room_join_a_running_batch(plain_kernels, monkeypatch):
    """By the plain twin, which refuses to write past the end of a cache: the native kernel would write all the same."""
    monkeypatch.setattr(generate, "cores", lambda: 1)  # all in one batch, on any machine
    model, params = tiny.model(tiny.QWEN), SamplingParams(1.0, 1.0, 40)
    many = prompts(120, longest=10)
    wide = Engine(model, EOS).generate(many, params, seed=1)
    for max_rows in (20, 40, 48, 56, 64, 70):
        assert flat(Engine(model, EOS, max_rows).generate(many, params, seed=1)) == flat(wide)


def test_a_model_of_fewer_than_127_positions_generates():
    model, params = tiny.model(tiny.QWEN, max_position_embeddings=64), SamplingParams(1.0, 1.0, 10)
    assert Engine(model, EOS).generate(prompts(2), params)


def test_samples_of_a_group_differ_and_seeds_differ():
    engine, params = Engine(tiny.model(tiny.DEEPSEEK), EOS), SamplingParams(1.0, 1.0, 10)
    first, second = (engine.generate(prompts(1), params, n=8, seed=seed)[0] for seed in (1, 2))
    texts = {tuple(c.token_ids) for c in first + second}
    assert len(texts) == 16
    assert flat([engine.generate(prompts(1), params, n=8, seed=1)[0]]) == flat([first])


def test_the_first_token_follows_the_model_s_distribution():
    model, n = tiny.model(tiny.DEEPSEEK), 3000
    group = Engine(model, EOS).generate([[5, 9]], SamplingParams(1.0, 1.0, 1), n=n, seed=2)[0]
    seen = torch.bincount(torch.tensor([(c.token_ids or [EOS])[0] for c in group]), minlength=64) / n
    with torch.no_grad():
        p = model(torch.tensor([[5, 9]]))[0, -1].softmax(-1)
    assert ((seen - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt() + 1e-3).all()


def test_a_completion_stops_at_the_end_of_sentence_or_at_max_tokens():
    completions = sum(Engine(tiny.model(tiny.DEEPSEEK), EOS).generate(
        prompts(10), SamplingParams(1.5, 1.0, 30), n=8, seed=0), [])
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for c in completions:
        assert EOS not in c.token_ids
        if c.finished:
            assert len(c.logprobs) == len(c.token_ids) + 1 <= 30
        else:
            assert len(c.logprobs) == len(c.token_ids) == 30


def test_an_end_of_sentence_as_the_very_first_token_gives_an_empty_completion():
    model = tiny.model(tiny.QWEN)
    greedy = SamplingParams(temperature=0, max_tokens=3)
    first = Engine(model, EOS).generate([[7, 8]], greedy)[0][0].token_ids[0]
    completion = Engine(model, first).generate([[7, 8]], greedy)[0][0]
    assert (completion.token_ids, len(completion.logprobs), completion.finish_reason) == ([], 1, "stop")


def test_every_prompt_gets_n_completions_in_its_place():
    groups = Engine(tiny.model(tiny.QWEN), EOS).generate(prompts(7), SamplingParams(max_tokens=2), n=3)
    assert [[c.prompt for c in group] for group in groups] == [[i] * 3 for i in range(7)]


def test_no_prompts_give_no_completions():
    assert Engine(tiny.model(tiny.QWEN), EOS).generate([], SamplingParams(max_tokens=2)) == []


def test_listeners_hear_of_every_decoded_token_and_every_end_after_the_first():
    heard = []
    groups = Engine(tiny.model(tiny.QWEN), EOS).generate(
        prompts(5), SamplingParams(1.5, 1.0, 20), n=4, seed=0,
        on_tokens=lambda tokens, finished: heard.append((tokens, finished)))
    after_the_first = [len(c.logprobs) - 1 for group in groups for c in group]
    assert sum(tokens for tokens, _ in heard) == sum(after_the_first)
    assert sum(finished for _, finished in heard) == sum(n > 0 for n in after_the_first)


@BASES
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_streaming_gives_what_generating_gives(base, temperature):
    engine, params = Engine(tiny.model(base), EOS), SamplingParams(temperature, 0.95, 20)
    for prompt in prompts(4):
        assert list(engine.stream(prompt, params, seed=9)) == engine.generate([prompt], params, seed=9)[0][0].token_ids


def test_the_engine_s_weights_do_not_follow_the_trainer_s():
    model = tiny.model(tiny.DEEPSEEK)
    engine, params = Engine(model, EOS), SamplingParams(temperature=0, max_tokens=8)
    before = flat(engine.generate(prompts(3), params))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert flat(engine.generate(prompts(3), params)) == before


def test_a_bfloat16_engine_keeps_the_routers_biases_in_float32():
    model = tiny.model(tiny.DEEPSEEK)
    model.compute_dtype = torch.bfloat16
    engine = Engine(model, EOS)
    assert engine.model.lm_head.weight.dtype == torch.bfloat16
    for name, router in engine.model.routers.items():
        assert torch.equal(router.e_score_correction_bias, model.routers[name].e_score_correction_bias)
    assert engine.generate(prompts(2), SamplingParams(max_tokens=4))


@pytest.mark.parametrize("call", [lambda e, p, s: e.generate(p, s), lambda e, p, s: list(e.stream(p[0], s))],
                         ids=["generate", "stream"])
def test_requests_that_cannot_be_served_are_refused_in_a_sentence(call):
    engine = Engine(tiny.model(tiny.QWEN), EOS)
    with pytest.raises(UserError, match="a prompt is empty"):
        call(engine, [[]], SamplingParams(max_tokens=2))
    with pytest.raises(UserError, match=r"max_tokens = 100: with a prompt of 29 tokens.*128 positions.*to 99"):
        call(engine, [[5] * 29], SamplingParams(max_tokens=100))


def test_a_request_may_fill_the_model_s_positions_to_the_last():
    completion = Engine(tiny.model(tiny.QWEN), eos_ids=-1).generate([[5] * 28], SamplingParams(0, 1.0, 100))[0][0]
    assert len(completion.token_ids) == 100


def test_several_tokens_may_end_a_completion():
    model, params = tiny.model(tiny.QWEN), SamplingParams(1.0, 1.0, 60)
    (free,), = Engine(model, -1).generate([[5, 6]], params)
    ends = [free.token_ids[9], free.token_ids[4]]
    (cut,), = Engine(model, ends).generate([[5, 6]], params)
    expected = free.token_ids[:min(map(free.token_ids.index, ends))]
    assert cut.finished and cut.token_ids == expected
    assert list(Engine(model, ends).stream([5, 6], params)) == expected
