"""Checkpoints to export, of every type, with random weights everywhere, tokenizer and template; a run of the tiny recipe."""

import sys
from pathlib import Path

import pytest
import tiny
import torch

from spoutnik.cli import SilentDisplay
from spoutnik.model.weights import save_model
from spoutnik.recipe import stages
from spoutnik.recipe.run import run_recipe
from spoutnik.train import pretrain

sys.path.insert(0, str(Path(__file__).parent))

TINY = Path(__file__).parents[1] / "recipe" / "tiny.yaml"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tokenizer):
    """A function: configuration, type -> folder of a checkpoint (its vocabulary is larger than the tokenizer's)."""
    def make(base: dict, dtype: torch.dtype = torch.bfloat16, **changes) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        save_model(folder, tiny.model(base, **{"vocab_size": 320} | changes), dtype)
        tokenizer.save(folder)
        return folder
    return make


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The tiny recipe up to its cold start."""
    out = tmp_path_factory.mktemp("export") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "train_tokenizer", lambda seed, size: pretrain.train_tokenizer(seed, size, 300))
        run_recipe(TINY, out, SilentDisplay(), until="cold_start")
    return out
