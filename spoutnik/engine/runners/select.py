"""Selects the runner of a model and the size of its cache."""

from pathlib import Path

import torch

from spoutnik.engine.quantization.packed_file import Progress
from spoutnik.engine.runners.base import BLOCK_SIZE, Runner
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.engine.runners.torch_runner import TorchRunner, inference_copy
from spoutnik.errors import UserError
from spoutnik.hardware import available_memory
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import adapters_of, merged_copy
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores
from spoutnik.units import parse_size

QUANTIZATIONS = ("int8", "int4")
# One torch thread for native passes and small models: torch's operations there are so small that waiting for a second thread
# takes longer than the work (512 rows of the nano model: 9,000 tokens/s with two, 30,000 with one), and a torch thread that
# still spins when the native ones start takes a core from them.
_SMALL = 200_000_000  # bytes of weights
_CACHE_SHARE = {"cpu": 0.25, "cuda": 0.85}  # of free memory, where no limit is given


def make_runner(model: Transformer | Path, quantize: str | None = None, memory: int | None = None,
                dtype: torch.dtype | None = None, device: str = "cpu", progress: Progress | None = None) -> Runner:
    """The fastest runner for the model.

    Args:
        dtype, device: of a folder's model (activations and cache).
        memory: limit for weights and cache together, bytes.
        progress: called with (bytes done, bytes in all) during quantization.
    Raises:
        UserError: `quantize` is unknown, or no runner here supports it.
    """
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise UserError(f"quantize = {quantize!r}: unknown. Choose int8 or int4, or leave it out.")
    if isinstance(model, Transformer):
        if adapters_of(model):
            model = merged_copy(model, model.compute_dtype)
        config, device, dtype = model.config, model.embed_tokens.weight.device, model.compute_dtype
    else:
        config = ModelConfig.load(model)
    if NativeRunner.supports(config, device, dtype):
        runner = (NativeRunner.of_model(model, quantize) if isinstance(model, Transformer) else
                  NativeRunner.of_folder(model, dtype, quantize, memory, progress))
        torch.set_num_threads(1)
        return runner
    if quantize is not None:
        raise UserError(f"quantize = {quantize!r}: needs a CPU and the native kernels (a C++ compiler). Leave it out.")
    if not isinstance(model, Transformer):
        model = load_model(model, None, dtype, device=device).requires_grad_(False)
    runner = TorchRunner(inference_copy(model))
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1 if runner.weights_nbytes <= _SMALL else cores())
    return runner


def num_cache_blocks(runner: Runner, memory: int | None, max_num_seqs: int, mtp: bool) -> int:
    """Enough blocks for max_num_seqs of the longest sequences, or as many as memory allows."""
    config = runner.config
    per_block = runner.bytes_per_block() * (config.num_hidden_layers + mtp) // config.num_hidden_layers
    most = max_num_seqs * -(-config.max_position_embeddings // BLOCK_SIZE)
    if memory is None:
        return max(min(most, int(_default_cache_bytes(runner.device) // per_block)), 1)
    if memory - runner.weights_nbytes < per_block:
        raise UserError(f"memory = {memory:,} bytes: the weights alone take {runner.weights_nbytes:,}, which leaves no room "
                        f"for a block of the cache ({per_block:,}). Give more, quantize the weights, or take a smaller model.")
    return min(most, (memory - runner.weights_nbytes) // per_block)


def _default_cache_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] * _CACHE_SHARE["cuda"]
    return available_memory() * _CACHE_SHARE["cpu"]


def bytes_of(memory: str | int | None) -> int | None:
    """Bytes of "16GB", "512MiB" or a number; UserError for anything else."""
    if memory is None or isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    size = parse_size(str(memory))
    if size is None:
        raise UserError(f"memory = {memory!r}: is not an amount of memory. Write 16GB, 512MiB or a number of bytes.")
    return size
