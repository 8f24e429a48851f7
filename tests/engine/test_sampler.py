"""One draw: its distribution, its nucleus, its random numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.engine import sampler
from spoutnik.engine.logits_processors import PenaltyProcessor
from spoutnik.engine.sampler import (
    SamplingMetadata,
    gather_logprobs,
    row_seed,
    sample_tokens,
    uniforms,
    uniforms_below_1,
    uniforms_of,
)
from spoutnik.engine.sampling_params import SamplingParams


def seeds(count: int) -> torch.Tensor:
    return torch.arange(1, count + 1) * 7919


def settings(params, seeds) -> SamplingMetadata:
    params = params if isinstance(params, list) else [params] * len(seeds)
    return SamplingMetadata.of(params, uniforms_below_1(seeds, torch.zeros_like(seeds)))


def draw(logits, count: int, **params):
    chosen = SamplingParams(**{"temperature": 1.0, "top_p": 1.0} | params)
    return sample_tokens(logits.expand(count, -1).contiguous(), settings(chosen, seeds(count)))


def test_greedy_takes_the_largest_logit_and_its_untempered_log_probability():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 0.0]])
    tokens, log_probs = sample_tokens(logits, settings(SamplingParams(temperature=0), seeds(2)))
    assert tokens.tolist() == [1, 0]
    torch.testing.assert_close(log_probs, logits.log_softmax(-1)[[0, 1], [1, 0]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability(temperature, kernels):
    logits, n = torch.tensor([[2.0, 1.0, 0.0, -1.0, -30.0]]), 20000
    tokens, log_probs = draw(logits, n, temperature=temperature)
    p = (logits[0] / temperature).softmax(-1)
    seen = torch.bincount(tokens, minlength=5) / n
    assert ((seen - p).abs() <= 4 * (p * (1 - p) / n).sqrt() + 1e-9).all()
    torch.testing.assert_close(log_probs, p.log()[tokens])


def test_the_native_draw_picks_what_its_plain_twin_picks(monkeypatch):
    if sampler.library() is None:
        pytest.skip("no compiler here: the plain twin is what runs")
    g = torch.Generator().manual_seed(0)
    for vocabulary in (1, 7, 32, 33, 64, 1000):
        logits = torch.randn(2000, vocabulary, generator=g) * 3
        for choices in ({"top_p": 1.0}, {"top_p": 0.9}, {"top_p": 1.0, "top_k": 20}, {"top_p": 1.0, "min_p": 0.02},
                        {"top_p": 0.8, "top_k": 50, "min_p": 0.001}, {"temperature": 0.0}):
            chosen = settings(SamplingParams(**{"temperature": 0.8} | choices), seeds(2000))
            native = sample_tokens(logits, chosen)
            with monkeypatch.context() as patch:
                patch.setattr(sampler, "library", lambda: None)
                plain = sample_tokens(logits, chosen)
            same = native[0] == plain[0]
            assert (~same).sum() <= 2  # a uniform within rounding of a border
            torch.testing.assert_close(native[1][same], plain[1][same], atol=1e-5, rtol=1e-5)


def nucleus(p: list[float], top_p: float) -> set[int]:
    """The plain reference: the fewest most likely tokens that hold top_p."""
    kept, mass = set(), 0.0
    for token in sorted(range(len(p)), key=lambda i: -p[i]):
        if mass >= top_p:
            break
        kept.add(token)
        mass += p[token]
    return kept


@given(vocabulary=st.sampled_from([3, 30, 200]), top_p=st.sampled_from([0.05, 0.3, 0.6, 0.95, 0.999]),
       spread=st.sampled_from([0.01, 1.0, 4.0]), seed=st.integers(0, 1000))
def test_top_p_draws_inside_the_nucleus_and_reaches_its_most_likely_tokens(vocabulary, top_p, spread, seed):
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(seed)).double() * spread
    tokens, _ = draw(logits.float(), 400, top_p=top_p)
    p = logits.float().softmax(-1)[0].double().tolist()
    # A token at the border may fall either side of it in float32.
    assert set(tokens.tolist()) <= nucleus(p, top_p + 1e-5)
    inside = nucleus(p, top_p - 1e-5)
    mass = sum(p[i] for i in inside)
    assert {i for i in inside if p[i] / mass > 0.05} <= set(tokens.tolist())


def test_inside_the_nucleus_the_proportions_stay():
    logits, n = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), 20000
    seen = torch.bincount(draw(logits, n, top_p=0.75)[0], minlength=4) / n
    torch.testing.assert_close(seen, torch.tensor([0.625, 0.375, 0, 0]), atol=0.015, rtol=0)


def test_log_probabilities_are_those_before_top_p():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    tokens, log_probs = draw(logits, 50, top_p=0.4)
    assert tokens.unique().tolist() == [0]
    torch.testing.assert_close(log_probs.exp(), torch.full((50,), 0.5))


def test_a_row_s_draw_does_not_depend_on_another_row_that_needs_more_candidates():
    """A flat row makes the whole batch sort its vocabulary instead of taking 64 candidates."""
    generator = torch.Generator().manual_seed(0)
    peaked, flat = torch.randn(40, 500, generator=generator) * 4, torch.zeros(1, 500)
    params = SamplingParams(temperature=1.0, top_p=0.9)
    alone = sample_tokens(peaked, settings(params, seeds(40)))
    beside = sample_tokens(torch.cat([peaked, flat]), settings(params, seeds(41)))
    assert torch.equal(alone[0], beside[0][:40])


def test_uniforms_fill_the_interval_evenly():
    """Chi-square over 50 cells, over seeds and over positions: the bounds are the 0.1 % tails of 49 degrees."""
    many, zeros = torch.arange(20000), torch.zeros(20000, dtype=torch.long)
    for u in (uniforms(many, zeros), uniforms(zeros + 12345, many)):
        assert u.min() >= 0 and u.max() < 1
        counts = torch.bincount((u * 50).long(), minlength=50).double()
        assert 23 < ((counts - 400) ** 2 / 400).sum() < 86


def test_uniforms_of_neighbours_are_uncorrelated():
    many = torch.arange(1, 20001)
    for u in (uniforms(many, torch.zeros_like(many)), uniforms(torch.full_like(many, 99), many)):
        pair = torch.stack([u[:-1], u[1:]])
        assert abs(torch.corrcoef(pair)[0, 1]) < 0.03


def test_uniforms_are_splitmix64():
    """Steele et al. 2014: the reference stream of seed 1234567 starts with these five numbers."""
    reference = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
                 16408922859458223821]
    u = uniforms(torch.full((5,), 1234567), torch.arange(5))
    assert u.tolist() == [(n >> 11) * 2.0 ** -53 for n in reference]


def test_no_seed_makes_the_first_draw_certain():
    assert uniforms(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)) > 0


@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_the_largest_uniform_still_draws_a_possible_token(monkeypatch, top_p, kernels):
    monkeypatch.setattr(sampler, "uniforms", lambda seeds, positions: torch.full((1,), 1 - 2.0 ** -53).double())
    tokens, _ = draw(torch.tensor([[5.0, 1.0, 0.0, -200.0]]), 1, top_p=top_p)
    assert tokens.item() != 3


def test_a_uniform_close_to_1_does_not_draw_the_impossible_last_token(monkeypatch):
    if sampler.library() is None:
        pytest.skip("no compiler here: the plain twin is what runs")
    monkeypatch.setattr(sampler, "uniforms", lambda seeds, positions: torch.full(seeds.shape, 1 - 2.0 ** -22).double())
    logits = torch.randn(500, 1024, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, -1] = -60.0
    tokens, _ = sample_tokens(logits, settings(SamplingParams(temperature=1.0, top_p=1.0), seeds(500)))
    assert (tokens == 1023).sum() == 0


def test_few_and_many_rows_get_the_same_random_numbers():
    many = torch.randint(0, 2 ** 62, (500,), generator=torch.Generator().manual_seed(0))
    places = torch.arange(500)
    assert torch.equal(uniforms_of(zip(many.tolist(), places.tolist())), uniforms_below_1(many, places))
    assert uniforms_of([]).shape == (0,)


def test_rows_of_a_group_and_of_other_seeds_get_other_numbers():
    row_seeds = [row_seed(seed, number, i) for seed in (0, 1) for number in range(50) for i in range(8)]
    assert len(set(row_seeds)) == len(row_seeds)


MIXED = st.lists(st.builds(dict, temperature=st.sampled_from([0.0, 0.5, 1.0, 1.3]), top_p=st.sampled_from([0.3, 0.9, 1.0]),
                           top_k=st.sampled_from([-1, 0, 1, 5, 100]), min_p=st.sampled_from([0.0, 0.01, 0.3])),
                 min_size=1, max_size=12)


@given(MIXED, st.sampled_from([10, 300]), st.sampled_from([0.1, 3.0]), st.integers(0, 99))
def test_a_row_s_choice_is_the_same_alone_and_beside_rows_of_other_settings(rows, vocabulary, spread, seed):
    logits = torch.randn(len(rows), vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    params = [SamplingParams(**row) for row in rows]
    tokens, log_probs = sample_tokens(logits, settings(params, seeds(len(rows))))
    for i, one in enumerate(params):
        alone = sample_tokens(logits[i:i + 1], settings([one], seeds(len(rows))[i:i + 1]))
        assert (int(alone[0]), float(alone[1])) == (int(tokens[i]), float(log_probs[i]))


def survivors(p: torch.Tensor, params: SamplingParams) -> set[int]:
    """The plain reference: min_p, then top_k, then top_p of what is left."""
    order = sorted(range(len(p)), key=lambda i: -float(p[i]))
    order = [i for i in order if p[i] >= params.min_p * p.max()][:params.top_tokens or None]
    kept, mass, whole = set(), 0.0, sum(float(p[i]) for i in order)
    for i in order:
        if mass >= params.top_p * whole and params.top_p < 1:
            break
        kept.add(i)
        mass += float(p[i])
    return kept


@given(top_k=st.sampled_from([0, 1, 3, 70, 150]), min_p=st.sampled_from([0.0, 0.02, 0.5]),
       top_p=st.sampled_from([0.4, 0.9, 1.0]), vocabulary=st.sampled_from([5, 40, 200]), seed=st.integers(0, 1000))
def test_truncations_leave_what_the_plain_reference_leaves(top_k, min_p, top_p, vocabulary, seed):
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(seed))
    params = SamplingParams(temperature=1.0, top_k=top_k, min_p=min_p, top_p=top_p)
    tokens, log_probs = draw(logits, 300, top_k=top_k, min_p=min_p, top_p=top_p)
    p = logits[0].softmax(-1)
    kept = survivors(p, params)
    assert set(tokens.tolist()) <= kept
    mass = sum(float(p[i]) for i in kept)
    assert {i for i in kept if p[i] / mass > 0.06} <= set(tokens.tolist())
    torch.testing.assert_close(log_probs, p.log()[tokens])  # before any truncation


def test_the_likeliest_tokens_come_with_the_chosen_one():
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]).log()
    reported = gather_logprobs(logits, 2, [0, 0])
    assert [list(row) for row in reported] == [[3, 2, 0], [0, 1]]
    assert reported[0] == pytest.approx({3: -0.916291, 2: -1.203973, 0: -2.302585}, abs=1e-5)
    assert gather_logprobs(logits, 0, [1, 2]) == [pytest.approx({1: -1.609438}), pytest.approx({2: -1.609438})]


def test_penalties_biases_and_forbidden_ends_are_vllm_s():
    params = SamplingParams(repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, min_tokens=3,
                            logit_bias={4: 1.5, 0: -1.0})
    processor = PenaltyProcessor(params, prompt=[0, 1], stop_ids=[5], vocab_size=6)
    logits = torch.tensor([2.0, -1.0, 3.0, -2.0, 0.5, 9.0])
    first = logits.clone()
    processor.apply(first, 0)
    assert first.tolist() == [0.5, -2.0, 3.0, -2.0, 2.0, float("-inf")]
    for token in (2, 2, 3):
        processor.feed(token)
    later = logits.clone()
    processor.apply(later, 3)
    assert later.tolist() == [0.5, -2.0, 1.5 - 0.5 - 0.5, -4.0 - 0.25 - 0.5, 2.0, 9.0]
