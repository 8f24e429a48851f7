"""`spoutnik.load`: a model and its tokenizer from a folder, a run or the hub."""

import sys
from pathlib import Path

import torch

from spoutnik.errors import UserError
from spoutnik.locate import locate
from spoutnik.model.adapter_file import attach_adapter, read_adapter
from spoutnik.model.adapter_merge import LEAST_SURVIVAL, survival
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import merged_copy
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.text.tiktoken_file import find_ranks
from spoutnik.text.tokenizer import Tokenizer, check_vocabulary


def load(path_or_hub_id: str | Path, dtype: torch.dtype | str | None = None, device: torch.device | str = "cpu",
         keep_fp8: bool = False) -> Transformer:
    """A published checkpoint, or the last model of a run, as a torch module: token ids (batch, length) to logits (batch,
    length, vocabulary), with `.config` and `.tokenizer` (None where the folder holds none).

    Args:
        path_or_hub_id: a folder in Hugging Face layout, a run's folder, or "org/model" on the hub.
        dtype: of weights and activations, as torch.bfloat16 or "bfloat16"; None keeps what the files hold (FP8 becomes
            bfloat16).
        keep_fp8: hold an FP8 checkpoint's weights in 8 bits and dequantize them at each use; such weights are not trained.
    Raises:
        UserError, RunError: a sentence with the file, the key, the value and the remedy, before weights are read.
    """
    folder = locate(path_or_hub_id)
    if isinstance(dtype, str):
        named = getattr(torch, dtype, None)
        if not isinstance(named, torch.dtype) or not named.is_floating_point:
            raise UserError(f"dtype = {dtype!r}: is not a floating-point type of torch. Use float32, bfloat16 or float16.")
        dtype = named
    tokenizer = find_tokenizer(folder)
    model = load_model(folder, dtype, device=device, keep_fp8=keep_fp8, mapped=True)
    model.tokenizer = tokenizer
    return model


def load_adapted(folder: Path, adapter: Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> Transformer:
    """A folder's model summed with an adapter: in float32, then rounded to `dtype`, which it also computes in; both are float32
    where the rounding would leave little of the adapter (`adapter_merge.LEAST_SURVIVAL`).

    Raises:
        UserError: the adapter belongs to another model, or has an option that is not computed here.
    """
    read = read_adapter(adapter)
    model = load_model(folder, None, dtype, mapped=True)  # summed on the processor, where adapters are read
    attach_adapter(model, read, adapter)
    if (warning := read.other_base(adapter)) is not None:
        print(warning, file=sys.stderr)
    if (left := survival(model, dtype)).share < LEAST_SURVIVAL:
        name = str(dtype).removeprefix("torch.")
        print(f"{adapter}: only {left.share:.1%} of what it adds would survive rounding to {name}, so the model computes in "
              "float32, which takes more memory and time.", file=sys.stderr)
        model.compute_dtype = dtype = torch.float32
    return merged_copy(model, dtype).to(device)


def find_tokenizer(folder: Path) -> Tokenizer | None:
    """`load_tokenizer`, or None where the folder holds none."""
    present = any((folder / file).exists() for file in ("tokenizer.json", "tokenizer.model", "vocab.json"))
    present = present or find_ranks(folder) is not None
    return load_tokenizer(folder) if present else None


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder.

    Raises:
        UserError: the model is of a kind that this code does not compute.
        RunError: the tokenizer is missing or damaged, or has tokens that the model has no embedding for.
    """
    config = ModelConfig.load(folder)  # first: what is wrong with the model matters more
    tokenizer = Tokenizer.load(folder)
    check_vocabulary(tokenizer, config.vocab_size, folder)
    return tokenizer
