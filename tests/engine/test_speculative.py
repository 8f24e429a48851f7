"""Drafting with the MTP module changes nothing but the number of steps."""

import pytest
import tiny
import torch

from spoutnik.engine.generate import Engine, row_seeds
from spoutnik.engine.sampling import SamplingParams
from spoutnik.engine.speculative import SpeculativeDecoder, speculate
from spoutnik.errors import UserError

EOS = 1
PROMPTS = [tiny.tokens(length, seed=length).tolist() for length in (30, 4, 17, 1)]


def seeds_of(rows: int) -> torch.Tensor:
    return row_seeds(3, torch.arange(rows), torch.zeros(rows, dtype=torch.long))


@pytest.fixture(scope="module", params=[{}, {"q_lora_rank": None, "n_group": 1, "topk_group": 1}], ids=["V3", "V2-Lite's"])
def model(request):
    return tiny.model(tiny.DEEPSEEK, **request.param)


@pytest.mark.parametrize("params", [SamplingParams(0.0, 1.0, 40), SamplingParams(1.0, 1.0, 40), SamplingParams(1.0, 1.0, 1),
                                    SamplingParams(0.6, 0.95, 41), SamplingParams(1.0, 1.0, 2)], ids=str)
def test_the_tokens_are_those_of_plain_decoding(model, params):
    plain = Engine(model, EOS).generate(PROMPTS, params, seed=3)
    expected = [c.token_ids + [EOS] * c.finished for (c,) in plain]
    completions, acceptance = speculate(model, PROMPTS, params, seeds_of(4), torch.tensor([EOS]))
    assert completions == expected
    assert acceptance.accepted <= acceptance.drafted <= sum(map(len, expected))


def test_some_completions_above_end_by_themselves(model):
    """Guards the test above: ends of sentence and cut-offs both happen."""
    reasons = {c.finish_reason for (c,) in Engine(model, EOS).generate(PROMPTS * 8, SamplingParams(1.0, 1.0, 40), seed=3)}
    assert reasons == {"stop", "length"}


def test_a_stream_is_the_same_with_and_without_drafts(model):
    engine, params = Engine(model, EOS), SamplingParams(1.0, 1.0, 30)
    for seed in range(4):
        assert list(engine.stream(PROMPTS[0], params, seed, speculate=True)) == list(engine.stream(PROMPTS[0], params, seed))


def test_a_right_draft_saves_a_step(model, monkeypatch):
    """With drafts made by somebody who knows, every step gives two tokens."""
    params = SamplingParams(0.0, 1.0, 21)
    (expected,), _ = speculate(model, PROMPTS[:1], params, seeds_of(1), eos_ids=torch.tensor([-1]))
    decoder = SpeculativeDecoder(model, PROMPTS[:1], params, seeds_of(1), eos_ids=torch.tensor([-1]))
    tokens = decoder.tokens.tolist()
    for _ in range(10):
        decoder.drafts = torch.tensor([expected[len(tokens)]])
        chosen, counts = decoder.step()
        assert counts.tolist() == [2]
        tokens += chosen[0].tolist()
    assert tokens == expected and decoder.acceptance.rate == 1.0 and not decoder.alive


def test_a_wrong_draft_costs_nothing_but_its_step(model):
    params = SamplingParams(0.0, 1.0, 15)
    (expected,), _ = speculate(model, PROMPTS[:1], params, seeds_of(1), eos_ids=torch.tensor([-1]))
    decoder = SpeculativeDecoder(model, PROMPTS[:1], params, seeds_of(1), eos_ids=torch.tensor([-1]))
    tokens = decoder.tokens.tolist()
    while decoder.alive:
        decoder.drafts = torch.tensor([(expected[len(tokens)] + 1) % 64])
        chosen, counts = decoder.step()
        tokens += chosen[0, :counts].tolist()
        assert counts.tolist() == [1]
    assert tokens == expected and decoder.acceptance.accepted == 0


def test_a_model_without_mtp_module_is_refused():
    with pytest.raises(UserError, match="num_nextn_predict_layers"):
        next(Engine(tiny.model(tiny.QWEN), EOS).stream([3], SamplingParams(max_tokens=4), speculate=True))
