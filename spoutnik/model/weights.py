"""Weights on disk: safetensors under the published tensor names, stacked experts split one by one."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spoutnik.errors import RunError
from spoutnik.files import replacing
from spoutnik.model import fp8
from spoutnik.model.checkpoint import Checkpoint, Stored
from spoutnik.model.config import ModelConfig
from spoutnik.model.gguf_decode import PLAIN, decode, read_numbers
from spoutnik.model.gguf_header import Placed
from spoutnik.model.layout import SCALE, is_quantized
from spoutnik.model.transformer import Transformer
from spoutnik.model.weight_file import WeightFile

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
           "F8_E4M3": torch.float8_e4m3fn}


def published_parts(name: str, config: ModelConfig) -> list[tuple[str, tuple]]:
    """Where one of our tensors lives on disk: [(published name, index into our tensor)].

    Most map one to one; a stacked expert tensor maps to one published tensor per expert and projection.
    """
    if name.startswith("mtp."):
        name = name.replace("mtp.norm.", "mtp.shared_head.norm.")
        name = f"layers.{config.num_hidden_layers}." + name.removeprefix("mtp.")
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
    """Every tensor of the model under its published name; of one with adapters, of its `lora.merged_copy`."""
    assert not any(".adapter." in name for name in model.state_dict()), "merge the adapters first"
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
    """Writes config.json and model.safetensors in the published layout; config.json alone of a model that is divided among
    processes, which write the other together (`parts.save_divided`)."""
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(model.config.published(), indent=2) + "\n")
    if model.division is not None:
        return
    tensors = {name: tensor if name.endswith("e_score_correction_bias") else tensor.to(dtype)
               for name, tensor in published_tensors(model)}
    save_tensors(folder / "model.safetensors", tensors, {"format": "pt"})


@torch.no_grad()
def load_model(folder: Path, dtype: torch.dtype | None = torch.float32, compute_dtype: torch.dtype | None = None,
               device: torch.device | str = "cpu", keep_fp8: bool = False, mapped: bool = False) -> Transformer:
    """The model of a folder in Hugging Face layout. Tensors are read one by one into their place: no more than one is ever in
    memory twice.

    Args:
        dtype: what weights become; None keeps the type the file stores.
        compute_dtype: of activations; `dtype` where None.
        keep_fp8: hold the weights of an FP8 checkpoint in 8 bits and dequantize them at each use: no training.
        mapped: leave tensors that the file holds in the right type where they are: read when they are first used, shared with
            other processes until they are changed. The files must stay as they are for as long as the model lives.
    Raises:
        UserError, RunError: the files are missing, damaged or do not fit their configuration. Raised before weights are read.
    """
    checkpoint = Checkpoint.open(folder)
    config, reader = checkpoint.config, Reader(checkpoint, mapped)
    dtype = dtype or stored_dtype(checkpoint)
    rotary = Transformer.rotary_of(config).to(device)
    with torch.device("meta"):
        model = Transformer(config, compute_dtype or dtype, rotary)
    state: dict[str, Tensor] = {}
    for name, target in model.state_dict().items():
        parts = published_parts(name, config)
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        if keep_fp8 and config.quantization_config is not None and is_quantized(parts[0][0]):
            _keep(model, name, parts, reader, device)
            continue
        is_bias = name.endswith("e_score_correction_bias")
        state[name] = reader.tensor(parts, target.shape, torch.float32 if is_bias else dtype, device)
    reader.check()
    model.load_state_dict(state, assign=True, strict=False)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    for parameter in model.parameters():
        assert not parameter.is_meta
        parameter.requires_grad_(parameter.dtype in (torch.float32, torch.bfloat16, torch.float16))
    return model


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """What the checkpoint's weights are stored in; FP8 ones and those of GGUF's blocks are meant for bfloat16."""
    embedding = checkpoint.tensors["model.embed_tokens.weight"]
    dtype = torch.bfloat16 if embedding.is_blocks else _DTYPES[embedding.dtype]
    return torch.float32 if dtype == torch.float64 else dtype


def _keep(model: Transformer, name: str, parts: list[tuple[str, tuple]], reader: "Reader", device: torch.device | str) -> None:
    """Puts an FP8 weight into the model as it is stored."""
    path, _, attribute = name.rpartition(".")
    if not path.endswith(".experts"):
        weight, scale_inv = reader.blocks(parts[0][0], device)
        fp8.keep(model.get_submodule(path), weight, scale_inv, model.compute_dtype)
    elif attribute == "gate_up_proj":  # all three matrices at once, under their published names
        block = model.get_submodule(path.removesuffix(".experts"))
        names = [part for part, _ in parts] + [part for part, _ in published_parts(f"{path}.down_proj", model.config)]
        block.experts = fp8.FP8Experts({
            kind: [reader.blocks(part, device) for part in names if part.endswith(f".{kind}.weight")]
            for kind in ("gate_proj", "up_proj", "down_proj")})


class Reader:
    """Brings a checkpoint's tensors into memory. mapped: or leaves them in their files, where those hold them as wanted."""

    def __init__(self, checkpoint: Checkpoint, mapped: bool = False):
        self.checkpoint, self._is_mapping = checkpoint, mapped
        self._files: dict[Path, WeightFile] = {}
        self._maps: dict[Path, torch.UntypedStorage] = {}

    def tensor(self, parts: list[tuple[str, tuple]], shape: torch.Size, dtype: torch.dtype,
               device: torch.device | str = "cpu") -> Tensor:
        """One of our tensors from its published parts [(name, index into it)], dequantized, in `dtype`."""
        name, index = parts[0]
        stored = self.checkpoint.tensors[name]
        if index == () and _DTYPES[stored.dtype] == dtype and torch.device(device).type == "cpu":
            return self.stored(name)
        result = torch.empty(shape, dtype=dtype, device=device)
        for name, index in parts:
            self._fill(result[index], name)
        return result

    def stored(self, name: str) -> Tensor:
        """The tensor in the type it is stored in."""
        return self.mapped(name) if self._is_mapping else self.read(name)

    def mapped(self, name: str) -> Tensor:
        """The tensor where it lies in the file, without reading it. Writing to it changes a private copy of the page."""
        stored = self.checkpoint.tensors[name]
        dtype = _DTYPES[stored.dtype]
        if stored.encoding is not None or stored.start % dtype.itemsize or not stored.size:  # data that is not aligned
            return self.read(name)
        if stored.file not in self._maps:
            self._maps[stored.file] = torch.frombuffer(self._file(stored).map(), dtype=torch.uint8).untyped_storage()
        strides = torch.empty(stored.shape, device="meta").stride()
        start = stored.start // dtype.itemsize
        return torch.empty(0, dtype=dtype).set_(self._maps[stored.file], start, stored.shape, strides)

    def read(self, name: str) -> Tensor:
        """The tensor in memory of its own, in the type it is stored in."""
        stored = self.checkpoint.tensors[name]
        tensor = torch.empty(stored.shape, dtype=_DTYPES[stored.dtype])
        if stored.encoding is not None:
            decode(self._file(stored), stored.encoding, tensor)
        else:
            self._read_into(stored, tensor)
        return tensor

    def blocks(self, name: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """An FP8 weight and its blocks' multipliers."""
        return self.stored(name).to(device), self.read(name + SCALE).float().to(device)

    def check(self) -> None:
        """Raises RunError: a file was changed since its header was read, so that what was read may be of two models."""
        for file in self._files.values():
            file.check()

    def _file(self, stored: Stored) -> WeightFile:
        if stored.file not in self._files:
            self._files[stored.file] = WeightFile(stored.file, self.checkpoint.states.get(stored.file))
        return self._files[stored.file]

    def _read_into(self, stored: Stored, target: Tensor, start: int = 0) -> None:
        """Reads a tensor's bytes from `start` on into `target`, contiguous and of the stored type."""
        if stored.size:
            self._file(stored).read_into(stored.start + start, memoryview(target.view(-1).view(torch.uint8).numpy()))

    def _fill(self, target: Tensor, name: str) -> None:
        stored = self.checkpoint.tensors[name]
        if stored.encoding is not None:
            decode(self._file(stored), stored.encoding, target)
        elif name + SCALE in self.checkpoint.tensors:
            fp8.dequantize(self.read(name).to(target.device), self.read(name + SCALE).float().to(target.device), target)
        elif _DTYPES[stored.dtype] == target.dtype and target.device.type == "cpu" and target.is_contiguous():
            self._read_into(stored, target)
        elif stored.dtype in PLAIN and target.is_contiguous():
            read_numbers(self._file(stored), Placed(stored.dtype, stored.shape, stored.start, stored.size), target.view(-1))
        else:
            target.copy_(self.read(name))
