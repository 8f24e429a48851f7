"""Texts as points."""

import pytest
import tiny
import torch

from spoutnik.engine.llm import LLM
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
