"""Replaying the sampler's experts: its tokens go where it sent them, the gradient is the trainer's, and differences are
counted."""

import pytest
import tiny
import torch

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.errors import RunError
from spoutnik.model.cache import Cache
from spoutnik.model.moe import Router, RouterTrace
from spoutnik.model.packing import PackedSequences
from spoutnik.train.grpo import GRPOSettings, Rollouts, policy_batches, policy_gradient
from spoutnik.train.losses import token_log_probs
from spoutnik.train.routing import UNKNOWN, document_routes, router_names, stream_routes

SETTINGS = GRPOSettings(steps=1, learning_rate=0.01, max_tokens=12, max_mismatch_kl=10.0)
PROMPT, NEW = 5, 12


def model(dtype=torch.float32):
    network = tiny.model(tiny.DEEPSEEK)
    network.compute_dtype = dtype
    return network


@torch.no_grad()
def sample(sampler, seed: int) -> CompletionOutput:
    """A completion from the cache, token by token, with the experts of every token that was computed."""
    routers = [module for name, module in sampler.named_modules() if isinstance(module, Router) and name.startswith("layers.")]
    record = {router.name: [] for router in routers}
    hooks = [router.register_forward_hook(lambda router, _, out: record[router.name].append(out[0])) for router in routers]
    generator, cache = torch.Generator().manual_seed(seed), Cache.empty(sampler.config, 1, 64, sampler.compute_dtype)
    state = sampler.prefill(tiny.tokens(PROMPT), PackedSequences.of([PROMPT]), cache)
    ids, logprobs = [], []
    for _ in range(NEW):
        log_p = sampler.logits(state).log_softmax(-1)[0]
        ids.append(int(torch.multinomial(log_p.exp(), 1, generator=generator)))
        logprobs.append(float(log_p[ids[-1]]))
        if len(ids) < NEW:
            state = sampler.decode(torch.tensor([ids[-1]]), cache)
    for hook in hooks:
        hook.remove()
    routes = torch.stack([torch.cat(record[name]) for name in router_names(sampler)], dim=1)
    assert routes.shape == (PROMPT + NEW - 1, 2, 3)
    return CompletionOutput(token_ids=ids, logprobs=logprobs, finish_reason="length", routed_experts=routes)


def rollouts(sampler, count: int = 6) -> Rollouts:
    group = [sample(sampler, seed) for seed in range(count)]
    return Rollouts([tiny.tokens(PROMPT).tolist()], [group], torch.arange(float(count))[None], {})


def gradient(policy, rolled: Rollouts):
    parameters = [p for n, p in policy.named_parameters() if not n.startswith("mtp.")]
    batches, _ = policy_batches(rolled, SETTINGS, routers=router_names(policy))
    return policy_gradient(policy, batches, parameters, SETTINGS), batches


def test_a_sampler_that_computes_as_the_trainer_changes_nothing():
    policy = model()
    rolled = rollouts(policy)
    replayed, _ = gradient(policy, rolled)
    assert replayed.metrics["routes_differ"] == replayed.metrics["tokens_differ"] == 0.0
    for completion in rolled.groups[0]:
        completion.routed_experts = None
    own, batches = gradient(policy, rolled)
    assert "routes_differ" not in own.metrics and not batches[0].routes
    for a, b in zip(replayed.gradients, own.gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_sampler_in_bfloat16_chooses_otherwise_and_is_followed():
    policy = model()
    rolled = rollouts(model(torch.bfloat16), 24)
    replayed, batches = gradient(policy, rolled)
    metrics = replayed.metrics
    assert 0 < metrics["routes_differ"] < metrics["tokens_differ"] < 1
    taken = differing = 0
    for batch in batches:
        trace = RouterTrace(replayed=batch.routes, keep_choices=True)
        policy.hidden(batch.packed.input_ids, batch.packed.sequences, trace)
        known = (batch.routes["layers.1"] >= 0).all(-1)
        for name, routes in batch.routes.items():
            assert torch.equal(trace.choices[name][known], routes[known])  # weighed by the trainer, chosen by the sampler
            assert (trace.choices[name][~known] >= 0).all()  # of padding and last tokens the router's own
        differing += int(torch.stack(list(trace.differing.values())).sum())
        taken += 2 * int(known.sum())
    assert taken == 2 * 24 * (PROMPT + NEW - 1) and metrics["routes_differ"] == pytest.approx(differing / taken)
    assert mismatch(policy, batches, True) < mismatch(policy, batches, False)
    router = dict(policy.named_parameters())["layers.1.mlp.gate.weight"]
    assert replayed.gradients[[id(p) for p in policy.parameters()].index(id(router))].abs().sum() > 0  # routers learn


@torch.no_grad()
def mismatch(policy, batches, replay: bool) -> float:
    """The greatest difference of a token's log-probability between sampler and trainer."""
    worst = 0.0
    for batch in batches:
        trace = RouterTrace(replayed=batch.routes if replay else None)
        hidden = policy.hidden(batch.packed.input_ids, batch.packed.sequences, trace)
        log_probs, _ = token_log_probs(hidden[batch.packed.positions], policy.lm_head.weight, batch.packed.targets)
        worst = max(worst, float((log_probs - batch.sampler_log_probs).abs().max()))
    return worst


def test_a_record_that_does_not_fit_is_refused():
    routes = torch.zeros(9, 2, 3, dtype=torch.long)
    assert document_routes(routes, 11, 2)[9:].eq(UNKNOWN).all()
    for tokens, layers in ((8, 2), (11, 1)):
        with pytest.raises(RunError, match="Sample with the model that is trained"):
            document_routes(routes, tokens, layers)
    rolled = rollouts(model(), 4)
    rolled.groups[0][2].routed_experts = None
    with pytest.raises(RunError, match="the experts of 3 completions of 4"):
        policy_batches(rolled, SETTINGS, routers=["layers.1", "layers.2"])


def test_the_stream_has_its_documents_routes_in_their_order():
    policy = model()
    batches, _ = policy_batches(rollouts(policy, 4), SETTINGS, routers=router_names(policy))
    routes = [torch.full((3 + i, 2, 3), i) for i in range(4)]
    for batch in batches:
        packed = batch.packed
        stream = stream_routes(routes, packed, ["a", "b"])
        expected = [i for i in packed.documents for _ in range(3 + i)] + [UNKNOWN] * packed.sequences.padding
        assert stream["a"][:, 0].tolist() == expected and stream["b"].shape == (len(expected), 3)
