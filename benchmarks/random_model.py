"""Models with random weights for the benchmarks of speed: a checkpoint, the same as a GGUF file, and requests to serve."""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from spoutnik.export import gguf_file
from spoutnik.export.gguf_layout import gguf_tensors
from spoutnik.export.gguf_metadata import write_metadata
from spoutnik.export.model_card import Provenance
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.config import ModelConfig
from spoutnik.model.gguf_decode import PLAIN
from spoutnik.model.gguf_header import TYPES
from spoutnik.model.layout import published_shapes
from spoutnik.model.presets import preset

_SCALES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2),
           "Q6_K": (208,)}  # where a block's halves lie
QWEN = "deepseek-r1-distill-qwen-1.5b"  # Qwen2-1.5B's shape


def write_checkpoint(folder: Path, config: ModelConfig | None = None, scale: float = 0.02) -> int:
    """Random bfloat16 weights under the published names, norms of 1, no tokenizer; returns the file's bytes.

    config: of the 1.5B model where it is None. scale: standard deviation of the weights.
    """
    config = config or preset(QWEN).config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.published()))
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.ones(shape, dtype=torch.bfloat16) if name.endswith("norm.weight")
               else (torch.randn(shape, generator=generator) * scale).bfloat16()
               for name, shape in published_shapes(config).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return (folder / "model.safetensors").stat().st_size


def write_gguf(folder: Path, path: Path) -> None:
    """The checkpoint in `folder` for llama.cpp, in bfloat16, without a vocabulary."""
    gguf_file.write_file(path, Checkpoint.open(folder), None, "bf16", Provenance("random weights", "mit"))


def write_blocks(path: Path, kind: str) -> None:
    """A GGUF file of 271 million random weights, as a llama without a vocabulary; its matrices are of any type that is read,
    also of those that the `gguf` package cannot write."""
    config = ModelConfig(model_type="llama", vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=4,
                         num_attention_heads=16, num_key_value_heads=16, tie_word_embeddings=True)
    draw, (number, block, nbytes) = np.random.default_rng(0), TYPES[kind]
    writer = gguf.GGUFWriter(path, config.model_type)
    write_metadata(writer, config)
    writer.add_tokenizer_model("no_vocab")
    for tensor in gguf_tensors(config):
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, np.ones(tensor.shape, np.float32))
            continue
        rows, width = tensor.shape
        content = draw.integers(0, 256, (rows, width // block, nbytes), np.uint8)
        if kind in PLAIN:
            numbers = torch.from_numpy(draw.standard_normal((rows, width), np.float32) * 0.02).to(PLAIN[kind])
            content = numbers.view(torch.uint8).numpy()
        for place in _SCALES.get(kind, ()):
            content[..., place:place + 2] = np.frombuffer(np.float16(2e-3).tobytes(), np.uint8)
        writer.add_tensor(tensor.name, content.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType(number))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="where the checkpoint is, or is to be kept for the "
                        "next time [default: made in a temporary folder]")


@contextmanager
def checkpoint(folder: Path | None, config: ModelConfig | None = None) -> Iterator[Path]:
    """The folder of --model, filled where it is empty, or a temporary one."""
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        if not (place / "config.json").exists():
            print(f"Writing random weights to {place} ...", flush=True)
            write_checkpoint(place, config)
        yield place


@dataclass(frozen=True)
class Request:
    prompt: list[int]
    tokens: int


def mixed_requests(count: int, vocab_size: int, scale: float = 1.0, seed: int = 0) -> list[Request]:
    """Prompts of 16 to 512 random ids, 32 to 256 tokens to generate; lengths times `scale`."""
    draw = random.Random(seed)
    lengths = [(round(scale * draw.randint(16, 512)), round(scale * draw.randint(32, 256))) for _ in range(count)]
    return [Request([draw.randrange(vocab_size) for _ in range(max(1, prompt))], max(1, tokens))
            for prompt, tokens in lengths]
