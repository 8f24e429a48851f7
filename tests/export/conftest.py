"""Checkpoints to export, of every type, with random weights everywhere, tokenizer and template."""

import sys
from pathlib import Path

import pytest
import tiny
import torch

from spoutnik.model.adapter_file import Adapter, write_adapter
from spoutnik.model.lora import LoraConfig, adapters_of, add_lora
from spoutnik.model.weights import load_model, save_model

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


@pytest.fixture(scope="module")
def adapter_of(checkpoint, tmp_path_factory):
    """A function: configuration, size of B -> a base's folder, its adapter's, and the model with the adapter."""
    def make(base=tiny.QWEN, size=0.05, **options):
        folder, path = checkpoint(base), tmp_path_factory.mktemp("adapter")
        model = add_lora(load_model(folder), LoraConfig(4, 8.0, **options), torch.Generator().manual_seed(0))
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                torch.nn.init.normal_(parameter, 0, size, generator=torch.Generator().manual_seed(1))
        write_adapter(path, Adapter(adapters_of(model), "org/base"))
        return folder, path, model
    return make
