"""The files of a stage's model. What a published checkpoint says beside its weights goes with every model that descends from
it, byte for byte where nothing of it has changed."""

import json
import shutil
from pathlib import Path

import torch

from spoutnik.files import read_json, replacing, write_json
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import save_model
from spoutnik.recipe.starts import TOKENIZER_FILES
from spoutnik.text.thought_format import thought_format
from spoutnik.text.tokenizer import Tokenizer

_BESIDE = ("generation_config.json", "LICENSE*", "LICENCE*", "NOTICE*")
_CONTEXT = ("max_position_embeddings", "rope_theta", "rope_scaling")  # what a midtrain stage may change


def save_model_files(folder: Path, model: Transformer, tokenizer: Tokenizer, origin: Path | None = None,
                     dtype: torch.dtype = torch.bfloat16) -> None:
    """Weights in a type, configuration and tokenizer. origin: the folder of the model that this one goes on from, where that
    descends from a published checkpoint; None for a model of the recipe's own."""
    save_model(folder, model, dtype)
    if origin is None:
        tokenizer.save(folder)
        return
    values = adapted_config(read_json(origin / "config.json"), model.config, str(origin / "config.json"), dtype)
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")
    if not (origin / "tokenizer.json").exists():  # ranks of tiktoken, which are saved in the form that needs no code
        tokenizer.save(folder)
    for pattern in (*_BESIDE, *(TOKENIZER_FILES if (origin / "tokenizer.json").exists() else ())):
        for file in origin.glob(pattern):
            target = folder / file.relative_to(origin)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def save_generation_config(folder: Path, tokenizer: Tokenizer) -> None:
    """R1's settings of sampling (section 3: T 0.6, top-p 0.95) and what ends a reply, where the folder does not say it yet."""
    path = folder / "generation_config.json"
    if path.exists():
        return
    eos_ids = thought_format(tokenizer).end_ids
    write_json(path, {
        "do_sample": True, "temperature": 0.6, "top_p": 0.95, "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(eos_ids) if len(eos_ids) > 1 else eos_ids[0]})


def adapted_config(values: dict, config: ModelConfig, source: str, dtype: torch.dtype = torch.bfloat16) -> dict:
    """The keys of a published config.json for a model that goes on from it: the type of its weights, its context where that is
    another, no FP8 blocks; all others as they are."""
    kept = {key: value for key, value in values.items() if key != "quantization_config"}
    named = [key for key in ("dtype", "torch_dtype") if key in kept] or ["torch_dtype"]
    kept |= dict.fromkeys(named, str(dtype).removeprefix("torch."))
    before = ModelConfig.read(kept, source)
    if any(getattr(before, key) != getattr(config, key) for key in _CONTEXT):
        kept.pop("rope_parameters", None)
        kept |= {key: value for key, value in config.published().items() if key in _CONTEXT}
    return kept
