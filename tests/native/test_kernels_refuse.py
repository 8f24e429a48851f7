"""What would read or write outside of a tensor is refused before a kernel is called, in a sentence that names the argument."""

import subprocess
import sys
from dataclasses import replace

import pytest
import tiny
import torch
from ragged import batch_of, sequences

from spoutnik.engine.quantization.packed_matrix import PackedMatrices, multiply, pack
from spoutnik.engine.runners.base import DecodeBatch
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.native import kernels, library, operations

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here")

HIDDEN, WEIGHT, TARGETS = torch.randn(9, 32), torch.randn(20, 32), torch.arange(9)


def long(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"targets": TARGETS.int()}, TypeError, "targets must be torch.int64"),
    ({"targets": TARGETS + 12}, ValueError, r"targets must lie in \[0, 20\); it has 12 to 20"),
    ({"targets": TARGETS - 1}, ValueError, "targets must lie in"),
    ({"targets": TARGETS[:8]}, ValueError, r"targets must have shape \(rows\)"),
    ({"weight": WEIGHT.bfloat16()}, TypeError, "weight must be torch.float32 on the CPU; it is torch.bfloat16"),
    ({"weight": torch.randn(20, 30)}, ValueError, "weight must have shape"),
    ({"weight": WEIGHT.to("meta")}, TypeError, "meta"),
    ({"hidden": HIDDEN[:, :31], "weight": WEIGHT[:, :31]}, ValueError, "width must be even"),
    ({"hidden": HIDDEN.flatten()}, ValueError, "hidden must have shape"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_log_probs(change, error, words):
    with pytest.raises(error, match=f"log_probs_forward: {words}|{words}"):
        operations.log_probs(**{"hidden": HIDDEN, "weight": WEIGHT, "targets": TARGETS, "temperature": 1.0} | change)


def test_multiply():
    packed = pack([torch.randn(24, 64)], "float32")
    for x, error in ((torch.randn(3, 64).bfloat16(), TypeError), (torch.randn(3, 63), ValueError)):
        with pytest.raises(error, match="multiply: x must be"):
            multiply(packed, x)
    with pytest.raises(ValueError, match="packed: data must be"):
        PackedMatrices(packed.data[:, :100], packed.units, packed.kind, 64, 24)
    with pytest.raises(ValueError, match="packed: bias must be"):
        packed.matrix(0, torch.zeros(23))
    bf12 = pack([torch.randn(70, 300).bfloat16()], "bf12")
    bf12.check_exceptions()
    bf12.data[:, -64 * (bf12.data.shape[1] // 64) // 8:] = 255
    with pytest.raises(ValueError, match="packed: a bf12 matrix"):
        bf12.check_exceptions()


def test_experts_and_their_rows():
    experts = long(0, 5, 2, 3).view(2, 2)
    with pytest.raises(ValueError, match=r"layout: experts must lie in \[0, 5\)"):
        operations.layout(experts, 5, 8)
    rows, weights = torch.randn(16, 8), torch.rand(2, 2)
    with pytest.raises(ValueError, match=r"combine: slots must lie in \[0, 16\)"):
        operations.combine(rows, long(0, 1, 2, 16), weights)
    with pytest.raises(ValueError, match="combine: slots must have shape"):
        operations.combine(rows, long(0, 1, 2), weights)
    with pytest.raises(ValueError, match="contiguous"):
        operations.gather_sum(rows.T, long(0, 1), 1)


def test_attention():
    q, k, v, rotary = torch.randn(9, 4, 8), torch.randn(9, 2, 8), torch.randn(9, 2, 6), torch.randn(9, 2, 4)
    operations.packed_attention(q, None, k, v, rotary, long(4, 5), 1.0, False)
    for lengths in (long(4, 6), long(-1, 10), long(4)):
        with pytest.raises(ValueError, match="attention: lengths must add up to 9"):
            operations.packed_attention(q, None, k, v, rotary, lengths, 1.0, False)
    with pytest.raises(ValueError, match="do not belong together"):
        operations.packed_attention(q, None, k, v, torch.randn(9, 2, 3), long(9), 1.0, False)
    with pytest.raises(ValueError, match="v must have shape"):
        operations.packed_attention(q, None, k, torch.randn(8, 2, 6), rotary, long(9), 1.0, False)
    operations.packed_attention(q, None, k, v, rotary, long(4, 3, 2), 1.0, False, long(0, 0, 2))
    for before in (long(0, 1, 0), long(1, 1, 2), long(0, 0, 1)):  # not right behind it; before it; what follows itself
        with pytest.raises(ValueError, match="what follows a document must stand right behind it"):
            operations.packed_attention(q, None, k, v, rotary, long(4, 3, 2), 1.0, False, before)
    with pytest.raises(ValueError, match="attention: before must"):
        operations.packed_attention(q, None, k, v, rotary, long(4, 5), 1.0, False, long(0, 0, 0))


def test_the_signatures_of_processors_that_this_may_not_be():
    """grouped_matmul.cpp is for AVX-512; its checks are not."""
    x, w, y = (torch.zeros(shape).bfloat16() for shape in ((5, 8), (3, 6, 8), (5, 6)))
    sizes = kernels.sizes(library(), "grouped_matmul", None, x, w, y, long(2, 0, 3))
    assert sizes == {"rows": 5, "in": 8, "experts": 3, "out": 6}
    kernels.sizes(library(), "grouped_matmul_input_grad", None, y, w, x, long(2, 0, 3))
    kernels.sizes(library(), "grouped_matmul_weight_grad", None, y, x, w, long(2, 0, 3))
    kernels.sizes(library(), "matmul_float32", None, x, w[0], torch.zeros(5, 6))
    gate_up, down = torch.zeros(3, 8, 8).bfloat16(), torch.zeros(3, 8, 4).bfloat16()
    picked = torch.zeros(5, 2, dtype=torch.long)
    kernels.sizes(library(), "routed_experts", None, x, picked, torch.zeros(5, 2), gate_up, down, x)
    with pytest.raises(ValueError, match="routed_experts: gate_up must have shape"):
        kernels.sizes(library(), "routed_experts", None, x, picked, torch.zeros(5, 2), w, down, x)
    for counts in (long(2, 0, 4), long(6, -1, 0)):
        with pytest.raises(ValueError, match="grouped_matmul: counts must add up to 5"):
            kernels.sizes(library(), "grouped_matmul", None, x, w, y, counts)


def test_batches():
    ids, tables = sequences()
    runner = NativeRunner.of_model(tiny.model(tiny.DEEPSEEK))
    runner.allocate(32)
    good = batch_of(ids, [0] * 3, True, tables)
    runner.forward(good)
    wrong = {
        "not in the cache": {"block_tables": tables + 30}, "its block": {"contexts": long(0, 100, 0)},
        "pass its blocks": {"contexts": long(-1, 0, 0)}, "not in the vocabulary": {"tokens": good.tokens + 64},
        "do not add up": {"counts": long(3, 50, 16)}, "wanted must be": {"logits_indices": good.logits_indices + 1},
        "counts must be": {"counts": good.counts.int()}, "prompt must be": {"prompt": good.prompt[:2]},
    }
    for words, change in wrong.items():
        with pytest.raises((TypeError, ValueError), match=words):
            runner.forward(replace(good, **change))
    each = torch.arange(2)
    decoding = DecodeBatch(each, each + 3, tables[:2, :2], each, each, each + 50, -torch.ones(2, 1).long(),
                        torch.tensor([[0.9], [1.0], [0.0], [0.0]]).repeat(1, 2))
    assert runner.decode_multi_step(decoding, 16).counts.tolist() == [16, 16]
    for words, change in {"pass its blocks": {"contexts": each + 17}, "vocabulary": {"tokens": each + 63}}.items():
        with pytest.raises(ValueError, match=words):
            runner.decode_multi_step(replace(decoding, **change), 16)


def test_weights_that_are_not_the_model_s():
    runner = NativeRunner.of_model(tiny.model(tiny.DEEPSEEK))
    other = {"0.o": pack([torch.randn(32, 31)], "float32")}
    parts = runner.embedding, runner.rotary, torch.float32
    with pytest.raises(ValueError, match="0.o must be"):
        NativeRunner(runner.config, runner.packed | other, runner.vectors, *parts)
    with pytest.raises(ValueError, match="final_norm must be"):
        NativeRunner(runner.config, runner.packed, runner.vectors | {"final_norm": torch.ones(31)}, *parts)


def test_a_model_cast_to_bfloat16_has_a_table_of_positions_that_can_be_read():
    model = tiny.model(tiny.QWEN).to(torch.bfloat16)
    assert NativeRunner.of_model(model).rotary.dtype == torch.float32


def test_nothing_of_it_is_an_assert():
    script = ("import torch; from spoutnik.native import operations\n"
              "try: operations.log_probs(torch.zeros(2, 4), torch.zeros(3, 4), torch.tensor([0, 3]), 1.0)\n"
              "except ValueError: print('refused')")
    done = subprocess.run([sys.executable, "-O", "-c", script], capture_output=True, text=True)
    assert done.stdout == "refused\n"
