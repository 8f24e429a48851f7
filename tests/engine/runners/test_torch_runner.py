"""The torch runner: blocks are a way to store, not to compute; padded steps are the same steps."""

import pytest
import tiny
import torch

from spoutnik.engine.runners.base import ForwardBatch
from spoutnik.engine.runners.torch_runner import TorchRunner, inference_copy
from spoutnik.model.packing import PackedSequences

BASES = pytest.mark.parametrize("base", list(tiny.ALL.values()), ids=list(tiny.ALL))


def runner_of(base, **options) -> TorchRunner:
    runner = TorchRunner(inference_copy(tiny.model(base)), **options)
    runner.allocate(12, mtp=runner.model.mtp is not None)
    return runner


def batch(parts: list[tuple[list[int], int, list[int], bool]]) -> ForwardBatch:
    """(new tokens, context, blocks, prompt) of each sequence; all logits are returned."""
    tokens = [t for new, *_ in parts for t in new]
    width = max(len(blocks) for _, _, blocks, _ in parts)
    return ForwardBatch(torch.tensor(tokens), torch.tensor([len(new) for new, *_ in parts]), torch.tensor([c for _, c,
                                                                                                           *_ in parts]),
                        torch.tensor([blocks + [0] * (width - len(blocks)) for _, _, blocks, _ in parts]),
                        torch.arange(len(tokens)), torch.tensor([prompt for *_, prompt in parts]))


def whole(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


@BASES
@pytest.mark.parametrize("padded", [False, True])
def test_pieces_in_scattered_blocks_give_the_logits_of_the_whole(base, padded):
    runner = runner_of(base, padded=padded)
    first, second, third = (tiny.tokens(n, seed=n).tolist() for n in (30, 21, 9))
    a, b, c = [7, 2], [5, 0], [9]
    got = [runner.forward(batch(part))[0] for part in (
        [(first[:20], 0, a, True), (second[:3], 0, b, True)],
        [(first[20:21], 20, a, False), (second[3:18], 3, b, True), (third[:8], 0, c, True)],
        [(first[21:22], 21, a, False), (second[18:19], 18, b, False), (third[8:], 8, c, False)],
        [(first[22:25], 22, a, False), (second[19:], 19, b, False)],
        [(first[25:], 25, a, False)])]
    mine = {"first": [got[0][:20], got[1][:1], got[2][:1], got[3][:3], got[4]],
            "second": [got[0][20:], got[1][1:16], got[2][1:2], got[3][3:]], "third": [got[1][16:], got[2][2:]]}
    for name, ids in (("first", first), ("second", second), ("third", third)):
        torch.testing.assert_close(torch.cat(mine[name]), whole(runner.model, ids), atol=2e-5, rtol=1e-4)


def test_copied_blocks_hold_the_same():
    runner = runner_of(tiny.DEEPSEEK)
    ids = tiny.tokens(25).tolist()
    runner.forward(batch([(ids[:20], 0, [1, 4], True)]))
    runner.copy_blocks(torch.tensor([4, 1]), torch.tensor([6, 3]))
    runner.forward(batch([(ids[:16], 0, [4, 5], True)]))  # what the first ones held is gone
    logits, _ = runner.forward(batch([(ids[20:], 20, [3, 6], False)]))
    torch.testing.assert_close(logits, whole(runner.model, ids)[20:], atol=2e-5, rtol=1e-4)


def test_drafts_are_the_module_s_over_the_whole():
    runner = runner_of(tiny.DEEPSEEK)
    model, ids = runner.model, tiny.tokens(31)
    got, hidden_of = [], []
    for start, end, prompt in ((0, 18, True), (18, 24, True), (24, 25, False), (25, 28, False), (28, 30, False)):
        part = batch([(ids[start:end].tolist(), start, [3, 8], prompt)])
        _, hidden = runner.forward(part)
        logits, states = runner.draft(part, hidden, ids[start + 1:end + 1])
        got.append(logits)
        hidden_of.append(states)
    packing = PackedSequences.of([30])
    with torch.no_grad():
        ahead = model.mtp.predict(model.hidden(ids[:30], packing), model.embed(ids[1:]), model.rotary[packing.position_ids],
                                  packing, None)
        torch.testing.assert_close(torch.cat(got), model.logits(ahead), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat(hidden_of), ahead, atol=2e-5, rtol=1e-4)


def test_only_what_is_wanted_is_asked_of_the_head():
    runner = runner_of(tiny.QWEN)
    ids = tiny.tokens(10).tolist()
    part = batch([(ids, 0, [0], True)])
    part.logits_indices = torch.tensor([3, 9])
    logits, hidden = runner.forward(part)
    torch.testing.assert_close(logits, whole(runner.model, ids)[[3, 9]], atol=2e-5, rtol=1e-4)
    assert hidden.shape == (0, 32)


def test_a_block_s_bytes():
    runner = runner_of(tiny.QWEN)
    assert runner.bytes_per_block() == sum(store.nbytes for store in runner.layers) // 13


def test_a_frozen_model_in_its_compute_type_is_its_own_copy():
    model = tiny.model(tiny.DEEPSEEK)
    assert inference_copy(model) is not model
    frozen = model.requires_grad_(False)
    assert inference_copy(frozen) is frozen
    frozen.compute_dtype = torch.bfloat16
    copy = inference_copy(frozen)
    assert copy.lm_head.weight.dtype == torch.bfloat16
    for name, router in copy.routers.items():
        assert torch.equal(router.e_score_correction_bias, model.routers[name].e_score_correction_bias)


@pytest.mark.cuda
def test_recorded_steps_are_the_eager_ones(gpu):
    model = tiny.model(tiny.QWEN).requires_grad_(False)
    eager, recorded = TorchRunner(model), TorchRunner(tiny.model(tiny.QWEN).requires_grad_(False).to(gpu), padded=True)
    ids = tiny.tokens(40).tolist()
    for runner in (eager, recorded):
        runner.allocate(12)
        runner.forward(batch([(ids[:9], 0, [3, 1], True)]))
    for place in range(9, 30):
        part = batch([(ids[place:place + 1], place, [3, 1], False)])
        torch.testing.assert_close(recorded.forward(part)[0], eager.forward(part)[0], atol=1e-4, rtol=1e-3)
