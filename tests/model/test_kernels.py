"""The native training kernels give the numbers and the gradients of their plain twins."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.model.attention import rotary_attention, rotary_attention_plain
from spoutnik.model.layers import swiglu_plain
from spoutnik.model.moe import Combine, Dispatch, Layout, Router
from spoutnik.model.packing import PackedSequences
from spoutnik.model.shared_prefixes import Segment, SharedPrefixes
from spoutnik.native import library, operations
from spoutnik.train.frozen_head import log_probs_of_logits
from spoutnik.train.kl import divergences_of_logits
from spoutnik.train.losses import CHUNK, _log_probs, _logits_gradient, token_log_probs, token_log_probs_plain

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here: the plain twins are what runs")

needs_fast_matmul = pytest.mark.skipif(library() is None or not library().spoutnik_has_fast_matmul(),
                                       reason="torch's products are the faster ones on this processor")
TYPES = {torch.float32: 2e-5, torch.bfloat16: 2e-2}  # type of activations -> tolerance, relative to the largest value


def agree(fast, plain, inputs, tolerance):
    """Both functions' values and gradients at `inputs`; the plain one computes in float64 from the same rounded numbers."""
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = plain(*wide)
    found = fast(*inputs)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    pairs = zip([found, *torch.autograd.grad(found, inputs, upstream)],
                [expected, *torch.autograd.grad(expected, wide, upstream.double())])
    for ours, theirs in pairs:
        assert (ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max().clamp_min(0.1)


def random(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 2), (7, 96), (130, 128)])
def test_rms_norm(dtype, shape):
    x, weight = random(*shape, dtype=dtype), random(shape[-1], dtype=dtype, seed=1)
    agree(lambda x, w: operations.rms_norm(x, w, 1e-6), lambda x, w: F.rms_norm(x, (shape[-1],), w, 1e-6), [x, weight],
          TYPES[dtype])


def test_rms_norm_reads_a_slice_of_wider_rows():
    wide = random(9, 64, dtype=torch.float32)
    agree(lambda x, w: operations.rms_norm(x[:, :48], w, 1e-6), lambda x, w: F.rms_norm(x[:, :48], (48,), w, 1e-6),
          [wide, random(48, dtype=torch.float32, seed=1)], 2e-5)


@pytest.mark.parametrize("dtype", TYPES)
def test_swiglu(dtype):
    agree(operations.swiglu, swiglu_plain, [(random(33, 2 * 96, dtype=dtype) * 4).detach().requires_grad_()], TYPES[dtype])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_leaves_the_others_as_they_are(dtype, odd):
    """The sanitized build (`make sanitize`) runs this: no conversion or shift of what is no number."""
    x, targets = random(40, 64, dtype=dtype).detach(), torch.arange(40)
    bad = x.clone()
    bad[3, :40] = odd
    others = torch.arange(40) != 3
    hidden = [t[:, :32].contiguous() for t in (x, bad)]
    assert torch.equal(operations.swiglu(x)[others], operations.swiglu(bad)[others])
    weight = random(50, 32, dtype=dtype).detach()
    for clean, dirty in zip(*(operations.log_probs(h, weight, targets, 1.0) for h in hidden)):
        assert torch.equal(clean[others], dirty[others])


# (heads, groups, plain width, rotated width, value width, whether pairs are rotated): MLA, where keys are partly shared by all
# heads and pairs are rotated, and grouped-query attention, where halves are.
SHAPES = [(4, 4, 16, 16, 32, True), (4, 2, 0, 32, 32, False), (2, 1, 0, 8, 6, False), (3, 3, 6, 4, 10, True),
          (1, 1, 8, 8, 16, True)]


def attention_inputs(positions, shape, dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
    """q, k_nope (not where all is rotated), k_rope and v; the rotary table."""
    heads, groups, nope, rope, value, interleaved = shape
    tokens, keys = len(positions), 1 if interleaved else groups
    sizes = [(heads, nope + rope), *([(groups, nope)] if nope else []), (keys, rope), (groups, value)]
    speeds = torch.rand(rope // 2, generator=torch.Generator().manual_seed(4))
    angles = torch.outer(positions.float(), speeds)
    return ([random(tokens, *size, dtype=dtype, seed=i) for i, size in enumerate(sizes)],
            torch.stack([angles.cos(), angles.sin()], dim=1))


def attend(function, rotary, sequences, interleaved):
    return lambda q, *rest: function(q, rest[0] if len(rest) > 2 else None, *rest[-2:], rotary, sequences, 0.3, interleaved)


@pytest.mark.parametrize("dtype", TYPES)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4), shape=st.sampled_from(SHAPES))
def test_attention(dtype, lengths, shape):
    packing = PackedSequences.of(lengths)
    inputs, rotary = attention_inputs(packing.position_ids, shape, dtype)
    assert operations.supports(inputs[0])
    agree(attend(rotary_attention, rotary, packing, shape[-1]),
          attend(rotary_attention_plain, rotary.double(), packing, shape[-1]), inputs, TYPES[dtype])


@pytest.mark.parametrize("dtype", TYPES)
@given(families=st.lists(st.tuples(st.integers(0, 40), st.lists(st.integers(1, 40), min_size=1, max_size=4)), min_size=1,
                         max_size=3), shape=st.sampled_from(SHAPES))
def test_attention_behind_common_beginnings(dtype, families, shape):
    """families: the length of what some documents begin with (0: nothing), and of the rest of each. The twin has every document
    whole."""
    segments, whole, start = [], [], 0
    for prefix, lengths in families:
        begin = start
        for length, before in [*([(prefix, 0)] if prefix else []), *((length, prefix) for length in lengths)]:
            segments.append(Segment(start, length, begin, before))
            whole.append([*range(begin, begin + before), *range(start, start + length)])
            start += length
    sequences = SharedPrefixes.of_segments(segments)
    if sequences.padding:
        whole.append(list(range(start, start + sequences.padding)))
    index = torch.tensor([token for tokens in whole for token in tokens])
    own = torch.cat([torch.arange(len(tokens)) >= segment.prefix
                     for tokens, segment in zip(whole, sequences.segments, strict=True)])
    packing = PackedSequences.of([len(tokens) for tokens in whole])
    assert torch.equal(packing.position_ids, sequences.position_ids[index])
    inputs, rotary = attention_inputs(sequences.position_ids, shape, dtype)

    def of_whole_documents(*inputs):
        plain = attend(rotary_attention_plain, rotary.double()[index], packing, shape[-1])
        return plain(*(each[index] for each in inputs))[own]

    agree(attend(rotary_attention, rotary, sequences, shape[-1]), of_whole_documents, inputs, TYPES[dtype])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows,width,vocabulary", [(1, 2, 3), (9, 96, 70), (2100, 32, 64)])
def test_log_probs(dtype, rows, width, vocabulary):
    hidden, weight = random(rows, width, dtype=dtype), random(vocabulary, width, dtype=dtype, seed=1)
    targets = torch.randint(vocabulary, (rows,), generator=torch.Generator().manual_seed(2))
    agree(lambda h, w: token_log_probs(h, w, targets, 0.7)[0],
          lambda h, w: (F.linear(h, w) / 0.7).log_softmax(-1).gather(1, targets[:, None])[:, 0], [hidden, weight],
          TYPES[dtype])
    assert torch.allclose(token_log_probs(hidden, weight, targets, 0.7)[0],
                          token_log_probs_plain(hidden, weight, targets, 0.7), atol=1e-4)
    for fast, plain in zip(operations.log_probs(hidden, weight, targets, 0.7), _log_probs(hidden, weight, targets, 0.7, CHUNK)):
        assert torch.allclose(fast, plain, atol=1e-4)
    normalisers = _log_probs(hidden, weight, targets, 0.7, CHUNK)[2]
    arguments = torch.ones(rows), hidden, weight, targets, normalisers, 0.7
    assert torch.allclose(operations.logits_gradient(*arguments).float(), _logits_gradient(*arguments).float(), atol=1e-2)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of this family")
@pytest.mark.parametrize("flags", ["-mno-amx-tile", "-mno-avx512f", "-march=x86-64-v2"],
                         ids=["no tiles", "AVX2", "SSE"])
def test_a_processor_with_narrower_registers_gets_the_same_numbers(tmp_path, flags):
    """The same tests once more, the kernels compiled as for a machine without AMX, without AVX-512, and without AVX."""
    compiler = tmp_path / "narrow"
    compiler.write_text(f'#!/bin/sh\nexec {shutil.which("g++") or shutil.which("clang++")} "$@" {flags}\n')
    compiler.chmod(0o755)
    names = [f"{__file__}::{test}" for test in ("test_attention", "test_attention_behind_common_beginnings", "test_log_probs")]
    engine = Path(__file__).parents[1] / "engine"
    names += [str(engine / file) for file in ("runners/test_native_runner.py", "quantization/test_packed_matrix.py")]
    done = subprocess.run([sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *names],
                          env=os.environ | {"CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path)}, capture_output=True,
                          text=True)
    assert done.returncode == 0 and "SKIPPED" not in done.stdout, done.stdout[-2000:]


@needs_fast_matmul
@pytest.mark.parametrize("counts, inputs, outputs", [
    ([5, 0, 64, 17, 130], 70, 38), ([192] * 3, 256, 352), ([1], 2, 2), ([33], 34, 18), ([700], 514, 66), ([0, 0, 9], 32, 48),
], ids=str)
def test_products_and_their_gradients_are_those_of_the_loop(counts, inputs, outputs):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(counts), inputs, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(len(counts), outputs, inputs, generator=generator).bfloat16().requires_grad_()
    grad = torch.randn(sum(counts), outputs, generator=generator).bfloat16()
    y = operations.grouped_matmul(x, weight, torch.tensor(counts))
    given = y, *torch.autograd.grad(y, (x, weight), grad)
    exact = [t.detach().float().requires_grad_() for t in (x, weight)]
    expected = torch.cat([rows @ w.t() for rows, w in zip(exact[0].split(counts), exact[1])])
    expected = expected, *torch.autograd.grad(expected, exact, grad.float())
    for ours, theirs in zip(given, expected):  # one rounding to bfloat16, of sums in float32
        torch.testing.assert_close(ours.float(), theirs, atol=1e-3, rtol=2**-8)


@pytest.mark.skipif(library() is None or not library().spoutnik_has_float32_products(), reason="no bfloat16 in hardware")
@pytest.mark.parametrize("inputs", [128, 130, 576])  # 128, 576: in tiles, where there are any
@pytest.mark.parametrize("rows, outputs", [(1, 1), (16, 16), (33, 31), (64, 64), (77, 201), (100, 3001)])
def test_the_head_s_sums_are_not_rounded(inputs, rows, outputs):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, inputs, generator=generator).bfloat16() for n in (rows, outputs))
    before = x @ weight.t()
    sums, exact = operations.linear_float32(x, weight), x.double() @ weight.double().t()
    assert (sums.double() - exact).abs().max() < 1e-4
    if rows > 16:
        assert (before.double() - exact).abs().max() > 1e-3  # torch's are
    assert torch.equal(x @ weight.t(), before)  # torch's own tiles are shaped anew after ours


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("rows, vocabulary", [(1, 2), (5, 301), (40, 1000)])
def test_what_is_learned_from_logits(dtype, temperature, rows, vocabulary):
    logits = random(rows, vocabulary, dtype=torch.float32).detach() * 4
    targets = torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(2))
    logits[0, targets[0]] = 20.0  # nearly certain: its slope is what is left of 1, and is not rounded away
    ours = operations.log_probs_of_logits(logits, targets, temperature, dtype)
    exact = log_probs_of_logits(logits.double(), targets, temperature, torch.float64)
    for found, expected in zip(ours[:2], exact[:2]):
        torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours[2].double(), exact[2], atol=1e-6, rtol=1e-5 if dtype == torch.float32 else 2**-8)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows, vocabulary", [(1, 2), (5, 301), (40, 1000)])
def test_the_divergence_of_logits(dtype, rows, vocabulary):
    base, policy = (random(rows, vocabulary, dtype=torch.float32, seed=seed).detach() * 4 for seed in (0, 1))
    policy[0] = base[0]  # nothing between these
    divergences, slopes = operations.divergences_of_logits(base, policy, dtype)
    expected, expected_slopes = divergences_of_logits(base.double(), policy.double(), torch.float64)
    torch.testing.assert_close(divergences.double(), expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(slopes.double(), expected_slopes, atol=1e-6, rtol=1e-5 if dtype == torch.float32 else 2**-8)
    assert divergences[0].abs() < 1e-6


@needs_fast_matmul
@pytest.mark.parametrize("tokens, chosen, experts, hidden, width", [(1, 1, 2, 2, 2), (90, 3, 8, 70, 38),
                                                                      (300, 4, 16, 128, 96)])
def test_the_mixture_without_gradients_is_its_definition(tokens, chosen, experts, hidden, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, hidden, generator=generator).bfloat16()
    gate_up, down = (torch.randn(experts, *shape, generator=generator).div(8).bfloat16()
                     for shape in ((2 * width, hidden), (hidden, width)))
    picked = torch.rand(tokens, experts, generator=generator).topk(chosen).indices
    weights = torch.rand(tokens, chosen, generator=generator)
    expected = torch.zeros(tokens, hidden)
    for t in range(tokens):
        for e, share in zip(picked[t], weights[t]):
            expected[t] += share * (swiglu_plain(x[t].float() @ gate_up[e].float().t()) @ down[e].float().t())
    given = operations.routed_experts(x, picked, weights, gate_up, down)
    assert (given.float() - expected).abs().max() <= 0.02 * expected.abs().max()


@given(seed=st.integers(0, 2**31), biased=st.booleans(), shape=st.sampled_from([(8, 1, 1, 3), (16, 4, 2, 4), (12, 3, 1, 2)]))
def test_the_native_choice_of_experts_is_the_router_s(seed, biased, shape):
    experts, n_group, topk_group, chosen = shape
    kind = {} if biased else {"model_type": "deepseek_v2", "scoring_func": "softmax", "topk_method": "group_limited_greedy",
                              "norm_topk_prob": False, "num_nextn_predict_layers": 0}
    config = tiny.config(tiny.DEEPSEEK, n_routed_experts=experts, n_group=n_group, topk_group=topk_group,
                         num_experts_per_tok=chosen, **kind)
    router, generator = Router(config, "router"), torch.Generator().manual_seed(seed)
    if biased:
        router.e_score_correction_bias = torch.randn(experts, generator=generator)
    scores = torch.rand(20, experts, generator=generator)
    picked, weights = router._choose(scores)
    plain = router.select(scores)
    assert torch.equal(picked.sort(-1).values, plain.sort(-1).values)
    expected = scores.gather(1, picked)
    expected = expected / expected.sum(-1, keepdim=True) if config.norm_topk_prob else expected
    torch.testing.assert_close(weights, expected * config.routed_scaling_factor)


@given(chosen=st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=40),
       multiple=st.sampled_from([1, 8, 16]))
def test_the_native_layout_is_the_plain_one(chosen, multiple):
    experts = torch.tensor(chosen)
    native, plain = Layout.of(experts, 6, multiple), Layout.of_plain(experts, 6, multiple)
    assert torch.equal(native.counts, plain.counts) and torch.equal(native.slots, plain.slots)
    assert torch.equal(native.tokens, plain.tokens)


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_to_tokens_and_back(dtype):
    """Dispatch and combine against indexing, in float64."""
    layout = Layout.of(torch.rand(50, 6, generator=torch.Generator().manual_seed(2)).topk(3).indices, 6, 8)
    x, weights = random(50, 24, dtype=dtype), random(50, 3, dtype=torch.float32, seed=1)
    agree(lambda x, w: Combine.apply(Dispatch.apply(x, layout), layout, w),
          lambda x, w: torch.einsum("tk,tkd->td", w, x[layout.tokens][layout.slots].view(50, 3, 24)), [x, weights],
          TYPES[dtype])
