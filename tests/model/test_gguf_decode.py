"""The native decoder of GGUF's types against its plain twin, the `gguf` package's dequantization."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import RunError
from spoutnik.model.gguf_decode import read_numbers, read_numbers_plain
from spoutnik.model.gguf_header import TYPES, Placed
from spoutnik.model.weight_file import WeightFile
from spoutnik.native import kernels, library

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LARGEST = 3 << 16  # numbers: several of the kernel's pieces


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A file of random bytes, so that scales are of every size, below the smallest normal one, infinite and not numbers."""
    path = tmp_path_factory.mktemp("gguf") / "noise"
    path.write_bytes(np.random.default_rng(7).integers(0, 256, 4 * LARGEST + 4096, np.uint8).tobytes())
    return WeightFile(path)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """What is not a number has no bits of its own: the processor chooses them."""
    kind = torch.int32 if first.dtype == torch.float32 else torch.int16
    numbers = ~first.isnan()
    return torch.equal(numbers, ~second.isnan()) and torch.equal(first.view(kind)[numbers], second.view(kind)[numbers])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(start=st.integers(0, 4096), blocks=st.one_of(st.integers(1, 70), st.sampled_from([256, 257, 700])))
def test_every_bit_is_the_twin_s(noise, kind, dtype, start, blocks):
    _, block, nbytes = TYPES[kind]
    placed = Placed(kind, (blocks * block,), start, blocks * nbytes)
    native, plain = (torch.empty(blocks * block, dtype=DTYPES[dtype]) for _ in range(2))
    read_numbers(noise, placed, native)
    with np.errstate(all="ignore"):
        read_numbers_plain(noise, placed, plain)
    assert same_bits(native, plain)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_1", "Q6_K"])
def test_tensors_of_several_pieces(noise, kind, dtype):
    """Plain types may end anywhere."""
    _, block, nbytes = TYPES[kind]
    count = LARGEST - (block if block > 1 else 77)
    placed = Placed(kind, (count,), 3, count // block * nbytes)
    native, plain = (torch.empty(count, dtype=DTYPES[dtype]) for _ in range(2))
    read_numbers(noise, placed, native)
    with np.errstate(all="ignore"):
        read_numbers_plain(noise, placed, plain)
    assert same_bits(native, plain)


def test_floats_become_halves_as_torch_rounds_them(tmp_path):
    """Every half, what lies in the middle between two, and the floats beside these, of both signs."""
    halves = torch.arange(0x7c01, dtype=torch.int16).view(torch.float16).float()
    middles = (halves[:-2] + halves[1:-1]) / 2
    bits = torch.cat([numbers.view(torch.int32) + step for numbers in (halves, middles, torch.tensor([65520.0]))
                      for step in (-1, 0, 1)])
    numbers = torch.cat([bits, torch.arange(0, 1 << 31, 99991, dtype=torch.int64).int()]).view(torch.float32)
    numbers = torch.cat([numbers, -numbers])
    (tmp_path / "floats").write_bytes(numbers.numpy().tobytes())
    target = torch.empty(len(numbers), dtype=torch.float16)
    read_numbers(WeightFile(tmp_path / "floats"), Placed("F32", (len(numbers),), 0, numbers.nbytes), target)
    assert same_bits(target, numbers.half())


def test_all_halves_are_what_torch_makes_of_them(tmp_path):
    halves = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)
    (tmp_path / "halves").write_bytes(halves.numpy().tobytes())
    file, placed = WeightFile(tmp_path / "halves"), Placed("F16", (1 << 16,), 0, 2 << 16)
    for dtype in DTYPES.values():
        target = torch.empty(1 << 16, dtype=dtype)
        read_numbers(file, placed, target)
        assert same_bits(target, halves.view(torch.float16).to(dtype))


def test_a_file_that_ends_too_soon_is_told(tmp_path):
    (tmp_path / "short").write_bytes(bytes(100))
    placed = Placed("Q8_0", (96,), 0, 102)
    with pytest.raises(RunError, match="short: became shorter while it was read"):
        read_numbers(WeightFile(tmp_path / "short"), placed, torch.empty(96))


def test_parts_of_blocks_and_unknown_types_are_not_read(noise):
    """The kernel's own check, behind those of the header."""
    for kind, count in ((8, 33), (12, 128), (4, 32), (99, 32)):
        assert kernels.call(library(), "read_numbers", torch.float32, noise.fileno(), 0, kind, torch.empty(count), 2) == 22
