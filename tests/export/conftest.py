"""Checkpoints to export, of every type, with random weights everywhere, tokenizer and template."""

import sys
from pathlib import Path

import pytest
import tiny
import torch

from spoutnik.model.weights import save_model

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tokenizer):
    """A function: configuration, type -> folder of a checkpoint (its vocabulary is larger than the tokenizer's)."""
    def make(base: dict, dtype: torch.dtype = torch.bfloat16, **changes) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        save_model(folder, tiny.model(base, **{"vocab_size": 320} | changes), dtype)
        tokenizer.save(folder)
        return folder
    return make
