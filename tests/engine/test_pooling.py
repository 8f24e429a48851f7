"""Texts as points."""

import pytest
import tiny
import torch

from spoutnik import SamplingParams
from spoutnik.engine.llm import LLM
from spoutnik.engine.pooling import PIECE
from spoutnik.engine.runners.base import ForwardBatch
from spoutnik.engine.runners.torch_runner import TorchRunner
from spoutnik.errors import RunError, UserError

PROMPTS = [[1, 2, 3], list(range(40)), [5] * 17]


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["deepseek", "qwen2"])
@pytest.mark.parametrize("plain", [False, True], ids=["native", "torch"])
def test_an_embedding_is_the_mean_hidden_state(base, plain):
    model = tiny.model(base)
    embeddings = LLM(TorchRunner(model) if plain else model, max_num_seqs=2, max_num_batched_tokens=16).embed(PROMPTS)
    for prompt, point in zip(PROMPTS, embeddings):
        states = _states(model, prompt)
        torch.testing.assert_close(point, torch.nn.functional.normalize(states.mean(0), dim=0), atol=2e-5, rtol=1e-4)


def _states(model, prompt):
    """(T, D) after the final norm, of the whole prompt at once."""
    runner = TorchRunner(model)
    runner.allocate(8, mtp=False)
    count = len(prompt)
    batch = ForwardBatch(torch.tensor(prompt), torch.tensor([count]), torch.tensor([0]), torch.arange(8)[None],
                         torch.empty(0, dtype=torch.long), torch.tensor([True]))
    return runner.forward(batch, states=True)[1].detach()


def test_blocks_come_back_and_a_full_cache_says_so():
    llm = LLM(tiny.model(tiny.QWEN), max_num_seqs=1)
    pool = llm.core.scheduler.pool
    free = pool.num_free_blocks
    llm.embed([[1] * 50])
    assert pool.num_free_blocks == free
    taken = pool.allocate(pool.num_free_blocks)
    with pytest.raises(RunError, match="blocks of the cache"):
        llm.embed([[1, 2]])
    pool.free(taken)
    with pytest.raises(UserError, match="token id"):
        llm.embed([[64]])


LONG = [number % 60 for number in range(2 * PIECE + 40)]  # three pieces


def long_llm(**changes) -> LLM:
    return LLM(tiny.model(tiny.QWEN, max_position_embeddings=1024), max_num_seqs=4, **changes)


def generated(llm, between=lambda: None):
    """The tokens of one request; `between` is called after each step."""
    request, = llm.requests_of([{"prompt_token_ids": [5, 6, 7]}], SamplingParams(max_tokens=40, ignore_eos=True), 3)
    llm.core.add(request)
    while request.unfinished:
        llm.core.step()
        between()
    return request.samples[0].token_ids


def test_requests_go_on_between_the_pieces_of_an_embedding_and_neither_changes_the_other():
    llm, vectors, sizes = long_llm(), [], []
    llm.core.max_multi_steps = 1
    pieces, forward = llm.embed_in_pieces(LONG), llm.core.runner.forward

    def between():
        try:
            next(pieces)
        except StopIteration as end:
            vectors.append(end.value)

    llm.core.runner.forward = lambda batch, states=False: (sizes.append(len(batch.tokens)), forward(batch, states))[1]
    tokens = generated(llm, lambda: between() if not vectors else None)
    assert sizes[:6] == [3, PIECE, 1, PIECE, 1, 40]
    assert torch.equal(vectors[0], long_llm().embed([LONG])[0]) and tokens == generated(long_llm())


@pytest.mark.parametrize("needs", ["decode", "prompt"])
def test_requests_take_the_cache_back_from_an_embedding(needs):
    """Where they run out of blocks: the embedding says so, nobody is preempted, and no block is lost."""
    llm = long_llm()
    pool = llm.core.scheduler.pool
    other = pool.allocate(pool.num_blocks - 20)
    if needs == "prompt":
        other += pool.allocate(1)
    pieces = llm.embed_in_pieces(LONG)  # needs 19 blocks, of which a request leaves it none
    if needs == "decode":
        request, = llm.requests_of([{"prompt_token_ids": [1, 2]}], SamplingParams(max_tokens=40, ignore_eos=True), 3)
        llm.core.add(request)
        llm.core.step()
        next(pieces)
    else:
        next(pieces)
    assert pool.num_free_blocks == 0
    if needs == "decode":
        while request.unfinished:
            llm.core.step()
        assert request.samples[0].token_ids and llm.core.stats.preemptions == 0
    else:
        generated(llm)
    with pytest.raises(RunError, match="lost its blocks"):
        next(pieces)
    assert pool.num_free_blocks == pool.num_blocks - len(other)
