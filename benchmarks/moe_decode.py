"""Decoding one sequence with a mixture of experts of 16 billion parameters, 2.4 of them read for a token (random int4
weights in DeepSeek-V2-Lite's shape), against a dense model of the same attention that reads as many bytes for a token.

    python benchmarks/moe_decode.py [--folder KEEP_THEM_HERE] [--memory 4GB] [--tokens 64] [--rounds 5]

The text is random and sampled at temperature 1, so that every token goes to experts of its own. Wanted: 0.8 of the dense
model's speed. The limit is reading the weights at the read bandwidth measured here. With --memory, the mixture once more with
no more than that for weights and cache, the rest of the experts on disk; the predicted speed stands beside the measured one.
Ten gigabytes of disk, five minutes to make them.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from common import machine, print_result
from torch import Tensor

from spoutnik.engine.bench import decode_rate, weight_bytes
from spoutnik.engine.llm import LLM
from spoutnik.engine.quantization.packed_file import PackedFile, write_packed
from spoutnik.engine.quantization.weight_groups import EMBEDDING, vectors, weight_groups
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.engine.runners.select import bytes_of
from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import published_shapes
from spoutnik.model.presets import preset
from spoutnik.native.bandwidth import read_bandwidth


def shapes() -> dict[str, ModelConfig]:
    """The mixture, and the dense twin: blocks as wide as what one token passes, shared and routed experts."""
    moe = preset("deepseek-v2-lite").config.model_copy(update={"max_position_embeddings": 4096})
    width = (moe.num_experts_per_tok + moe.n_shared_experts) * moe.moe_intermediate_size
    dense = moe.model_copy(update={"n_routed_experts": 0, "n_shared_experts": 0, "num_experts_per_tok": 0, "n_group": 1,
                                   "topk_group": 1, "intermediate_size": width})
    return {"moe": moe, "dense": dense}


class RandomSource:
    """A model's tensors, made when they are asked for: slices of one block of random numbers, each from a place of its own."""

    def __init__(self, config: ModelConfig):
        self.config, self._shapes = config, published_shapes(config)
        self._numbers = (torch.randn(1 << 26, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
        self._place = 0

    def __call__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        if len(shape) == 1:
            return torch.ones(shape)
        size = torch.Size(shape).numel()
        self._place = (self._place + 7919) % (1 << 20)
        numbers = self._numbers[self._place:]
        return numbers.repeat(-(-size // len(numbers)))[:size].view(shape)


def packed(folder: Path, name: str, config: ModelConfig) -> tuple[PackedFile, Tensor]:
    path, source = folder / f"{name}-int4.safetensors", RandomSource(config)
    if not path.exists():
        print(f"Writing random weights to {path} ...", flush=True)
        write_packed(path, weight_groups(source, "int4"), vectors(source))
    return PackedFile.open(path), source(EMBEDDING)


def engine(folder: Path, name: str, memory: int | None = None) -> LLM:
    config = shapes()[name]
    file, embedding = packed(folder, name, config)
    runner = NativeRunner.of_packed(file, config, embedding, torch.bfloat16, memory)
    return LLM(runner, max_num_seqs=1, eos_token_ids=[])


def disk_bandwidth(file: Path, size: int = 256 << 20) -> float:
    """Bytes per second of reading a part of the file that the system does not remember."""
    with open(file, "rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        stream.seek(file.stat().st_size // 2)
        began = time.perf_counter()
        got = len(stream.read(size))
        return got / (time.perf_counter() - began)


def measure(model: LLM, tokens: int, rounds: int) -> dict:
    decode_rate(model, 1, tokens)  # wakes threads and brings the weights into memory
    whole, read = weight_bytes(model)
    return {"rates": [decode_rate(model, 1, tokens) for _ in range(rounds)], "whole": whole, "read": read}


def from_disk(folder: Path, memory: int, tokens: int, rounds: int, whole_rate: float) -> dict:
    """The mixture within `memory` bytes, once its most used experts are there."""
    model = engine(folder, "moe", memory)
    decode_rate(model, 1, 2 * tokens)
    offload = model.core.runner.offload
    disk = disk_bandwidth(folder / "moe-int4.safetensors")
    predicted = 1 / (1 / whole_rate + offload.predicted_seconds(disk))
    rates = [decode_rate(model, 1, tokens) for _ in range(rounds)]
    return {"name": "moe_decode with experts on disk", "ours": statistics.median(rates), "limit": predicted, "unit": "tokens/s",
            "memory_gb": memory / 1e9, "experts_held": offload.slots, "hit_rate": offload.hit_rate, "disk_gb_per_s": disk / 1e9,
            "weights_gb_in_memory": model.core.runner.weights_nbytes / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the models are, or are to be kept for the next time")
    parser.add_argument("--memory", help="also with experts on disk, as 4GB")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as place:
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        bandwidth = read_bandwidth()
        speeds = {name: measure(engine(folder, name), options.tokens, options.rounds) for name in ("dense", "moe")}
        moe, dense = speeds["moe"], speeds["dense"]
        ours = statistics.median(moe["rates"])
        results = [{"name": "moe_decode against dense", "ours": ours, "peer": statistics.median(dense["rates"]),
                    "limit": bandwidth / moe["read"], "unit": "tokens/s", "read_bandwidth": bandwidth / 1e9,
                    "moe_gb": moe["whole"] / 1e9, "moe_mb_per_token": moe["read"] / 1e6,
                    "dense_mb_per_token": dense["read"] / 1e6,
                    "dense_share_of_limit": statistics.median(dense["rates"]) * dense["read"] / bandwidth}]
        if options.memory:
            results.append(from_disk(folder, bytes_of(options.memory), options.tokens, options.rounds, ours))
    print_result(results)


if __name__ == "__main__":
    main()
