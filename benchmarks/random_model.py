"""Models with random weights for the benchmarks of speed: a checkpoint, the same as a GGUF file, and requests to serve."""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from spoutnik.export import gguf_file
from spoutnik.export.model_card import Provenance
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import published_shapes
from spoutnik.model.presets import preset

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
