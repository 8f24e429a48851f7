"""Weights on disk: safetensors under the published tensor names, stacked experts split one by one."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spoutnik.errors import RunError
from spoutnik.files import read_json, replacing
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer


def published_parts(name: str, config: ModelConfig) -> list[tuple[str, tuple]]:
    """Where one of our tensors lives on disk: [(published name, index into our tensor)].

    Most map one to one; a stacked expert tensor maps to one published tensor per expert and projection.
    """
    if name.startswith("mtp."):
        name = f"layers.{config.num_hidden_layers}." + name.removeprefix("mtp.")
        name = name.replace(f"layers.{config.num_hidden_layers}.norm.",
                            f"layers.{config.num_hidden_layers}.shared_head.norm.")
    if name in ("lm_head.weight", "score.weight"):
        return [(name, ())]
    name = "model." + name
    if ".experts.gate_up_proj" in name:
        width = config.moe_intermediate_size
        halves = (("gate_proj", slice(0, width)), ("up_proj", slice(width, 2 * width)))
        return [(name.replace("gate_up_proj", f"{e}.{half}.weight"), (e, rows))
                for e in range(config.n_routed_experts) for half, rows in halves]
    if ".experts.down_proj" in name:
        return [(name.replace("down_proj", f"{e}.down_proj.weight"), (e,)) for e in range(config.n_routed_experts)]
    return [(name, ())]


def published_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the model under its published name; the correction bias stays float32 (trap 6)."""
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        for published, index in published_parts(name, model.config):
            yield published, tensor[index]
    if model.mtp is not None:  # the released files repeat embedding and head in the MTP layer
        prefix = f"model.layers.{model.config.num_hidden_layers}"
        yield f"{prefix}.embed_tokens.weight", model.embed_tokens.weight
        yield f"{prefix}.shared_head.head.weight", model.lm_head.weight


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file under a temporary name, flushes it and renames it."""
    with replacing(path) as temporary:
        try:
            # Clones: safetensors refuses tensors that share storage, as tied or repeated ones do.
            save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary,
                      metadata=metadata)
        except SafetensorError as error:  # how the library reports the operating system's refusal
            if "os error 28" in str(error).lower() or "no space" in str(error).lower():
                raise OSError(28, "No space left on device") from error
            raise RunError(f"{path}: cannot be written ({error}).") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found. The artifact is incomplete: delete its folder and run again.") from error
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: is damaged ({error}). Delete its folder and run again, or restore the file.") from error


def save_model(folder: Path, model: Transformer, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes config.json and model.safetensors in the published layout."""
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(model.config.published(), indent=2) + "\n")
    tensors = {name: tensor if name.endswith("e_score_correction_bias") else tensor.to(dtype)
               for name, tensor in published_tensors(model)}
    save_tensors(folder / "model.safetensors", tensors, {"format": "pt"})


def _locate(folder: Path) -> dict[str, Path]:
    """Published tensor name -> the file that holds it, over one file or several with an index."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return {name: folder / file for name, file in read_json(index)["weight_map"].items()}
    single = folder / "model.safetensors"
    if not single.exists():
        raise RunError(f"{folder}: has neither model.safetensors nor model.safetensors.index.json. "
                       "Give a folder in Hugging Face layout, or run the stage that makes it.")
    try:
        with safe_open(single, framework="pt") as file:
            return dict.fromkeys(file.keys(), single)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{single}: is damaged ({error}). Delete its folder and run again, or restore it.") from error


@torch.no_grad()
def load_model(folder: Path, dtype: torch.dtype = torch.float32, compute_dtype: torch.dtype | None = None,
               device: torch.device | str = "cpu") -> Transformer:
    """The model of a folder in Hugging Face layout, tensor by tensor.

    Raises:
        RunError: a file is missing or damaged, or a tensor does not match the configuration (both shapes are named).
    """
    folder = Path(folder)
    config = ModelConfig.load(folder)
    where = _locate(folder)
    with torch.device("meta"):
        model = Transformer(config, compute_dtype or dtype)
    model.rotary = Transformer.rotary_of(config)
    state: dict[str, Tensor] = {}
    files: dict[Path, object] = {}
    for name, target in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        keep_float32 = name.endswith("e_score_correction_bias")
        tensor = torch.empty(target.shape, dtype=torch.float32 if keep_float32 else dtype, device=device)
        for published, part in published_parts(name, config):
            if published not in where:
                raise RunError(f"{folder}: the tensor {published} that config.json asks for is missing from the weights. "
                               "The checkpoint and its configuration do not belong together.")
            source = _read(where[published], published, files)
            if source.shape != tensor[part].shape:
                raise RunError(f"{where[published]}: {published} has shape {list(source.shape)}, but config.json asks for "
                               f"{list(tensor[part].shape)}. The checkpoint and its configuration do not belong together.")
            tensor[part] = source
        state[name] = tensor
    model.load_state_dict(state, assign=True, strict=not config.tie_word_embeddings)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.to(device)


def _read(path: Path, name: str, files: dict[Path, object]) -> Tensor:
    try:
        if path not in files:
            files[path] = safe_open(path, framework="pt")
        return files[path].get_tensor(name)
    except FileNotFoundError as error:
        raise RunError(f"{path}: listed in the index but not found. Fetch the missing file.") from error
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: {name} cannot be read ({error}). The file is damaged: restore it.") from error
