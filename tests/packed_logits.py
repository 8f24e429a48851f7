"""Logits of a native runner for a few fixed sequences. Shared by the tests."""

import torch
from ragged import batch_of, sequences

from spoutnik.engine.runners.native_runner import NativeRunner


def logits_of(runner: NativeRunner) -> torch.Tensor:
    ids, tables = sequences()
    runner.allocate(32)
    return runner.forward(batch_of(ids, [0] * 3, True, tables))[0]
