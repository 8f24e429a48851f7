"""Packed weights: the form, the products, the quantization, the file, and experts that stay on disk."""

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_reference import quantized_rows, unpack
from ragged import batch_of, plain_logits, sequences

from spoutnik.engine.quantization import packed_cache
from spoutnik.engine.quantization.packed_file import PackedFile
from spoutnik.engine.quantization.packed_matrix import KINDS, multiply, pack
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.errors import RunError
from spoutnik.model.weights import save_model
from spoutnik.native import library

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here: the plain twin is what runs")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(out=st.integers(1, 150), inputs=st.integers(1, 100), rows=st.integers(1, 40), kind=st.sampled_from(list(KINDS)),
       scale=st.sampled_from([1e-6, 0.02, 30.0]), half=st.booleans())
def test_products_are_those_of_the_unpacked_weights(out, inputs, rows, kind, scale, half):
    weight = random(out, inputs, seed=out) * scale
    weight = weight.bfloat16() if half else weight
    x = random(rows, inputs, seed=inputs)
    packed = pack([weight, weight + scale], kind)
    meant = unpack(packed)
    if kind == "float32" or kind in ("bfloat16", "bf12") and half:
        assert torch.equal(meant[0], weight.float())
    seen = {"float32": x, "bfloat16": x.bfloat16().float(), "bf12": x.bfloat16().float()}.get(kind, quantized_rows(x))
    for number in range(2):
        y = multiply(packed, x, number)
        torch.testing.assert_close(y, seen @ meant[number].T, atol=3e-5 * scale * inputs ** 0.5, rtol=1e-4)
        alone = torch.cat([multiply(packed, row[None], number, threads=2) for row in x])
        assert torch.equal(y, alone)


@settings(max_examples=40, deadline=None)
@given(out=st.integers(65, 200), inputs=st.integers(100, 300), rows=st.integers(1, 20), odd=st.sampled_from([0, 1e-3, 0.05]),
       seed=st.integers(0, 9))
def test_bf12_weights_are_the_same_weights(out, inputs, rows, odd, seed):
    weight = random(out, inputs, seed=seed).bfloat16()
    strange = random(out, inputs, seed=seed + 1).mul(1e3).exp2().bfloat16()  # of all sizes: zero, denormal, infinite
    weight = torch.where(torch.rand(out, inputs, generator=torch.Generator().manual_seed(seed)) < odd, strange, weight)
    bf12, plain = pack([weight, weight.neg()], "bf12"), pack([weight, weight.neg()], "bfloat16")
    assert bf12.kind == KINDS["bf12"] and bf12.nbytes < 0.9 * plain.nbytes
    assert torch.equal(unpack(bf12).bfloat16().view(torch.int16), torch.stack([weight, weight.neg()]).view(torch.int16))
    x = random(rows, inputs, seed=seed)
    for number in range(2):
        assert torch.equal(multiply(bf12, x, number).nan_to_num(), multiply(plain, x, number).nan_to_num())


@pytest.mark.parametrize("rows", [1, 6, 17, 61])
def test_bf12_weights_with_more_inputs_than_are_unpacked_at_a_time(rows):
    weight, x = random(70, 4500).bfloat16(), random(rows, 4500, seed=1)
    weight[::7, ::50] *= 1e6  # exceptions in every part
    bf12, plain = pack([weight], "bf12"), pack([weight], "bfloat16")
    assert bf12.kind == KINDS["bf12"] and torch.equal(unpack(bf12), weight.float()[None])
    assert torch.equal(multiply(bf12, x), multiply(plain, x))
    assert torch.equal(multiply(plain, x), torch.cat([multiply(plain, row[None]) for row in x]))


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_that_is_not_contiguous_is_read_from_a_copy_that_lives(kind):
    weight, x = random(24, 4096) * 0.02, random(4096, 3, seed=1).T
    assert not x.is_contiguous()
    packed = pack([weight], kind)
    for _ in range(20):  # freed memory is often still intact
        assert torch.equal(multiply(packed, x), multiply(packed, x.clone(memory_format=torch.contiguous_format)))


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 1e-38])
def test_a_group_that_cannot_be_quantized_leaves_other_rows_as_they_are(kind, odd):
    weight, x = random(24, 64), random(3, 64, seed=1)
    bad = x.clone()
    bad[1, :32] = odd
    packed = pack([weight], kind)
    assert torch.equal(multiply(packed, x)[[0, 2]], multiply(packed, bad)[[0, 2]])
    assert len(pack([torch.where(weight > 1, odd, weight)], kind)) == 1  # damaged weights show in the logits


def test_weights_of_all_sizes_stay_plain():
    bits = torch.randint(-2**15, 2**15, (100, 100), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    assert pack([bits.view(torch.bfloat16)], "bf12").kind == KINDS["bfloat16"]


def q8_0(weight: torch.Tensor) -> torch.Tensor:
    """llama.cpp's format, by its definition: scales amax / 127 in half precision over 32 inputs."""
    groups = weight.unflatten(1, (-1, 32))
    scales = (groups.abs().amax(-1, keepdim=True) / 127)
    return ((groups / scales).round() * scales.half().float()).flatten(1)


def q4_1(weight: torch.Tensor) -> torch.Tensor:
    """llama.cpp's 5 bits a weight: 16 steps from the minimum of a group to its maximum, step and minimum in half precision."""
    groups = weight.unflatten(1, (-1, 32))
    low = groups.amin(-1, keepdim=True)
    scales = (groups.amax(-1, keepdim=True) - low) / 15
    return (((groups - low) / scales).round().clamp(0, 15) * scales.half().float() + low.half().float()).flatten(1)


def relative_error(weight: torch.Tensor, kind: str) -> float:
    return float((unpack(pack([weight], kind))[0] - weight).norm() / weight.norm())


@pytest.mark.parametrize(("kind", "theirs"), [("int8", q8_0), ("int4", q4_1)])
def test_the_error_is_no_larger_than_llama_cpp_s(kind, theirs):
    weight = random(256, 512) * 0.02
    assert relative_error(weight, kind) <= (theirs(weight) - weight).norm() / weight.norm()


def test_weights_of_4_bits_take_at_most_4_6_bits_and_lose_little():
    """7.1 % of normal weights; with one scale for a range around zero, nine of them tried, it was 8.2 %."""
    weight = random(256, 576)
    assert 8 * pack([weight], "int4").nbytes / weight.numel() <= 4.6
    assert relative_error(weight, "int4") < 0.0725


@pytest.mark.parametrize("low", [0.0, -0.3, -0.55, -1.0])
def test_a_group_that_lies_on_one_side_of_zero_uses_all_numbers(low):
    weight = torch.rand(32, 64, generator=torch.Generator().manual_seed(0)) + low
    step = float(weight.unflatten(1, (-1, 32)).clamp(max=0).amin(-1).neg().add(
        weight.unflatten(1, (-1, 32)).clamp(min=0).amax(-1)).mean()) / 15
    assert relative_error(weight, "int4") < 0.32 * step / float(weight.square().mean().sqrt())  # 1 / sqrt(12) and a little


def test_weights_from_16_steps_are_copied():
    """What a file in Q4_1 or Q4_K holds is packed almost as it is."""
    steps = torch.randint(0, 16, (64, 96), generator=torch.Generator().manual_seed(0)).float()
    steps[:, ::32], steps[:, 1::32] = 0, 15  # as every group has its minimum and its maximum
    scales = random(64, 3).abs().add(0.5).repeat_interleave(32, 1)
    lows = torch.rand(64, 3, generator=torch.Generator().manual_seed(1)).mul(15).repeat_interleave(32, 1)
    assert relative_error((steps - lows) * scales, "int4") < 0.01


def test_rows_of_all_sizes_have_scales_of_their_own():
    weight = random(64, 96) * torch.logspace(-3, 3, 64)[:, None]
    whole = unpack(pack([weight], "int4"))[0]
    assert ((whole - weight).norm(dim=1) < 0.09 * weight.norm(dim=1)).all()


def test_the_head_and_the_absorbed_halves_have_8_bits(folder):
    packed = NativeRunner.of_folder(folder, torch.float32, "int4").packed
    kinds = {key: group.kind for key, group in packed.items()}
    eight = {key for key, kind in kinds.items() if kind == KINDS["int8"]}
    assert eight == {key for key in kinds if key == "head" or ".absorb_" in key}
    assert all(kind in (KINDS["int4"], KINDS["float32"]) for key, kind in kinds.items() if key not in eight)


def test_zeros_stay_zeros():
    for kind in KINDS:
        assert not unpack(pack([torch.zeros(20, 40)], kind)).any()


@pytest.fixture()
def folder(tmp_path):
    save_model(tmp_path, tiny.model(tiny.DEEPSEEK), torch.float32)
    return tmp_path


def logits_of(runner: NativeRunner, times: int = 1) -> torch.Tensor:
    ids, tables = sequences()
    runner.allocate(32)
    return torch.stack([runner.forward(batch_of(ids, [0] * 3, True, tables))[0] for _ in range(times)])


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantized_weights_are_made_once(folder, quantize, monkeypatch):
    heard = []
    first = NativeRunner.of_folder(folder, torch.float32, quantize, progress=lambda done, total: heard.append((done, total)))
    assert heard[-1][0] == heard[-1][1]
    made, = (folder / "spoutnik-packed").iterdir()
    monkeypatch.setattr(packed_cache, "write_packed", lambda *a: pytest.fail("made again"))
    again = NativeRunner.of_folder(folder, torch.float32, quantize)
    assert torch.equal(logits_of(first), logits_of(again))
    ids, _ = sequences()
    expected = plain_logits(tiny.model(tiny.DEEPSEEK), ids)
    assert (logits_of(first)[0] - expected).norm() < {"int8": 0.05, "int4": 0.5}[quantize] * expected.norm()
    made.write_bytes(made.read_bytes()[:-7])
    with pytest.raises(RunError, match="damaged"):
        NativeRunner.of_folder(folder, torch.float32, quantize)


def test_another_model_in_the_folder_is_packed_anew(folder):
    first = logits_of(NativeRunner.of_folder(folder, torch.float32, "int8"))
    save_model(folder, tiny.model(tiny.DEEPSEEK, seed=5), torch.float32)
    assert not torch.equal(first, logits_of(NativeRunner.of_folder(folder, torch.float32, "int8")))
    assert len(list((folder / "spoutnik-packed").iterdir())) == 2


def test_a_folder_that_cannot_be_written_leaves_them_in_the_cache(folder, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("os.access", lambda *a: False)
    assert library() is not None
    NativeRunner.of_folder(folder, torch.float32, "int4")
    assert not (folder / "spoutnik-packed").exists() and list((cache / "spoutnik" / "packed").iterdir())


@pytest.mark.parametrize("quantize", [None, "int4"])
def test_experts_on_disk_give_the_same_numbers(folder, quantize):
    whole = NativeRunner.of_folder(folder, torch.float32, quantize)
    expected = logits_of(whole)[0]
    experts = [packed for key, packed in whole.packed.items() if ".experts_" in key]
    rest = whole.weights_nbytes - sum(packed.nbytes for packed in experts)
    pair = sum(packed.data.shape[1] for packed in experts[:2])
    runner = NativeRunner.of_folder(folder, torch.float32, quantize, memory=int((rest + 5 * pair) / 0.9) + 8)
    assert runner.offload is not None and runner.offload.slots == 5
    assert runner.weights_nbytes == rest + 5 * pair
    for logits in logits_of(runner, 40):  # experts come and go meanwhile
        assert torch.equal(logits, expected)
    assert 0 < runner.offload.hit_rate < 1 and len(runner.offload.held) == 5
    assert runner.offload.predicted_seconds(1e9) > 0


def test_the_file_says_what_it_is(folder):
    NativeRunner.of_folder(folder, torch.float32, "int4")
    path, = (folder / "spoutnik-packed").iterdir()
    file = PackedFile.open(path)
    assert file.groups["0.first"][0] == KINDS["int4"] and file.groups["1.router"][0] == KINDS["float32"]
    assert "final_norm" in file.vectors()
