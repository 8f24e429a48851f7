"""Adapters on disk as PEFT writes them: adapter_model.safetensors and adapter_config.json.

PEFT's readers do not agree on the scale: some ignore rsLoRA's root or the patterns of ranks and alphas, in silence. So what is
written has one rank, one alpha and alpha / r as its scale; an adapter of other ranks or scales is brought to that form.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json, write_json, write_text
from spoutnik.model.lora import ALL_LINEAR, LowRank, adapted_maps, attach, lora_scale
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import save_tensors
from spoutnik.validation import did_you_mean

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base.json"  # a file of our own: PEFT warns of keys in its configuration that it does not know
_OF_EXPERT = r"\.mlp\.experts\.\d+\.(gate|up|down)_proj$"
_PREFIX = "base_model.model.model."
# What changes no result here, or is checked by what the weights' file holds.
_HARMLESS = {"arrow_config", "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
             "inference_mode", "layers_pattern", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_config",
             "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type"}
_CHOOSING = {"target_modules", "exclude_modules", "layers_to_transform"}  # what PEFT reads of the weights' file
_COMPUTED = {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"}
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the base's weights


@dataclass(frozen=True)
class Adapter:
    """What a folder holds: the adapters by the names of their linear maps, and which base they were trained on, as far as the
    files say it. packed: int8 or int4 where that base's linear maps were packed so (QLoRA)."""

    parts: dict[str, LowRank]
    base: str | None = None
    base_hash: str | None = None
    packed: str | None = None

    def other_base(self, source: Path) -> str | None:
        """A sentence, where it was trained beside packed weights and is put beside those that the base's files hold."""
        if self.packed is None:
            return None
        return (f"{source}: was trained beside the base in {self.packed}, and beside other weights it is another model. The "
                "stage's own model, and export --format merged, are what was trained.")


def read_adapter(folder: Path) -> Adapter:
    """An adapter that PEFT or Spoutnik wrote: LoRA, rsLoRA or DoRA of linear maps.

    Raises:
        UserError: the folder holds none, or one with an option that is not computed here.
        RunError: its files are damaged or do not belong together.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        _, _, path = str(folder).partition("=")
        named = f" NAME=PATH is for `serve` and `chat`, where several may stand beside the base; here give {path} alone." \
            if path and not folder.exists() else ""
        raise UserError(f"{folder}: holds no {CONFIG}. Give a folder that PEFT or `spoutnik` wrote for an adapter.{named}")
    if not (folder / WEIGHTS).exists():
        pickled = " Pickled ones (adapter_model.bin) are not read." if (folder / "adapter_model.bin").exists() else ""
        raise RunError(f"{folder / WEIGHTS}: is missing.{pickled} Save the adapter as safetensors.")
    config = _object(folder / CONFIG)
    _refuse_options(folder / CONFIG, config)
    _check_numbers(folder / CONFIG, config)
    parts = _parts(folder, config, _tensors(folder / WEIGHTS))
    ours = _object(folder / BASE) if (folder / BASE).exists() else {}
    return Adapter(parts, config.get("base_model_name_or_path"), ours.get("sha256"), ours.get("packed"))


def _object(path: Path) -> dict:
    values = read_json(path)
    if not isinstance(values, dict):
        raise RunError(f"{path}: must hold a JSON object, not a {type(values).__name__}. Restore the file.")
    return values


def attach_adapter(model: Transformer, adapter: Adapter, source: Path) -> Transformer:
    """Freezes the model and puts the adapter beside its linear maps. source: its folder, for messages.

    Raises:
        UserError: the adapter belongs to another model.
    """
    shapes = {name: module.shape for name, module in adapted_maps(model).items()}
    check_fits(adapter, shapes, source)
    if adapter.base_hash is not None:
        check_fits(adapter, shapes, source, base_hash(model, adapter.parts))
    return attach(model, adapter.parts)


def check_fits(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]], source: Path, hash_of_base: str | None = None) -> None:
    """Raises UserError: the adapter belongs to another model than the one whose linear maps have these shapes, (out, in), and
    these weights (`base_hash`; None: not compared)."""
    remedy = f"Give the model it was trained on{f' ({adapter.base})' if adapter.base else ''}."
    for name, part in adapter.parts.items():
        if name not in shapes:
            raise UserError(f"{source}: adapts {name}, which this model has not.{did_you_mean(name, shapes)} {remedy}")
        shape, wanted = (part.lora_B.shape[0], part.lora_A.shape[1]), shapes[name]
        if shape != wanted:
            raise UserError(f"{source}: {name} is for a layer of {shape[0]} x {shape[1]}, and this model's is "
                            f"{wanted[0]} x {wanted[1]}. {remedy}")
    if hash_of_base is not None and adapter.base_hash != hash_of_base:
        raise UserError(f"{source}: was trained on other weights than this model's, though of the same shapes. {remedy}")


def write_adapter(folder: Path, adapter: Adapter) -> None:
    """Writes the folder. Tensors are float32, keys sorted, and no path is in it but `base`, as given.

    Raises:
        UserError: some maps have DoRA's magnitudes and others have none.
    """
    uniform = folded(adapter.parts)
    tensors: dict[str, Tensor] = {}
    for name, part in uniform.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = part.lora_A
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = part.lora_B
        if part.magnitude is not None:
            tensors[f"{_PREFIX}{name}.lora_magnitude_vector"] = part.magnitude
    with_magnitude = {part.magnitude is not None for part in uniform.values()}
    if len(with_magnitude) > 1:
        raise UserError(f"{folder}: DoRA's magnitudes are there for some layers and not for others, which PEFT has no place "
                        "for. Merge the adapter instead (--format merged).")
    first = next(iter(uniform.values()))
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, {name: tensor.float() for name, tensor in sorted(tensors.items())}, {"format": "pt"})
    if adapter.base_hash is not None:
        write_json(folder / BASE, {"sha256": adapter.base_hash} | ({"packed": adapter.packed} if adapter.packed else {}))
    values = _config(uniform, first.rank, first.scale, True in with_magnitude, first.dropout, adapter.base)
    write_text(folder / CONFIG, json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def folded(parts: Mapping[str, LowRank]) -> dict[str, LowRank]:
    """The same adapters with one rank (thinner ones get zeros) and one scale (what differs from it goes into B)."""
    rank = max(part.rank for part in parts.values())
    scale = Counter(part.scale for part in parts.values()).most_common(1)[0][0]
    result = {}
    for name, part in parts.items():
        missing = rank - part.rank
        a = torch.nn.functional.pad(part.lora_A.detach().float(), (0, 0, 0, missing))
        b = torch.nn.functional.pad(part.lora_B.detach().float(), (0, missing)) * (part.scale / scale)
        magnitude = None if part.magnitude is None else part.magnitude.detach()
        result[name] = LowRank(a, b, scale, magnitude, part.dropout)
    return result


def base_hash(model: Transformer, names: Mapping[str, LowRank]) -> str:
    """A hash of the adapted weights' first rows in bfloat16: two models that differ by training differ in it, a model and its
    copy in bfloat16 do not."""
    digest, maps = hashlib.sha256(), adapted_maps(model)
    for name in sorted(names):
        row = maps[name].first_row().detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(name.encode() + b"\0" + row.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _config(parts: Mapping[str, LowRank], rank: int, scale: float, use_dora: bool, dropout: float, base: str | None) -> dict:
    """What PEFT and vLLM read; keys are sorted when they are written."""
    alpha = scale * rank
    names = sorted(name for name in parts if not re.search(_OF_EXPERT, name))
    routed = {name.rpartition(".")[2] for name in parts.keys() - set(names)}  # PEFT knows them by their last names alone
    last = {name.rpartition(".")[2] for name in names}
    targets = sorted(last) if _in_every_layer(names) else [f"model.{name}" for name in names]
    return {"alpha_pattern": {}, "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": False,
            "inference_mode": True, "init_lora_weights": True,
            "lora_alpha": round(alpha) if abs(alpha - round(alpha)) < 1e-9 * alpha else alpha,
            "lora_bias": False, "lora_dropout": dropout, "modules_to_save": None, "peft_type": "LORA", "r": rank,
            "rank_pattern": {}, "target_modules": sorted({*targets, *routed}),
            "task_type": "CAUSAL_LM", "use_dora": use_dora, "use_rslora": False}


def _in_every_layer(names: list[str]) -> bool:
    """Whether each layer has the same maps, so that their last names say it all."""
    layers: dict[str, set[str]] = {}
    for name in names:
        _, layer, inside = name.split(".", 2)
        layers.setdefault(layer, set()).add(inside)
    numbers = sorted(map(int, layers))
    return len(set(map(frozenset, layers.values()))) == 1 and numbers == list(range(len(numbers)))


def _refuse_options(path: Path, config: dict) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UserError(f"{path}: peft_type = {kind!r}: only LORA is computed here. Merge the adapter with PEFT.")
    if (initial := config.get("init_lora_weights", True)) not in _INITIAL:
        raise UserError(f"{path}: init_lora_weights = {initial!r}: changes the base's weights, which is not computed here. "
                        "Convert the adapter with PEFT (path_initial_model_for_weight_conversion).")
    for key in sorted(config.keys() - _HARMLESS - _CHOOSING - _COMPUTED - {"init_lora_weights"}):
        value = config[key]
        if value and not (key == "bias" and value == "none"):
            raise UserError(f"{path}: {key} = {value!r}: this option of PEFT is not computed here. Merge the adapter with PEFT "
                            "(merge_and_unload) and give the model that results.")


def _check_numbers(path: Path, config: dict) -> None:
    """Raises RunError where what the adapter's products are multiplied by is no number, or a pattern is none."""
    values = {key: config[key] for key in ("r", "lora_alpha") if key in config}
    values["lora_dropout"] = config.get("lora_dropout") or 0
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict):
            raise RunError(f"{path}: {key} = {patterns!r}: must be an object of patterns and numbers. Restore the file.")
        for pattern, value in patterns.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise RunError(f"{path}: {key}: {pattern!r} is no pattern ({error}). Correct it.") from error
            values[f"{key}.{pattern}"] = value
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise RunError(f"{path}: {key} = {value!r}: must be a number, 0 or more. Correct it.")
        if value < 1 and key.partition(".")[0] in ("r", "rank_pattern"):
            raise RunError(f"{path}: {key} = {value!r}: must be a rank, 1 or more. Correct it.")


def _tensors(path: Path) -> dict[str, Tensor]:
    """In float32. Raises RunError where the file is damaged, or holds what an adapter cannot be."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: is damaged ({error}). Restore the file.") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise RunError(f"{path}: {name} holds {str(tensor.dtype).removeprefix('torch.')}, not floating-point numbers. Save "
                           "the adapter in float32, float16 or bfloat16.")
        tensors[name] = tensor.float()
        if not tensors[name].isfinite().all():
            raise RunError(f"{path}: {name} holds numbers that are not finite: its training diverged, or the file is damaged. "
                           "Take an earlier checkpoint.")
    return tensors


def _parts(folder: Path, config: dict, tensors: dict[str, Tensor]) -> dict[str, LowRank]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(re.escape(_PREFIX) + r"(layers\.\d+\..+)\.(lora_A|lora_B|lora_magnitude_vector)(\.weight)?", name)
        if match is None or ".experts." in f"{match[1]}." and not re.search(_OF_EXPERT, match[1]):
            what = "routed experts, stacked" if ".experts" in name else "no linear map inside the network"
            raise UserError(f"{folder / WEIGHTS}: {name}: belongs to {what}, which adapters here leave out. Merge the adapter "
                            "with PEFT (merge_and_unload) and give the model that results.")
        found.setdefault(match[1], {})[match[2]] = tensor
    if not found:
        raise RunError(f"{folder / WEIGHTS}: holds no adapter. Restore the file.")
    for module in sorted(found):
        missing = {"lora_A", "lora_B", *(["lora_magnitude_vector"] if config.get("use_dora") else [])} - found[module].keys()
        if missing:
            raise RunError(f"{folder / WEIGHTS}: {module} has no {min(missing)}. Restore the file.")
    for module in found:
        if (key := _leaves_out(folder / CONFIG, config, module)) is not None:
            raise RunError(f"{folder / WEIGHTS}: holds an adapter of {module}, which {key} = {config[key]!r} in {CONFIG} "
                           "leaves out. The two files do not belong together: save the adapter with PEFT again.")
    return {module: _part(folder, config, module, found[module]) for module in sorted(found)}


def _leaves_out(path: Path, config: dict, module: str) -> str | None:
    """The option by which PEFT would pass over a module's tensors, though the file holds them; None where it reads them."""
    name, layers, chosen = f"model.{module}", config.get("layers_to_transform"), config.get("target_modules")
    if chosen not in (None, ALL_LINEAR) and not _matches(path, config, "target_modules", name):
        return "target_modules"
    if config.get("exclude_modules") and _matches(path, config, "exclude_modules", name):
        return "exclude_modules"
    layers = layers if isinstance(layers, list) else [] if layers is None else [layers]
    return "layers_to_transform" if layers and int(module.split(".")[1]) not in layers else None


def _matches(path: Path, config: dict, key: str, name: str) -> bool:
    """Whether an option names a module as PEFT's do: by a pattern of its whole name, or a list of the ends of names."""
    names = config[key]
    if isinstance(names, list):
        return any(isinstance(end, str) and f".{name}".endswith(f".{end}") for end in names)
    try:
        return re.fullmatch(names, name) is not None
    except (re.error, TypeError) as error:
        raise RunError(f"{path}: {key} = {names!r}: must be a list of names, or a pattern of them ({error}). Correct it."
                       ) from error


def _part(folder: Path, config: dict, module: str, tensors: dict[str, Tensor]) -> LowRank:
    a, b, magnitude = (tensors.get(kind) for kind in ("lora_A", "lora_B", "lora_magnitude_vector"))
    rank = _of_pattern(config, "rank_pattern", module, config.get("r", 8))
    if (axes := {a.dim(), b.dim()}) != {2}:
        raise RunError(f"{folder / WEIGHTS}: {module} has tensors of {max(axes - {2})} axes, and a linear map's have 2. "
                       "Restore the file.")
    if a.shape[0] != rank or b.shape[1] != rank:
        raise RunError(f"{folder / WEIGHTS}: {module} has lora_A of {list(a.shape)} and lora_B of {list(b.shape)}, and "
                       f"{CONFIG} gives it rank {rank}. The two files do not belong together.")
    if magnitude is not None and re.search(_OF_EXPERT, module):
        raise UserError(f"{folder / WEIGHTS}: {module} has DoRA's magnitudes, which are not computed for routed experts. Merge "
                        "the adapter with the program that wrote it.")
    if magnitude is not None and magnitude.shape != b.shape[:1]:
        raise RunError(f"{folder / WEIGHTS}: {module} has DoRA's magnitudes of {list(magnitude.shape)} and {b.shape[0]} "
                       "outputs. Restore the file.")
    if magnitude is not None and not config.get("use_dora"):
        raise RunError(f"{folder / WEIGHTS}: {module} has DoRA's magnitudes, and {CONFIG} says use_dora = false. The two files "
                       "do not belong together.")
    alpha = _of_pattern(config, "alpha_pattern", module, config.get("lora_alpha", 8))
    scale = lora_scale(alpha, rank, bool(config.get("use_rslora")))
    return LowRank(a, b, scale, magnitude, float(config.get("lora_dropout") or 0))


def _of_pattern(config: dict, key: str, module: str, default: float) -> float:
    """The value of the first pattern that matches the module's name from a dot, or its beginning, to its end."""
    for pattern, value in (config.get(key) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", f"model.{module}"):
            return value
    return default
